r"""Intervals of Vendi scores over prompts, at a fixed number of them.

A plain bootstrap is wrong here. Its resamples hold each prompt that was drawn twice as a duplicate, which adds no
diversity: about 63 % of the prompts of a resample differ, and since a Vendi score grows with the number of different
items, the resampled scores lie below the score itself, so that the interval may not even contain it. Subsamples drawn
without replacement hold no duplicates. Of P prompts, m are drawn; a statistic whose variance is sigma^2 / P to first
order varies over such subsamples by sigma^2 (1/m - 1/P), so

.. math:: SE = sd(VS_m) \sqrt{m / (P - m)}

(Politis, Romano and Wolf, Subsampling, 1999, with the correction for a finite population). m is nine tenths of P: at
halves the score, which can not exceed its n, varies less than at P, and intervals were found to be too short; nine
tenths agree with leaving out one prompt at a time, which would take as many draws as prompts. Only the spread of
subsamples is used, never their level, which belongs to another n. The interval is the score plus and minus t times SE,
t of P - 1 degrees of freedom. It is one for the expected score of a set of this size, not of an infinite one, which is
larger. Where all directions are alike, the score is at its maximum and has no first order: the interval is then too
long.

Law of this file: a draw is a function of (seed, number of the draw); the unit is the prompt.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Interval
from t2ialign.eval.vendi.items import Data, Items, Rows, items_of
from t2ialign.eval.vendi.kernels import Kernel
from t2ialign.eval.vendi.spectrum import Array, Order, mean_quality, order_name, orders_of, score_of, weights_of
from t2ialign.eval.vendi.streaming import is_stream

_FEWEST = 4
"""Prompts below which no interval is given."""
_SHARE = 0.9
"""Part of the prompts that a subsample holds."""


@dataclass(frozen=True)
class VendiEstimate:
    """Vendi scores, or differences of them, with intervals.

    Attributes:
        scores: Order q to the estimate.
        intervals: Order q to its interval; `None` where there are too few prompts for one.
        standard_errors: Order q to the standard error, `None` likewise.
        n: Items, of the base where two sets are compared.
        prompts: Units that were resampled.
        size: Prompts that a score is of; below `prompts` where sets of different size are to be compared.
        resamples: Number of draws.
        seed: Of the draws.
        confidence: Of the intervals.
        kernel: Name of the kernel.
        quality_weighted: Whether scores are multiplied by the mean quality.
    """

    scores: dict[float, float]
    intervals: dict[float, Interval | None]
    standard_errors: dict[float, float | None]
    n: int
    prompts: int
    size: int
    resamples: int
    seed: int
    confidence: float
    kernel: str
    quality_weighted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON: a list of one entry an order, with what all of them share beside it."""
        rows = []
        for order, score in self.scores.items():
            interval = self.intervals[order]
            rows.append(
                {
                    "q": order_name(order),
                    "value": score,
                    "interval": None if interval is None else list(interval),
                    "standard_error": self.standard_errors[order],
                }
            )
        shared = ("n", "prompts", "size", "resamples", "seed", "confidence", "kernel", "quality_weighted")
        return {"scores": rows, **{name: getattr(self, name) for name in shared}}


