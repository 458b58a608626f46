"""Which of two pictures is preferred: marks in, a verdict with its reason out. Pure functions.

Law of this file: the verdict on two pictures is that on the swapped ones, turned round; a mark that was not given is
never filled in; equal marks are a tie, whatever the weights.

The difference of two pictures in aspect a is d_a = w_a (m_a(first) - m_a(second)) / sum |w|, and the margin is
sum_a d_a: linear scalarisation by a direction w in the space of aspects, which is also how Directional Preference
Alignment (arXiv 2402.18571) states what someone wants; it takes unit vectors, which prefer the same pictures. Dividing
by sum |w| keeps the margin on the scale of the marks. With `dominance` the margin counts only where no d_a points
the other way: Pareto dominance along the direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

Marks = Mapping[str, float | None]
"""Marks of one picture by aspect."""
Passes = Sequence[tuple[Marks, Marks]]
"""The marks of the two pictures in each pass of an annotator."""

PICTURE_MISSING = "picture_missing"
SAME_PICTURE = "same_picture"
RATING_MISSING = "rating_missing"
ONE_ORDER = "one_order_only"
PASSES_DISAGREE = "passes_disagree"
ASPECTS_DISAGREE = "aspects_disagree"
TIE = "tie"
BELOW_MARGIN = "below_margin"
BOTH_VETOED = "both_vetoed"
VETOED = "preferred_one_vetoed"
NOT_SELECTED = "not_selected"
OVER_LIMIT = "over_limit"

REASONS = {
    PICTURE_MISSING: "a picture's file is not there",
    SAME_PICTURE: "the same picture on both sides",
    RATING_MISSING: "a mark that is needed was not given",
    ONE_ORDER: "judged in one of two orders only",
    PASSES_DISAGREE: "the passes of an annotator, in two orders, do not agree",
    ASPECTS_DISAGREE: "aspects point in opposite directions",
    TIE: "ties",
    BELOW_MARGIN: "difference below the margin",
    BOTH_VETOED: "both pictures vetoed",
    VETOED: "the marks prefer a vetoed picture",
    NOT_SELECTED: "not among the pairs that were chosen of the prompt",
    OVER_LIMIT: "over the limit of pairs of a prompt",
}
"""Every reason for which a candidate is dropped, in words, in the order in which they are told."""

_ROUNDING = 1e-12
"""A margin this small beside what it is the sum of is a tie: floating point, no judgement."""


@dataclass(frozen=True)
class Rule:
    """How a pair of pictures is decided.

    Attributes:
        aspect: What the pairs say that was judged.
        weights: Weight of each aspect that counts; not 0.
        scale: What the marks of an annotator in an aspect are multiplied by first, by (annotator, aspect); 1 where
            there is none.
        threshold: Least margin, 0 or more.
        dominance: Whether no aspect may point the other way.
        consistent: Whether the passes of an annotator must agree in sign; otherwise they are averaged, or each votes.
        votes: Whether the number of votes decides, and not the mean margin.
        veto: For each aspect the mark at and below which a picture is vetoed.
        overturn: Whether a vetoed picture loses whatever the marks say; otherwise such a pair is dropped.
    """

    aspect: str
    weights: Mapping[str, float]
    scale: Mapping[tuple[str, str], float] = field(default_factory=dict)
    threshold: float = 0.0
    dominance: bool = False
    consistent: bool = True
    votes: bool = False
    veto: Mapping[str, float] = field(default_factory=dict)
    overturn: bool = False


@dataclass(frozen=True)
class Verdict:
    """What was decided of two pictures.

    Attributes:
        sign: 1 where the first is preferred, -1 where the second, 0 where neither.
        margin: Mean margin, first minus second; `None` where there is none.
        share: Share of votes for the first, in [0, 1]; `None` where votes were not counted.
        reason: Why there is no preference, of `REASONS`; empty where there is one.
        by_veto: Whether the veto decided, and not the marks.
    """

    sign: int = 0
    margin: float | None = None
    share: float | None = None
    reason: str = ""
    by_veto: bool = False


def decide(
    rule: Rule,
    voices: Mapping[str, Passes],
    twice: frozenset[str] = frozenset(),
    vetoed: tuple[bool | None, bool | None] = (False, False),
) -> Verdict:
    """Decide a pair of pictures.

    Args:
        rule: The rule.
        voices: The marks of both pictures in each pass of each annotator.
        twice: Annotators that were asked in two orders; with `consistent` one order alone does not count.
        vetoed: Whether each picture is vetoed (see `is_vetoed`); `None` where it is not known.
    """
    verdict = _by_marks(rule, voices, twice)
    if not rule.veto or verdict.reason == RATING_MISSING:
        return verdict
    if None in vetoed:
        return Verdict(reason=RATING_MISSING)
    if all(vetoed):
        return Verdict(margin=verdict.margin, share=verdict.share, reason=BOTH_VETOED)
    if not any(vetoed):
        return verdict
    right = -1 if vetoed[0] else 1
    if verdict.sign == right:
        return verdict
    if rule.overturn:
        return Verdict(right, verdict.margin, None, "", by_veto=True)
    return replace(verdict, sign=0, reason=VETOED) if verdict.reason in ("", TIE) else verdict


def is_vetoed(veto: Mapping[str, float], marks: Mapping[str, Sequence[Marks]]) -> bool | None:
    """Tell whether a picture is vetoed.

    An annotator vetoes it who in any pass gave it a mark at or below the limit in any of the aspects; it is vetoed
    when at least half of the annotators who marked it do.

    Args:
        veto: Limit of each aspect.
        marks: The picture's marks in each pass of each annotator.

    Returns:
        `None` where an aspect of the veto has no mark by anyone, or nothing tells.
    """
    if not veto:
        return False
    ballots = []
    for passes in marks.values():
        given = [[each[aspect] for each in passes if each.get(aspect) is not None] for aspect in veto]
        low = any(
            mark is not None and mark <= limit
            for limit, found in zip(veto.values(), given, strict=True)
            for mark in found
        )
        if low or all(given):
            ballots.append(low)
    return 2 * sum(ballots) >= len(ballots) if ballots else None


def _by_marks(rule: Rule, voices: Mapping[str, Passes], twice: frozenset[str]) -> Verdict:
    views: list[tuple[float, ...]] = []
    failed: set[str] = set()
    for voice, passes in sorted(voices.items()):
        complete = [found for marks in passes if (found := _differences(rule, voice, *marks)) is not None]
        if not complete:
            failed.add(RATING_MISSING)
        elif rule.consistent and voice in twice and len(complete) < 2:
            failed.add(ONE_ORDER)
        elif rule.consistent and len({_sign(each) for each in complete}) > 1:
            failed.add(PASSES_DISAGREE)
        elif rule.votes and not rule.consistent:
            views += complete
        else:
            views.append(_mean(complete))
    if not views:
        return Verdict(reason=next(each for each in (PASSES_DISAGREE, ONE_ORDER, RATING_MISSING) if each in failed))
    return _counted(rule, views) if rule.votes else _classified(rule, _mean(views))


def _differences(rule: Rule, voice: str, first: Marks, second: Marks) -> tuple[float, ...] | None:
    """The weighted difference in each aspect; `None` where a mark is missing."""
    total = math.fsum(abs(weight) for weight in rule.weights.values())
    found = []
    for aspect, weight in sorted(rule.weights.items()):
        one, two = first.get(aspect), second.get(aspect)
        if one is None or two is None:
            return None
        found.append(weight * rule.scale.get((voice, aspect), 1.0) * (one - two) / total)
    return tuple(found)


def _mean(vectors: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(math.fsum(column) / len(vectors) for column in zip(*vectors, strict=True))


def _margin(differences: tuple[float, ...]) -> float:
    margin = math.fsum(differences)
    return 0.0 if abs(margin) <= _ROUNDING * math.fsum(map(abs, differences)) else margin


def _sign(differences: tuple[float, ...]) -> int:
    margin = _margin(differences)
    return (margin > 0) - (margin < 0)


def _classified(rule: Rule, differences: tuple[float, ...]) -> Verdict:
    margin = _margin(differences)
    if rule.dominance and min(differences) < 0 < max(differences):
        return Verdict(margin=margin, reason=ASPECTS_DISAGREE)
    if margin == 0:
        return Verdict(margin=0.0, reason=TIE)
    if abs(margin) < rule.threshold * (1 - 1e-9):
        return Verdict(margin=margin, reason=BELOW_MARGIN)
    return Verdict(1 if margin > 0 else -1, margin)


def _counted(rule: Rule, views: Sequence[tuple[float, ...]]) -> Verdict:
    """Count votes; a view without a preference is half a vote for each side."""
    votes = [_classified(rule, view) for view in views]
    share = (len(votes) + sum(vote.sign for vote in votes)) / (2 * len(votes))
    margin = _margin(_mean(views))
    if not any(vote.sign for vote in votes):
        reason = next((vote.reason for vote in votes if vote.reason != TIE), TIE)
        return Verdict(0, margin, share, reason)
    if share == 0.5:
        return Verdict(0, margin, share, TIE)
    return Verdict(1 if share > 0.5 else -1, margin, share)


def soft_label(margin: float, beta: float) -> float:
    """Return sigmoid(beta * margin): the probability of Bradley and Terry that the picture with the margin wins."""
    x = beta * margin
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
