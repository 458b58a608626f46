"""Items under a kernel: what their eigenvalues are, by the cheapest exact route, for all of them or for some.

Law of this file: all routes give the same eigenvalues other than zero. Rows that are asked for again and again
(subsamples) are brought to float64 once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from t2ialign.eval.vendi.kernels import (
    Cosine,
    Gaussian,
    Kernel,
    Labels,
    RandomFeatures,
    as_features,
    checked_kernel,
    gaussian_block,
    gaussian_kernel,
    label_kernel,
    label_levels,
    precision_of,
    unit_rows,
)
from t2ialign.eval.vendi.random_features import frequencies, random_feature_map
from t2ialign.eval.vendi.spectrum import EPSILON, Array, Spectrum, clean
from t2ialign.eval.vendi.streaming import Map, Moment, is_stream, second_moment, unit_map

Data = npt.ArrayLike | Iterator[npt.ArrayLike] | Sequence[Hashable] | Sequence[Sequence[Hashable]]
"""Features [n, d], a stream of blocks of them [rows, d], a kernel matrix [n, n], or labels."""
Rows = npt.NDArray[np.integer]

_BLOCK = 2048
"""Rows of a kernel that is summed in blocks and never held."""


class Items(Protocol):
    """What a Vendi score needs to know of its items.

    Attributes:
        name: Of the kernel.
        route: How eigenvalues are found.
        n: Number of items; `None` for a stream that was not read yet.
    """

    name: str
    route: str
    n: int | None

    def spectrum(self, weights: Array | None = None, rows: Rows | None = None) -> Spectrum:
        """The eigenvalues of the items, or of some rows, under weights of sum 1 (one a row)."""

    def purity(self, weights: Array | None = None, rows: Rows | None = None) -> float:
        """`sum_ij p_i p_j K_ij^2`, the inverse of the score of order 2, without eigenvalues."""


class FeatureItems:
    """Items whose kernel is the product of mapped features: the dual, or the kernel matrix where n < d."""

    def __init__(
        self, features: Any, name: str, mapping: Map, *, precision: float | None = None, width: int | None = None
    ) -> None:
        self.name = name
        self._stream = features if is_stream(features) else None
        self._features: Any = None if self._stream is not None else features
        self._shape = None if self._stream is not None else as_features(features).shape
        self.n: int | None = None if self._shape is None else self._shape[0]
        self._mapping = mapping
        self._precision = precision
        self._width = width or (self._shape[1] if self._shape else 0)
        self._mapped: Array | None = None
        self.route = "kernel" if self._small(None) else "dual"

    def moment(self, weights: Array | None = None, rows: Rows | None = None) -> Moment:
        """The second moment [D, D]; a stream is read here, once."""
        if self._stream is not None:
            if rows is not None:
                raise ValueError("a stream has no rows to choose from; give the features as one array")
            found = second_moment(self._stream, self._mapping, weights)
            self.n = found.n
            return found
        if rows is None:
            return second_moment([self._features], self._mapping, weights)
        picked = self._rows(rows, weights)
        return Moment(picked.T @ picked, len(picked), self._own_precision())

    def spectrum(self, weights: Array | None = None, rows: Rows | None = None) -> Spectrum:
        """See `Items`."""
        if self._small(rows):
            picked = self._rows(rows, weights)
            return clean(np.linalg.eigvalsh(picked @ picked.T), len(picked), self._own_precision())
        moment = self.moment(weights, rows)
        precision = moment.precision if self._precision is None else self._precision
        return clean(np.linalg.eigvalsh(moment.matrix), moment.n, precision)

    def purity(self, weights: Array | None = None, rows: Rows | None = None) -> float:
        """See `Items`."""
        if self._small(rows):
            picked = self._rows(rows, weights)
            return float(np.sum((picked @ picked.T) ** 2))
        return float(np.sum(self.moment(weights, rows).matrix ** 2))

    def _small(self, rows: Rows | None) -> bool:
        """Whether the kernel matrix of these rows is smaller than the second moment."""
        return self._shape is not None and (self._shape[0] if rows is None else len(rows)) < self._width

    def _own_precision(self) -> float:
        return precision_of(self._features) if self._precision is None else self._precision

    def _rows(self, rows: Rows | None, weights: Array | None) -> Array:
        """Mapped rows, each times the root of its weight, so that their squares sum to one."""
        if self._mapped is None:
            array = np.array(as_features(self._features), dtype=np.float64)
            self._mapped = self._mapping(array)
        picked = self._mapped if rows is None else self._mapped[rows]
        return picked * (1 / np.sqrt(len(picked)) if weights is None else np.sqrt(weights)[:, None])


class MatrixItems:
    """Items of a kernel matrix that is held."""

    def __init__(self, kernel: Array, name: str, precision: float = EPSILON) -> None:
        self.name, self.route = name, "kernel"
        self.n: int | None = len(kernel)
        self._kernel = kernel
        self._precision = precision

    def spectrum(self, weights: Array | None = None, rows: Rows | None = None) -> Spectrum:
        """See `Items`."""
        kernel, shares = self._picked(weights, rows)
        roots = np.sqrt(shares)
        weighted = kernel * roots[:, None] * roots[None, :]
        return clean(np.linalg.eigvalsh(weighted), len(kernel), len(kernel) * self._precision)

    def purity(self, weights: Array | None = None, rows: Rows | None = None) -> float:
        """See `Items`."""
        kernel, shares = self._picked(weights, rows)
        return float(shares @ (kernel**2) @ shares)

    def _picked(self, weights: Array | None, rows: Rows | None) -> tuple[Array, Array]:
        kernel = self._kernel if rows is None else self._kernel[np.ix_(rows, rows)]
        return kernel, np.full(len(kernel), 1 / len(kernel)) if weights is None else weights


class GaussianItems(MatrixItems):
    """Items under a Gaussian kernel, whose matrix is made only where eigenvalues are asked for."""

    def __init__(self, features: Any, kernel: Gaussian) -> None:
        self.name, self.route = kernel.name, "kernel"
        self._features = np.array(as_features(features), dtype=np.float64)
        self._features -= self._features.mean(axis=0)
        if not np.isfinite(self._features).all():
            raise ValueError("the features hold numbers that are not finite")
        self.n: int | None = len(self._features)
        self._sigma, self._limit, self._precision = kernel.sigma, kernel.limit, EPSILON

    def purity(self, weights: Array | None = None, rows: Rows | None = None) -> float:
        """See `Items`; the kernel is never held."""
        features = self._features if rows is None else self._features[rows]
        n, total = len(features), 0.0
        shares = np.full(n, 1 / n) if weights is None else weights
        for start in range(0, n, _BLOCK):
            part = slice(start, start + _BLOCK)
            # The diagonal, exactly one, is off by the round-off of a distance from itself; that is below 1e-12.
            block = gaussian_block(features[part], features, self._sigma)
            total += float(shares[part] @ (block**2) @ shares)
        return total

    def _picked(self, weights: Array | None, rows: Rows | None) -> tuple[Array, Array]:
        features = self._features if rows is None else self._features[rows]
        n = len(features)
        if n > self._limit:
            raise ValueError(
                f"{n} items are more than {self._limit} for an exact Gaussian kernel ({n * n * 8 / 2**30:.0f} GB): "
                "take RandomFeatures, or order 2 alone, or raise Gaussian(limit=...)"
            )
        return gaussian_kernel(features, self._sigma), np.full(n, 1 / n) if weights is None else weights


class LabelItems:
    """Items with labels: equal ones are one item with their weights added."""

    def __init__(self, labels: Any, kernel: Labels) -> None:
        self.name, self.route = kernel.name, "merged labels"
        items = label_levels(labels, len(kernel.weights))
        codes: dict[tuple[Hashable, ...], int] = {}
        self._codes = np.array([codes.setdefault(item, len(codes)) for item in items])
        self.n: int | None = len(items)
        self._distinct = MatrixItems(label_kernel(list(codes), kernel.weights, nested=kernel.nested), self.name)

    def spectrum(self, weights: Array | None = None, rows: Rows | None = None) -> Spectrum:
        """See `Items`."""
        present, shares = self._shares(weights, rows)
        return self._distinct.spectrum(shares, present)

    def purity(self, weights: Array | None = None, rows: Rows | None = None) -> float:
        """See `Items`."""
        present, shares = self._shares(weights, rows)
        return self._distinct.purity(shares, present)

    def _shares(self, weights: Array | None, rows: Rows | None) -> tuple[Rows, Array]:
        codes = self._codes if rows is None else self._codes[rows]
        shares = np.bincount(codes, weights=weights, minlength=self._distinct.n or 0)
        present = np.flatnonzero(shares)
        return present, np.asarray(shares[present] / shares.sum())


def items_of(data: Data, kernel: Kernel) -> Items:
    """Bring data and a kernel together.

    Raises:
        ValueError: If the data do not fit the kernel.
        TypeError: If the kernel is none.
    """
    if kernel == "cosine":
        kernel = Cosine()
    if isinstance(kernel, Labels):
        return LabelItems(data, kernel)
    if isinstance(kernel, RandomFeatures):
        stream, width = _peeked(data) if is_stream(data) else (data, as_features(data).shape[1])  # type: ignore[arg-type]
        mapping = random_feature_map(frequencies(width, kernel))
        return FeatureItems(stream, kernel.name, mapping, precision=0.0, width=2 * kernel.count)
    if isinstance(kernel, Cosine):
        return _cosine_items(data, kernel)
    if is_stream(data):
        raise ValueError("a stream of features goes with a cosine kernel or with RandomFeatures; give one array")
    if isinstance(kernel, Gaussian):
        return GaussianItems(data, kernel)
    if kernel == "precomputed":
        dtype = str(getattr(data, "dtype", "float64")).removeprefix("torch.")
        precision = float(np.finfo(dtype).eps) if dtype in ("float16", "float32") else EPSILON
        return MatrixItems(checked_kernel(data), "given", precision)  # type: ignore[arg-type]
    raise TypeError(
        f"{kernel!r} is no kernel; take 'cosine', 'precomputed', Cosine, Gaussian, RandomFeatures or Labels"
    )


def _cosine_items(data: Data, kernel: Cosine) -> FeatureItems:
    if not kernel.center:
        return FeatureItems(data, kernel.name, unit_map)
    if is_stream(data):
        raise ValueError("a stream can not be centred, since its mean is not known; give one array")
    array = as_features(data)  # type: ignore[arg-type]
    return FeatureItems(unit_rows(array, center=True), kernel.name, unit_map, precision=precision_of(array))


def _peeked(blocks: Any) -> tuple[Iterator[npt.ArrayLike], int]:
    """A stream with its first block put back, and that block's width."""
    try:
        first = next(blocks)
    except StopIteration:
        raise ValueError("the stream of features is empty") from None

    def again() -> Iterator[npt.ArrayLike]:
        yield first
        yield from blocks

    return again(), as_features(first).shape[1]
