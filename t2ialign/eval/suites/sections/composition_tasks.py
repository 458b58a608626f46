"""Composition by a detector and GenEval's rules: six tasks, their mean, and the difference from the base.

Law of this file: what was found is kept beside the report, picture by picture; a picture's verdict depends on what was
found in it alone. Where a detector cannot be had, the reason is returned, and nothing is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.errors import DataError, MissingDependencyError, ModelError
from t2ialign.eval.report import p_text
from t2ialign.eval.statistics import holm
from t2ialign.eval.suites.findings import Findings, Row, cell, note, percent, plot, span_percent, table
from t2ialign.eval.suites.judges import without_folder

if TYPE_CHECKING:
    from t2ialign.eval.composition import CompositionResult, Task
    from t2ialign.eval.composition.colors import ColorNamer
    from t2ialign.eval.composition.detections import Detector, Thresholds
    from t2ialign.eval.composition.paired import TaskChange
    from t2ialign.eval.composition.summary import TaskScore
    from t2ialign.eval.suites.evidence import Evidence
    from t2ialign.eval.suites.sections.composition import Options

DEFINITION = (
    "After GenEval (arXiv 2310.11513): a detector finds objects, rules say whether they are what the prompt asks "
    "for. A task's figure is the mean over its prompts of the share of right pictures; overall is the unweighted mean "
    "over tasks. The unit is the prompt: intervals of tasks are BCa bootstraps over prompts (Wilson's where prompts "
    "are few or all alike), of overall a bootstrap that draws prompts anew inside each task (or from Wilson's "
    "intervals of the tasks). Models are compared picture by picture of the same prompt and seed; the test is the "
    "exact sign test over prompts, corrected by Holm over the tasks and models of a set. Figures of another detector, "
    "or of other thresholds, do not compare."
)
OVERALL = "overall"
FEW = 10
"""Prompts of a task below which a bootstrap over them is too narrow (as in `culture.estimates`)."""


def tasks_of(evidence: Evidence, prompts: str, detector: str = "") -> list[Task]:
    """Return what the prompts of a set ask for: what their file says, or the mini-world's grammar for its oracle.

    Raises:
        DataError: If a prompt's task cannot be read.
    """
    from t2ialign.eval.composition import Task, mini_task

    found = []
    for prompt in evidence.plan.prompts[prompts]:
        if "include" in prompt.extra:
            line = {"tag": prompt.extra.get("tag") or prompt.category, "prompt": prompt.prompt} | prompt.extra
            found.append(Task.from_dict(line, f"{prompts}, prompt {prompt.prompt_id}"))
        elif detector == "oracle" and not evidence.oracle_world(prompts):
            found += [task] if (task := mini_task(prompt.prompt)) is not None else []
    return found


def by_detector(findings: Findings, evidence: Evidence, options: Options, asked: Mapping[str, Sequence[Task]]) -> str:
    """Judge the pictures of every set and model.

    Returns:
        Why nothing was measured; empty where it was.
    """
    try:
        alone = len(asked) == 1
        results = {name: _judge(evidence, options, name, tasks, alone=alone) for name, tasks in asked.items()}
    except (DataError, ModelError, MissingDependencyError) as error:
        said = without_folder(str(error), options.detector).rstrip(".")
        return f"{said}. When that is mended, run again with --redo composition"
    for prompts, by_label in results.items():
        findings.info[f"detector of composition, {prompts}"] = by_label[evidence.base].info
        for label, result in by_label.items():
            result.write(evidence.plan.folder / "composition" / prompts / label)
        _one_set(findings, evidence, prompts, by_label)
        _notes(findings, options, by_label[evidence.base], prompts)
    return ""


def _judge(
    evidence: Evidence, options: Options, prompts: str, tasks: Sequence[Task], *, alone: bool
) -> dict[str, CompositionResult]:
    from t2ialign.eval.composition import evaluate_composition

    found = {}
    plan = evidence.plan
    colors: ColorNamer | None = None
    for label in plan.labels:
        detector = _detector(evidence, options, prompts, label, tasks, alone=alone)
        if colors is None:
            colors = _colors(evidence, options, detector, tasks)
        found[label] = evaluate_composition(
            evidence.image_set(prompts, label),
            detector,
            colors,
            tasks=tasks,
            thresholds=_thresholds(options),
            resamples=plan.resamples,
            seed=plan.seed,
        )
    return found


def _thresholds(options: Options) -> Thresholds:
    from t2ialign.eval.composition import Thresholds

    usual = Thresholds()
    score = usual.score if options.score is None else options.score
    counting = usual.counting if options.detector.startswith("results") else score
    return Thresholds(score, counting if options.counting is None else options.counting, overlap=options.overlap)


def _detector(
    evidence: Evidence, options: Options, prompts: str, label: str, tasks: Sequence[Task], *, alone: bool
) -> Detector:
    from t2ialign.eval.composition import coco
    from t2ialign.eval.composition.detectors import OracleDetector
    from t2ialign.eval.composition.kept import KeptDetector
    from t2ialign.eval.composition.naming import DetectorName, find_results

    wanted = DetectorName.read(options.detector)
    if wanted.kind == "oracle":
        return OracleDetector()
    if wanted.kind == "results":
        names = coco.names()
        if options.classes is not None:
            lines = Path(options.classes).expanduser().read_text(encoding="utf-8-sig").splitlines()
            names = tuple(line.strip() for line in lines if line.strip())
        return find_results(wanted.place, prompts, label, names, alone=alone)
    offered = dict.fromkeys(name for task in tasks for name in task.classes) if options.offer == "set" else ()
    loaded = evidence.zero_shot(wanted.place, options.template, tuple(offered))
    return KeptDetector(loaded, evidence.plan.folder / "detections" / prompts, label)


def _colors(evidence: Evidence, options: Options, detector: Detector, tasks: Sequence[Task]) -> ColorNamer | None:
    """Find who names colours: the detector itself, or CLIP; nobody where no prompt asks for one."""
    from t2ialign.eval.composition.colors import ClipColors, KnownColors

    if not any(each.color is not None for task in tasks for each in (*task.include, *task.exclude)):
        return None
    knows = options.detector == "oracle" or getattr(detector, "knows_colors", False)
    if options.colors == "auto" and knows:
        return KnownColors()
    return ClipColors(evidence.load_embedder("clipscore" if options.colors == "auto" else options.colors))


def _one_set(findings: Findings, evidence: Evidence, prompts: str, results: Mapping[str, CompositionResult]) -> None:
    shared = {"prompts": prompts, "scorer": str(results[evidence.base].info["detector"]["detector"])}
    labels = evidence.plan.labels
    rows: dict[tuple[str, str], Row] = {}
    for label, result in results.items():
        rows[label, OVERALL] = _overall(findings, result, label, shared)
        for tag, score in result.summary.tasks.items():
            rows[label, tag] = _task(findings, score, label, shared)
    changes = _changes(findings, evidence, results, shared)
    for label in evidence.others:
        _say(findings, evidence.base, label, rows, changes[label, OVERALL], results)
    parts = [OVERALL, *results[evidence.base].summary.tasks]
    groups = [{"label": part, "bars": [_bar(label, rows[label, part]) for label in labels]} for part in parts]
    findings.blocks.append(plot("bars", f"Pictures that are right, {prompts}", groups=groups, percent=True, top=1.0))
    lines: list[list[Any]] = []
    for part in parts:
        for label in labels:
            row, change = rows[label, part], changes.get((label, part))
            any_right = "–" if part == OVERALL else _any(findings, results[label].summary.tasks[part], label, shared)
            interval = "–" if row.low is None or row.high is None else cell(span_percent(row.low, row.high), row)
            lines.append(
                [part, label, cell(percent(row.value), row), interval, *_cells(change), any_right, str(row.n)]
            )
    head = ["task", "model", "right", "95 % interval", "difference, points", "95 % interval", "sign test, Holm"]
    head += ["a right one among a prompt's", "n"]
    findings.blocks.append(table(f"GenEval's tasks, {prompts}", head, lines))


def _overall(findings: Findings, result: CompositionResult, label: str, shared: dict[str, Any]) -> Row:
    summary = result.summary
    low, high = summary.overall_interval or (None, None)
    method = "unweighted mean over tasks; bootstrap over prompts inside each task"
    if any(_is_small(score) for score in summary.tasks.values()):
        low, high = _of_mean(list(summary.tasks.values()))
        method = (
            "unweighted mean over tasks; from their Wilson intervals (MOVER, Zou and Donner 2008), for tasks are small"
        )
    return findings.add(
        "right", summary.overall_value, key=(shared["prompts"], label, OVERALL), low=low, high=high,
        n=summary.every.n_prompts, model=label, group=OVERALL,
        method=method, **shared,
    )  # fmt: skip


def _task(findings: Findings, score: TaskScore, label: str, shared: dict[str, Any]) -> Row:
    drawn = None if _is_small(score) else score.bootstrap
    low, high = drawn or score.wilson
    return findings.add(
        "right", score.value, key=(shared["prompts"], label, score.tag), low=low, high=high, n=score.n_prompts,
        model=label, group=score.tag,
        method="mean over prompts; " + ("BCa bootstrap over prompts" if drawn else "Wilson over prompts"),
        **shared,
    )  # fmt: skip


def _is_small(score: TaskScore) -> bool:
    """Whether a bootstrap over the task's prompts would be too narrow: they are few, or all alike."""
    return score.bootstrap is None or score.n_prompts < FEW


