r"""From eigenvalues to Vendi scores: cleaning of round-off, Renyi entropy of every order.

Law of this file: eigenvalues below what double precision can tell from zero count as zero, at every order, and what
remains sums to one; so the score of order 0 is the rank, and no order sees round-off as diversity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Order = float | str
"""An order q: a number in [0, inf], or the word "inf"."""

EPSILON = float(np.finfo(np.float64).eps)
_NEGATIVE = 1e-6
"""Part of the largest eigenvalue by which one may lie below zero before the kernel is refused."""


class Spectrum(NamedTuple):
    """The eigenvalues of a weighted kernel, without those that are zero.

    Attributes:
        values: In (0, 1], falling, of sum 1; [rank].
        tolerance: What was taken as zero: an eigenvalue at most this large.
    """

    values: Array
    tolerance: float


def orders_of(q: Order | Sequence[Order]) -> tuple[float, ...]:
    """Read one order or several.

    Raises:
        ValueError: If one is negative, not a number, or no order at all.
    """
    several = [q] if isinstance(q, str | int | float | np.number) else list(q)
    if not several:
        raise ValueError("no order was given; take q=1")
    orders = []
    for one in several:
        try:
            order = float(one)
        except (TypeError, ValueError):
            raise ValueError(f"{one!r} is no order; take a number of at least 0, or 'inf'") from None
        if math.isnan(order) or order < 0:
            raise ValueError(f"order {one!r} is out of range; orders are numbers of at least 0, or 'inf'")
        orders.append(order)
    return tuple(dict.fromkeys(orders))


def order_name(order: float) -> str:
    """Write an order as a key: "0.5", "1", "2", "inf"."""
    return "inf" if math.isinf(order) else f"{order:.12g}"


def clean(eigenvalues: npt.ArrayLike, size: int, precision: float = 0.0) -> Spectrum:
    """Drop the eigenvalues that are zero up to round-off, and let the rest sum to one.

    Zero is what lies below `max(size * 2.2e-16, precision)` times the largest eigenvalue.

    Args:
        eigenvalues: In any order; of a positive semi-definite matrix.
        size: Number of items n.
        precision: Relative noise of the eigenvalues that the input brought along (features rounded to half precision).

    Raises:
        ValueError: If one is far below zero: the kernel is then no similarity that a Vendi score exists for.
    """
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1]
    largest = float(values[0])
    if not largest > 0:
        raise ValueError(
            f"the largest eigenvalue is {largest:g}; a kernel with ones on its diagonal has a positive one"
        )
    tolerance = max(size * EPSILON, precision) * largest
    if values[-1] < -max(_NEGATIVE * largest, 10 * tolerance):
        raise ValueError(
            f"the kernel has the eigenvalue {values[-1]:g} (largest {largest:g}): it is not positive semi-definite, "
            "and no Vendi score exists for it"
        )
    kept = values[values > tolerance]
    return Spectrum(kept / kept.sum(), tolerance)


def score_of(values: Array, order: float) -> float:
    r"""Return the Vendi score of an order, the exponential of the Renyi entropy of the eigenvalues.

    .. math:: VS_q = \Big(\sum_i \lambda_i^q\Big)^{1/(1-q)},\quad VS_1 = e^{-\sum_i \lambda_i \ln \lambda_i},\quad
              VS_\infty = 1 / \max_i \lambda_i

    (Friedman and Dieng, arXiv 2210.02410; for all q Pasarkar and Dieng, arXiv 2310.12952.) Near 1 it is computed as
    `exp(-log1p(sum l expm1((q-1) ln l)) / (q-1))`, which does not lose digits there; elsewhere by a log of sums.

    Args:
        values: Positive, of sum 1.
        order: q, at least 0; may be infinite.

    Returns:
        Between 1 and the number of values.
    """
    logs = np.log(values)
    if order == 0:
        return float(len(values))
    if math.isinf(order):
        return float(1 / values.max())
    if order == 1:
        return float(np.exp(-np.sum(values * logs)))
    if abs(order - 1) < 0.5:
        return float(np.exp(-np.log1p(np.sum(values * np.expm1((order - 1) * logs))) / (order - 1)))
    powers = order * logs
    top = float(powers.max())
    return float(np.exp((top + np.log(np.sum(np.exp(powers - top)))) / (1 - order)))


def scores_of(values: Array, orders: Sequence[float]) -> dict[float, float]:
    """Return the Vendi score of every order."""
    return {order: score_of(values, order) for order in orders}


def weights_of(weights: npt.ArrayLike | None, n: int | None) -> Array | None:
    """Check probability weights and let them sum to one; `None`, for equal ones, stays.

    A stream's number of items is not known beforehand: n is then `None`, and their number is held against it later.

    Raises:
        ValueError: If their number is not n, one is negative or not finite, or all are zero.
    """
    if weights is None:
        return None
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 1 or n not in (None, len(array)):
        raise ValueError(f"weights of shape {array.shape} for {n} items; give one weight an item")
    bad = ~np.isfinite(array) | (array < 0)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"weight {at} is {array[at]:g}; weights must be numbers of at least 0")
    total = float(array.sum())
    if total <= 0:
        raise ValueError("all weights are 0; at least one must be positive")
    return array / total


def mean_quality(quality: npt.ArrayLike | None, weights: Array | None, n: int) -> float | None:
    """Return the mean quality, `sum_i p_i s_i`, by which a Vendi score is multiplied.

    Raises:
        ValueError: If their number is not n, or one is negative or not finite: a score such as ImageReward's, which
            may be negative, has to be mapped to numbers of at least 0 first.
    """
    if quality is None:
        return None
    array = np.asarray(quality, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"qualities of shape {array.shape} for {n} items; give one quality an item")
    if not np.isfinite(array).all():
        raise ValueError(f"quality {int(np.argmin(np.isfinite(array)))} is not finite")
    if (array < 0).any():
        at = int(np.argmax(array < 0))
        raise ValueError(
            f"quality {at} is {array[at]:g}; a quality-weighted Vendi score needs qualities of at least 0: map scores "
            "that may be negative first, for instance by exp or by a sigmoid"
        )
    return float(array.mean() if weights is None else weights @ array)
