"""The section on cultural diversity: where pictures come from when the prompt does not say.

Law of this file: pictures are placed by a tagger that is named; a picture that it cannot place is counted and never
filled in. In the mini-world the tagger is the oracle, over flags; elsewhere it is CLIP over a concept space.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.config import option
from t2ialign.eval.culture.compare import compare_diversity
from t2ialign.eval.culture.diversity import measure_diversity
from t2ialign.eval.statistics import wilson
from t2ialign.eval.suites.findings import Findings, Row, cell, number, percent, plot, span, span_percent, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.culture.compare import DiversityDifference
    from t2ialign.eval.culture.diversity import DiversityReport, KernelDiversity
    from t2ialign.eval.culture.geotag import GeoTagger
    from t2ialign.eval.suites.evidence import Evidence

NAME = "culture"
DEFINITION = (
    "After CUBE (arXiv 2407.06863): prompts do not say where; a tagger says of each picture from which continent and "
    "country it is. Diversity is the Vendi score over the labels of 8 pictures, divided by 8, averaged over random "
    "orders and then over prompts: 1/8 if all pictures are from one place, 1 if all are from different ones. Pictures "
    "without a label have no place in it and are counted. With fewer than 10 prompts the interval is over seeds of "
    "these very prompts. A change is called one if its 95 % interval excludes 0."
)

MOST_COUNTRIES = 12
"""Countries that are drawn."""


@dataclass
class Options:
    """What is measured."""

    prompts: list[str] = option(
        [], "Sets of under-specified prompts, with many pictures each; all where none is named."
    )
    kernels: list[str] = option(["continent", "country", "hierarchical"], "Kernels; the first is the headline.")
    tagger: str = option("flags", "flags: the mini-world's oracle.", choices=("flags", "clip"))
    space: str | None = option(None, "Concept space for clip: `cube` (CUBE-1K's artifacts), or a CUBE-CSpace file.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Tag every model's pictures, measure diversity and compare with the base."""
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    wanted = evidence.sets(options.prompts)
    sets = [name for name in wanted if evidence.plan.suite.prompts[name].images_per_prompt >= 8]
    if not sets:
        return Findings.absent(NAME, SECTIONS[NAME], "it takes 8 pictures of a prompt, and no set has as many")
    if options.tagger == "flags" and (reason := next(filter(None, map(evidence.oracle_world, sets)), "")):
        return Findings.absent(NAME, SECTIONS[NAME], f"flags are of the mini-world, and {reason}")
    tagger = _tagger(evidence, options)
    findings.info[f"tagger {tagger.source}"] = dict(tagger.info())
    for prompts in sets:
        _one_set(findings, evidence, options, prompts, tagger)
    return findings


def _tagger(evidence: Evidence, options: Options) -> GeoTagger:
    if options.tagger == "flags":
        from t2ialign.eval.culture.flag_tagger import FlagTagger

        return FlagTagger()
    return _clip_tagger(evidence, options)


def _clip_tagger(evidence: Evidence, options: Options) -> GeoTagger:
    from t2ialign.errors import ConfigError
    from t2ialign.eval.culture.clip_tagger import ClipTagger
    from t2ialign.eval.culture.cspace import cube_space, read_cspace
    from t2ialign.eval.culture.cube import read_cube
    from t2ialign.eval.suites.public_prompts import public_files

    if options.space is None:
        raise ConfigError("the tagger clip needs a concept space; write space: cube, or the file of CUBE-CSpace")
    if options.space == "cube":
        space = cube_space(read_cube(public_files("cube", evidence.plan.data)[0]))
    else:
        space = read_cspace(Path(options.space).expanduser())
    return ClipTagger(evidence.embedder, space)


def _one_set(findings: Findings, evidence: Evidence, options: Options, prompts: str, tagger: GeoTagger) -> None:
    from t2ialign.eval.culture.geotag import tag_image_set

    plan = evidence.plan
    reports = {}
    for label in plan.labels:
        progress = plan.folder / "tags" / f"{prompts}-{label}.{tagger.source}.jsonl"
        progress.parent.mkdir(parents=True, exist_ok=True)
        tagged = tag_image_set(evidence.image_set(prompts, label), tagger, progress)
        reports[label] = measure_diversity(tagged, options.kernels, seed=plan.seed, resamples=plan.resamples)
    shared: dict[str, Any] = {"prompts": prompts, "scorer": tagger.source}
    lines = []
    for label, report in reports.items():
        for name in options.kernels:
            lines.append(_line(findings, report.kernels[name], label, shared))
    for label in evidence.others:
        _compare(findings, evidence, options, (reports[evidence.base], reports[label]), label, shared)
    head = ["kernel", "model", "diversity", "95 % interval", "interval over", "prompts", "pictures"]
    findings.blocks.append(table(f"Cultural diversity, {prompts}", head, lines))
    _places(findings, prompts, reports, shared)


