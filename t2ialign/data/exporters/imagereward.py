"""ImageRewardDB's JSON: `id`, `prompt`, `generations`, `ranking`; pictures in `images/`.

Law of this file: pairs become one ranking where they say the order of every two of its pictures and do not contradict
each other; else each pair is a ranking of two. So nothing is said that the pairs did not say. Ties are equal ranks.
Users are kept in a further key, `user_id`, which its own code passes over.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from t2ialign.data.columns import TIE
from t2ialign.data.exporters.base import PairExport, Pictures, Target, named, rows, write_list
from t2ialign.data.pairs import PairDataset

Judged = tuple[str, str, float]
"""Two pictures, the lower name first, and whether the first is preferred: 1, 0, or 0.5 for neither."""


def export(pairs: PairDataset, target: Target, summary: PairExport) -> PairExport:
    """Write `SPLIT.json` and `images/`."""
    pictures = Pictures(target.folder / "images")
    groups: dict[tuple[str, str | None, str | None], list[Judged]] = {}
    for pair in rows(pairs, summary):
        first, second = (f"images/{name}" for name in named(pair, pictures))
        groups.setdefault((pair.prompt, pair.user, pair.aspect), []).append((first, second, pair.label))
        summary.pairs += 1
    entries: list[dict[str, Any]] = []
    for (prompt, user, _), judged in groups.items():
        for names, ranks in _rankings(judged):
            entry: dict[str, Any] = {"id": f"{len(entries):06d}-0000", "prompt": prompt}
            entry |= {"generations": names, "ranking": ranks}
            entries.append(entry if user is None else entry | {"user_id": user})
    write_list(target.folder / f"{target.split}.json", entries)
    summary.pictures = len(pictures)
    return summary.checked()


def _rankings(judged: list[Judged]) -> Iterator[tuple[list[str], list[int]]]:
    """Yield one ranking for all pairs, or one for each."""
    whole = whole_ranking(judged)
    if whole is not None:
        yield list(whole), list(whole.values())
        return
    for first, second, label in judged:
        yield [first, second], [1, 1] if label == TIE else [1, 2] if label else [2, 1]


def whole_ranking(judged: list[Judged]) -> dict[str, int] | None:
    """Return the rank of each picture if the pairs are exactly those of one ranking.

    Args:
        judged: Pairs of one prompt, by one user.

    Returns:
        Names to ranks, 1 being best, with gaps after ties; `None` if a pair is missing or there twice, or they
        contradict each other.
    """
    names = list(dict.fromkeys(name for first, second, _ in judged for name in (first, second)))
    said = {frozenset((first, second)): (first, label) for first, second, label in judged}
    if len(said) != len(judged) or len(judged) != len(names) * (len(names) - 1) // 2:
        return None
    better = dict.fromkeys(names, 0)
    for first, second, label in judged:
        better[second] += label == 1
        better[first] += label == 0
    ranks = {name: 1 + count for name, count in better.items()}
    for one, two in combinations(names, 2):
        first, label = said[frozenset((one, two))]
        preferred = label if first == one else 1 - label
        expected = TIE if ranks[one] == ranks[two] else float(ranks[one] < ranks[two])
        if preferred != expected:
            return None
    return ranks
