"""`t2ialign eval`: makes what is missing of an evaluation, in four steps that can each be stopped and continued.

Law of this file: pictures, scores, sections, report, in this order. A step that is done is told by its files, so
that a second run loads no model; a section's findings are written whole, so that a stop costs one section at most.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.config import nearest
from t2ialign.data.files import write_json
from t2ialign.errors import ConfigError, DataError, ModelError, Stopped
from t2ialign.eval.suites.findings import Findings
from t2ialign.eval.suites.options import EvalOptions
from t2ialign.eval.suites.plan import PLAN, Plan, agree, make_plan
from t2ialign.eval.suites.rewrites import is_rewritten, read_rewrites, write_rewrites
from t2ialign.eval.suites.sections import SECTIONS, measure
from t2ialign.eval.suites.sweep import SECTION as SWEEP_SECTION
from t2ialign.eval.suites.sweep import prepare, sweep_plan, with_sweep

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence
    from t2ialign.generation.processes import Processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalSummary:
    """What `run_suite` did.

    Attributes:
        report: The JSON file.
        page: The HTML file.
        made: Pictures made in this run.
        scored: Image sets scored in this run.
        measured: Sections measured in this run.
        pictures_per_model: Pictures of each model.
        headlines: The summary's sentences.
        seconds: Time taken.
    """

    report: Path
    page: Path
    made: int
    scored: int
    measured: tuple[str, ...]
    pictures_per_model: int
    headlines: tuple[str, ...]
    seconds: float


def run_suite(options: EvalOptions, before_loading: Callable[[], None] | None = None) -> EvalSummary:
    """Run a suite, or what is missing of it.

    Args:
        options: See `EvalOptions`.
        before_loading: Called before anything heavy is imported, unless everything is there.

    Returns:
        Where the report is, and what was done for it.

    Raises:
        ConfigError: If the suite, a model or an option is unknown.
        DataError: If the folder holds another evaluation, or prompts cannot be read.
        ModelError: If a model or a scorer cannot be loaded.
        Stopped: If SIGINT, SIGTERM or SIGUSR1 asks for it; the same call goes on. Sections listen between two pictures
            and two batches of features; what they compute from these is computed to its end.
    """
    from t2ialign.eval.suites.report import headlines

    began = time.monotonic()
    asked = make_plan(options)
    plan = read_rewrites(asked)
    swept = sweep_plan(plan)
    redo = _redo(plan, options.redo)
    if not redo and _is_finished(asked, plan, swept):
        return _summary(plan, 0, 0, (), tuple(headlines(plan)), began)
    if before_loading is not None:
        before_loading()
    from t2ialign.generation.processes import Processes

    with Processes() as processes:
        return _run(asked, options, redo, processes, began)


def _run(asked: Plan, options: EvalOptions, redo: set[str], processes: Processes, began: float) -> EvalSummary:
    from t2ialign.eval.suites.report import finish, headlines

    if processes.rank == 0:
        agree(asked)
        write_rewrites(asked, options.device)
    processes.wait()
    plan = read_rewrites(asked)
    swept = sweep_plan(plan)
    if processes.rank == 0:
        prepare(plan, swept)
    processes.wait()
    made = _generate(plan, options, processes)
    scored = _score(plan, options, processes)
    more = (0, 0)
    if swept is not None:
        more = _generate(swept, options, processes), _score(swept, options, processes)
    processes.wait()
    if processes.rank != 0:
        processes.wait()
        return _summary(plan, made + more[0], scored + more[1], (), (), began)
    from t2ialign.eval.suites.evidence import Evidence

    plan = with_sweep(plan, swept)
    evidence = Evidence(
        plan, device=options.device, batch_size=_batch(plan, options), between=processes.check, swept=swept
    )
    state = _state(plan)
    measured = []
    for number, name in enumerate(plan.suite.sections):
        try:
            processes.check()
            again = name in redo or made > 0 or scored > 0 or (name == SWEEP_SECTION and any(more))
            if _measure(evidence, name, state, again=again):
                measured.append(name)
        except Stopped as stop:
            there = f"pictures and scores are there, and {number} of {len(plan.suite.sections)} sections"
            raise Stopped(stop.number, f"{there}; the same command goes on") from None
    finish(plan, state, stale=bool(measured))
    processes.wait()
    return _summary(plan, made + more[0], scored + more[1], tuple(measured), tuple(headlines(plan)), began)


def _summary(
    plan: Plan, made: int, scored: int, measured: tuple[str, ...], said: tuple[str, ...], began: float
) -> EvalSummary:
    report, page = plan.folder / "report.json", plan.folder / "report.html"
    return EvalSummary(report, page, made, scored, measured, plan.pictures_per_model, said, time.monotonic() - began)


def _is_finished(asked: Plan, plan: Plan, swept: Plan | None) -> bool:
    """Tell from the files alone whether there is nothing to do; refuse a folder of another plan."""
    from t2ialign.eval.suites.report import is_reported

    if not (plan.folder / PLAN).is_file():
        return False
    agree(asked)
    if not is_rewritten(asked):
        return False
    for each in (plan, *([] if swept is None else [swept])):
        sets = [(prompts, label) for prompts in each.prompts for label in each.labels]
        if not all(is_whole(each, *place) and _is_scored(each, *place) for place in sets):
            return False
    return is_reported(with_sweep(plan, swept), _state(plan))


def _redo(plan: Plan, names: Sequence[str]) -> set[str]:
    if "all" in names:
        return set(plan.suite.sections)
    for name in names:
        if name not in plan.suite.sections:
            known = list(plan.suite.sections)
            raise ConfigError(f"the section {name!r} is none of the suite {plan.suite.name}{nearest(name, known)}")
    return set(names)


def _batch(plan: Plan, options: EvalOptions) -> int:
    return options.batch_size or plan.suite.batch_size


def _generate(plan: Plan, options: EvalOptions, processes: Processes) -> int:
    """Make the pictures that are missing; return how many were made."""
    lacking = [
        (prompts, model)
        for prompts in plan.prompts
        for model in plan.models
        if not is_whole(plan, prompts, model.label)
    ]
    processes.wait()
    if not lacking:
        return 0
    from t2ialign.generation.options import GenerateOptions
    from t2ialign.generation.run import generate

    made = 0
    for prompts, model in lacking:
        how = plan.how.get(model.label, plan.suite.generation)
        logger.info("pictures of %s for %s", model.label, prompts)
        summary = generate(
            GenerateOptions(
                model=[model.model],
                adapter=[model.adapter] if model.adapter else [],
                user=[model.user] if model.user else [],
                label=[model.label],
                prompts=str(plan.prompt_file(prompts)),
                output_dir=plan.set_folder(prompts, model.label),
                images_per_prompt=plan.suite.prompts[prompts].images_per_prompt,
                num_inference_steps=how.num_inference_steps,
                guidance_scale=how.guidance_scale,
                scheduler=how.scheduler,
                negative_prompt=how.negative_prompt,
                height=how.height,
                width=how.width,
                batch_size=_batch(plan, options),
                seed=plan.seed,
                dtype=plan.dtype,
                device=options.device,
            )
        )
        made += summary.made
        gc.collect()
    return made


def is_whole(plan: Plan, prompts: str, label: str) -> bool:
    """Tell from the files alone whether every picture of a set is there."""
    from t2ialign.data.image_sets import ImageSet

    folder = plan.set_folder(prompts, label)
    if not (folder / "metadata.jsonl").is_file() or list(folder.glob("metadata.rank-*.jsonl")):
        return False
    try:
        images = ImageSet(folder)
    except DataError:
        return False
    there = {r.key for r in images.records if images.file(r).is_file() and images.file(r).stat().st_size > 0}
    count = plan.suite.prompts[prompts].images_per_prompt
    wanted = {(p.prompt_id, sample, label) for p in plan.prompts[prompts] for sample in range(count)}
    return wanted <= there


def _score(plan: Plan, options: EvalOptions, processes: Processes) -> int:
    """Score the sets that are not scored as they are now; return how many."""
    lacking = [
        (prompts, model.label)
        for prompts in plan.prompts
        for model in plan.models
        if not _is_scored(plan, prompts, model.label)
    ]
    processes.wait()
    if not lacking or not plan.suite.scorers:
        return 0
    from t2ialign.reward_models.registry import load_scorer
    from t2ialign.reward_models.scoring import score_set

    device, batch = processes.device(options.device), _batch(plan, options)
    with processes.first_goes_first():
        scorers = [load_scorer(spec, device=device, batch_size=batch) for spec in plan.suite.scorers]
    for prompts, label in lacking:
        folder = plan.set_folder(prompts, label)
        score_set(folder, scorers, batch_size=batch, workers=options.workers, device=options.device)
        if processes.rank == 0:
            write_json(_score_mark(plan, prompts, label), {"of": _score_digest(plan, prompts, label)})
    return len(lacking)


def _score_mark(plan: Plan, prompts: str, label: str) -> Path:
    return plan.folder / "state" / f"scores-{prompts}-{label}.json"


def _score_digest(plan: Plan, prompts: str, label: str) -> str:
    """Return a digest of what is scored, and by whom."""
    lines = (plan.set_folder(prompts, label) / "metadata.jsonl").read_bytes()
    return hashlib.sha256(lines + json.dumps(plan.suite.scorers).encode()).hexdigest()


def _is_scored(plan: Plan, prompts: str, label: str) -> bool:
    if not plan.suite.scorers:
        return True
    mark = _score_mark(plan, prompts, label)
    table = plan.set_folder(prompts, label) / "scores.parquet"
    if not mark.is_file() or not table.is_file():
        return False
    try:
        return bool(json.loads(mark.read_text(encoding="utf-8"))["of"] == _score_digest(plan, prompts, label))
    except (ValueError, KeyError, OSError):
        return False


def _state(plan: Plan) -> str:
    """Return a digest of everything that sections read: the plan, the pictures and the scores."""
    total = hashlib.sha256(json.dumps(plan.to_dict()).encode())
    for prompts in plan.prompts:
        for label in plan.labels:
            folder = plan.set_folder(prompts, label)
            for name in ("metadata.jsonl", "scores.parquet"):
                file = folder / name
                total.update(file.read_bytes() if file.is_file() else b"")
    return total.hexdigest()


def section_file(plan: Plan, name: str) -> Path:
    """Return where a section's findings are kept."""
    return plan.folder / "sections" / f"{name}.json"


def read_section(plan: Plan, name: str, state: str) -> Findings | None:
    """Return a section's findings, if they are of this state of the folder and of these judges."""
    try:
        content = json.loads(section_file(plan, name).read_text(encoding="utf-8"))
        return Findings.from_dict(content["findings"]) if content["state"] == plan.section_state(name, state) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measure(evidence: Evidence, name: str, state: str, *, again: bool) -> bool:
    """Measure a section, unless its findings are there; return whether it was measured."""
    plan = evidence.plan
    if not again and read_section(plan, name, state) is not None:
        return False
    began = time.monotonic()
    try:
        findings = measure(name, evidence, plan.suite.sections[name])
    except (ConfigError, DataError, ModelError) as error:
        raise type(error)(f"section {name}: {error}") from error
    logger.info("%s: %.1f s", SECTIONS[name], time.monotonic() - began)
    write_json(section_file(plan, name), {"state": plan.section_state(name, state), "findings": findings.to_dict()})
    return True
