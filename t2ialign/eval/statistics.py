"""Statistics of paired comparisons: win rates, intervals, tests.

Law of this file: pure functions on arrays; the unit is the prompt (a cluster of pictures), every
random draw has a seed that the caller can name, and a hopeless question is a `ValueError`, never a
number that looks like an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Statistic = Callable[..., Any]
"""A function of an array and an `axis`, along which it reduces, such as `numpy.mean`."""

SIGNIFICANT = 0.05
"""Level of the tests beside the 95 % intervals."""
_CHUNK = 4_000_000
"""Numbers that a chunk of resamples may hold (32 MB)."""
_ALL_SIGNS = 12
"""Prompts up to which Wilcoxon's test goes through all signs where sizes are tied."""
_NONE = 1e-12
"""Spread, over the largest value, below which it is round-off."""


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class Test:
    """Result of a two-sided test.

    Attributes:
        statistic: The test's own statistic (wins for the sign test, W for Wilcoxon's).
        p_value: Two-sided, in [0, 1]; 1 where nothing is left to test.
        n: Prompts that entered the test, after ties were dropped.
    """

    __test__ = False

    statistic: float
    p_value: float
    n: int


@dataclass(frozen=True)
class WinRate:
    """How often one side beats the other, over prompts.

    Attributes:
        value: Mean over prompts of the prompt's win rate, in [0, 1]; a tie counts half.
        wins: Pictures that score higher than their partner.
        ties: Pictures that score the same.
        losses: Pictures that score lower.
        per_prompt: Win rate of each prompt, [P], in the order in which prompts first appear.
    """

    value: float
    wins: int
    ties: int
    losses: int
    per_prompt: Array


def wilson(wins: float, n: float, confidence: float = 0.95) -> Interval:
    r"""Return Wilson's score interval of a proportion.

    .. math:: \frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    (E. B. Wilson, 1927.) It holds for counts of independent prompts. With ties counted half, `wins`
    may be a fraction; the variance is then overstated, so the interval is too wide rather than too
    narrow.

    Args:
        wins: Between 0 and `n`.
        n: Number of prompts, at least 1; an effective number may be a fraction.
        confidence: In (0, 1).

    Raises:
        ValueError: If a value is out of range.
    """
    if n < 1:
        raise ValueError(f"an interval over n = {n} prompts does not exist; n must be at least 1")
    if not 0 <= wins <= n:
        raise ValueError(f"{wins} wins of {n} are impossible")
    z = _normal_quantile(0.5 + _checked(confidence) / 2)
    rate = wins / n
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if wins == 0 else (centre - spread) / scale
    high = 1.0 if wins == n else (centre + spread) / scale
    return Interval(low, high)


def wilson_of_rates(per_prompt: npt.ArrayLike, pairs: int, confidence: float = 0.95) -> Interval:
    r"""Return Wilson's interval of a mean of rates, at the effective number of prompts.

    A rate over several pictures varies less than a single win or loss. The interval is therefore taken at Kish's
    effective sample size, the number of single comparisons with the same variance of the mean (L. Kish, 1965; so used
    for proportions by E. L. Korn and B. I. Graubard, 1998):

    .. math:: n_{eff} = \frac{\hat p(1-\hat p)}{s^2/P} \left(\frac{t_{N-1}}{t_{P-1}}\right)^2
              \quad \text{but at least } P \text{ and at most } N

    of P prompts and N pairs, with the variance s^2 of the rates (divisor P). The quotient of Student's quantiles,
    which is theirs too, pays for a variance that is known from P rates alone. For one picture a prompt, without ties,
    it is plain Wilson.

    Args:
        per_prompt: Rate of each prompt, [P], in [0, 1].
        pairs: Single comparisons, at least P.
        confidence: In (0, 1).

    Raises:
        ValueError: If a value is out of range.
    """
    rates = _finite(per_prompt)
    if not len(rates) or rates.min() < 0 or rates.max() > 1 or pairs < len(rates):
        raise ValueError(f"{len(rates)} rates over {pairs} pairs: rates lie in [0, 1], and each has at least one pair")
    rate, variance = float(rates.mean()), float(rates.var())
    size = float(len(rates))
    if variance > 0:
        size = rate * (1 - rate) / (variance / len(rates)) * _freedom(pairs, len(rates), confidence)
        size = max(float(len(rates)), min(size, float(pairs)))
    return wilson(min(size, rate * size), size, confidence)


