"""Synthetic users of the mini-world, who like some colours, backgrounds and continents more than others.

Law of this room: a user's taste is a function of the user's name alone, so a choice can be made
again, and a model's pictures can be held against the taste of users it never saw.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from t2ialign.mini.flags import CONTINENTS, FLAGS
from t2ialign.mini.world import BACKGROUND_COLORS, OBJECT_COLORS, SIZES, Spec

COUNT = 48
TEST_COUNT = 8
"""The last users, whose pairs make the test split; no pair of theirs is in another one."""
STEEPNESS = 2.5
"""Slope of the logistic law by which a difference in utility becomes a choice."""
SPREAD = {"color": 1.0, "background": 0.8, "size": 0.6, "continent": 1.2}
"""Standard deviation over users of what an attribute's values are worth."""


def user_ids(split: str | None = None) -> list[str]:
    """Name the users of a split, `"train"` or `"test"`, or all of them."""
    names = [f"user-{i:02d}" for i in range(COUNT)]
    if split is None:
        return names
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r} is unknown; the users are split into 'train' and 'test'")
    return names[-TEST_COUNT:] if split == "test" else names[:-TEST_COUNT]


@dataclass(frozen=True)
class Taste:
    """What each value of each attribute is worth to a user, in nats of choice before `STEEPNESS`."""

    color: dict[str, float]
    background: dict[str, float]
    size: dict[str, float]
    continent: dict[str, float]

    def utility(self, spec: Spec) -> float:
        """Return how much the user likes a picture with these attributes."""
        if spec.kind == "flag":
            return self.continent[FLAGS[spec.country].continent] if spec.country else 0.0
        colors = [self.color[t.color] for t in spec.things if t.color]
        sizes = [self.size[t.size] for t in spec.things if t.size]
        ground = self.background[spec.background] if spec.background else 0.0
        return float(np.mean(colors)) + ground + sum(sizes) if colors else ground + sum(sizes)

    def prefers(self, first: Spec, second: Spec) -> float:
        """Return the probability in (0, 1) that the user takes the first picture of the two."""
        return 1.0 / (1.0 + math.exp(-STEEPNESS * (self.utility(first) - self.utility(second))))


@lru_cache(maxsize=COUNT)
def taste(user_id: str) -> Taste:
    """Return a user's taste.

    Raises:
        KeyError: If there is no such user.
    """
    if user_id not in user_ids():
        raise KeyError(f"{user_id!r} is no user of the mini-world; they are user-00 to user-{COUNT - 1}")
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big"))

    def worth(name: str, values: tuple[str, ...]) -> dict[str, float]:
        drawn = rng.normal(0.0, SPREAD[name], len(values))
        return {v: float(x) for v, x in zip(values, drawn - drawn.mean(), strict=True)}

    return Taste(
        worth("color", tuple(OBJECT_COLORS)),
        worth("background", tuple(BACKGROUND_COLORS)),
        worth("size", SIZES),
        worth("continent", CONTINENTS),
    )
