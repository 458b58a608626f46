"""The section on cultural awareness: whether a model knows what comes from where, by country.

Law of this file: the measures are those of `t2ialign.eval.culture`, made by the suite's embedder; small cells are
shown with their n, raw and pooled. Ratings of faithfulness and realism need a judge, and are not made up without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.config import option
from t2ialign.eval.compare import compare_scores
from t2ialign.eval.report import p_text
from t2ialign.eval.statistics import holm
from t2ialign.eval.suites.findings import Findings, Row, cell, note, number, percent, plot, span, span_percent, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.culture.awareness import AwarenessReport, Cell
    from t2ialign.eval.culture.cspace import ConceptSpace
    from t2ialign.eval.culture.targets import Observation, Target
    from t2ialign.eval.suites.evidence import Evidence

NAME = "awareness"
DEFINITION = (
    "Prompts name an artifact and its country, after CUBE (arXiv 2407.06863). Retrieval: whether the picture is "
    "nearer to the true artifact's name than to all others of its domain (top 1) or all but four (top 5), in the "
    "embedder's features. Contrast: whether it fits its own prompt better than the same with any wrong country, "
    "and by how much against their mean. The unit is the prompt; cells by country are shown raw with their n, and "
    "pooled towards the mean of all countries as far as the data say that they are alike. Faithfulness and realism as "
    "rated by a judge are not in this report."
)
SHARES = ("top1", "top5", "contrast_best")
"""Measures that are shares, shown in percent."""


@dataclass
class Options:
    """What is measured."""

    prompts: list[str] = option([], "Sets of prompts that name an artifact and its country; all where none is named.")
    space: str = option("flags", "Artifacts: flags of the mini-world, or CUBE-1K's.", choices=("flags", "cube"))
    measures: list[str] = option(["contrast_best", "contrast_margin", "top1", "top5"], "Measures; the first leads.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Measure every model's pictures, and the difference from the base."""
    if evidence.plan.suite.embedder is None:
        return Findings.absent(NAME, SECTIONS[NAME], "no embedder is named", DEFINITION)
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    for prompts in evidence.sets(options.prompts):
        targets, space = _targets(evidence, options, prompts)
        if len(targets) >= 2:
            _one_set(findings, evidence, options, prompts, targets, space)
    if not findings.rows:
        return Findings.absent(
            NAME,
            SECTIONS[NAME],
            f"no set has two prompts that name an artifact of the space {options.space}",
            DEFINITION,
        )
    findings.blocks.append(note("Faithfulness and realism are rated by a judge; none was asked here."))
    return findings


def _targets(evidence: Evidence, options: Options, prompts: str) -> tuple[list[Target], ConceptSpace]:
    from t2ialign.eval.culture.cspace import cube_space, flag_space
    from t2ialign.eval.culture.cube import read_cube
    from t2ialign.eval.culture.targets import cube_targets, flag_targets
    from t2ialign.eval.suites.public_prompts import public_files

    planned = {prompt.prompt_id: prompt.prompt for prompt in evidence.plan.prompts[prompts]}
    if options.space == "flags":
        return flag_targets(planned), flag_space()
    cube = read_cube(public_files("cube", evidence.plan.data)[0])
    return [each for each in cube_targets(cube) if planned.get(each.prompt_id) == each.prompt], cube_space(cube)


def _one_set(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    prompts: str,
    targets: list[Target],
    space: ConceptSpace,
) -> None:
    from t2ialign.eval.culture.awareness import awareness_report
    from t2ialign.eval.culture.contrast import contrast_margins
    from t2ialign.eval.culture.retrieval import retrieval_ranks

    plan = evidence.plan
    seen: dict[str, list[Observation]] = {}
    for label in plan.labels:
        images = evidence.image_set(prompts, label)
        found = retrieval_ranks(images, targets, space, evidence.embedder)
        found += contrast_margins(images, targets, evidence.embedder)
        seen[label] = [each for each in found if each.measure in options.measures]
    findings.info.setdefault("embedder of awareness", dict(evidence.embedder.info()))
    reports = {label: awareness_report(each, resamples=plan.resamples, seed=plan.seed) for label, each in seen.items()}
    shared = {"prompts": prompts, "scorer": str(evidence.embedder.name)}
    rows = {
        (label, name): _row(findings, report, label, name, shared)
        for label, report in reports.items()
        for name in options.measures
        if name in report.measures
    }
    changes = _changes(findings, evidence, options, seen, shared)
    _show(findings, evidence, options, rows, changes, prompts)
    _countries(findings, reports, options.measures[0], prompts, shared)


def _row(findings: Findings, report: AwarenessReport, label: str, name: str, shared: dict[str, str]) -> Row:
    return _of_cell(findings, report.measures[name]["all"][0], label, name, shared, "")


def _of_cell(findings: Findings, found: Cell, label: str, name: str, shared: dict[str, str], country: str) -> Row:
    return findings.add(
        name,
        0.0 if found.value is None else found.value,
        key=(shared["prompts"], label, *([country] if country else [])),
        low=None if found.interval is None else found.interval.low,
        high=None if found.interval is None else found.interval.high,
        n=found.n_prompts,
        model=label,
        group=country,
        method="mean over prompts; interval over prompts",
        **shared,
    )


