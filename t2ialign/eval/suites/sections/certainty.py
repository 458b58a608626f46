"""The section on certainty: what so many prompts can show, where scores vary, and a ranking of several models.

Law of this file: it concludes nothing about which model is better; it says how far the other sections can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.config import option
from t2ialign.eval import statistics
from t2ialign.eval.pairs import common_pairs, paired_scores, shared_scorers
from t2ialign.eval.power import prompts_to_settle
from t2ialign.eval.ranking import bradley_terry
from t2ialign.eval.suites.findings import Findings, cell, number, percent, plot, span_percent, table
from t2ialign.eval.suites.sections import SECTIONS
from t2ialign.eval.variance import split_variance

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence, Kind

NAME = "certainty"
DEFINITION = (
    "Prompts that would settle it: how many prompts show a win rate like the observed one with 80 % probability, "
    "two-sided at 5 %, if it is the true one; a rate that was found by looking for a large one is smaller in truth. "
    "Smallest win rate that can be shown: with the prompts that there are. Variance: the share of it that lies "
    "between prompts (the rest lies between seeds of one prompt); where it is large, more prompts help and more "
    "pictures of each do not. Ranking, with three models or more: Bradley and Terry's strengths with Davidson's ties, "
    "as odds against the base, with intervals over prompts."
)


@dataclass
class Options:
    """What is looked at."""

    prompts: list[str] = option([], "Prompt sets; all where none is named.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Measure power, the split of the variance, and a ranking."""
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    power: list[list[Any]] = []
    variance: list[list[Any]] = []
    for prompts in evidence.sets(options.prompts):
        if len(evidence.plan.prompts[prompts]) < 2:
            continue
        base = evidence.scored(prompts, evidence.base)
        for kind in shared_scorers(base, [evidence.scored(prompts, label) for label in evidence.others], None):
            scores, ids = _scores(evidence, prompts, kind)
            shared = {"prompts": prompts, "scorer": f"{kind[0]} ({kind[1]})"}
            power += [_power(findings, evidence.base, label, kind, scores, ids, shared) for label in evidence.others]
            if evidence.plan.suite.prompts[prompts].images_per_prompt > 1:
                variance += [_variance(findings, label, kind, scores[label], ids, shared) for label in scores]
            if len(scores) > 2:
                _ranking(findings, evidence, kind, scores, ids, shared)
    if not power:
        return Findings.absent(NAME, SECTIONS[NAME], "there is no set of 2 prompts or more", DEFINITION)
    head = [
        "model",
        "scorer",
        "prompts",
        "win rate",
        "n",
        "smallest rate that can be shown",
        "prompts that would settle it",
    ]
    findings.blocks.append(table("Power", head, power))
    if variance:
        head = [
            "model",
            "scorer",
            "prompts",
            "share between prompts",
            "95 % interval",
            "between prompts",
            "between seeds",
        ]
        findings.blocks.append(table("Variance of the scores", head, variance))
    return findings


def _scores(evidence: Evidence, prompts: str, kind: Kind) -> tuple[dict[str, list[float]], list[str]]:
    """Return every model's scores of the pictures that all have, higher being better, and their prompts."""
    base = evidence.scored(prompts, evidence.base)
    planned = evidence.records(prompts, evidence.base)
    shared = [key for key in base.records if key in planned]
    for label in evidence.others:
        there = set(common_pairs(base, evidence.scored(prompts, label)))
        shared = [key for key in shared if key in there]
    scores = {}
    for label in evidence.plan.labels:
        scores[label] = paired_scores(base, evidence.scored(prompts, label), kind, shared)[1]
    return scores, [prompt_id for prompt_id, _ in shared]


def _power(
    findings: Findings,
    base: str,
    label: str,
    kind: Kind,
    scores: dict[str, list[float]],
    ids: Sequence[str],
    shared: dict[str, Any],
) -> list[Any]:
    rate = statistics.win_rate(scores[base], scores[label], ids)
    needed = prompts_to_settle(rate.per_prompt, 0.5)
    words: dict[str, Any] = {
        "key": (shared["prompts"], kind[0], label),
        "model": label,
        "against": base,
        "n": needed.n,
    }
    smallest = findings.add(
        "detectable_win_rate", min(1.0, 0.5 + needed.detectable), method="two-sided 5 %, power 80 %", **words, **shared
    )
    cells: list[Any] = [label, kind[0], shared["prompts"], percent(rate.value), str(needed.n)]
    cells.append(cell(percent(smallest.value), smallest))
    if needed.needed is None:
        return [*cells, "no number: the rate is exactly 50 %"]
    settle = findings.add(
        "prompts_to_settle", needed.needed, method="normal approximation, power 80 %", **words, **shared
    )
    return [*cells, cell(f"{settle.value:,.0f}", settle)]


def _variance(
    findings: Findings, label: str, kind: Kind, scores: list[float], ids: Sequence[str], shared: dict[str, Any]
) -> list[Any]:
    name, prompts = kind[0], shared["prompts"]
    if min(scores) == max(scores):
        return [label, name, prompts, "all scores are equal", "–", "–", "–"]
    split = split_variance(scores, ids)
    words: dict[str, Any] = {"key": (prompts, name, label), "model": label, "n": split.n_prompts}
    share = findings.add(
        "variance_share_between_prompts",
        split.share,
        low=split.share_ci95[0],
        high=split.share_ci95[1],
        method="analysis of variance; percentile bootstrap over prompts",
        **words,
        **shared,
    )
    parts = [
        findings.add(f"variance_between_{which}", value, **words, **shared)
        for which, value in (("prompts", split.prompts), ("seeds", split.seeds))
    ]
    shown = [cell(percent(share.value), share), cell(span_percent(*split.share_ci95), share)]
    return [label, name, prompts, *shown, *(cell(number(row.value), row) for row in parts)]


def _ranking(
    findings: Findings,
    evidence: Evidence,
    kind: Kind,
    scores: dict[str, list[float]],
    ids: Sequence[str],
    shared: dict[str, Any],
) -> None:
    ranking = bradley_terry(scores, ids, anchor=evidence.base, seed=evidence.plan.seed)
    points: list[dict[str, Any]] = []
    lines: list[list[Any]] = []
    for each in ranking.strengths:
        row = findings.add(
            "strength",
            each.value,
            key=(shared["prompts"], kind[0], each.model),
            low=each.ci95[0],
            high=each.ci95[1],
            n=ranking.n,
            model=each.model,
            against=evidence.base,
            method="Bradley-Terry with Davidson's ties, log odds; percentile bootstrap over prompts",
            **shared,
        )
        points.append({"label": each.model, "value": row.value, "low": row.low, "high": row.high, "row": row.id})
        ranks = f"{each.rank_ci95[0]} to {each.rank_ci95[1]}"
        bounds = f"{each.ci95[0]:+.2f} to {each.ci95[1]:+.2f}"
        lines.append(
            [str(each.rank), each.model, cell(f"{each.value:+.2f}", row), cell(bounds, row), ranks, str(row.n)]
        )
    title = f"Ranking by {kind[0]}, {shared['prompts']}"
    findings.blocks.append(plot("intervals", f"{title}: log odds against the base", points=points, mark=0.0))
    head = ["rank", "model", "log odds", "95 % interval", "rank, 95 %", "n"]
    findings.blocks.append(table(title, head, lines))
