"""Chance-corrected agreement: Cohen's kappa and Krippendorff's alpha, from tables of counts.

Law of this file: pure functions of tables that add up over prompts, over any leading axes, so that a bootstrap over
prompts is a sum of tables; where chance alone explains everything there is no coefficient, and the answer is NaN.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Array

Weights = Literal["none", "linear", "quadratic"]
Metric = Literal["nominal", "ordinal", "interval"]


def cohen_kappa(first: npt.ArrayLike, second: npt.ArrayLike, weights: Weights = "none") -> float:
    """Return Cohen's kappa of two raters.

    Args:
        first: Marks of one rater, [N]; the categories are the values that occur, in their order.
        second: Marks of the other on the same things, [N].
        weights: What a disagreement by i - j steps counts: `none` 1, `linear` |i - j|, `quadratic` (i - j)^2
            (J. Cohen, 1960 and 1968).

    Returns:
        At most 1; 0 is what chance gives; NaN where both raters use one category alone.

    Raises:
        ValueError: If the lengths differ or there is nothing.
    """
    one, two = np.asarray(first), np.asarray(second)
    if one.ndim != 1 or one.shape != two.shape or not len(one):
        raise ValueError(f"marks of the shapes {one.shape} and {two.shape}; give [N] of each")
    values, codes = np.unique(np.concatenate([one, two]), return_inverse=True)
    table = confusion(codes[: len(one)], codes[len(one) :], len(values))
    return float(kappa_of(table, weights))


def confusion(first: npt.NDArray[Any], second: npt.NDArray[Any], categories: int) -> Array:
    """Count pairs of codes: [C, C], the first rater down.

    Args:
        first: Codes from 0, [N].
        second: Codes from 0, [N].
        categories: C.
    """
    flat = first.astype(np.int64) * categories + second
    return np.bincount(flat, minlength=categories * categories).reshape(categories, categories).astype(np.float64)


def kappa_of(table: Array, weights: Weights = "none") -> Any:
    """Return `1 - sum w O / sum w E` of tables of counts.

    Args:
        table: O, [..., C, C]; E is the product of its margins over their sum.
        weights: See `cohen_kappa`.
    """
    steps = np.abs(np.subtract.outer(np.arange(table.shape[-1]), np.arange(table.shape[-1]))).astype(np.float64)
    weight = {"none": (steps > 0).astype(np.float64), "linear": steps, "quadratic": steps**2}[weights]
    total = table.sum(axis=(-2, -1))
    chance = np.einsum("...i,...j,ij->...", table.sum(axis=-1), table.sum(axis=-2), weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance > 0, 1 - (table * weight).sum(axis=(-2, -1)) * total / chance, np.nan)


def krippendorff_alpha(ratings: npt.ArrayLike, metric: Metric = "interval") -> float:
    """Return Krippendorff's alpha of any number of raters, with missing values.

    `alpha = 1 - D_o / D_e`, the observed over the expected disagreement (K. Krippendorff, Computing Krippendorff's
    Alpha-Reliability, 2011).

    Args:
        ratings: [raters, units]; NaN where a rater said nothing. Units with fewer than two values do not count.
        metric: `nominal`: values are equal or not. `ordinal`: they differ by how many values lie between. `interval`:
            by their difference squared.

    Returns:
        At most 1; NaN where no unit has two values, or all values are one.

    Raises:
        ValueError: If it is no such table.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"ratings of the shape {table.shape}; give [raters, units]")
    if metric == "interval":
        moments = np.array([interval_moments(column[~np.isnan(column)]) for column in table.T]).reshape(-1, 4)
        return float(interval_alpha(moments.sum(axis=0)))
    values = np.unique(table[~np.isnan(table)])
    codes = [np.searchsorted(values, column[~np.isnan(column)]) for column in table.T]
    total = np.sum([coincidence(each, len(values)) for each in codes], axis=0)
    return float(alpha_of(np.asarray(total, dtype=np.float64).reshape(len(values), len(values)), metric))


def coincidence(codes: npt.NDArray[Any], categories: int) -> Array:
    """Return one unit's coincidences: ordered pairs of its values, over one less than their number; [V, V].

    Args:
        codes: The unit's values as codes from 0, [m]. With fewer than two all is 0.
        categories: V.
    """
    counts = np.bincount(codes.astype(np.int64), minlength=categories).astype(np.float64)
    if len(codes) < 2:
        return np.zeros((categories, categories))
    return (np.outer(counts, counts) - np.diag(counts)) / (len(codes) - 1)


def alpha_of(table: Array, metric: Literal["nominal", "ordinal"]) -> Any:
    """Return alpha of tables of coincidences.

    Args:
        table: Coincidences, [..., V, V], symmetric; values in their order.
        metric: See `krippendorff_alpha`.
    """
    if not table.size:
        return np.nan
    margins = table.sum(axis=-1)
    total = margins.sum(axis=-1)
    if metric == "ordinal":
        middle = np.cumsum(margins, axis=-1) - margins / 2
        distance = (middle[..., :, None] - middle[..., None, :]) ** 2
    else:
        distance = np.broadcast_to(1 - np.eye(table.shape[-1]), table.shape)
    expected = np.einsum("...i,...j,...ij->...", margins, margins, distance)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (table * distance).sum(axis=(-2, -1)) * (total - 1)
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def interval_moments(values: Array) -> Array:
    """Return what interval alpha needs of one unit: [4], the number, sum, sum of squares, and pairwise disagreement.

    The last is `sum over ordered pairs (a - b)^2 / (m - 1)`. With fewer than two values all is 0.
    """
    m = len(values)
    if m < 2:
        return np.zeros(4)
    within = 2 * m * float(((values - values.mean()) ** 2).sum()) / (m - 1)
    return np.array([m, values.sum(), (values**2).sum(), within])


def interval_alpha(moments: Array) -> Any:
    """Return alpha with the interval metric, of sums of `interval_moments`, [..., 4]."""
    n, total, squares, observed = (moments[..., i] for i in range(4))
    spread = n * squares - total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-9 * np.maximum(n, 1) ** 2, 1 - (n - 1) * observed / (2 * spread), np.nan)