def _freedom(pairs: int, prompts: int, confidence: float) -> float:
    """Return the squared quotient of Student's quantiles at one less than so many pairs and so many prompts."""
    from scipy import stats

    level = 0.5 + _checked(confidence) / 2
    return float((stats.t.ppf(level, pairs - 1) / stats.t.ppf(level, prompts - 1)) ** 2)


def cluster_means(values: npt.ArrayLike, clusters: Sequence[Any] | npt.NDArray[Any]) -> Array:
    """Average values inside each cluster; [P], in the order in which clusters first appear.

    Args:
        values: [N], finite.
        clusters: [N] labels, for instance prompt ids.

    Raises:
        ValueError: If the lengths differ, nothing is there, or a value is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) != len(clusters):
        raise ValueError(f"{len(clusters)} cluster labels for values of shape {array.shape}; give one for each value")
    if not len(array):
        raise ValueError("there are no values")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(array)))} is not finite; scores must be numbers")
    order: dict[Any, int] = {}
    index = np.array([order.setdefault(label, len(order)) for label in clusters])
    return np.asarray(np.bincount(index, weights=array) / np.bincount(index))


def win_rate(base: npt.ArrayLike, other: npt.ArrayLike, clusters: Sequence[Any]) -> WinRate:
    """Return the rate at which `other` beats `base`, pair by pair.

    `W = mean over prompts of mean over a prompt's pictures of (1[other > base] + 1[other = base] / 2)`

    Args:
        base: Scores, [N], higher is better.
        other: Scores of the same prompts and samples, [N].
        clusters: Prompt id of each pair, [N].
    """
    first, second = np.asarray(base, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"scores of shapes {first.shape} and {second.shape} are not pairs")
    difference = second - first
    per_prompt = cluster_means(np.where(np.isnan(difference), np.nan, (np.sign(difference) + 1) / 2), clusters)
    counts = [int(np.sum(test)) for test in (second > first, second == first, second < first)]
    return WinRate(float(per_prompt.mean()), counts[0], counts[1], counts[2], per_prompt)


def clustered_bootstrap(
    values: npt.ArrayLike,
    clusters: Sequence[Any] | None = None,
    *,
    statistic: Statistic = np.mean,
    method: Literal["bca", "percentile"] = "bca",
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Return a bootstrap interval over clusters (prompts).

    Values are averaged inside each cluster, then clusters are drawn with replacement. `percentile`
    takes quantiles of the resampled statistic; `bca` corrects them for bias and acceleration
    (B. Efron, 1987). If all clusters are equal, the interval is that one point: the data then say
    nothing of their spread, and Wilson's interval is the one to read.

    Args:
        values: [N].
        clusters: [N] labels; `None` if every value is a cluster of its own.
        statistic: Reduces along `axis`, vectorised, such as `numpy.mean` and `numpy.median`.
        method: `"bca"` or `"percentile"`.
        resamples: Number of resamples.
        seed: Of the draws.
        confidence: In (0, 1).

    Raises:
        ValueError: If there are fewer than two clusters, or an argument is out of range.
    """
    if method not in ("bca", "percentile"):
        raise ValueError(f"unknown method {method!r}; take 'bca' or 'percentile'")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples are too few; take 10000")
    units = cluster_means(values, range(len(np.asarray(values))) if clusters is None else clusters)
    if len(units) < 2:
        raise ValueError("a bootstrap needs at least 2 prompts; there is 1")
    alpha = (1 - _checked(confidence)) / 2
    if np.ptp(units) == 0:
        point = float(statistic(units, axis=-1))
        return Interval(point, point)
    draws = _resample(units, statistic, resamples, seed)
    levels = np.array([alpha, 1 - alpha])
    if method == "bca":
        levels = _bca_levels(units, statistic, draws, levels)
    low, high = np.quantile(draws, levels)
    return Interval(float(low), float(high))


