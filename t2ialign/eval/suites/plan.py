"""The plan of an evaluation: everything that decides its figures, written down before anything is made.

Law of this file: an output folder belongs to one plan. Who continues it with another is refused, and shown what
differs; what changes speed and not figures is no part of the plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_json, write_text
from t2ialign.data.prompts import Prompt
from t2ialign.errors import ConfigError, DataError
from t2ialign.eval.suites.catalogue import find_prompts, find_suite
from t2ialign.eval.suites.contenders import Contender, contenders
from t2ialign.eval.suites.options import EvalOptions
from t2ialign.eval.suites.sections import identity
from t2ialign.eval.suites.suite import Generation, Suite

FORMAT = 1
"""Version of `plan.json` and of what is made from it."""
PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What an evaluation will do.

    Attributes:
        folder: The output folder.
        suite: The suite, with what the command line changed.
        models: The models; the first is the base.
        prompts: Prompts by set.
        seed: Of the pictures and of the bootstraps.
        resamples: Bootstrap resamples.
        dtype: Number format of the models.
        data: Folder of public prompt files; where things lie is no part of the plan.
        judges: By section, who judges it beside the suite's scorers; no part of the plan either, for pictures may
            be judged by others later.
        how: By label, how a model's pictures are made where that is not the suite's way: the points of a sweep.
    """

    folder: Path
    suite: Suite
    models: tuple[Contender, ...]
    prompts: Mapping[str, Sequence[Prompt]]
    seed: int
    resamples: int
    dtype: str = "auto"
    data: Path | None = None
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    how: Mapping[str, Generation] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """Label of the base."""
        return self.models[0].label

    @property
    def labels(self) -> list[str]:
        """Labels of all models, the base first."""
        return [each.label for each in self.models]

    @property
    def pictures_per_model(self) -> int:
        """Pictures that each model makes, over all sets."""
        return sum(len(self.prompts[name]) * each.images_per_prompt for name, each in self.suite.prompts.items())

    def prompt_file(self, name: str) -> Path:
        """Return where the prompts of a set are written."""
        return self.folder / "prompts" / f"{name}.jsonl"

    def set_folder(self, prompts: str, label: str) -> Path:
        """Return the image set of a prompt set and a model."""
        return self.folder / "sets" / prompts / label

    def section_state(self, name: str, state: str) -> str:
        """Return what tells a section's findings apart: the state of the folder, and who judges."""
        found = self.judges.get(name)
        return state if not found else _hash([state, found])

    def report_state(self, state: str) -> str:
        """Return what tells reports apart: the state of the folder, and who judges its sections."""
        return _hash([state, self.judges]) if self.judges else state

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the figures, as plain values."""
        return {
            "format": FORMAT,
            "suite": self.suite.to_dict(),
            "models": [each.identity() for each in self.models],
            "prompts": {name: {"count": len(ps), "sha256": _digest(ps)} for name, ps in self.prompts.items()},
            "seed": self.seed,
            "resamples": self.resamples,
            "dtype": self.dtype,
        }


def make_plan(options: EvalOptions) -> Plan:
    """Find the suite, the models and the prompts.

    Raises:
        ConfigError: If one of them is unknown, or they do not go together.
        DataError: If prompts cannot be read.
    """
    suite = _adapted(find_suite(options.suite), options)
    models = contenders(options.model, options.adapter, options.user)
    prompts = {name: find_prompts(each, options.data) for name, each in suite.prompts.items()}
    return Plan(
        Path(options.output_dir),
        suite,
        tuple(models),
        prompts,
        options.seed,
        options.resamples,
        options.dtype,
        options.data,
        {name: found for name, each in suite.sections.items() if (found := _depends(name, each, prompts))},
    )


_TOLD = ("tag", "include", "exclude", "composition", "facts")
"""What lines of prompts say of what must be seen."""


def _depends(name: str, options: Any, prompts: Mapping[str, Sequence[Prompt]]) -> dict[str, Any]:
    """Say what a section's findings depend on beside pictures and scores: who judges, and what prompts ask for."""
    found = identity(name, options)
    if name in ("composition", "factuality"):
        told = [[p.extra[key] for key in _TOLD if key in p.extra] for each in prompts.values() for p in each]
        found = found | ({"asked": _hash(told)} if any(told) else {})
    return found