def _of_mean(scores: Sequence[TaskScore]) -> tuple[float, float]:
    """Return the interval of the unweighted mean of independent shares from the intervals of each.

    G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008): distances from each share to its own ends are added in
    squares.
    """
    mean = sum(score.value for score in scores) / len(scores)
    down = sum((score.value - score.wilson.low) ** 2 for score in scores) ** 0.5 / len(scores)
    up = sum((score.wilson.high - score.value) ** 2 for score in scores) ** 0.5 / len(scores)
    return max(mean - down, 0.0), min(mean + up, 1.0)


def _any(findings: Findings, score: TaskScore, label: str, shared: dict[str, Any]) -> Any:
    row = findings.add(
        "any_right", score.any_correct, key=(shared["prompts"], label, score.tag), low=score.any_wilson.low,
        high=score.any_wilson.high, n=score.n_prompts, model=label, group=score.tag,
        method="share of prompts with a right picture; Wilson over prompts; it grows with pictures a prompt", **shared,
    )  # fmt: skip
    return cell(percent(row.value), row)


def _cells(change: Row | None) -> list[Any]:
    if change is None:
        return ["–", "–", "–"]
    p_value = cell(p_text(1.0 if change.p_holm is None else change.p_holm), change)
    value = cell(f"{100 * change.value:+.1f}", change)
    if change.low is None or change.high is None:
        return [value, "–", p_value]
    return [value, cell(f"{100 * change.low:+.1f} to {100 * change.high:+.1f}", change), p_value]