def _changes(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    seen: Mapping[str, list[Observation]],
    shared: dict[str, str],
) -> dict[tuple[str, str], Row]:
    """Compare picture by picture with the base; the family of Holm's method is the set's measures and models."""
    values = {
        label: {(each.measure, each.file_name): each for each in found if each.value is not None}
        for label, found in seen.items()
    }
    made = {}
    for label in evidence.others:
        for name in options.measures:
            keys = [key for key in values[evidence.base] if key[0] == name and key in values[label]]
            ids = [values[evidence.base][key].prompt_id for key in keys]
            if len(set(ids)) > 1:
                sides = [[values[each][key].value or 0.0 for key in keys] for each in (evidence.base, label)]
                plan = evidence.plan
                made[label, name] = compare_scores(sides[0], sides[1], ids, resamples=plan.resamples, seed=plan.seed)
    adjusted = holm([each["tests"]["sign"]["p"] for each in made.values()])
    rows = {}
    for ((label, name), each), p_holm in zip(made.items(), adjusted, strict=True):
        difference = each["difference"]
        rows[label, name] = findings.add(
            f"{name}_difference",
            difference["mean"],
            key=(shared["prompts"], label),
            low=difference["ci95"][0],
            high=difference["ci95"][1],
            n=each["n_prompts"],
            model=label,
            against=evidence.base,
            p=each["tests"]["sign"]["p"],
            p_holm=p_holm,
            method="paired by prompt and seed; BCa bootstrap over prompts; exact sign test",
            **shared,
        )
    return rows


def _show(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    rows: Mapping[tuple[str, str], Row],
    changes: Mapping[tuple[str, str], Row],
    prompts: str,
) -> None:
    from t2ialign.eval.culture.targets import MEASURES

    first = options.measures[0]
    for label in evidence.others:
        if (change := changes.get((label, first))) is not None:
            _say(findings, evidence.base, label, rows, change, first, prompts)
    lines = []
    for name in options.measures:
        for label in evidence.plan.labels:
            if (row := rows.get((label, name))) is None:
                continue
            change = changes.get((label, name))
            cells: list[Any] = ["–", "–", "–"]
            if change is not None:
                p_value = cell(p_text(1.0 if change.p_holm is None else change.p_holm), change)
                cells = [cell(f"{change.value:+.3g}", change), cell(span(change.low, change.high), change), p_value]
            lines.append(
                [MEASURES[name].meaning, label, cell(_value(name, row), row), _interval(name, row), *cells, str(row.n)]
            )
    head = ["measure", "model", "value", "95 % interval", "difference", "95 % interval", "sign test, Holm", "n"]
    findings.blocks.append(table(f"Awareness, {prompts}", head, lines))


def _value(name: str, row: Row) -> str:
    return percent(row.value) if name in SHARES else number(row.value)


def _interval(name: str, row: Row) -> Any:
    if row.low is None or row.high is None:
        return "–"
    return cell(span_percent(row.low, row.high) if name in SHARES else span(row.low, row.high), row)


def _say(
    findings: Findings,
    base: str,
    label: str,
    rows: Mapping[tuple[str, str], Row],
    change: Row,
    name: str,
    prompts: str,
) -> None:
    from t2ialign.eval.culture.targets import MEASURES

    one, two = rows[base, name], rows[label, name]
    figures = (
        f"{MEASURES[name].meaning} for {_value(name, one)} of {base}'s prompts and {_value(name, two)} of {label}'s "
        f"(difference {change.value:+.3g}, 95 % interval {span(change.low, change.high)}, {change.n} prompts, "
        f"{prompts})"
    )
    low, high = change.low or 0.0, change.high or 0.0
    if low <= 0 <= high or (1.0 if change.p_holm is None else change.p_holm) >= 0.05:
        findings.say(
            f"No difference in cultural awareness is shown: {figures}.", [change, one, two], "open", headline=True
        )
        return
    word = "better" if change.value > 0 else "worse"
    findings.say(f"{label} knows {word} what is from where: {figures}.", [change, one, two], word, headline=True)


def _countries(
    findings: Findings, reports: Mapping[str, AwarenessReport], name: str, prompts: str, shared: dict[str, str]
) -> None:
    """Show the leading measure by country, raw and pooled."""
    lines: list[list[Any]] = []
    bars: dict[str, list[dict[str, Any]]] = {}
    for label, report in reports.items():
        for found in report.measures[name]["country"] if name in report.measures else ():
            if found.value is None or found.country is None:
                continue
            row = _of_cell(findings, found, label, name, shared, found.country)
            shown: list[Any] = [found.country, label, cell(_value(name, row), row), _interval(name, row)]
            if found.pooled is None:
                shown += ["–", "–"]
            else:
                pooled = findings.add(
                    f"{name}_pooled",
                    found.pooled.value,
                    key=(prompts, label, found.country),
                    low=found.pooled.interval.low,
                    high=found.pooled.interval.high,
                    n=found.n_prompts,
                    model=label,
                    group=found.country,
                    method="partial pooling over countries; central 95 % of the posterior",
                    **shared,
                )
                shown += [cell(_value(name, pooled), pooled), _interval(name, pooled)]
                bar = {
                    "series": label,
                    "value": pooled.value,
                    "low": pooled.low,
                    "high": pooled.high,
                    "row": pooled.id,
                }
                bars.setdefault(found.country, []).append(bar)
            lines.append([*shown, str(row.n)])
    lines.sort(key=lambda line: str(line[0]))
    if 1 < len(bars) <= 12:
        groups = [{"label": country, "bars": each} for country, each in sorted(bars.items())]
        title = f"{name} by country, pooled, {prompts}"
        findings.blocks.append(plot("bars", title, groups=groups, percent=name in SHARES))
    head = ["country", "model", name, "95 % interval", "pooled", "95 % interval", "n"]
    findings.blocks.append(table(f"By country, {prompts} (not corrected for their number)", head, lines))
