"""Of the pairs that a prompt has: which are written. Pure functions.

Law of this file: what is chosen does not depend on the order in which pairs come; between equals the seed decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from t2ialign.annotation import draws


@dataclass(frozen=True)
class Pair:
    """A pair that a rule has decided.

    Attributes:
        prompt_id: Id of the prompt.
        prompt: Its text.
        user: The annotator whose pair it is; `None` where all judged together.
        aspect: What was judged.
        chosen: The preferred picture, or either of a tie.
        rejected: The other.
        tie: Whether neither is preferred.
        margin: Chosen minus rejected; `None` where the marks do not say, which is so of pairs that the veto turned.
        strength: How far the two are apart, in order of importance; larger is farther.
        probability: For `preference_prob`; `None` where there is no such column.
        by_veto: Whether the veto decided.
    """

    prompt_id: str
    prompt: str
    user: str | None
    aspect: str
    chosen: str
    rejected: str
    tie: bool = False
    margin: float | None = None
    strength: tuple[float, ...] = ()
    probability: float | None = None
    by_veto: bool = False

    def name(self) -> tuple[str, ...]:
        """Return what tells it from all others, whichever side is chosen."""
        sides = sorted((self.chosen, self.rejected))
        return (self.prompt_id, self.prompt, self.user or "", self.aspect, *sides)


def best_worst(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Return the pair whose pictures are farthest apart; a tie only where there is nothing else."""
    if not pairs:
        return []
    return [max(pairs, key=lambda pair: (not pair.tie, pair.strength, draws.number(seed, *pair.name()), pair.name()))]


def ladder(pairs: Sequence[Pair], seed: int = 0) -> list[Pair]:
    """Return the pairs with no picture in between: none is preferred to the rejected and less than the chosen one.

    These are the steps of the ladder where the pairs come of one order, and the transitive reduction of the preference
    in general. Ties are steps too.
    """
    below: dict[str, set[str]] = defaultdict(set)
    above: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if not pair.tie:
            below[pair.chosen].add(pair.rejected)
            above[pair.rejected].add(pair.chosen)
    return [pair for pair in pairs if pair.tie or not below[pair.chosen] & above[pair.rejected]]


CHOICES: dict[str, Callable[[Sequence[Pair], int], list[Pair]]] = {
    "all": lambda pairs, seed: list(pairs),
    "best_worst": best_worst,
    "ladder": ladder,
}
"""The ways to choose, of the pairs of one prompt, user and aspect."""


def at_most(pairs: Sequence[Pair], limit: int, key: Callable[[Pair], Hashable], seed: int) -> list[Pair]:
    """Draw at most so many pairs of each group.

    Args:
        pairs: The pairs.
        limit: At most so many.
        key: The group of a pair.
        seed: The draw of a pair is a function of the seed and the pair alone, so pairs that are added displace few.
    """
    groups: dict[Hashable, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[key(pair)].append(pair)
    kept: set[tuple[str, ...]] = set()
    for members in groups.values():
        members.sort(key=lambda pair: (draws.number(seed, "limit", *pair.name()), pair.name()))
        kept.update(pair.name() for pair in members[:limit])
    return [pair for pair in pairs if pair.name() in kept]


def balance(counts: Iterable[int]) -> dict[str, Any]:
    """Say how evenly pairs are spread over prompts.

    Args:
        counts: Pairs of each prompt that has any.

    Returns:
        `prompts`, `least`, `median`, `most`, and `effective_prompts`: Kish's (sum n)^2 / sum n^2, the number of
        prompts of equal weight that would weigh as evenly, for in training every prompt weighs as its pairs.
    """
    from statistics import median

    found = sorted(counts)
    if not found:
        return {"prompts": 0, "least": 0, "median": 0.0, "most": 0, "effective_prompts": 0.0}
    effective = sum(found) ** 2 / sum(count * count for count in found)
    return {
        "prompts": len(found),
        "least": found[0],
        "median": float(median(found)),
        "most": found[-1],
        "effective_prompts": round(effective, 2),
    }
