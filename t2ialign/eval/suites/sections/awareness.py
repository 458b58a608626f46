"""The section on cultural awareness: whether a model knows what comes from where, by country.

Law of this file: the measures are those of `t2ialign.eval.culture`, made by the suite's embedder; small cells are
shown with their n, raw and pooled. Ratings of faithfulness and realism need a judge, and are not made up without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.config import nearest, option
from t2ialign.errors import ConfigError, DataError, MissingDependencyError, ModelError
from t2ialign.eval.compare import compare_scores
from t2ialign.eval.report import p_text
from t2ialign.eval.statistics import holm
from t2ialign.eval.suites.findings import Findings, Row, cell, note, number, percent, plot, span, span_percent, table
from t2ialign.eval.suites.judges import ANNOTATIONS, check_judge, judge_identity, without_folder
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
    "pooled towards the mean of all countries as far as the data say that they are alike. Faithfulness (is it that "
    "artifact, as it is known there) and realism (does the picture look real, whatever was asked for) are ratings "
    "from 1 to 5 by a judge; in the mini-world its oracle rates by rule, an analogue and nobody's opinion. Changes "
    "are tested by the exact sign test over prompts, corrected by Holm over the measures and models of a set."
)
JUDGES = ("judge",)
RATED = ("faithfulness", "realism")
"""Measures that a judge gives."""
MEND = (
    "name one with --judge (or judge, under awareness in the suite): hf:MODEL is a vision-language model here, "
    "openai:MODEL one behind an endpoint, annotations:FOLDER takes ratings of people or others from "
    "FOLDER/PROMPTS/MODEL; the same command then measures this section alone"
)
FLAG_TEXT = "the {name}"
"""How a flag's name is said to the embedder: as prompts of the mini-world say it, whose CLIP knows no other words."""
SHARES = ("top1", "top5", "contrast_best")
"""Measures that are shares, shown in percent."""


@dataclass
class Options:
    """What is measured."""

    prompts: list[str] = option([], "Sets of prompts that name an artifact and its country; all where none is named.")
    space: str = option("flags", "Artifacts: flags of the mini-world, or CUBE-1K's.", choices=("flags", "cube"))
    measures: list[str] = option(
        ["contrast_best", "contrast_margin", "top1", "top5", "faithfulness", "realism"], "Measures; the first leads."
    )
    judge: str = option(
        "auto",
        "Who rates: oracle, hf:MODEL, openai:MODEL, annotations:FOLDER; auto is the oracle for flags, else nobody.",
    )

    def __post_init__(self) -> None:
        """Refuse what is no measure or no judge."""
        from t2ialign.eval.culture.targets import MEASURES

        for name in self.measures:
            if name not in MEASURES:
                raise ConfigError(f"there is no measure {name!r} of awareness{nearest(name, MEASURES)}")
        if not self.measures:
            raise ConfigError("measures of awareness is empty; name one at least")
        check_judge(self.judge, annotations=True)


def identity(options: Options) -> dict[str, Any]:
    """Say who rates."""
    return judge_identity(options.judge)


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
    from t2ialign.eval.culture.retrieval import TEXT, retrieval_ranks

    plan = evidence.plan
    seen: dict[str, list[Observation]] = {}
    for label in plan.labels:
        images = evidence.image_set(prompts, label)
        template = FLAG_TEXT if options.space == "flags" else TEXT
        found = retrieval_ranks(images, targets, space, evidence.embedder, template=template)
        found += contrast_margins(images, targets, evidence.embedder)
        seen[label] = [each for each in found if each.measure in options.measures]
    _rate(findings, evidence, options, prompts, targets, seen)
    findings.info.setdefault("embedder of awareness", dict(evidence.embedder.info()))
    reports = {label: awareness_report(each, resamples=plan.resamples, seed=plan.seed) for label, each in seen.items()}
    shared = {"prompts": prompts, "scorer": str(evidence.embedder.name)}
    rows = {
        (label, name): _row(findings, report, label, name, shared)
        for label, report in reports.items()
        for name in options.measures
        if name in report.measures and report.measures[name]["all"][0].value is not None
    }
    changes = _changes(findings, evidence, options, seen, shared)
    _show(findings, evidence, options, rows, changes, prompts)
    for name in dict.fromkeys([options.measures[0], *RATED]):
        if any(name in report.measures for report in reports.values()):
            for by in ("country", "domain", "country_domain"):
                _cells(findings, reports, name, by, shared)


def _rate(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    prompts: str,
    targets: list[Target],
    seen: Mapping[str, list[Observation]],
) -> None:
    """Add ratings to what was seen, of all models or of none; without a judge, say how to get one."""
    asked = [name for name in RATED if name in options.measures]
    if not asked:
        return
    try:
        made = {label: _ratings(findings, evidence, options, prompts, label, targets, asked) for label in seen}
    except (DataError, ModelError, MissingDependencyError) as error:
        said = without_folder(str(error), options.judge).rstrip(".")
        findings.blocks.append(
            note(f"Not measured: {' and '.join(asked)}: {said}. When that is mended, run again with --redo awareness.")
        )
        return
    if all(found is None for found in made.values()):
        findings.blocks.append(note(f"Not measured: {' and '.join(asked)}: no judge is named; {MEND}."))
        return
    for label, found in made.items():
        seen[label].extend(found or [])
        missing = [each for each in found or [] if each.value is None]
        if missing:
            findings.blocks.append(
                note(f"{label}: {len(missing)} of {len(found or [])} ratings were not given; they are in no figure.")
            )


