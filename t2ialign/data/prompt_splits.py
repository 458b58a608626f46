"""Splitting by prompt: which split a prompt belongs to, so that none is both trained and tested on.

Law of this file: the split of a prompt is a function of its normalised text, the seed and the shares alone, whatever
other prompts there are and in whatever order; the one exception are near-duplicates, which go where the first of them
in the alphabet goes.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from t2ialign.data.near_duplicates import THRESHOLD, NearDuplicates, near_duplicates, normalised
from t2ialign.errors import ConfigError

EXAMPLES = 5
"""How many groups of near-duplicates are shown."""


@dataclass(frozen=True)
class PromptSplits:
    """Which split each prompt belongs to.

    Attributes:
        names: The splits, in the order given.
        counts: Different prompts, by their normalised text, in each split.
        near: The near-duplicates that were kept together.
        moved: Prompts that are in another split than they would be in without their near-duplicates.
    """

    names: tuple[str, ...]
    counts: dict[str, int]
    near: NearDuplicates
    moved: int
    _of: dict[str, str] = field(repr=False)

    def __getitem__(self, prompt: str) -> str:
        """Return the split of one of the prompts that were split.

        Raises:
            KeyError: If it was none of them.
        """
        return self._of[normalised(prompt)]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: what was found, not where each prompt went."""
        return {
            "prompts": dict(self.counts),
            "near_duplicates": {
                "threshold": self.near.threshold,
                "prompts": self.near.count,
                "groups": len(self.near.groups),
                "largest": self.near.largest,
                "moved": self.moved,
                "examples": [list(group[:EXAMPLES]) for group in self.near.groups[:EXAMPLES]],
            },
        }


def split_prompts(
    prompts: Iterable[str], shares: Mapping[str, float], seed: int = 0, threshold: float | None = THRESHOLD
) -> PromptSplits:
    """Split prompts so that neither a prompt nor a near-duplicate of it is in two splits.

    Args:
        prompts: The prompts; those that are normalised to the same text are one.
        shares: Share of each split; above 0, together 1.
        seed: Another seed gives another split.
        threshold: See `near_duplicates`; `None` leaves near-duplicates where they fall.

    Raises:
        ConfigError: If the shares are not above 0 or do not add up to 1.
    """
    check_shares(shares)
    texts = sorted({normalised(prompt) for prompt in prompts})
    near = near_duplicates(texts, threshold) if threshold is not None else NearDuplicates((), 1.0)
    alone = {text: own_split(text, shares, seed) for text in texts}
    of = dict(alone)
    for group in near.groups:
        of.update(dict.fromkeys(group, alone[group[0]]))
    counted = Counter(of.values())
    moved = sum(of[text] != alone[text] for text in texts)
    return PromptSplits(tuple(shares), {name: counted[name] for name in shares}, near, moved, of)


def own_split(prompt: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """Return the split of one prompt, near-duplicates aside.

    The first 53 bits of SHA-256 over the seed and the normalised text, as a number in [0, 1), are looked up in the
    cumulated shares.
    """
    digest = hashlib.sha256(f"{int(seed)}\x1f{normalised(prompt)}".encode("utf-8", "surrogatepass")).digest()
    place = (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)
    reached = 0.0
    for name, share in shares.items():
        reached += share
        if place < reached:
            return name
    return list(shares)[-1]


def check_shares(shares: Mapping[str, float]) -> None:
    """Refuse shares that are not above 0 or do not add up to 1, and names that no split may have.

    Raises:
        ConfigError: It names the split.
    """
    if not shares:
        raise ConfigError("no split is given; write for instance train=0.9,test=0.1")
    for name, share in shares.items():
        if not name.isidentifier():
            raise ConfigError(f"split {name!r}: use letters, digits and underscores, as in train=0.9,test=0.1")
        if not (math.isfinite(share) and share > 0):
            raise ConfigError(f"the share of split {name!r} is {share}; it must be above 0")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"the shares of the splits add up to {sum(shares.values()):g}; they must add up to 1")


__all__ = ["PromptSplits", "check_shares", "own_split", "split_prompts"]
