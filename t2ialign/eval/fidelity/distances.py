"""Distances between two clouds of features: Frechet's, and the kernel distance.

Law of this file: double precision, no random subsets, and no square root of a matrix that is not symmetric.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_BLOCK = 2048


def frechet_distance(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    r"""Return the squared Frechet distance of two normal distributions with the clouds' means and covariances.

    .. math:: |\mu_1 - \mu_2|^2 + tr(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})

    (Heusel et al., arXiv 1706.08500, with covariances over n - 1 as its code.) On Inception's features it is
    the FID. It lies above its limit by an amount that grows with the dimension and falls with n: compare at equal n
    alone.

    Args:
        real: [n, d], n at least 2.
        generated: [m, d], m at least 2.

    Raises:
        ValueError: If the shapes do not fit or a number is not finite.
    """
    one, two = _pair(real, generated)
    first, second = one - one.mean(axis=0), two - two.mean(axis=0)
    gap = float(np.sum((one.mean(axis=0) - two.mean(axis=0)) ** 2))
    n, m = len(one) - 1, len(two) - 1
    traces = float(np.sum(first**2) / n + np.sum(second**2) / m)
    return max(0.0, gap + traces - 2 * _root_trace(first, second) / float(np.sqrt(n * m)))


def _root_trace(first: Array, second: Array) -> float:
    """Return `tr((A' A B' B)^(1/2))` for centred clouds A and B: the sum of the singular values of `A B'`.

    Where there are more pictures than dimensions, A' A is first replaced by its root R, since `R B' B R` has the
    squares of the same singular values as eigenvalues.
    """
    if len(first) < first.shape[1] and len(second) < first.shape[1]:
        return float(np.linalg.svd(first @ second.T, compute_uv=False).sum())
    values, vectors = np.linalg.eigh(first.T @ first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = root @ (second.T @ second) @ root
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2), 0)).sum())


def kernel_distance(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    """Return the unbiased squared maximum mean discrepancy under the kernel `(x y / d + 1)^3`.

    (Binkowski et al., arXiv 1801.01401.) On Inception's features it is the KID. Taken over all pairs, it is
    what the usual mean over random subsets of 1000 pictures is an estimate of. It has no bias in n and may be
    negative.

    Args:
        real: [n, d], n at least 2.
        generated: [m, d], m at least 2.

    Raises:
        ValueError: If the shapes do not fit or a number is not finite.
    """
    one, two = _pair(real, generated)
    n, m = len(one), len(two)
    within = (_sum(one, one) - _diagonal(one)) / (n * (n - 1)) + (_sum(two, two) - _diagonal(two)) / (m * (m - 1))
    return float(within - 2 * _sum(one, two) / (n * m))


def _sum(one: Array, two: Array) -> float:
    width = one.shape[1]
    parts = (one[start : start + _BLOCK] @ two.T for start in range(0, len(one), _BLOCK))
    return float(sum(np.sum((part / width + 1) ** 3) for part in parts))


def _diagonal(one: Array) -> float:
    return float(np.sum((np.einsum("ij,ij->i", one, one) / one.shape[1] + 1) ** 3))


def _pair(real: npt.ArrayLike, generated: npt.ArrayLike) -> tuple[Array, Array]:
    one, two = as_cloud(real, "real"), as_cloud(generated, "generated")
    if one.shape[1] != two.shape[1]:
        raise ValueError(f"features of width {one.shape[1]} and {two.shape[1]} are not of one network")
    return one, two


def as_cloud(features: npt.ArrayLike, name: str) -> Array:
    """Bring features, also a tensor, to float64 [n, d].

    Raises:
        ValueError: If there are fewer than two, or a number is not finite.
    """
    given = features.detach().cpu().double().numpy() if hasattr(features, "detach") else features
    array = np.asarray(given, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2 or not array.shape[1]:
        raise ValueError(f"{name} features of shape {array.shape}; they must be [n, d] with n at least 2")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} feature vector {int(np.argmin(np.isfinite(array).all(axis=1)))} is not finite")
    return array
