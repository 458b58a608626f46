"""Candidates: every two pictures of a prompt that were judged together, decided, chosen of, and counted.

Law of this file: candidates are those that became pairs and those that were dropped, each under one reason, and
nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from t2ialign.annotation import draws
from t2ialign.annotation import pair_rules as rules
from t2ialign.annotation.judgements import Judgement, Judgements
from t2ialign.annotation.pair_choice import CHOICES, Pair, at_most
from t2ialign.annotation.pair_options import PairOptions
from t2ialign.annotation.pair_rules import Rule
from t2ialign.data.columns import TIE
from t2ialign.data.near_duplicates import normalised


@dataclass
class Tally:
    """What became of the candidates.

    Attributes:
        candidates_of: How many there were, by (aspect, user).
        written_of: How many became pairs, by (aspect, user).
        dropped_of: How many were dropped, by (aspect, user) and reason.
    """

    candidates_of: Counter[tuple[str, str]] = field(default_factory=Counter)
    written_of: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped_of: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @property
    def candidates(self) -> int:
        """All candidates."""
        return self.candidates_of.total()

    @property
    def written(self) -> int:
        """All pairs."""
        return self.written_of.total()

    @property
    def dropped(self) -> dict[str, int]:
        """Dropped candidates by reason, in the order of `REASONS`."""
        total: Counter[str] = Counter()
        for counts in self.dropped_of.values():
            total.update(counts)
        return {reason: total[reason] for reason in rules.REASONS if total[reason]}

    def told(self) -> str:
        """Say what was dropped, in a line."""
        return "; ".join(f"{count:,} {rules.REASONS[reason]}" for reason, count in self.dropped.items()) or "none"

    def by(self, place: int) -> dict[str, dict[str, Any]]:
        """Return the counts by aspect (place 0) or by user (place 1)."""
        found: dict[str, dict[str, Any]] = {}
        for key, count in sorted(self.candidates_of.items()):
            each = found.setdefault(key[place], {"candidates": 0, "written": 0, "dropped": Counter()})
            each["candidates"] += count
            each["written"] += self.written_of[key]
            each["dropped"].update(self.dropped_of.get(key, {}))
        for each in found.values():
            each["dropped"] = {name: each["dropped"][name] for name in rules.REASONS if each["dropped"][name]}
        return found


Panel = tuple[str, str, str]
"""(prompt id, prompt, user); the user is empty where all annotators judge together."""


Sides = tuple[str, str]
_Voices = dict[str, list[tuple[rules.Marks, rules.Marks]]]
_Candidates = tuple[dict[Sides, _Voices], dict[str, dict[str, list[rules.Marks]]]]


def select(options: PairOptions, judgements: Judgements, decided: Sequence[Rule]) -> tuple[list[Pair], Tally]:
    """Decide every candidate and choose of them.

    Returns:
        The pairs, sorted, and what became of all candidates.
    """
    panels: dict[Panel, list[Judgement]] = defaultdict(list)
    for each in judgements.found:
        panels[each.prompt_id, each.prompt, each.voice if options.annotators == "each" else ""].append(each)
    tally = Tally()
    kept: list[Pair] = []
    for panel, members in sorted(panels.items()):
        candidates = _candidates(members)
        for rule in decided:
            found = list(_decided(options, panel, candidates, rule, judgements, tally))
            chosen = CHOICES[options.choose](found, options.seed)
            _drop(tally, found, chosen, rules.NOT_SELECTED)
            kept += chosen
    if options.pairs_per_prompt is not None:
        few = at_most(kept, options.pairs_per_prompt, lambda pair: normalised(pair.prompt), options.seed)
        _drop(tally, kept, few, rules.OVER_LIMIT)
        kept = few
    for pair in kept:
        tally.written_of[pair.aspect, pair.user or ""] += 1
    return sorted(kept, key=Pair.name), tally


def _drop(tally: Tally, before: Sequence[Pair], after: Sequence[Pair], reason: str) -> None:
    stay = {pair.name() for pair in after}
    for pair in before:
        if pair.name() not in stay:
            tally.dropped_of[pair.aspect, pair.user or ""][reason] += 1


def _decided(
    options: PairOptions,
    panel: Panel,
    candidates: _Candidates,
    rule: Rule,
    judgements: Judgements,
    tally: Tally,
) -> Iterator[Pair]:
    """Decide the candidates of a prompt; count those that are dropped."""
    key = (rule.aspect, panel[2])
    together, marks = candidates
    vetoed = {picture: rules.is_vetoed(rule.veto, given) for picture, given in marks.items()}
    for (first, second), voices in sorted(together.items()):
        tally.candidates_of[key] += 1
        if first == second:
            reason = rules.SAME_PICTURE
        elif first not in judgements.files or second not in judgements.files:
            reason = rules.PICTURE_MISSING
        else:
            verdict = rules.decide(rule, voices, judgements.twice, (vetoed[first], vetoed[second]))
            pair = _pair(options, panel, rule, (first, second), verdict, vetoed)
            if pair is not None:
                yield pair
                continue
            reason = verdict.reason or rules.TIE
        tally.dropped_of[key][reason] += 1


def _candidates(members: Sequence[Judgement]) -> _Candidates:
    """Return each two pictures that were judged together with their marks, and the marks of each picture."""
    together: dict[Sides, _Voices] = {}
    marks: dict[str, dict[str, list[rules.Marks]]] = {}
    for each in members:
        rows = [(picture, each.of(place)) for place, picture in enumerate(each.pictures)]
        rows.sort(key=lambda row: row[0])
        for picture, given in rows:
            marks.setdefault(picture, {}).setdefault(each.voice, []).append(given)
        for (first, one), (second, two) in combinations(rows, 2):
            together.setdefault((first, second), {}).setdefault(each.voice, []).append((one, two))
    return together, marks


def _pair(
    options: PairOptions,
    panel: Panel,
    rule: Rule,
    sides: Sides,
    verdict: rules.Verdict,
    vetoed: Mapping[str, bool | None],
) -> Pair | None:
    """Make the pair of a verdict; `None` where there is none to write."""
    sign, keeps = verdict.sign, options.ties == "keep"
    by_margin = options.soft_labels and not (rule.votes or verdict.by_veto)
    if sign and by_margin and rules.soft_label(abs(verdict.margin or 0.0), options.beta) <= TIE:
        verdict, sign = replace(verdict, sign=0, reason=rules.TIE), 0  # too small for the label to show it
    if sign == 0 and not (verdict.reason == rules.TIE and keeps):
        return None
    toward = 0.0 if verdict.margin is None else sign * verdict.margin
    share = verdict.share
    won = 1.0 if share is None or verdict.by_veto else share if sign > 0 else 1 - share
    probability: float | None = None
    if sign == 0:
        probability = TIE
    elif not options.soft_labels:
        probability = 1.0 if keeps else None
    else:
        probability = rules.soft_label(toward, options.beta) if by_margin else won
    forward = sign > 0 or (sign == 0 and draws.number(options.seed, "tie", *panel, rule.aspect, *sides) % 2 == 0)
    chosen, rejected = sides if forward else sides[::-1]
    return Pair(
        prompt_id=panel[0],
        prompt=panel[1],
        user=panel[2] or None,
        aspect=rule.aspect,
        chosen=chosen,
        rejected=rejected,
        tie=sign == 0,
        margin=_told_margin(verdict, toward),
        strength=(float(bool(vetoed[rejected])), won, toward),
        probability=probability,
        by_veto=verdict.by_veto,
    )


def _told_margin(verdict: rules.Verdict, toward: float) -> float | None:
    """The margin as it is written: null where it is not what decided."""
    if verdict.sign == 0:
        return None if verdict.margin else 0.0
    return toward if toward > 0 and not verdict.by_veto else None


__all__ = ["Tally", "select"]
