"""The exact dual: the weighted second moment of features, summed over blocks of a stream.

The kernel `diag(sqrt p) X X' diag(sqrt p)`, [n, n], and `X' diag(p) X`, [d, d], have the same eigenvalues other than
zero, so that a score of a million items needs memory for one block and one d x d matrix.

Law of this file: every row is brought to float64 before anything is computed from it, and sums are float64, whatever
the type of the features; a block's size changes nothing but round-off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from t2ialign.eval.vendi.kernels import as_features, check_lengths, precision_of
from t2ialign.eval.vendi.spectrum import Array

_ROWS = 1024
"""Rows that are brought to float64 at a time: 6 MB at d = 768, small enough to stay near the processor."""

Map = Callable[[Array], Array]
"""From features in float64, [rows, d], to the features whose products are the kernel, [rows, D]."""


class Moment(NamedTuple):
    """A second moment of unit features.

    Attributes:
        matrix: `sum_i p_i x_i x_i'`, [D, D], of trace 1.
        n: Items that went in.
        precision: Relative noise of its eigenvalues because of the features' own type.
    """

    matrix: Array
    n: int
    precision: float


def is_stream(features: object) -> bool:
    """Whether features are an iterator over blocks and no array."""
    return hasattr(features, "__next__")


def unit_map(rows: Array) -> Array:
    """Bring rows to length one, in place, for the cosine kernel."""
    squares = np.einsum("ij,ij->i", rows, rows)
    check_lengths(squares)
    rows /= np.sqrt(squares)[:, None]
    return rows


def second_moment(blocks: Iterable[npt.ArrayLike], mapping: Map = unit_map, weights: Array | None = None) -> Moment:
    """Sum the second moment of a stream of features.

    Args:
        blocks: Arrays or tensors [rows, d] of any floating type; consumed once.
        mapping: Applied to float64 rows; may work in place.
        weights: [n], of any positive sum, for all blocks together; equal ones if `None`.

    Raises:
        ValueError: If there is nothing, d changes, a row is not fit, or the number of weights is not that of rows.
    """
    sums: _Sums | None = None
    precision, n = 0.0, 0
    for block in blocks:
        precision = max(precision, precision_of(block))
        array = as_features(block)
        sums = sums or _Sums(array.shape[1])
        if array.shape[1] != sums.width:
            raise ValueError(
                f"a block after row {n} has features of width {array.shape[1]}, those before {sums.width}"
            )
        if weights is not None and n + len(array) > len(weights):
            raise ValueError(f"more than {len(weights)} items for {len(weights)} weights; give one weight an item")
        for start in range(0, len(array), _ROWS):
            rows = array[start : start + _ROWS]
            at = n + start
            sums.add(rows, mapping, None if weights is None else weights[at : at + len(rows)], at)
        n += len(array)
    if sums is None or sums.matrix is None:
        raise ValueError("the stream of features is empty")
    if weights is not None and len(weights) != n:
        raise ValueError(f"{len(weights)} weights for {n} items; give one weight an item")
    total = float(n) if weights is None else float(weights.sum())
    return Moment(sums.symmetric() / total, n, precision)


class _Sums:
    """The lower triangle of a growing second moment, and the block that rows are copied to."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.matrix: Array | None = None
        self._rows = np.empty((_ROWS, width))

    def add(self, rows: npt.NDArray[np.floating], mapping: Map, weights: Array | None, first: int) -> None:
        """Add rows; `first` is the number of the first of them, for messages."""
        from scipy.linalg.blas import dsyrk

        copied = self._rows[: len(rows)]
        np.copyto(copied, rows)
        try:
            mapped = mapping(copied)
        except ValueError:
            check_lengths(np.einsum("ij,ij->i", copied, copied), first)
            raise
        if weights is not None:
            mapped *= np.sqrt(weights)[:, None]
        if self.matrix is None:
            self.matrix = np.zeros((mapped.shape[1], mapped.shape[1]), order="F")
        # A rank-k update of one triangle, in place: half the work of a product, and no copy of the sum.
        self.matrix = dsyrk(1.0, mapped.T, beta=1.0, c=self.matrix, overwrite_c=1, lower=1)

    def symmetric(self) -> Array:
        """The whole matrix."""
        if self.matrix is None:
            raise ValueError("the stream of features is empty")
        lower = np.tril(self.matrix)
        return np.asarray(lower + np.tril(self.matrix, -1).T)
