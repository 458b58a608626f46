"""Similarities that a Vendi score can be taken of: cosine, Gaussian, equality of labels, or a given matrix.

Law of this file: every kernel is positive semi-definite with ones on its diagonal, and has a name that a report can
print. A kernel is a small value; what it needs of the data is computed where it is used.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from t2ialign.eval.vendi.spectrum import Array

_DIAGONAL = 1e-4
_SYMMETRY = 1e-5


@dataclass(frozen=True)
class Cosine:
    """Cosine of the angle between feature vectors, the usual kernel; exact at any number of items.

    Attributes:
        center: Subtract the mean feature first. Embeddings that lie in a narrow cone (CLIP's: mean cosine near 0.85)
            have scores of 1 to 4 otherwise. Say so where you report it: the two are not comparable.
    """

    center: bool = False

    @property
    def name(self) -> str:
        """For a report."""
        return "cosine, centred" if self.center else "cosine"


@dataclass(frozen=True)
class Gaussian:
    """`exp(-|x - y|^2 / (2 sigma^2))` of feature vectors as they are, exact: n^2 numbers and n^3 steps.

    Order 2 needs neither: it is summed over blocks.

    Attributes:
        sigma: Bandwidth in the units of the features, positive; `median_sigma` finds a usual one.
        limit: Items above which orders other than 2 are refused.
    """

    sigma: float
    limit: int = 20_000

    def __post_init__(self) -> None:
        """Refuse a bandwidth that is not positive."""
        _check_sigma(self.sigma)

    @property
    def name(self) -> str:
        """For a report."""
        return f"gaussian, sigma {self.sigma:g}"


@dataclass(frozen=True)
class RandomFeatures:
    """The Gaussian kernel by random Fourier features (Rahimi and Recht, 2007), for many items.

    An item becomes `[cos(w_j x), sin(w_j x)] / sqrt(count)`, j = 1 to count, w_j from N(0, 1 / sigma^2).

    Attributes:
        sigma: Bandwidth, as of `Gaussian`.
        count: Number of frequencies; there are twice as many features.
        seed: Of the frequencies.
    """

    sigma: float
    count: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_sigma(self.sigma)
        if self.count < 2:
            raise ValueError(f"{self.count} random frequencies are too few; take 1000")

    @property
    def name(self) -> str:
        """For a report."""
        return f"gaussian, sigma {self.sigma:g}, by {2 * self.count} random features (seed {self.seed})"


@dataclass(frozen=True)
class Labels:
    """A weighted sum of equalities: `k(a, b) = sum_l w_l [a_l = b_l]` of items with one label a level.

    Exact at any number of items, since equal items are one item with their weights added.

    Attributes:
        weights: One weight a level, at least 0, of sum 1.
        nested: A finer level counts as equal only where all levels before it are equal, so that a country of one
            continent never equals the same word under another. Levels then go from coarse to fine.
    """

    weights: tuple[float, ...] = (1.0,)
    nested: bool = False

    def __post_init__(self) -> None:
        """Refuse weights that make no kernel with ones on its diagonal."""
        array = np.asarray(self.weights, dtype=np.float64)
        if array.ndim != 1 or not len(array) or not np.isfinite(array).all() or (array < 0).any():
            raise ValueError(f"label weights {self.weights} must be numbers of at least 0, one for each level")
        if abs(float(array.sum()) - 1) > 1e-6:
            raise ValueError(f"label weights {self.weights} sum to {array.sum():g}; they must sum to 1")

    @property
    def name(self) -> str:
        """For a report."""
        shown = ", ".join(f"{weight:.4g}" for weight in self.weights)
        return f"{'nested ' if self.nested else ''}equality of labels, weights {shown}"


Kernel = Cosine | Gaussian | RandomFeatures | Labels | Literal["cosine", "precomputed"]
"""A kernel, "cosine" for `Cosine()`, or "precomputed" where the data are the kernel matrix itself."""


def _check_sigma(sigma: float) -> None:
    if not sigma > 0 or not np.isfinite(sigma):
        raise ValueError(f"sigma is {sigma}; a Gaussian kernel needs a positive bandwidth (see median_sigma)")


def as_features(features: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Bring features, also a tensor of any device, to an array [n, d] of floating point, without a copy if it is one.

    Raises:
        ValueError: If the shape is another one or nothing is there.
    """
    if hasattr(features, "detach"):
        tensor = features.detach().cpu()
        # numpy has no bfloat16
        array = np.asarray(tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy())
    else:
        array = np.asarray(features)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"features of shape {array.shape}; they must be [n, d] with n and d at least 1 (a stream of blocks is an "
            "iterator: iter(blocks))"
        )
    return array


def precision_of(features: npt.ArrayLike) -> float:
    """Relative noise that eigenvalues have because features were rounded: the square of their type's epsilon."""
    dtype = str(getattr(features, "dtype", "float64")).removeprefix("torch.")
    if dtype == "bfloat16":
        return float(2.0**-14)
    return float(np.finfo(dtype).eps) ** 2 if dtype in ("float16", "float32") else 0.0


def unit_rows(features: npt.ArrayLike, center: bool = False) -> Array:
    """Return features of length one, [n, d], after taking off their mean if asked to.

    Raises:
        ValueError: If a row is zero or not finite; it names the row.
    """
    array = np.array(as_features(features), dtype=np.float64)
    if center:
        array -= array.mean(axis=0)
    squares = np.einsum("ij,ij->i", array, array)
    check_lengths(squares)
    array /= np.sqrt(squares)[:, None]
    return array


