"""Where the spread of scores comes from: prompts or seeds, and what more of either would bring.

Law of this file: pictures of a prompt differ by their noise alone, so the split is that of a one-way random-effects
model; a component that is estimated below 0 is reported as 0, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Array


@dataclass(frozen=True)
class VarianceSplit:
    """Variance of scores, split.

    Attributes:
        prompts: Variance between prompts, at least 0.
        seeds: Variance between pictures of one prompt.
        share: Of prompts in the sum (the intraclass correlation), in [0, 1].
        share_ci95: Percentile bootstrap over prompts.
        clipped: Whether the estimate between prompts was below 0 and was set to 0.
        n_prompts: Prompts.
        n_pictures: Pictures.
    """

    prompts: float
    seeds: float
    share: float
    share_ci95: tuple[float, float]
    clipped: bool
    n_prompts: int
    n_pictures: int

    def standard_error(self, prompts: int, seeds: int) -> float:
        """Return the standard error of a mean over so many prompts with so many seeds each."""
        if prompts < 1 or seeds < 1:
            raise ValueError(f"{prompts} prompts with {seeds} seeds give no mean; both must be at least 1")
        return math.sqrt((self.prompts + self.seeds / seeds) / prompts)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def split_variance(
    scores: npt.ArrayLike, prompts: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> VarianceSplit:
    r"""Split the variance of scores by the method of moments (analysis of variance, unbalanced).

    With mean squares between and within prompts and :math:`n_0 = (N - \sum n_p^2 / N) / (P - 1)`,

    .. math:: \hat\sigma_S^2 = MS_W, \qquad \hat\sigma_P^2 = (MS_B - MS_W) / n_0

    (S. R. Searle, G. Casella, C. E. McCulloch, *Variance Components*, 1992, section 3.6.)

    Args:
        scores: [N], finite.
        prompts: Prompt of each, [N]; at least 2, and at least one with 2 pictures.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there is nothing to split.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(prompts),) or not np.isfinite(values).all():
        raise ValueError(f"give a finite score for each of the {len(prompts)} pictures")
    order: dict[str, int] = {}
    index = np.array([order.setdefault(prompt, len(order)) for prompt in prompts], dtype=np.int64)
    if len(order) < 2 or len(order) == len(values):
        raise ValueError(
            f"{len(values)} pictures of {len(order)} prompts can not be split; "
            "it takes 2 prompts, and 2 pictures of one"
        )
    sizes = np.bincount(index).astype(float)
    means = np.bincount(index, weights=values) / sizes
    within = np.asarray(np.bincount(index, weights=(values - means[index]) ** 2), dtype=np.float64)
    weights = np.ones((1, len(sizes)))
    drawn = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    between, inside = (float(each[0]) for each in _components(weights, sizes, means, within))
    shares = _share(*_components(drawn.astype(float), sizes, means, within))
    low, high = np.quantile(shares[np.isfinite(shares)], (0.025, 0.975))
    return VarianceSplit(
        prompts=max(0.0, between),
        seeds=inside,
        share=float(_share(np.array([between]), np.array([inside]))[0]),
        share_ci95=(float(low), float(high)),
        clipped=between < 0,
        n_prompts=len(sizes),
        n_pictures=len(values),
    )


def _components(weights: Array, sizes: Array, means: Array, within: Array) -> tuple[Array, Array]:
    """Return the two components for R weightings of the prompts, [R] each; NaN where a resample has too few."""
    prompts, pictures = weights.sum(1), weights @ sizes
    grand = (weights @ (sizes * means)) / pictures
    between = weights @ (sizes * means**2) - pictures * grand**2
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (weights @ within) / (pictures - prompts)
        size = (pictures - (weights @ sizes**2) / pictures) / (prompts - 1)
        return (between / (prompts - 1) - inside) / size, inside


def _share(between: Array, inside: Array) -> Array:
    """Return the share, [R]; 0 where nothing varies, NaN where a component is."""
    total = np.maximum(between, 0.0) + inside
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total == 0, 0.0, np.maximum(between, 0.0) / total)
