r"""Partial pooling: cells with few prompts are drawn to the mean of all cells, as far as the data say they are alike.

Law of this file: the raw figure and its n always stand beside the pooled one, and what is not known of the cells'
spread goes into the interval. Two models, both averaged over their hyperparameters on a grid, nothing is plugged in:

* means: :math:`y_c \sim N(\theta_c, \sigma^2/n_c),\ \theta_c \sim N(\mu, \tau^2)`, flat priors on mu and tau, sigma^2
  the variance of prompts inside cells. Given tau,
  :math:`\theta_c \sim N((1-B_c) y_c + B_c \hat\mu,\ (1-B_c)\sigma^2/n_c + B_c^2 V_\mu)` with
  :math:`B_c = (\sigma^2/n_c) / (\sigma^2/n_c + \tau^2)` (Gelman et al., Bayesian Data Analysis, 3rd edition, 5.4).
* shares: :math:`x_c \sim Bin(n_c, \theta_c),\ \theta_c \sim Beta(mk, (1-m)k)`, flat priors on m and on
  :math:`k^{-1/2}` below 1.5 (the same, 5.3). Given m and k, theta is :math:`Beta(mk + x_c, (1-m)k + n_c - x_c)`, with
  the mean :math:`(x_c + k m)/(n_c + k)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Interval

Array = npt.NDArray[np.float64]
MIN_CELLS = 3
"""Cells from which a spread between them can be told; with flat priors fewer do not do."""
_TAUS, _MEANS, _SPREADS, _POINTS = 120, 50, 30, 160
_NEGLIGIBLE = 1e-3
"""Weight of a grid point, as a part of the largest, below which it is passed over."""


@dataclass(frozen=True)
class Pooled:
    """A cell's figure after pooling.

    Attributes:
        value: Posterior mean.
        interval: Central 95 % of the posterior.
        own_weight: Weight of the cell's own figure, in [0, 1]; the rest is that of the mean of all cells.
    """

    value: float
    interval: Interval
    own_weight: float


def pool_means(cells: Sequence[Sequence[float]], confidence: float = 0.95) -> list[Pooled] | None:
    """Pool means.

    Args:
        cells: Of each cell, a number a prompt; at least one each.
        confidence: Of the intervals, in (0, 1).

    Returns:
        A figure a cell; `None` where pooling says nothing: fewer than `MIN_CELLS` cells, or no two prompts that differ
        inside a cell.
    """
    from scipy import special

    arrays = [np.asarray(cell, dtype=np.float64) for cell in cells]
    freedom = sum(len(cell) - 1 for cell in arrays)
    inside = sum(float(np.sum((cell - cell.mean()) ** 2)) for cell in arrays)
    if len(arrays) < MIN_CELLS or freedom < 1 or inside == 0:
        return None
    means = np.array([cell.mean() for cell in arrays])
    variances = inside / freedom / np.array([len(cell) for cell in arrays])
    top = 5 * float(means.std() + np.sqrt(variances.mean()))
    taus = top * (np.arange(_TAUS) + 0.5) / _TAUS
    total = variances[None, :] + taus[:, None] ** 2
    mean_variance = 1 / (1 / total).sum(axis=1)
    centre = mean_variance * (means / total).sum(axis=1)
    log = 0.5 * np.log(mean_variance) - 0.5 * (np.log(total) + (means - centre[:, None]) ** 2 / total).sum(axis=1)
    weights, kept = _normalised(log)
    drawn = (variances / total)[kept]
    locations = (1 - drawn) * means + drawn * centre[kept, None]
    spreads = np.sqrt((1 - drawn) * variances + drawn**2 * mean_variance[kept, None])
    found = []
    for c in range(len(arrays)):
        location, spread = locations[:, c], spreads[:, c]
        grid = np.linspace((location - 6 * spread).min(), (location + 6 * spread).max(), 2 * _POINTS)
        cdf = weights @ special.ndtr((grid - location[:, None]) / spread[:, None])
        own = float(weights @ (1 - drawn[:, c]))
        found.append(Pooled(float(weights @ location), _central(grid, cdf, confidence), own))
    return found


def pool_shares(successes: Sequence[float], prompts: Sequence[int], confidence: float = 0.95) -> list[Pooled] | None:
    """Pool shares.

    Args:
        successes: Of each cell, the sum over prompts of the prompt's share of pictures, in [0, n]. With several
            pictures a prompt it may be a fraction; prompts then vary less than the model says: too wide an interval.
        prompts: Of each cell, n, at least 1.
        confidence: Of the intervals, in (0, 1).

    Returns:
        A figure a cell; `None` with fewer than `MIN_CELLS` cells.

    Raises:
        ValueError: If a number is out of range.
    """
    from scipy import special

    x, n = np.asarray(successes, dtype=np.float64), np.asarray(prompts, dtype=np.float64)
    if np.any(n < 1) or np.any(x < 0) or np.any(x > n):
        raise ValueError("successes must lie between 0 and the number of prompts, which must be at least 1")
    if len(x) < MIN_CELLS:
        return None
    mean, spread = np.meshgrid((np.arange(_MEANS) + 0.5) / _MEANS, 1.5 * (np.arange(_SPREADS) + 0.5) / _SPREADS)
    k = spread.reshape(-1) ** -2.0
    alpha = mean.reshape(-1) * k
    beta = k - alpha
    log = special.betaln(alpha[:, None] + x, beta[:, None] + n - x) - special.betaln(alpha, beta)[:, None]
    weights, kept = _normalised(log.sum(axis=1))
    alpha, beta, k = alpha[kept], beta[kept], k[kept]
    logits = np.linspace(-10, 10, 2 * _POINTS)
    log_share, log_rest = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    found = []
    for successes_here, n_here in zip(x, n, strict=True):
        first, second = alpha + successes_here, beta + n_here - successes_here
        density = np.exp(
            np.outer(first, log_share) + np.outer(second, log_rest) - special.betaln(first, second)[:, None]
        )
        cdf = _summed(logits, weights @ density, float(weights @ special.betainc(first, second, np.exp(log_share[0]))))
        value, own = float(weights @ (first / (first + second))), float(weights @ (n_here / (n_here + k)))
        found.append(Pooled(value, _central(np.exp(log_share), cdf, confidence), own))
    return found


def _summed(grid: Array, density: Array, start: float) -> Array:
    """Return the distribution of a density by the trapezoidal rule, `start` being what lies before the grid."""
    steps = np.diff(grid) * (density[1:] + density[:-1]) / 2
    return np.concatenate([[start], start + np.cumsum(steps)])


def _normalised(log: Array) -> tuple[Array, npt.NDArray[np.intp]]:
    """Return the weights of the grid points that matter, of sum 1, and which these are."""
    weights = np.exp(log - log.max())
    (kept,) = np.nonzero(weights > _NEGLIGIBLE)
    return np.asarray(weights[kept] / weights[kept].sum()), kept


def _central(grid: Array, cdf: Array, confidence: float) -> Interval:
    """Return the central interval of a distribution that is known on a grid."""
    tail = (1 - confidence) / 2
    rising = np.maximum.accumulate(cdf)
    low, high = np.interp([tail, 1 - tail], rising, grid)
    return Interval(float(low), float(high))
