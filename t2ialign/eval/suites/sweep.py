"""The sweep of an evaluation: a small evaluation of its own below the first, whose models are settings.

Law of this file: a setting is a model with a label of its own, so that pictures, scores and features of a sweep are
made, kept and continued by what makes those of the suite. A checkpoint becomes a LoRA folder once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t2ialign.errors import ConfigError
from t2ialign.eval.suites.catalogue import choose
from t2ialign.eval.suites.contenders import Contender
from t2ialign.eval.suites.plan import Plan, write_prompts
from t2ialign.eval.suites.suite import Suite

SECTION = "tradeoff"
FOLDER = "sweep"
"""Folder of a sweep's pictures, scores and features, below the output folder; the limit of prompts follows."""
SCALE, STEPS = "guidance_scale", "num_inference_steps"


@dataclass(frozen=True)
class Setting:
    """One point of a sweep.

    Attributes:
        label: Its name among the points, and the folder of its pictures.
        model: Label of the model whose setting it is.
        checkpoint: Of that model's run; `None` for the model itself.
        guidance_scale: Swept value; `None` for the suite's own.
        num_inference_steps: Likewise.
    """

    label: str
    model: str
    checkpoint: Path | None = None
    guidance_scale: float | None = None
    num_inference_steps: int | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The settings, for tables."""
        step = None if self.checkpoint is None else self.checkpoint.name
        given = {"checkpoint": step, SCALE: self.guidance_scale, STEPS: self.num_inference_steps}
        return {name: value for name, value in given.items() if value is not None}


def sweep_prompts(suite: Suite) -> str:
    """Return the prompt set of a suite's sweep.

    Raises:
        ConfigError: If the suite has no section for it, or no set with several pictures of several prompts.
    """
    if SECTION not in suite.sections:
        raise ConfigError(
            f"a sweep is shown by the section {SECTION}, which the suite {suite.name} has not; add it, or leave the "
            "sweep out"
        )
    wanted = [suite.sweep.prompts] if suite.sweep.prompts else suite.sections[SECTION].prompts or list(suite.prompts)
    if wanted[0] not in suite.prompts:
        raise ConfigError(f"the sweep asks for the prompts {wanted[0]!r}; the suite has {', '.join(suite.prompts)}")
    fitting = [name for name in wanted if suite.prompts[name].images_per_prompt > 1]
    if not fitting:
        raise ConfigError(f"a sweep takes several pictures of each prompt, and {', '.join(wanted)} has one")
    return fitting[0]


def settings(plan: Plan) -> list[Setting]:
    """Return the points of a plan's sweep, without the suite's own settings; none where there is no sweep.

    Raises:
        ConfigError: If it asks for checkpoints and no model has any.
    """
    sweep = plan.suite.sweep
    if not sweep.asked:
        return []
    found = []
    for model in plan.models:
        newest = _checkpoints(model, sweep.checkpoints)
        scales: list[float | None] = [*sweep.guidance_scale] or [None]
        numbers: list[int | None] = [*sweep.num_inference_steps] or [None]
        for checkpoint, scale, steps in itertools.product([None, *newest], scales, numbers):
            if (checkpoint, scale, steps) != (None, None, None):
                found.append(_setting(model.label, checkpoint, scale, steps))
    for each in found:
        if each.label in plan.labels:
            raise ConfigError(f"a model and a setting of the sweep are both called {each.label!r}; rename the model")
    if sweep.checkpoints and all(each.checkpoint is None for each in found):
        raise ConfigError(
            f"the sweep asks for {sweep.checkpoints} checkpoints, and no model is a run that has any; name as --model "
            "or --adapter the final/ of a run that kept checkpoints"
        )
    return found


def _setting(model: str, checkpoint: Path | None, scale: float | None, steps: int | None) -> Setting:
    parts = [checkpoint.name] if checkpoint is not None else []
    parts += [f"guidance-{scale:g}"] if scale is not None else []
    parts += [f"steps-{steps}"] if steps is not None else []
    return Setting("_".join([model, *parts]), model, checkpoint, scale, steps)


def _checkpoints(model: Contender, count: int) -> list[Path]:
    """Return the newest checkpoints of a model's run, oldest first."""
    from t2ialign.models.checkpoint_lora import run_of

    run = run_of(model.adapter or model.model) if count else None
    if run is None:
        return []
    from t2ialign.engine.checkpoints import list_checkpoints

    return list_checkpoints(run / "checkpoints")[-count:]