def _resample(units: Array, statistic: Statistic, resamples: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK // len(units))
    chunks = []
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        picked = generator.integers(0, len(units), size=(rows, len(units)), dtype=np.int32)
        chunks.append(np.asarray(statistic(units[picked], axis=-1), dtype=np.float64))
    return np.concatenate(chunks)


def _bca_levels(units: Array, statistic: Statistic, draws: Array, levels: Array) -> Array:
    """Move the quantile levels by the bias z0 and the acceleration a of Efron's BCa interval."""
    point = float(statistic(units, axis=-1))
    below = (np.sum(draws < point) + 0.5 * np.sum(draws == point)) / len(draws)
    below = min(max(float(below), 0.5 / len(draws)), 1 - 0.5 / len(draws))
    bias = _normal_quantile(below)
    left_out = _jackknife(units, statistic)
    deviation = left_out.mean() - left_out
    scale = float(np.sum(deviation**2)) ** 1.5
    acceleration = float(np.sum(deviation**3)) / (6 * scale) if scale > 0 else 0.0
    z = np.array([_normal_quantile(level) for level in levels]) + bias
    moved = bias + z / (1 - acceleration * z)
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in moved])


def _jackknife(units: Array, statistic: Statistic) -> Array:
    """Return the statistic without each cluster in turn, [P]."""
    n = len(units)
    if statistic is np.mean:
        return np.asarray((units.sum() - units) / (n - 1))
    size = max(1, _CHUNK // n)
    columns = np.arange(n - 1)
    chunks = []
    for start in range(0, n, size):
        out = np.arange(start, min(n, start + size))[:, None]
        chunks.append(np.asarray(statistic(units[columns + (columns >= out)], axis=-1), dtype=np.float64))
    return np.concatenate(chunks)


def sign_test(differences: npt.ArrayLike) -> Test:
    """Test by the exact, two-sided sign test whether wins and losses are equally likely; ties are dropped.

    Args:
        differences: One number a prompt, [P]; positive is a win.
    """
    from scipy import stats

    array = _finite(differences)
    wins, losses = int(np.sum(array > 0)), int(np.sum(array < 0))
    if wins + losses == 0:
        return Test(0.0, 1.0, 0)
    p_value = float(stats.binomtest(wins, wins + losses, 0.5).pvalue)
    return Test(float(wins), p_value, wins + losses)


def wilcoxon(differences: npt.ArrayLike) -> Test:
    """Test by Wilcoxon's signed ranks, two-sided, whether differences are symmetric about 0; zeros are dropped.

    Exact up to 50 prompts without ties among the sizes and up to 12 with them, else by the normal
    approximation with the correction for ties.

    Args:
        differences: One number a prompt, [P].
    """
    from scipy import stats

    array = _finite(differences)
    array = array[array != 0]
    if not len(array):
        return Test(0.0, 1.0, 0)
    exact = len(array) <= 50 and len(np.unique(np.abs(array))) == len(array)
    result = stats.wilcoxon(array, method="exact" if exact else "asymptotic")
    p_value = float(result.pvalue)
    if not exact and len(array) <= _ALL_SIGNS:
        ranks = stats.rankdata(np.abs(array))
        signs = 1.0 - 2 * (np.arange(2 ** len(array))[:, None] >> np.arange(len(array)) & 1)
        p_value = float((np.abs(signs @ ranks) >= abs(np.sign(array) @ ranks) - 1e-9).mean())
    return Test(float(result.statistic), min(1.0, p_value), len(array))


def paired_test(base: npt.ArrayLike, other: npt.ArrayLike, clusters: Sequence[Any]) -> dict[str, Test]:
    """Run both paired tests on prompts.

    Args:
        base: Scores, [N], higher is better.
        other: Scores of the same prompts and samples, [N].
        clusters: Prompt id of each pair, [N].

    Returns:
        `"sign"`, on whether `other` wins more than half of a prompt's pictures, and `"wilcoxon"`, on
        the prompt means of `other - base`.
    """
    rates = win_rate(base, other, clusters).per_prompt
    differences = np.asarray(other, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    return {"sign": sign_test(rates - 0.5), "wilcoxon": wilcoxon(cluster_means(differences, clusters))}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number by Holm's step-down method (S. Holm, 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        if not 0 <= p_values[i] <= 1:
            raise ValueError(f"{p_values[i]} is no p value; it must lie in [0, 1]")
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def effect_size(differences: npt.ArrayLike) -> float | None:
    """Return the mean difference over its standard deviation (Cohen's d for pairs, `ddof=1`).

    `None` where the deviation is 0, up to round-off, or a single prompt is there.
    """
    array = _finite(differences)
    spread = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return float(array.mean()) / spread if spread > _NONE * float(np.abs(array).max(initial=0)) else None


def _finite(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError("give one finite number for each prompt")
    return array


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    return confidence


def _normal_quantile(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(level)
