"""What is counted of annotations: `report.json`, whose keys are explained in docs/annotate.md.

Law of this file: counts are of all that the folder holds, whichever run made it, but for `this_run`. The unit is the
prompt: a share that is an estimate carries its count and an interval over prompts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from t2ialign.annotation.annotations import HIGHEST, LOWEST, Annotation

REPORT = "report.json"
_Z = 1.959963984540054
"""Quantile of the normal distribution for an interval of 95 %."""


@dataclass
class Tally:
    """Counts annotations as they are written.

    Attributes:
        written: Annotations so far.
        ok: Those in which no rating is missing.
        problems: The others by their problem.
        marks: For each aspect its ratings, counted; whole numbers by themselves, others by the nearest; `None` is
            counted as missing.
    """

    written: int = 0
    ok: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    marks: dict[str, Counter[int | None]] = field(default_factory=lambda: defaultdict(Counter))
    _first: Annotation | None = None
    _swaps: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )

    def add(self, annotation: Annotation) -> None:
        """Count one; the two passes over a sheet come one after the other."""
        self.written += 1
        self.ok += annotation.ok
        if annotation.problem:
            self.problems[annotation.problem] += 1
        for aspect, ratings in annotation.ratings.items():
            self.marks[aspect].update(None if rating is None else round(rating) for rating in ratings)
        if annotation.order == 0:
            self._first = annotation
        elif self._first is not None and self._first.images == annotation.images:
            for aspect in annotation.ratings:
                found = compare_passes(self._first.ratings.get(aspect, []), annotation.ratings[aspect])
                self._swaps[aspect][annotation.prompt_id].update(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "annotations": {"written": self.written, "ok": self.ok, "not_ok": dict(self.problems)},
            "aspects": {aspect: _marks(counts) for aspect, counts in self.marks.items()},
        } | ({"swap": {aspect: swap_report(counts) for aspect, counts in self._swaps.items()}} if self._swaps else {})


def _marks(counts: Counter[int | None]) -> dict[str, Any]:
    numbers = {str(mark): counts[mark] for mark in range(LOWEST, HIGHEST + 1)}
    return {"rated": sum(numbers.values()), "missing": counts[None], "ratings": numbers}


def compare_passes(first: Sequence[float | None], second: Sequence[float | None]) -> Counter[str]:
    """Compare the order that two passes give to each pair of pictures, both in the set's order.

    Returns:
        `pairs` with both ratings in both passes; of these `same` (the same one better, or a tie in both), `opposite`,
        and `one_tie`.
    """
    found: Counter[str] = Counter()
    for j in range(min(len(first), len(second))):
        for i in range(j):
            values = (first[i], first[j], second[i], second[j])
            if any(value is None for value in values):
                continue
            a, b, c, d = (float(value) for value in values if value is not None)
            one, two = (a > b) - (a < b), (c > d) - (c < d)
            found["pairs"] += 1
            found["same" if one == two else "opposite" if one == -two else "one_tie"] += 1
    return found


def swap_report(by_prompt: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the counts of all prompts, and the share of pairs whose order is the same in both passes."""
    total: Counter[str] = Counter()
    for counts in by_prompt.values():
        total.update(counts)
    told = {name: total[name] for name in ("pairs", "same", "opposite", "one_tie")}
    units = [(counts.get("same", 0), counts["pairs"]) for counts in by_prompt.values() if counts.get("pairs")]
    share = told["same"] / told["pairs"] if told["pairs"] else None
    return {"prompts": len(units), **told, "consistency": share, "interval": clustered_share_interval(units)}


def clustered_share_interval(units: Sequence[tuple[int, int]]) -> list[float] | None:
    """Return a 95 % interval of a share of pairs, where pairs of a prompt belong together.

    The variance is that of a ratio over clusters (Cochran, Sampling Techniques, 3rd ed., 6.13); it says how many
    independent pairs these are worth, as Korn and Graubard (1998) do, and Wilson's interval is taken for so many.
    Where all prompts agree, they are worth one pair each.

    Args:
        units: For each prompt the pairs that count, and all its pairs, at least one.

    Returns:
        Both ends in [0, 1]; `None` for fewer than two prompts.
    """
    count, total = len(units), sum(pairs for _, pairs in units)
    if count < 2:
        return None
    share = sum(same for same, _ in units) / total
    variance = count / (count - 1) * sum((same - share * pairs) ** 2 for same, pairs in units) / total**2
    worth = min(share * (1 - share) / variance, float(total)) if variance > 0 else float(count)
    middle = (share + _Z**2 / (2 * worth)) / (1 + _Z**2 / worth)
    half = _Z / (1 + _Z**2 / worth) * math.sqrt(share * (1 - share) / worth + _Z**2 / (4 * worth**2))
    return [max(0.0, middle - half), min(1.0, middle + half)]
