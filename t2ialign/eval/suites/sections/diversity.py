"""The section on diversity: Vendi scores of each model's pictures, within prompts and of the whole set.

Law of this file: models are compared on the same prompts with the same number of pictures of each, in the features
of one named embedder; what grows with the number of pictures stands beside that number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.eval.statistics import clustered_bootstrap, holm, wilcoxon
from t2ialign.eval.suites.findings import Findings, Row, cell, number, plot, span, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence, Features
    from t2ialign.eval.vendi import VendiLevels

NAME = "diversity"
DEFINITION = (
    "The Vendi score is the effective number of different pictures, from the eigenvalues of their similarities "
    "(cosine of the embedder's features). Within prompts: the score of the pictures of each prompt, averaged over "
    "prompts; at most the number of pictures of a prompt. Of the set: all pictures together. Order q = 1 is the usual "
    "score; q = 2 weighs common pictures more and depends less on the number of pictures. Intervals are over "
    "prompts; a difference is called one if its 95 % interval excludes 0."
)


@dataclass
class Options:
    """What is measured."""

    prompts: list[str] = option([], "Prompt sets with several pictures of each prompt; all where none is named.")
    orders: list[float] = option([1.0, 2.0], "Orders q of the Vendi score; inf is allowed.")
    resamples: int = option(200, "Subsamples of the intervals of whole sets.")

    def __post_init__(self) -> None:
        """Refuse orders out of range."""
        for order in self.orders:
            if math.isnan(order) or order < 0:
                raise ConfigError(f"order {order} is no order of a Vendi score; give 0 or more")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Score every model's pictures, and the difference from the base."""
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    wanted = evidence.sets(options.prompts)
    sets = [name for name in wanted if evidence.plan.suite.prompts[name].images_per_prompt > 1]
    if evidence.plan.suite.embedder is None:
        return Findings.absent(NAME, SECTIONS[NAME], "no embedder is named (embedder in the suite, or --embedder)")
    if not sets:
        return Findings.absent(NAME, SECTIONS[NAME], "every prompt has one picture, which has no diversity")
    for prompts in sets:
        _one_set(findings, evidence, options, prompts)
    return findings


def _one_set(findings: Findings, evidence: Evidence, options: Options, prompts: str) -> None:
    features = {label: evidence.features(prompts, label) for label in evidence.plan.labels}
    levels = {label: _levels(evidence, options, each) for label, each in features.items()}
    embedder = features[evidence.base].embedder
    named = f"{embedder.get('scorer', 'embedder')} ({embedder.get('version', '')})"
    findings.info.setdefault(named, dict(embedder))
    shared: dict[str, Any] = {"prompts": prompts, "scorer": named}
    rows: dict[tuple[str, str, float], Row] = {}
    for label, each in levels.items():
        for order in options.orders:
            rows |= _of_model(findings, each, label, order, shared)
    differences = _differences(findings, evidence, options, features, levels, shared)
    pictures = levels[evidence.base].within.pictures
    _show(findings, evidence, options, prompts, rows, differences, pictures)


def _levels(evidence: Evidence, options: Options, features: Features) -> VendiLevels:
    from t2ialign.eval.vendi import vendi_levels

    ids = [prompt_id for prompt_id, _ in features.keys]
    return vendi_levels(features.values, ids, options.orders, resamples=options.resamples, seed=evidence.plan.seed)


def _of_model(
    findings: Findings, levels: VendiLevels, label: str, order: float, shared: dict[str, Any]
) -> dict[tuple[str, str, float], Row]:
    key = (shared["prompts"], label, f"q={order:g}")
    within, whole = levels.within, levels.whole
    interval, whole_interval = within.intervals[order], whole.intervals[order]
    return {
        (label, "within", order): findings.add(
            "vendi_within_prompts",
            within.scores[order],
            key=key,
            low=None if interval is None else interval.low,
            high=None if interval is None else interval.high,
            n=len(within.prompts),
            model=label,
            method=f"mean over prompts of the Vendi score of {within.pictures} pictures; BCa bootstrap over prompts",
            **shared,
        ),
        (label, "set", order): findings.add(
            "vendi_of_set",
            whole.scores[order],
            key=key,
            low=None if whole_interval is None else whole_interval.low,
            high=None if whole_interval is None else whole_interval.high,
            n=whole.prompts,
            model=label,
            method=f"Vendi score of {whole.n} pictures; subsampling of prompts, {whole.resamples} draws",
            **shared,
        ),
    }