def vendi_interval(
    data: Data,
    prompts: Sequence[Hashable] | None = None,
    q: Order | Sequence[Order] = 1.0,
    *,
    kernel: Kernel = "cosine",
    weights: npt.ArrayLike | None = None,
    quality: npt.ArrayLike | None = None,
    size: int | None = None,
    resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> VendiEstimate:
    """Return Vendi scores with intervals over prompts.

    Args:
        data: As for `vendi_score`, but no stream: rows are drawn again and again.
        prompts: Prompt id of each item, [n]; `None` if each item is a unit of its own.
        q: Order or orders.
        kernel: As for `vendi_score`.
        weights: Probability weights, [n].
        quality: Quality of each item, [n]; scores are then multiplied by the (weighted) mean quality.
        size: Prompts that the score shall be of, for comparing sets of different size: the mean over subsamples of so
            many. All of them if `None`.
        resamples: Number of subsamples. 200 give the standard error to about 5 %.
        seed: Of the draws.
        confidence: In (0, 1).

    Returns:
        The estimate. Below 4 prompts it has no intervals.

    Raises:
        ValueError: If an argument is out of range or the data are not fit.
    """
    sample = _Sample.of(data, prompts, kernel, weights, quality)
    orders, units = orders_of(q), len(sample.rows)
    size = _checked_size(size, units, resamples, confidence)
    point = np.array(sample.scores(None, orders)) if size == units else None
    deviation = None
    if point is None or units >= _FEWEST:
        point, deviation = _estimate([sample], orders, size, resamples, seed, point)
    return _result(sample, orders, point, deviation, size, resamples, seed, confidence)


def vendi_difference(
    base: Data,
    other: Data,
    prompts: Sequence[Hashable],
    other_prompts: Sequence[Hashable] | None = None,
    q: Order | Sequence[Order] = 1.0,
    *,
    kernel: Kernel = "cosine",
    quality: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    resamples: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> VendiEstimate:
    """Return by how much `other` is more diverse than `base` on the same prompts, with intervals.

    Both sets are cut to the same prompts in every draw, so that what the prompts share cancels.

    Args:
        base: As for `vendi_interval`.
        other: Likewise.
        prompts: Prompt id of each item of `base`.
        other_prompts: Prompt id of each item of `other`; as `prompts` if `None`.
        q: Order or orders.
        kernel: As for `vendi_score`.
        quality: Qualities of the items of both.
        resamples: Number of subsamples.
        seed: Of the draws.
        confidence: In (0, 1).

    Raises:
        ValueError: If the two have other prompts, or other numbers of items for them: a Vendi score grows with n, so
            the difference would say nothing.
    """
    first, second = quality or (None, None)
    one = _Sample.of(base, prompts, kernel, None, first)
    two = _Sample.of(other, prompts if other_prompts is None else other_prompts, kernel, None, second)
    counts = [{name: len(rows) for name, rows in sample.rows.items()} for sample in (one, two)]
    if counts[0] != counts[1]:
        differing = sorted(
            str(name) for name in {*counts[0], *counts[1]} if counts[0].get(name) != counts[1].get(name)
        )
        raise ValueError(
            f"the two sets differ in the number of items of {len(differing)} prompts ({', '.join(differing[:3])}): "
            "scores of different n are not comparable; cut both to the same prompts and samples"
        )
    orders, units = orders_of(q), len(one.rows)
    size = _checked_size(None, units, resamples, confidence)
    names = list(one.rows)
    point = np.subtract(two.scores(names, orders), one.scores(names, orders))
    deviation = None
    if units >= _FEWEST:
        point, deviation = _estimate([one, two], orders, size, resamples, seed, point)
    return _result(one, orders, point, deviation, size, resamples, seed, confidence, bounded=False)


@dataclass(frozen=True)
class _Sample:
    """Items with their rows by prompt."""

    items: Items
    rows: dict[Hashable, Rows]
    weights: Array | None
    quality: Array | None

    @classmethod
    def of(
        cls,
        data: Data,
        prompts: Sequence[Hashable] | None,
        kernel: Kernel,
        weights: npt.ArrayLike | None,
        quality: npt.ArrayLike | None,
    ) -> _Sample:
        if is_stream(data):
            raise ValueError("a stream can not be resampled; give the features as one array")
        items = items_of(data, kernel)
        n = items.n or 0
        if prompts is not None and len(prompts) != n:
            raise ValueError(f"{len(prompts)} prompts for {n} items; give the prompt of each item")
        checked = weights_of(weights, n)
        mean_quality(quality, checked, n)
        return cls(items, rows_by(prompts, n), checked, None if quality is None else np.asarray(quality, np.float64))

    def scores(self, names: Sequence[Hashable] | None, orders: Sequence[float]) -> list[float]:
        """The scores of some prompts' items, or of all, one for each order."""
        rows = None if names is None else np.concatenate([self.rows[name] for name in names])
        n = (self.items.n or 0) if rows is None else len(rows)
        weights = self.weights
        if weights is not None and rows is not None:
            if not weights[rows].sum() > 0:
                raise ValueError("a subsample has weights of 0 alone; leave items of weight 0 out")
            weights = weights_of(weights[rows], n)
        if tuple(orders) == (2.0,):
            found = [1 / self.items.purity(weights, rows)]
        else:
            values = self.items.spectrum(weights, rows).values
            found = [score_of(values, order) for order in orders]
        quality = self.quality if self.quality is None or rows is None else self.quality[rows]
        factor = mean_quality(quality, weights, n)
        return found if factor is None else [factor * score for score in found]


def rows_by(prompts: Sequence[Hashable] | None, n: int) -> dict[Hashable, Rows]:
    """Return each prompt's rows, in the order in which prompts first appear."""
    found: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(range(n) if prompts is None else prompts):
        found.setdefault(prompt, []).append(row)
    return {prompt: np.array(rows) for prompt, rows in found.items()}


def _checked_size(size: int | None, units: int, resamples: int, confidence: float) -> int:
    if size is not None and not 1 <= size <= units:
        raise ValueError(f"size {size} is not between 1 and the {units} prompts that are there")
    if resamples < 20:
        raise ValueError(f"{resamples} resamples are too few; take 200")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    return units if size is None else size


def _estimate(
    samples: Sequence[_Sample], orders: Sequence[float], size: int, resamples: int, seed: int, point: Array | None
) -> tuple[Array, Array | None]:
    """The score at `size` prompts, where `point` is not it, and its standard error."""
    units = len(samples[0].rows)
    m = min(size, round(_SHARE * units), units - 1)
    spread = _draws(samples, orders, m, resamples, seed) if units >= _FEWEST else None
    if point is None:
        at_size = spread if spread is not None and m == size else _draws(samples, orders, size, resamples, seed)
        point = at_size.mean(axis=0)
    if spread is None:
        return point, None
    return point, np.asarray(spread.std(axis=0, ddof=1) * np.sqrt(m / (units - m)))


def _draws(samples: Sequence[_Sample], orders: Sequence[float], m: int, resamples: int, seed: int) -> Array:
    """Scores of subsamples of m prompts, [resamples, orders]; of two samples, the second's less the first's."""
    names = list(samples[0].rows)
    found = np.empty((resamples, len(orders)))
    for number in range(resamples):
        picked = np.sort(np.random.default_rng((seed, number)).permutation(len(names))[:m])
        chosen = [names[i] for i in picked]
        scores = [np.array(sample.scores(chosen, orders)) for sample in samples]
        found[number] = scores[0] if len(scores) == 1 else scores[1] - scores[0]
    return found


def _result(
    sample: _Sample,
    orders: Sequence[float],
    point: Array,
    deviation: Array | None,
    size: int,
    resamples: int,
    seed: int,
    confidence: float,
    *,
    bounded: bool = True,
) -> VendiEstimate:
    from scipy import stats

    units, n = len(sample.rows), sample.items.n or 0
    factor = float(stats.t.ppf(0.5 + confidence / 2, units - 1)) if units > 1 else np.inf
    low, high = (1.0, float(n)) if bounded and sample.quality is None else (-np.inf, np.inf)
    intervals: dict[float, Interval | None] = dict.fromkeys(orders)
    errors: dict[float, float | None] = dict.fromkeys(orders)
    if deviation is not None:
        for order, value, error in zip(orders, point, deviation, strict=True):
            errors[order] = float(error)
            bounds = Interval(max(low, float(value - factor * error)), min(high, float(value + factor * error)))
            intervals[order] = bounds
    return VendiEstimate(
        scores={order: float(value) for order, value in zip(orders, point, strict=True)},
        intervals=intervals,
        standard_errors=errors,
        n=n,
        prompts=units,
        size=size,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        kernel=sample.items.name,
        quality_weighted=sample.quality is not None,
    )