def _adapted(suite: Suite, options: EvalOptions) -> Suite:
    """Lay what the command line says over the suite."""
    generation = replace(suite.generation)
    for name in ("num_inference_steps", "guidance_scale"):
        if (given := getattr(options, name)) is not None:
            setattr(generation, name, given)
    sets = {name: replace(each) for name, each in suite.prompts.items()}
    for each in sets.values():
        if options.images_per_prompt is not None:
            each.images_per_prompt = options.images_per_prompt
        if options.limit is not None:
            each.limit = min(options.limit, each.limit or options.limit)
    scorers = tuple(options.scorers) if options.scorers else suite.scorers
    return replace(
        suite,
        generation=generation,
        prompts=sets,
        scorers=scorers,
        embedder=options.embedder or suite.embedder,
        sections=_judged(suite, options),
        sweep=options.sweep.over(suite.sweep),
    )


def _judged(suite: Suite, options: EvalOptions) -> dict[str, Any]:
    """Lay the judges that the command line names over the sections that ask for them."""
    sections = dict(suite.sections)
    for key in ("detector", "judge"):
        if (given := getattr(options, key)) is None:
            continue
        asking = [name for name, each in sections.items() if hasattr(each, key)]
        if not asking:
            raise ConfigError(
                f"{key} is {given!r}, and no section of the suite {suite.name} asks for one; leave it out"
            )
        for name in asking:
            sections[name] = replace(sections[name], **{key: given})
    return sections


def _digest(prompts: Sequence[Prompt]) -> str:
    return _hash([[prompt.prompt_id, prompt.prompt, prompt.category] for prompt in prompts])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def agree(plan: Plan) -> dict[str, Any]:
    """Write the plan into a new folder, or hold it against the one that is there.

    Returns:
        The plan as plain values.

    Raises:
        ConfigError: If the folder holds something else.
        DataError: If the plan that is there differs; each difference is shown.
    """
    mine = json.loads(json.dumps(plan.to_dict()))
    file = plan.folder / PLAN
    if not file.is_file():
        if plan.folder.is_dir() and any(plan.folder.iterdir()):
            raise ConfigError(
                f"{plan.folder} holds files and no evaluation; give a new or empty folder as --output_dir"
            )
        write_json(file, mine)
    else:
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file} is damaged ({error}); choose another folder") from error
        differing = list(differences(there, mine))
        if differing:
            raise DataError(
                f"{plan.folder} holds another evaluation ({'; '.join(differing[:6])}); choose another folder, or the "
                "same options"
            )
    for name, prompts in plan.prompts.items():
        if plan.suite.prompts[name].rewrite is None:
            write_prompts(plan.prompt_file(name), prompts)
    return dict(mine)


def write_prompts(file: Path, prompts: Sequence[Prompt]) -> None:
    """Write prompts as a file that `t2ialign generate` reads."""
    lines = []
    for prompt in prompts:
        line = {"prompt_id": prompt.prompt_id, "prompt": prompt.prompt, "set": prompt.set, "category": prompt.category}
        lines.append(json.dumps(prompt.extra | line, ensure_ascii=False))
    text = "\n".join(lines) + "\n"
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)


def differences(there: Any, mine: Any, where: str = "") -> list[str]:
    """Say where two plans differ, a sentence a leaf."""
    if isinstance(there, dict) and isinstance(mine, dict):
        found = []
        for key in dict.fromkeys([*there, *mine]):
            name = f"{where}.{key}".lstrip(".")
            if key not in there or key not in mine:
                one, two = (json.dumps(side[key]) if key in side else "nothing" for side in (there, mine))
                found.append(f"{name}: {_short(one)} there, {_short(two)} now")
            else:
                found += differences(there[key], mine[key], name)
        return found
    if isinstance(there, list) and isinstance(mine, list) and len(there) == len(mine):
        return [
            said
            for i, pair in enumerate(zip(there, mine, strict=True))
            for said in differences(*pair, f"{where}[{i}]")
        ]
    if there == mine:
        return []
    return [f"{where}: {_short(json.dumps(there))} there, {_short(json.dumps(mine))} now"]


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