def check_lengths(squares: Array, first: int = 0) -> None:
    """Refuse feature vectors of length zero, and those that are not finite.

    Args:
        squares: Squared lengths, [n].
        first: Number of the first of them, for the message.
    """
    fine = np.isfinite(squares) & (squares > 0)
    if not fine.all():
        at = int(np.argmin(fine))
        what = "zero: it has no direction" if squares[at] == 0 else "not finite, or too large to be squared"
        raise ValueError(f"feature vector {first + at} is {what}; leave such items out")


def gaussian_block(first: Array, second: Array, sigma: float) -> Array:
    """Return the Gaussian kernel between two groups of features, [n, m]."""
    squares = np.einsum("ij,ij->i", first, first)[:, None] + np.einsum("ij,ij->i", second, second)[None, :]
    squares -= 2 * (first @ second.T)
    np.maximum(squares, 0, out=squares)
    return np.asarray(np.exp(squares / (-2 * sigma * sigma)))


def gaussian_kernel(features: npt.ArrayLike, sigma: float) -> Array:
    """Return the Gaussian kernel of features with themselves, [n, n], of ones on the diagonal."""
    _check_sigma(sigma)
    # Distances do not change when a mean is taken off, but their round-off does.
    array = np.array(as_features(features), dtype=np.float64)
    array -= array.mean(axis=0)
    kernel = gaussian_block(array, array, sigma)
    kernel = (kernel + kernel.T) / 2
    np.fill_diagonal(kernel, 1.0)
    return kernel


def cosine_kernel(features: npt.ArrayLike) -> Array:
    """Return the cosine kernel of features with themselves, [n, n]."""
    unit = unit_rows(features)
    return np.asarray(unit @ unit.T)


def median_sigma(features: npt.ArrayLike, *, pairs: int = 10_000, seed: int = 0) -> float:
    """Return the median distance of random pairs of items, the usual bandwidth of a Gaussian kernel.

    Raises:
        ValueError: If there are fewer than two items, or the median distance is zero.
    """
    array = as_features(features)
    n = len(array)
    if n < 2:
        raise ValueError("a median distance needs at least 2 items")
    generator = np.random.default_rng(seed)
    first = generator.integers(0, n, size=pairs)
    second = (first + generator.integers(1, n, size=pairs)) % n
    distances = np.linalg.norm(array[first].astype(np.float64) - array[second].astype(np.float64), axis=1)
    sigma = float(np.median(distances))
    _check_sigma(sigma)
    return sigma


def label_levels(labels: Sequence[Hashable] | Sequence[Sequence[Hashable]], levels: int) -> list[tuple[Hashable, ...]]:
    """Bring labels to tuples of one label a level; a single level takes the labels themselves.

    A label is compared by equality; `None` equals `None`.

    Raises:
        ValueError: If an item has another number of labels, or there are none.
    """
    items: list[tuple[Hashable, ...]] = []
    for number, label in enumerate(labels):
        several = isinstance(label, tuple | list)
        parts = tuple(label) if several else (label,)  # type: ignore[arg-type]
        if levels == 1 and several and len(parts) != 1:
            parts = (parts,)
        if len(parts) != levels:
            raise ValueError(f"item {number} has {len(parts)} labels ({label!r}) for {levels} weights")
        items.append(parts)
    if not items:
        raise ValueError("there are no labels")
    return items


def label_kernel(
    labels: Sequence[Hashable] | Sequence[Sequence[Hashable]],
    weights: Sequence[float] = (1.0,),
    *,
    nested: bool = False,
) -> Array:
    """Return the label kernel of items, [n, n]: see `Labels`."""
    kind = Labels(tuple(weights), nested)
    items = label_levels(labels, len(kind.weights))
    kernel = np.zeros((len(items), len(items)))
    for level, weight in enumerate(kind.weights):
        codes: dict[Hashable, int] = {}
        keys = [item[: level + 1] if nested else item[level] for item in items]
        coded = np.array([codes.setdefault(key, len(codes)) for key in keys])
        kernel += weight * (coded[:, None] == coded[None, :])
    np.fill_diagonal(kernel, 1.0)
    return kernel


def checked_kernel(matrix: npt.ArrayLike) -> Array:
    """Bring a given kernel matrix to float64, [n, n].

    Raises:
        ValueError: If it is not square, not finite, not symmetric, or its diagonal is not one.
    """
    given = matrix.detach().cpu().numpy() if hasattr(matrix, "detach") else matrix
    kernel = np.asarray(given, dtype=np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not kernel.size:
        raise ValueError(f"a kernel of shape {kernel.shape} is not square; features go in with kernel='cosine'")
    if not np.isfinite(kernel).all():
        raise ValueError("the kernel holds numbers that are not finite")
    diagonal = np.abs(np.diagonal(kernel) - 1)
    if diagonal.max() > _DIAGONAL:
        at = int(np.argmax(diagonal))
        raise ValueError(
            f"entry ({at}, {at}) of the kernel is {kernel[at, at]:g}; an item must be as similar as 1 to itself: "
            "divide K[i, j] by sqrt(K[i, i] K[j, j])"
        )
    skew = float(np.abs(kernel - kernel.T).max())
    if skew > _SYMMETRY:
        raise ValueError(
            f"the kernel is not symmetric: entries differ by up to {skew:g}; take (K + K.T) / 2 if that is noise"
        )
    return kernel
