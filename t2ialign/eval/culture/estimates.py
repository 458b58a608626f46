"""Means over prompts with their two intervals: for other prompts of the kind, and for other seeds of these prompts.

Law of this file: an interval that the data cannot give is `None`; each figure has its numbers of prompts and pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from t2ialign.eval.statistics import Interval, clustered_bootstrap

Over = Literal["prompts", "seeds"]
MIN_PROMPTS = 10
"""Prompts from which the interval over prompts is the one to read; a bootstrap over fewer is too narrow."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts.

    Attributes:
        value: The mean.
        n_prompts: Prompts in it.
        n_pictures: Pictures in it.
        over_prompts: 95 % interval for prompts of this kind (BCa bootstrap over prompts); `None` with one prompt.
        over_seeds: 95 % interval for these very prompts and other seeds (jackknife over pictures, Student's t);
            `None` where a prompt has a single picture.
    """

    value: float
    n_prompts: int
    n_pictures: int
    over_prompts: Interval | None
    over_seeds: Interval | None

    @property
    def over(self) -> Over:
        """What `interval` speaks of: prompts from `MIN_PROMPTS` on or where there is no other, else seeds."""
        return "prompts" if self.n_prompts >= MIN_PROMPTS or self.over_seeds is None else "seeds"

    @property
    def interval(self) -> Interval | None:
        """The interval to read."""
        return self.over_prompts if self.over == "prompts" else self.over_seeds

    def to_dict(self) -> dict[str, Any]:
        """Return all values; intervals are lists of two."""
        return _lists(asdict(self)) | {"interval": _list(self.interval), "over": self.over}


def estimate(
    values: Sequence[float],
    pictures: Sequence[int],
    parts: Sequence[Sequence[float]],
    bounds: tuple[float, float] = (-math.inf, math.inf),
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Average prompts.

    Args:
        values: Of each prompt, [P], at least one.
        pictures: Of each, [P].
        parts: Of each prompt, what its pictures contribute to its standard error (their squares sum to the variance);
            empty where that is unknown.
        bounds: What the value can be at all; intervals are cut there.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    array = np.asarray(values, dtype=np.float64)
    prompts = clustered_bootstrap(array, resamples=resamples, seed=seed) if len(array) > 1 else None
    return Estimate(
        float(array.mean()),
        len(array),
        int(sum(pictures)),
        prompts,
        seeds_interval(float(array.mean()), parts, bounds),
    )


def seeds_interval(
    value: float, parts: Sequence[Sequence[float]], bounds: tuple[float, float], confidence: float = 0.95
) -> Interval | None:
    """Return the interval of a mean over fixed prompts, from the jackknife variances of each.

    The variances of prompts add; degrees of freedom follow Welch and Satterthwaite, n - 1 for each prompt.
    """
    if not parts or any(len(part) < 2 for part in parts):
        return None
    from scipy import stats

    variances = np.array([float(np.sum(np.square(part))) for part in parts])
    total = float(variances.sum())
    if total == 0:
        return Interval(value, value)
    freedom = total**2 / float(np.sum(variances**2 / (np.array([len(part) for part in parts]) - 1)))
    reach = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(total) / len(parts)
    return Interval(max(value - reach, bounds[0]), min(value + reach, bounds[1]))


def _list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _lists(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