def _changes(
    findings: Findings, evidence: Evidence, results: Mapping[str, CompositionResult], shared: dict[str, Any]
) -> dict[tuple[str, str], Row]:
    """Compare with the base; the family of Holm's method is the set's tasks and models."""
    from t2ialign.eval.composition.paired import compare_tasks

    plan = evidence.plan
    found: dict[tuple[str, str], TaskChange] = {}
    for label in evidence.others:
        pictures = results[plan.base].pictures, results[label].pictures
        for change in compare_tasks(*pictures, resamples=plan.resamples, seed=plan.seed):
            found[label, change.tag] = change
    rows = {}
    for ((label, tag), change), p_holm in zip(found.items(), holm([each.p for each in found.values()]), strict=True):
        low, high = change.interval or (None, None)
        rows[label, tag] = findings.add(
            "right_difference", change.value, key=(shared["prompts"], label, tag), low=low, high=high,
            n=change.n_prompts, model=label, against=plan.base, group=tag, p=change.p, p_holm=p_holm,
            method="paired by prompt and seed; bootstrap over prompts; exact sign test", **shared,
        )  # fmt: skip
    return rows


def _say(
    findings: Findings,
    base: str,
    label: str,
    rows: Mapping[tuple[str, str], Row],
    change: Row,
    results: Mapping[str, CompositionResult],
) -> None:
    one, two = rows[base, OVERALL], rows[label, OVERALL]
    tasks = results[base].summary.tasks
    bounds = "no interval, for prompts do not differ"
    if change.low is not None and change.high is not None:
        bounds = f"95 % interval {100 * change.low:+.1f} to {100 * change.high:+.1f}"
    figures = (
        f"{percent(one.value)} of {base}'s pictures and {percent(two.value)} of {label}'s are right (mean of "
        f"{len(tasks)} tasks, difference {100 * change.value:+.1f} points, {bounds}, sign test corrected p = "
        f"{p_text(1.0 if change.p_holm is None else change.p_holm)}, {change.n} prompts, {change.prompts})"
    )
    beyond = change.low is None or change.high is None or change.low > 0 or change.high < 0
    if not beyond or change.value == 0 or (1.0 if change.p_holm is None else change.p_holm) >= 0.05:
        findings.say(f"No difference in composition is shown: {figures}.", [change, one, two], "open", headline=True)
        return
    word = "better" if change.value > 0 else "worse"
    findings.say(f"{label} composes {word}: {figures}.", [change, one, two], word, headline=True)


def _notes(findings: Findings, options: Options, result: CompositionResult, prompts: str) -> None:
    counted = result.info["thresholds"]
    said = (
        f"A detection counts above {counted['score']:g}, for counting above {counted['counting']:g}. GenEval's 0.3 "
        "and 0.9 were chosen for its Mask2Former; for another detector choose them on pictures that you know."
    )
    if options.detector.startswith("zero_shot"):
        said += " A zero-shot detector finds what it is asked for more readily than one with fixed classes."
    findings.blocks.append(note(said))
    if result.summary.missing:
        missing = ", ".join(result.summary.missing)
        findings.blocks.append(
            note(f"{prompts} has no prompts of {missing}: its overall figure is none to hold against published ones.")
        )
    small = [tag for tag, score in result.summary.tasks.items() if score.n_prompts < FEW]
    if small:
        findings.blocks.append(
            note(
                f"{prompts} has fewer than {FEW} prompts of {', '.join(small)}: intervals of differences in these "
                "tasks and overall are too narrow; trust the sign test."
            )
        )
    left = sum(result.left_out.values())
    if left:
        findings.blocks.append(note(f"{left} pictures of a model have no task and are in no figure ({prompts})."))


def _bar(label: str, row: Row) -> dict[str, Any]:
    return {"series": label, "value": row.value, "low": row.low, "high": row.high, "row": row.id}