def _ratings(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    prompts: str,
    label: str,
    targets: list[Target],
    asked: list[str],
) -> list[Observation] | None:
    """Return the ratings of a model's pictures; `None` where there is no judge."""
    from t2ialign.eval.culture.raters import FlagRater, KeptRater
    from t2ialign.eval.culture.ratings import annotated, rated

    images = evidence.image_set(prompts, label)
    kind, _, place = options.judge.partition(":")
    if kind == ANNOTATIONS:
        from t2ialign.annotation.annotations import read_annotations

        there = read_annotations(Path(place).expanduser() / prompts / label)
        findings.info["judge of awareness"] = {
            "judge": "annotations",
            "annotators": sorted({a.annotator for a in there}),
        }
        names = {record.file_name for record in images.records}
        return [each for each in annotated(there, targets) if each.measure in asked and each.file_name in names]
    found: list[Observation] = []
    for measure in asked:
        if options.judge == "oracle" or (options.judge == "auto" and options.space == "flags"):
            found += rated(images, targets, FlagRater(measure), measure)
            findings.info[f"judge of {measure}"] = FlagRater(measure).info()
        elif options.judge == "auto":
            return None
        else:
            judge = evidence.judge(options.judge, _template(measure))
            kept = KeptRater(judge, evidence.plan.folder / "ratings" / prompts / f"{label}.{measure}.jsonl")
            found += rated(images, targets, kept, measure)
            findings.info[f"judge of {measure}"] = judge.info()
    return found


def _template(measure: str) -> str:
    from t2ialign.eval.culture.ratings import FAITHFULNESS, REALISM

    return {"faithfulness": FAITHFULNESS, "realism": REALISM}[measure]


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

    for name in dict.fromkeys([options.measures[0], *RATED]):
        for label in evidence.others:
            if (change := changes.get((label, name))) is not None:
                _say(findings, evidence.base, label, rows, change, name, prompts)
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
    change_said = (
        f"(difference {change.value:+.3g}, 95 % interval {span(change.low, change.high)}, sign test corrected p = "
        f"{p_text(1.0 if change.p_holm is None else change.p_holm)}, {change.n} prompts, {prompts})"
    )
    if name in SHARES:
        figures = f"{MEASURES[name].meaning} for {_value(name, one)} of {base}'s prompts and {_value(name, two)} of "
        figures += f"{label}'s {change_said}"
    else:
        figures = f"{MEASURES[name].meaning}: {_value(name, one)} for {base}, {_value(name, two)} for {label} "
        figures += change_said
    low, high = change.low or 0.0, change.high or 0.0
    if low <= 0 <= high or (1.0 if change.p_holm is None else change.p_holm) >= 0.05:
        what = name if name in RATED else "cultural awareness"
        findings.say(f"No difference in {what} is shown: {figures}.", [change, one, two], "open", headline=True)
        return
    word = "better" if change.value > 0 else "worse"
    text = f"{label} knows {word} what is from where"
    if name in RATED:
        text = f"{label}'s pictures are rated {word} in {name}"
    findings.say(f"{text}: {figures}.", [change, one, two], word, headline=True)


CELLS = {"country": "country", "domain": "domain", "country_domain": "country and domain"}
"""Tables of cells, and what a cell is."""


def _cells(
    findings: Findings, reports: Mapping[str, AwarenessReport], name: str, by: str, shared: dict[str, str]
) -> None:
    """Show a measure by country, by domain, or by both, raw and pooled; nothing where there is one domain."""
    if by != "country" and all(len(r.measures[name]["domain"]) < 2 for r in reports.values() if name in r.measures):
        return
    prompts = shared["prompts"]
    lines: list[list[Any]] = []
    bars: dict[str, list[dict[str, Any]]] = {}
    for label, report in reports.items():
        for found in report.measures[name][by] if name in report.measures else ():
            if found.value is None:
                continue
            place = ", ".join(part for part in (found.country, found.domain) if part)
            row = _of_cell(findings, found, label, name, shared, place)
            shown: list[Any] = [place, label, cell(_value(name, row), row), _interval(name, row)]
            if found.pooled is None:
                shown += ["–", "–"]
            else:
                pooled = findings.add(
                    f"{name}_pooled",
                    found.pooled.value,
                    key=(prompts, label, place),
                    low=found.pooled.interval.low,
                    high=found.pooled.interval.high,
                    n=found.n_prompts,
                    model=label,
                    group=place,
                    method=f"partial pooling over cells of {CELLS[by]}; central 95 % of the posterior",
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
                bars.setdefault(place, []).append(bar)
            lines.append([*shown, str(row.n)])
    lines.sort(key=lambda line: str(line[0]))
    if lines and all(line[3] == line[5] == "–" for line in lines):
        findings.blocks.append(
            note(f"{name} by {CELLS[by]}, {prompts}: a prompt each, which gives no interval; see rows.parquet.")
        )
        return
    if 1 < len(bars) <= 12:
        groups = [{"label": country, "bars": each} for country, each in sorted(bars.items())]
        title = f"{name} by {CELLS[by]}, pooled, {prompts}"
        findings.blocks.append(plot("bars", title, groups=groups, percent=name in SHARES))
    head = [CELLS[by], "model", name, "95 % interval", "pooled", "95 % interval", "n"]
    title = f"{name} by {CELLS[by]}, {prompts} (not corrected for their number)"
    findings.blocks.append(table(title, head, lines))
