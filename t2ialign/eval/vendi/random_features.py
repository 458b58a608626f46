r"""Random Fourier features of a Gaussian kernel, and an account of how far to trust them.

`E cos(w (x - y)) = exp(-|x - y|^2 / (2 sigma^2))` for w from N(0, 1 / sigma^2) (Rahimi and Recht, 2007; for Vendi
scores: Ospanov, Zhang, Jalali and others, FKEA, 2024). The features of an item have length one, so their kernel has a
trace of exactly n: nothing is missing in the sum of the eigenvalues. What is missing is rank: 2 `count` features can
not show more than 2 `count` dimensions, and scores of low order lie below the exact ones until `count` is many times
the effective rank. Order 2 is close early.

Law of this file: the frequencies are a function of (seed, width, count) alone, and those of half the count are the
first half of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t2ialign.eval.vendi.kernels import RandomFeatures
from t2ialign.eval.vendi.spectrum import Array, clean, order_name, scores_of
from t2ialign.eval.vendi.streaming import Map


@dataclass(frozen=True)
class RandomFeatureNotes:
    """How good an estimate by random features is.

    Attributes:
        features: Number of features, twice the number of frequencies: no score can exceed it.
        trace: Part of the kernel's trace that the features carry, measured; 1 by construction, unlike with landmarks.
        kernel_error: Bound on the standard error of an entry of the kernel, `1 / sqrt(2 count)`; an entry k has
            `(1 - k^2) / sqrt(2 count)`.
        order_2: The score of order 2 without the bias that a finite count brings: the squares of single frequencies,
            which stand in `sum_ij p_i p_j K_ij^2` beside the products of different ones, are left out. `None` where
            nothing is left.
        scores_at_half: Order to score with the first half of the frequencies. Where it is far from the score itself,
            that has not settled either, and the exact score lies above it.
    """

    features: int
    trace: float
    kernel_error: float
    order_2: float | None
    scores_at_half: dict[float, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: orders are keys such as "0.5", "1" and "inf"."""
        return {
            "features": self.features,
            "trace": self.trace,
            "kernel_error": self.kernel_error,
            "order_2": self.order_2,
            "scores_at_half": {order_name(order): score for order, score in self.scores_at_half.items()},
        }


def frequencies(width: int, kernel: RandomFeatures) -> Array:
    """Draw the frequencies, [count, width], one after another from the seed."""
    drawn = np.random.default_rng(kernel.seed).standard_normal((kernel.count, width))
    return np.asarray(drawn / kernel.sigma)


def random_feature_map(drawn: Array) -> Map:
    """Return the map of items [rows, width] to features [rows, 2 count]: cosine and sine of each frequency."""
    scale = 1 / np.sqrt(len(drawn))

    def mapping(rows: Array) -> Array:
        if not np.isfinite(rows).all():
            raise ValueError("the features hold numbers that are not finite")
        angles = rows @ drawn.T
        features = np.empty((len(rows), 2 * len(drawn)))
        np.cos(angles, out=features[:, 0::2])
        np.sin(angles, out=features[:, 1::2])
        features *= scale
        return features

    return mapping


def notes_of(matrix: Array, n: int, orders: Sequence[float]) -> RandomFeatureNotes:
    """Take the account of random features from their second moment [2 count, 2 count]."""
    size = len(matrix)
    half = 2 * (size // 4)
    part = matrix[:half, :half]
    spectrum = clean(np.linalg.eigvalsh(part), n)
    return RandomFeatureNotes(
        features=size,
        trace=float(np.trace(matrix)),
        kernel_error=float(1 / np.sqrt(size)),
        order_2=_unbiased_order_2(matrix),
        scores_at_half=scores_of(spectrum.values, orders),
    )


def _unbiased_order_2(matrix: Array) -> float | None:
    count = len(matrix) // 2
    own = matrix.reshape(count, 2, count, 2)[np.arange(count), :, np.arange(count), :]
    purity = (np.sum(matrix**2) - np.sum(own**2)) * count / (count - 1)
    return float(1 / purity) if purity > 0 else None