def _line(findings: Findings, found: KernelDiversity, label: str, shared: dict[str, Any]) -> list[Any]:
    name = found.kernel.name
    if found.diversity is None:
        return [name, label, "none: too few pictures could be placed", "–", "–", "0", "0"]
    interval = found.diversity.interval
    row = findings.add(
        "cultural_diversity",
        found.diversity.value,
        key=(shared["prompts"], name, label),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        n=found.diversity.n_prompts,
        model=label,
        group=name,
        method=f"Vendi score over labels of 8 pictures, divided by 8; interval over {found.diversity.over}",
        **shared,
    )
    over = found.diversity.over if interval is not None else "–"
    figures = [cell(number(row.value), row), cell(span(row.low, row.high), row)]
    return [name, label, *figures, over, str(found.diversity.n_prompts), str(found.diversity.n_pictures)]


def _compare(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    pair: tuple[DiversityReport, DiversityReport],
    label: str,
    shared: dict[str, Any],
) -> None:
    from t2ialign.errors import DataError

    try:
        compared = compare_diversity(*pair, resamples=evidence.plan.resamples, seed=evidence.plan.seed)
    except DataError as error:
        findings.say(f"Cultural diversity of {label} and {evidence.base} ({shared['prompts']}): {error}.", tone="open")
        return
    for place, name in enumerate(options.kernels):
        if (found := compared.kernels.get(name)) is not None:
            _say(findings, found, label, evidence.base, shared, headline=place == 0)


def _say(
    findings: Findings, found: DiversityDifference, label: str, base: str, shared: dict[str, Any], *, headline: bool
) -> None:
    interval = found.difference.interval
    row = findings.add(
        "cultural_diversity_difference",
        found.difference.value,
        key=(shared["prompts"], found.kernel, label),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        n=found.difference.n_prompts,
        model=label,
        against=base,
        group=found.kernel,
        method=f"difference over common prompts; interval over {found.difference.over}",
        **shared,
    )
    said = {"falls": "worse", "rises": "better"}.get(found.verdict, "open")
    sentence = found.sentence(label)
    findings.say(f"{sentence[0].upper()}{sentence[1:]}, {shared['prompts']}.", [row], said, headline=headline)


def _places(findings: Findings, prompts: str, reports: dict[str, DiversityReport], shared: dict[str, Any]) -> None:
    """Show from which continents pictures are, and how many could not be placed."""
    names = list(dict.fromkeys(name for report in reports.values() for name in report.continents))
    names.sort(key=lambda name: -sum(report.continents.get(name, 0) for report in reports.values()))
    bars: list[dict[str, Any]] = []
    lines: list[list[Any]] = []
    for label, report in reports.items():
        n = report.coverage["continent"].n
        unplaced = n - report.coverage["continent"].labelled
        parts = []
        for name, count in [*((name, report.continents.get(name, 0)) for name in names), ("not placed", unplaced)]:
            row = _share(findings, name, count, n, label, shared)
            parts.append({"series": name, "value": row.value, "row": row.id})
            interval = cell(span_percent(row.low or 0.0, row.high or 0.0), row)
            lines.append([label, name, cell(percent(row.value), row), interval, f"{count} of {n}"])
        bars.append({"label": f"{label} ({n} pictures)", "parts": parts})
    findings.blocks.append(plot("stacked", f"Where pictures come from, {prompts}", lines=bars, muted="not placed"))
    head = ["model", "continent", "share", "95 % interval (Wilson, over pictures)", "pictures"]
    findings.blocks.append(table(f"Continents, {prompts}", head, lines))
    _country_bars(findings, prompts, reports, shared)
    countries: list[list[Any]] = []
    for label, report in reports.items():
        top = Counter(report.countries).most_common(5)
        said = ", ".join(f"{name} {count}" for name, count in top) or "none"
        row = findings.add(
            "countries", len(report.countries), key=(prompts, label), n=report.coverage["country"].n, unit="picture",
            model=label, method="different countries that were seen", **shared
        )  # fmt: skip
        countries.append([label, cell(f"{row.value:.0f}", row), said])
    findings.blocks.append(table(f"Countries, {prompts}", ["model", "different ones", "the commonest"], countries))


def _country_bars(
    findings: Findings, prompts: str, reports: dict[str, DiversityReport], shared: dict[str, Any]
) -> None:
    """Draw the commonest countries, each with its continent."""
    totals: Counter[str] = Counter()
    continents: dict[str, str] = {}
    for report in reports.values():
        totals.update(report.countries)
        continents |= report.country_continents
    groups = []
    for country, _ in totals.most_common(MOST_COUNTRIES):
        bars = []
        for label, report in reports.items():
            row = _share(
                findings, country, report.countries.get(country, 0), report.coverage["country"].n, label, shared
            )
            bars.append({"series": label, "value": row.value, "low": row.low, "high": row.high, "row": row.id})
        groups.append({"label": f"{country} ({continents[country]})", "bars": bars})
    if groups:
        title = f"The {len(groups)} commonest of {len(totals)} countries, share of all pictures, {prompts}"
        findings.blocks.append(plot("bars", title, groups=groups, percent=True))


def _share(findings: Findings, name: str, count: int, n: int, label: str, shared: dict[str, Any]) -> Row:
    low, high = wilson(count, n)
    return findings.add(
        "share",
        count / n,
        key=(shared["prompts"], label, name),
        low=low,
        high=high,
        n=n,
        unit="picture",
        model=label,
        group=name,
        method="Wilson over pictures; pictures of one prompt are taken for independent",
        **shared,
    )
