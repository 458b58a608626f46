r"""Normalised entropy of answers, with its bias and its interval.

The plug-in entropy of n answers, :math:`\hat H = -\sum_v \hat p_v \log \hat p_v`, lies below the entropy of the model:
to first order by (K - 1) / 2n, K being the number of values with a positive probability, so by much where pictures are
few and values many. Miller and Madow (1955) add (K - 1) / 2n with the K that were seen, which takes most of that away.
Both are divided by log |V|, the entropy of |V| equally likely values.

A bootstrap resamples a distribution that has the bias already, and adds it once more. The interval therefore takes the
spread of the resampled Miller-Madow estimates around their own mean, and lays it around the estimate; where a single
value was seen there is no spread, and the upper end is the entropy that the values not seen could have: their share at
Wilson's upper bound, spread evenly.

Law of this file: pure functions on counts; the draws are a function of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Interval, wilson

Array = npt.NDArray[np.float64]
RESAMPLES = 2000
MIN_PROMPTS = 10
"""Prompts from which they, and not their pictures, are drawn; a bootstrap over fewer is too narrow."""


@dataclass(frozen=True)
class EntropyEstimate:
    """Normalised entropy, in [0, 1].

    Attributes:
        value: Plug-in, H / log |V|: GRADE's figure.
        miller_madow: Corrected to first order, at most 1.
        interval: 95 %, around `miller_madow`; `None` below two answers, and where draws have no spread.
        over: Of what it speaks: `"prompts"` (others of the kind, from 10 on) or `"pictures"` (other seeds of these).
        n: Answers.
        n_values: |V|.
        n_seen: Values that occurred.
        resamples: Of the bootstrap.
    """

    value: float
    miller_madow: float
    interval: Interval | None
    over: str
    n: int
    n_values: int
    n_seen: int
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """Return all values; the interval is a list of two."""
        return asdict(self) | {"interval": None if self.interval is None else list(self.interval)}


def estimate_entropy(counts: Sequence[Sequence[int]], *, resamples: int = RESAMPLES, seed: int = 0) -> EntropyEstimate:
    """Estimate the normalised entropy of a distribution.

    Args:
        counts: Answers by prompt and value, [P, V], V at least 2. From `MIN_PROMPTS` prompts on the bootstrap
            draws prompts, below that pictures inside each prompt.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: If the shape is another, a count is negative, or there is no answer.
    """
    table = np.asarray(counts, dtype=np.int64)
    if table.ndim != 2 or table.shape[1] < 2 or table.min() < 0 or not table.sum():
        raise ValueError(f"counts of shape {table.shape} are needed as [P, V], V at least 2, with at least one answer")
    table = table[table.sum(axis=1) > 0]
    n, values = int(table.sum()), table.shape[1]
    total = table.sum(axis=0, keepdims=True)
    plug_in, corrected = (float(each[0]) for each in _normalised(total))
    seen = int(np.sum(total > 0))
    interval = _interval(table, corrected, resamples, seed) if n > 1 else None
    over = "prompts" if len(table) >= MIN_PROMPTS else "pictures"
    return EntropyEstimate(plug_in, min(corrected, 1.0), interval, over, n, values, seen, resamples)


def _normalised(totals: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Return plug-in and Miller-Madow of rows of counts, [R, V]; the latter may exceed 1."""
    n = totals.sum(axis=1, keepdims=True)
    shares = totals / n
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(shares > 0, -shares * np.log(shares), 0.0)
    plug_in = parts.sum(axis=1)
    seen = np.sum(totals > 0, axis=1)
    top = math.log(totals.shape[1])
    return plug_in / top, (plug_in + (seen - 1) / (2 * n[:, 0])) / top


def _interval(table: npt.NDArray[np.int64], corrected: float, resamples: int, seed: int) -> Interval | None:
    n, values = int(table.sum()), table.shape[1]
    total = table.sum(axis=0)
    if np.sum(total > 0) == 1:
        unseen = wilson(0, n if len(table) == 1 else len(table)).high
        spread = [1 - unseen] + [unseen / (values - 1)] * (values - 1)
        high = -sum(share * math.log(share) for share in spread if share > 0) / math.log(values)
        return Interval(0.0, min(high, 1.0) if unseen < 1 - 1 / values else 1.0)
    generator = np.random.default_rng(seed)
    drawn = np.zeros((resamples, values), dtype=np.int64)
    if len(table) >= MIN_PROMPTS:
        times = generator.multinomial(len(table), np.full(len(table), 1 / len(table)), size=resamples)
        drawn = times @ table
    else:
        for row in table:
            drawn += generator.multinomial(int(row.sum()), row / row.sum(), size=resamples)
    estimates = _normalised(drawn)[1]
    if float(np.ptp(estimates)) == 0:
        return None
    low, high = corrected + np.quantile(estimates - estimates.mean(), (0.025, 0.975))
    return Interval(float(min(max(low, 0.0), 1.0)), float(min(max(high, 0.0), 1.0)))


def effective_size(own: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> float:
    """Return the number of independent pictures whose share would vary as that of prompts' pictures does (Kish).

    All of them for a single prompt; the number of prompts where all pictures agree; at least 1.

    Args:
        own: Pictures of the group, by prompt, [P].
        sizes: Pictures by prompt, [P].
    """
    n, prompts = int(sizes.sum()), len(sizes)
    share = float(own.sum()) / n
    if prompts < 2:
        return float(n)
    if share in (0.0, 1.0):
        return float(prompts)
    variance = float(np.sum((own - share * sizes) ** 2)) / n**2 * prompts / (prompts - 1)
    return float(n) if variance == 0 else min(max(share * (1 - share) / variance, 1.0), float(n))
