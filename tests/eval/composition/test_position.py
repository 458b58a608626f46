"""The rule of places against a plain twin, by hand, and by its symmetry."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t2ialign.eval.composition.position import Box, relations

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def twin(a: list[float], b: list[float]) -> set[str]:
    """GenEval's rule, written plainly for one pair."""
    ax, ay, bx, by = (a[0] + a[2]) / 2, (a[1] + a[3]) / 2, (b[0] + b[2]) / 2, (b[1] + b[3]) / 2
    x, y = ax - bx, ay - by
    far = math.sqrt(x * x + y * y)
    slack_x, slack_y = 0.1 * ((a[2] - a[0]) + (b[2] - b[0])), 0.1 * ((a[3] - a[1]) + (b[3] - b[1]))
    found: set[str] = set()
    rest_x = abs(x) - slack_x if abs(x) > slack_x else 0.0
    rest_y = abs(y) - slack_y if abs(y) > slack_y else 0.0
    if rest_x < 0.001 and rest_y < 0.001:
        return found
    if rest_x / far > 0.5:
        found.add("left of" if x < 0 else "right of")
    if rest_y / far > 0.5:
        found.add("above" if y < 0 else "below")
    return found


def test_it_is_the_plain_rule() -> None:
    rng = np.random.default_rng(3)
    seen: set[str] = set()
    sizes = []
    for _ in range(3000):
        corners = rng.uniform(0, 100, (2, 2))
        extents = rng.uniform(1, 60, (2, 2))
        a, b = ([*corner, *(corner + extent)] for corner, extent in zip(corners, extents, strict=True))
        a, b = [float(v) for v in a], [float(v) for v in b]
        found = relations(Box(*a), Box(*b))
        assert found == twin(a, b)
        assert relations(Box(*b), Box(*a)) == {OPPOSITE[each] for each in found}
        seen |= found
        sizes.append(len(found))
    assert seen == set(OPPOSITE)
    assert {0, 1, 2} == set(sizes)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Box(0, 0, 10, 10), Box(50, 0, 60, 10), {"left of"}),
        (Box(50, 0, 60, 10), Box(0, 0, 10, 10), {"right of"}),
        (Box(0, 0, 10, 10), Box(0, 50, 10, 60), {"above"}),  # y grows downward
        (Box(0, 50, 10, 60), Box(0, 0, 10, 10), {"below"}),
        (Box(0, 0, 10, 10), Box(50, 50, 60, 60), {"left of", "above"}),
        (Box(0, 0, 10, 10), Box(0, 0, 10, 10), set()),
        # Widths 10 and 10: 2 pixels are forgiven; 4 apart leaves 2 / 4 = 0.5, not beyond it; 4.1 is.
        (Box(0, 0, 10, 10), Box(4, 0, 14, 10), set()),
        (Box(0, 0, 10, 10), Box(4.1, 0, 14.1, 10), {"left of"}),
    ],
)
def test_by_hand(first: Box, second: Box, expected: set[str]) -> None:
    assert relations(first, second) == expected


def test_the_offset_forgives() -> None:
    assert relations(Box(0, 0, 10, 10), Box(4, 0, 14, 10), offset=0.0) == {"left of"}