def _differences(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    features: dict[str, Features],
    levels: dict[str, VendiLevels],
    shared: dict[str, Any],
) -> dict[tuple[str, str, float], Row]:
    base = evidence.base
    rows: dict[tuple[str, str, float], Row] = {}
    tests = {}
    for label in evidence.others:
        for order in options.orders:
            if len(levels[label].within.prompts) > 1:
                delta = levels[label].within.per_prompt[order] - levels[base].within.per_prompt[order]
                tests[label, order] = (delta, wilcoxon(delta))
    adjusted = dict(zip(tests, holm([test.p_value for _, test in tests.values()]), strict=True)) if tests else {}
    for (label, order), (delta, test) in tests.items():
        interval = clustered_bootstrap(delta, resamples=evidence.plan.resamples, seed=evidence.plan.seed)
        rows[label, "within", order] = findings.add(
            "vendi_within_prompts_difference",
            float(delta.mean()),
            key=(shared["prompts"], label, f"q={order:g}"),
            low=interval.low,
            high=interval.high,
            n=len(delta),
            model=label,
            against=base,
            p=test.p_value,
            p_holm=adjusted[label, order],
            method="BCa bootstrap over prompts; Wilcoxon's signed ranks",
            **shared,
        )
    rows |= _whole_differences(findings, evidence, options, features, shared)
    return rows


def _whole_differences(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    features: dict[str, Features],
    shared: dict[str, Any],
) -> dict[tuple[str, str, float], Row]:
    from t2ialign.eval.vendi import vendi_difference

    base = evidence.base
    rows: dict[tuple[str, str, float], Row] = {}
    for label in evidence.others:
        sides = [[prompt_id for prompt_id, _ in features[each].keys] for each in (base, label)]
        found = vendi_difference(
            features[base].values,
            features[label].values,
            sides[0],
            sides[1],
            options.orders,
            resamples=options.resamples,
            seed=evidence.plan.seed,
        )
        for order in options.orders:
            whole = found.intervals[order]
            rows[label, "set", order] = findings.add(
                "vendi_of_set_difference",
                found.scores[order],
                key=(shared["prompts"], label, f"q={order:g}"),
                low=None if whole is None else whole.low,
                high=None if whole is None else whole.high,
                n=found.prompts,
                model=label,
                against=base,
                method=f"subsampling of prompts, {found.resamples} draws",
                **shared,
            )
    return rows


def tone(row: Row) -> str:
    """Say whether a difference is shown, and which way: better, worse or open."""
    if row.low is None or row.high is None or row.low <= 0 <= row.high:
        return "open"
    return "better" if row.low > 0 else "worse"


def _show(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    prompts: str,
    rows: dict[tuple[str, str, float], Row],
    differences: dict[tuple[str, str, float], Row],
    pictures: int,
) -> None:
    words = {"within": f"within prompts ({pictures} pictures each)", "set": "of the whole set"}
    first = options.orders[0]
    for label in evidence.others:
        for level in ("within", "set"):
            change = differences.get((label, level, first))
            if change is None:
                continue
            pair = (rows[evidence.base, level, first], rows[label, level, first])
            figures = (
                f"{number(pair[0].value)} to {number(pair[1].value)}, difference {change.value:+.3g}, 95 % interval "
                f"{span(change.low, change.high)}, {change.n} prompts"
            )
            said = tone(change)
            what = f"diversity {words[level]} (Vendi, q = {first:g}, {prompts})"
            text = {
                "better": f"With {label}, {what} rises from {figures}.",
                "worse": f"With {label}, {what} falls from {figures}.",
                "open": f"No difference between {label} and {evidence.base} is shown in {what}: {figures}.",
            }[said]
            findings.say(text, [change, *pair], said, headline=level == "within")
    groups = [
        {
            "label": f"{words[level]}, q = {order:g}",
            "bars": [_bar(label, rows[label, level, order]) for label in evidence.plan.labels],
        }
        for level in ("within",)
        for order in options.orders
    ]
    findings.blocks.append(plot("bars", f"Effective number of pictures within a prompt, {prompts}", groups=groups))
    lines: list[list[Any]] = []
    for level in ("within", "set"):
        for order in options.orders:
            for label in evidence.plan.labels:
                row, change = rows[label, level, order], differences.get((label, level, order))
                lines.append(
                    [
                        words[level],
                        f"{order:g}",
                        label,
                        cell(number(row.value), row),
                        cell(span(row.low, row.high), row),
                        "–" if change is None else cell(f"{change.value:+.3g}", change),
                        "–" if change is None else cell(span(change.low, change.high), change),
                        str(row.n),
                    ]
                )
    head = ["level", "q", "model", "Vendi score", "95 % interval", "difference", "95 % interval", "n"]
    findings.blocks.append(table(f"Vendi scores, {prompts}", head, lines))


def _bar(label: str, row: Row) -> dict[str, Any]:
    return {"series": label, "value": row.value, "low": row.low, "high": row.high, "row": row.id}
