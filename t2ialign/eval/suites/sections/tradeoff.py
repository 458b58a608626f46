"""The section on trade-offs: what each model has of prompt following and of diversity at once.

Law of this file: both axes are of the same prompts; a point lies on the front with a probability over resamples, for
its values are estimates. Models that differ in guidance, steps or checkpoint are points like any others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.config import option
from t2ialign.eval.pairs import shared_scorers
from t2ialign.eval.suites.findings import Findings, cell, note, number, percent, plot, span, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.pareto import FrontPoint, Point
    from t2ialign.eval.suites.evidence import Evidence, Kind

NAME = "tradeoff"
DEFINITION = (
    "Across: the mean score over a prompt's pictures, by the first scorer. Up: the Vendi score (q = 1) of the same "
    "pictures in the embedder's features, averaged over prompts. A model is on the front if no other is at least as "
    "good in both and better in one; the probability is the share of bootstrap resamples over prompts in which it is."
)


@dataclass
class Options:
    """What is drawn."""

    prompts: list[str] = option([], "Prompt sets with several pictures of each prompt; all where none is named.")
    scorer: str | None = option(None, "Scorer of the axis across; the first that all models have.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Find the front of the models."""
    sets = [
        name
        for name in evidence.sets(options.prompts)
        if evidence.plan.suite.prompts[name].images_per_prompt > 1 and len(evidence.plan.prompts[name]) > 1
    ]
    if evidence.plan.suite.embedder is None or not sets:
        reason = "it takes an embedder, and a set of several prompts with several pictures each"
        return Findings.absent(NAME, SECTIONS[NAME], reason, DEFINITION)
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    for prompts in sets:
        _one_set(findings, evidence, options, prompts)
    return findings


def _one_set(findings: Findings, evidence: Evidence, options: Options, prompts: str) -> None:
    from t2ialign.eval.pareto import Axis, pareto_front

    base = evidence.scored(prompts, evidence.base)
    wanted = None if options.scorer is None else [options.scorer]
    kind = shared_scorers(base, [evidence.scored(prompts, label) for label in evidence.others], wanted)[0]
    higher = bool(base.infos.get(kind, {}).get("higher_is_better", True))
    axes = [Axis(kind[0], higher=higher), Axis("diversity")]
    points = [_point(evidence, prompts, label, kind) for label in evidence.plan.labels]
    front = pareto_front(points, axes, seed=evidence.plan.seed)
    series, lines = [], []
    for each in front.points:
        shown, line = _shown(findings, each, prompts, kind, evidence, front.prompts)
        series.append(shown)
        lines.append(line)
    findings.blocks.append(
        plot("lines", f"{kind[0]} and diversity, {prompts}", series=series, x=kind[0], y="diversity", joined=False)
    )
    head = [
        "model",
        kind[0],
        "95 % interval",
        "diversity",
        "95 % interval",
        "on the front",
        "in how many resamples",
        "n",
    ]
    findings.blocks.append(table(f"Trade-off, {prompts}", head, lines))
    for said in front.notes:
        findings.blocks.append(note(f"{said[0].upper()}{said[1:].rstrip('.')}."))
    on = [each.label for each in front.points if each.on_front]
    findings.say(f"On the front of {kind[0]} and diversity: {', '.join(on)} ({prompts}, {front.prompts} prompts).")


def _point(evidence: Evidence, prompts: str, label: str, kind: Kind) -> Point:
    from t2ialign.eval.pareto import Point
    from t2ialign.eval.vendi import vendi_levels

    features = evidence.features(prompts, label)
    ids = [prompt_id for prompt_id, _ in features.keys]
    within = vendi_levels(features.values, ids, (1.0,), resamples=20, seed=evidence.plan.seed).within
    scores = evidence.scored(prompts, label).scores[kind]
    by_prompt: dict[str, list[float]] = {}
    for key in features.keys:
        by_prompt.setdefault(key[0], []).append(scores[key])
    means = [float(np.mean(by_prompt[str(prompt_id)])) for prompt_id in within.prompts]
    return Point(label, per_prompt={kind[0]: means, "diversity": within.per_prompt[1.0]})


def _shown(
    findings: Findings, each: FrontPoint, prompts: str, kind: Kind, evidence: Evidence, n: int
) -> tuple[Mapping[str, Any], list[Any]]:
    shared: dict[str, Any] = {"key": (prompts, each.label), "n": n, "model": each.label, "prompts": prompts}
    rows = {}
    for axis, value in each.values.items():
        interval = each.intervals[axis]
        rows[axis] = findings.add(
            f"{axis}_mean",
            value,
            low=None if interval is None else interval.low,
            high=None if interval is None else interval.high,
            scorer=f"{kind[0]} ({kind[1]})" if axis == kind[0] else str(evidence.plan.suite.embedder),
            method="mean over prompts; bootstrap over prompts",
            **shared,
        )
    share = findings.add("front_membership", float(each.membership or 0.0), method="share of resamples", **shared)
    score, diversity = rows[kind[0]], rows["diversity"]
    point = {
        "label": each.label,
        "x": score.value,
        "value": diversity.value,
        "low": diversity.low,
        "high": diversity.high,
        "row": diversity.id,
    }
    line = [
        each.label,
        cell(number(score.value), score),
        cell(span(score.low, score.high), score),
        cell(number(diversity.value), diversity),
        cell(span(diversity.low, diversity.high), diversity),
        "yes" if each.on_front else "no",
        cell(percent(share.value), share),
        str(n),
    ]
    return {"label": each.label, "points": [point]}, line
