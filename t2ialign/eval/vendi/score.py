"""`vendi_score`: the effective number of different items, at every order, by the exact route that is cheapest.

Law of this file: the score is a function of the kernel, the weights and the order alone; the route (kernel matrix,
dual, merged labels, a sum over blocks) changes only how long it takes. What is no exact score says so in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.vendi.items import Data, items_of
from t2ialign.eval.vendi.kernels import Kernel, RandomFeatures
from t2ialign.eval.vendi.random_features import RandomFeatureNotes, notes_of
from t2ialign.eval.vendi.spectrum import (
    Order,
    Spectrum,
    clean,
    mean_quality,
    order_name,
    orders_of,
    scores_of,
    weights_of,
)


@dataclass(frozen=True)
class VendiScore:
    """Vendi scores of a set of items.

    Attributes:
        scores: Order q to VS_q, between 1 and the number of items, without the quality.
        n: Items. Scores of different n are not comparable: VS grows with n.
        kernel: Name of the kernel.
        route: "kernel", "dual", "merged labels", "sum of squares" (order 2 alone) or "random features".
        rank: Eigenvalues that are not zero; `None` where none were computed.
        tolerance: What counted as zero among them (of a sum of 1).
        effective_n: `1 / sum p_i^2`: n under equal weights.
        weighted: Whether probability weights were given.
        quality: `sum_i p_i s_i`, or `None` where no qualities were given.
        approximation: How good random features were; `None` where the score is exact.
    """

    scores: dict[float, float]
    n: int
    kernel: str
    route: str
    rank: int | None
    tolerance: float | None
    effective_n: float
    weighted: bool = False
    quality: float | None = None
    approximation: RandomFeatureNotes | None = None

    @property
    def quality_weighted(self) -> dict[float, float]:
        """Order q to `sum_i p_i s_i VS_q` (Nguyen and Dieng, ICML 2024).

        Raises:
            ValueError: If no qualities were given.
        """
        if self.quality is None:
            raise ValueError("no qualities were given; vendi_score(..., quality=...) takes one for each item")
        return {order: self.quality * score for order, score in self.scores.items()}

    @property
    def over_n(self) -> dict[float, float]:
        """Order q to VS_q / n, in (0, 1]: 1 where all items differ."""
        return {order: score / self.n for order, score in self.scores.items()}

    @property
    def value(self) -> float:
        """The score of the first order that was asked for, times the quality if qualities were given."""
        first = next(iter(self.scores.values()))
        return first if self.quality is None else self.quality * first

    def __float__(self) -> float:
        return self.value

    def __getitem__(self, q: Order) -> float:
        return self.scores[orders_of(q)[0]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: orders are keys such as "0.5", "1" and "inf"."""
        quality_weighted = None if self.quality is None else self.quality_weighted
        return {
            "scores": _named(self.scores),
            "quality_weighted": None if quality_weighted is None else _named(quality_weighted),
            "quality": self.quality,
            "n": self.n,
            "effective_n": self.effective_n,
            "weighted": self.weighted,
            "kernel": self.kernel,
            "route": self.route,
            "rank": self.rank,
            "tolerance": self.tolerance,
            "approximation": None if self.approximation is None else self.approximation.to_dict(),
        }


def vendi_score(
    data: Data,
    q: Order | Sequence[Order] = 1.0,
    *,
    kernel: Kernel = "cosine",
    weights: npt.ArrayLike | None = None,
    quality: npt.ArrayLike | None = None,
) -> VendiScore:
    """Return the Vendi scores of items: how many different ones there are, in effect.

    Args:
        data: Features [n, d] (array, tensor or lists) or an iterator over blocks of them [rows, d]; labels under
            `Labels`, one or a tuple an item; a kernel matrix [n, n] under "precomputed".
        q: An order or several, each a number of at least 0 or "inf". 0 counts dimensions, 0.5 is kind to rare items,
            1 is the usual one, 2 is steady at small n and needs no eigenvalues, "inf" looks at the commonest only.
        kernel: "cosine", "precomputed", or a `Cosine`, `Gaussian`, `RandomFeatures` or `Labels`.
        weights: Probability weights [n] of any positive sum; equal ones if `None`. For duplicates, importance, or to
            weigh countries.
        quality: Quality of each item [n], at least 0.

    Returns:
        The scores, with what they are of. `float(result)` is the first order's.

    Raises:
        ValueError: If the data, a weight, a quality or an order is not fit; the message names it.
    """
    orders = orders_of(q)
    items = items_of(data, kernel)
    checked = weights_of(weights, items.n)
    notes: RandomFeatureNotes | None = None
    spectrum: Spectrum | None = None
    if isinstance(kernel, RandomFeatures):
        moment = items.moment(checked)  # type: ignore[attr-defined]
        spectrum = clean(np.linalg.eigvalsh(moment.matrix), moment.n)
        notes, route = notes_of(moment.matrix, moment.n, orders), "random features"
        scores = scores_of(spectrum.values, orders)
    elif orders == (2.0,):
        route = "sum of squares"
        scores = {2.0: 1 / items.purity(checked)}
    else:
        spectrum = items.spectrum(checked)
        scores, route = scores_of(spectrum.values, orders), items.route
    n = items.n or 0
    return VendiScore(
        scores=scores,
        n=n,
        kernel=items.name,
        route=route,
        rank=None if spectrum is None else len(spectrum.values),
        tolerance=None if spectrum is None else spectrum.tolerance,
        effective_n=float(n) if checked is None else float(1 / np.sum(checked**2)),
        weighted=checked is not None,
        quality=mean_quality(quality, checked, n),
        approximation=notes,
    )


def _named(scores: dict[float, float]) -> dict[str, float]:
    return {order_name(order): score for order, score in scores.items()}
