"""Dominance and hypervolume, exact, in any small number of axes; more is better on each.

Law of this file: pure functions on arrays; the order of points changes nothing, and neither does a point that another
one dominates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def non_dominated(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell which points no other one dominates: none is as good on every axis and better on one.

    Equal points do not dominate each other.

    Args:
        values: [n, axes], more is better.

    Raises:
        ValueError: If the shape is another one or a value is not finite.
    """
    points = _points(values)
    as_good = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] > points[None, :, :]).any(axis=2)
    return np.asarray(~(as_good & better).any(axis=0))


def hypervolume(values: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the volume that points dominate above a reference (Zitzler and Thiele, 1998), exactly.

    By slices along the last axis, each of one dimension less: a sum in two axes, sums of sums in three.

    Args:
        values: [n, axes], more is better.
        reference: [axes]. Points that do not exceed it on every axis add nothing.

    Raises:
        ValueError: If the shapes do not fit or a value is not finite.
    """
    points, corner = _points(values), np.asarray(reference, dtype=np.float64)
    if corner.shape != (points.shape[1],) or not np.isfinite(corner).all():
        raise ValueError(
            f"a reference of shape {corner.shape} for {points.shape[1]} axes; give one finite value an axis"
        )
    above = points[(points > corner).all(axis=1)] - corner
    return _volume(np.unique(above, axis=0)) if len(above) else 0.0


def _volume(points: Array) -> float:
    """The volume between the origin and points of positive coordinates."""
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1], kind="stable")]
    heights = np.append(points[:, -1], 0.0)
    total = 0.0
    for count in range(1, len(points) + 1):
        thickness = heights[count - 1] - heights[count]
        if thickness > 0:
            total += float(thickness) * _volume(points[:count, :-1])
    return total


def _points(values: npt.ArrayLike) -> Array:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"points of shape {points.shape}; they must be [n, axes]")
    if not np.isfinite(points).all():
        raise ValueError(f"point {int(np.argmin(np.isfinite(points).all(axis=1)))} is not finite")
    return points
