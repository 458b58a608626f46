"""GenEval's rule of relative places.

Law of this file: pure arithmetic on boxes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

OFFSET = 0.1
"""Part of the two boxes' summed extents that centres must be apart along an axis (GenEval, `evaluate_images.py`)."""
DIRECTION = 0.5
"""Sine or cosine of the direction beyond which it has a name, so directions between may have two (same source)."""
RELATIONS = ("left of", "right of", "above", "below")


class Box(NamedTuple):
    """Edges in pixels, x to the right and y downward."""

    left: float
    top: float
    right: float
    bottom: float


def relations(first: Box, second: Box, offset: float = OFFSET) -> frozenset[str]:
    r"""Return how `first` lies to `second`: none, one or two of `RELATIONS`.

    Along each axis the distance of the centres is shortened by `offset` times the sum of both extents, not below 0;
    divided by the (unshortened) distance of the centres it must exceed `DIRECTION`:

    .. math:: \frac{\operatorname{sign}(d_k)\,\max(|d_k| - c\,(w_k + w'_k),\,0)}{\lVert d \rVert} > 0.5

    Args:
        first: Its edges.
        second: Likewise.
        offset: c, at least 0.
    """
    d = (
        (first.left + first.right - second.left - second.right) / 2,
        (first.top + first.bottom - second.top - second.bottom) / 2,
    )
    extents = (
        abs(first.right - first.left) + abs(second.right - second.left),
        abs(first.bottom - first.top) + abs(second.bottom - second.top),
    )
    shortened = [math.copysign(max(abs(a) - offset * b, 0.0), a) for a, b in zip(d, extents, strict=True)]
    if all(abs(a) < 1e-3 for a in shortened):
        return frozenset()
    dx, dy = (a / math.hypot(*d) for a in shortened)
    named = (dx < -DIRECTION, dx > DIRECTION, dy < -DIRECTION, dy > DIRECTION)
    return frozenset(name for name, holds in zip(RELATIONS, named, strict=True) if holds)