def sweep_plan(plan: Plan) -> Plan | None:
    """Return the plan of a sweep, whose models are its settings; `None` where there is none."""
    points = settings(plan)
    if not points:
        return None
    suite, sweep = plan.suite, plan.suite.sweep
    name = sweep_prompts(suite)
    known = {each.label: each for each in plan.models}
    folder = plan.folder / (FOLDER if sweep.limit is None else f"{FOLDER}-{sweep.limit}")
    count = min(
        sweep.images_per_prompt or suite.prompts[name].images_per_prompt, suite.prompts[name].images_per_prompt
    )
    own = replace(suite.prompts[name])
    own.images_per_prompt, own.limit = count, None
    how = {}
    for each in points:
        how[each.label] = replace(suite.generation)
        for key in (SCALE, STEPS):
            if (given := getattr(each, key)) is not None:
                setattr(how[each.label], key, given)
    return replace(
        plan,
        folder=folder,
        suite=replace(suite, prompts={name: own}, scorers=_scorer(suite), sections={}, sweep=type(sweep)()),
        models=tuple(_contender(known[each.model], each, folder) for each in points),
        prompts={name: choose(plan.prompts[name], sweep.limit)},
        judges={},
        how=how,
    )


def _scorer(suite: Suite) -> tuple[str, ...]:
    """Return the scorer of the axis of consistency: the section's, or the suite's first."""
    wanted = suite.sections[SECTION].scorer
    fitting = [spec for spec in suite.scorers if wanted in (None, spec, spec.partition("@")[0].partition("?")[0])]
    return tuple(fitting[:1] or suite.scorers[:1])


def _contender(model: Contender, point: Setting, folder: Path) -> Contender:
    if point.checkpoint is None:
        return replace(model, label=point.label)
    lora = str(lora_folder(folder, point))
    if model.adapter is None:
        return replace(model, label=point.label, model=lora)
    return replace(model, label=point.label, adapter=lora)


def lora_folder(folder: Path, point: Setting) -> Path:
    """Return where the LoRA of a point's checkpoint is put."""
    assert point.checkpoint is not None
    return folder / "checkpoints" / point.model / point.checkpoint.name


def prepare(plan: Plan, swept: Plan | None) -> None:
    """Write the prompts of a sweep, and take the LoRAs out of its checkpoints, where they are not there."""
    if swept is None:
        return
    for name, prompts in swept.prompts.items():
        write_prompts(swept.prompt_file(name), prompts)
    for point in settings(plan):
        if point.checkpoint is not None:
            target = lora_folder(swept.folder, point)
            if not (target / "t2ialign.json").is_file():  # written last
                from t2ialign.models.checkpoint_lora import save_checkpoint_lora

                save_checkpoint_lora(point.checkpoint, target)


def with_sweep(plan: Plan, swept: Plan | None) -> Plan:
    """Return the plan, its section on trade-offs depending on the sweep's points, pictures and scores as they are."""
    if swept is None:
        return plan
    judges = dict(plan.judges)
    judges[SECTION] = {**judges.get(SECTION, {}), "sweep": _state(plan, swept)}
    return replace(plan, judges=judges)


def _state(plan: Plan, swept: Plan) -> dict[str, Any]:
    total = hashlib.sha256()
    for name in swept.prompts:
        for label in swept.labels:
            for file in ("metadata.jsonl", "scores.parquet"):
                path = swept.set_folder(name, label) / file
                total.update(path.read_bytes() if path.is_file() else b"")
    points: Sequence[Any] = [[each.label, each.said] for each in settings(plan)]
    return {"points": json.loads(json.dumps(points)), "pictures": total.hexdigest()}
