"""Plots: places of marks, round ticks, and words that stay words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from t2ialign.eval.reporting.plots import SHAPES, WIDTH, draw, ticks

POINT = {"label": 'a <b> & "c"', "value": 0.5, "low": 0.25, "high": 0.75, "row": "x/y", "tone": "open"}
DATA: dict[str, dict[str, Any]] = {
    "intervals": {"points": [POINT, POINT | {"low": None, "high": None}], "mark": 0.5},
    "bars": {"groups": [{"label": "g & h", "bars": [POINT | {"series": "one"}, POINT | {"series": "<two>"}]}]},
    "stacked": {"lines": [{"label": "l", "parts": [{"series": "s<", "value": 0.25, "row": "x/y"}]}]},
    "lines": {"series": [{"label": "s", "points": [{"x": 1, "value": 2.0}, {"x": 2, "value": 3.0}]}], "x": "t"},
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_plot_is_whole_xml_and_says_its_rows(shape: str) -> None:
    svg = draw(shape, 'title "quoted" <&>', DATA[shape], {"x/y": 7})
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'title "quoted" <&>'
    if shape != "lines":
        assert "row 7" in svg
    width, height = (float(each) for each in (root.get("viewBox") or "").split()[2:])
    assert width == WIDTH
    for text in root.iter("text"):
        assert 0 <= float(text.get("x") or -1) <= WIDTH
        assert 0 <= float(text.get("y") or -1) <= height


def test_intervals_stand_where_their_values_are() -> None:
    svg = draw("intervals", "t", {"points": [POINT | {"value": 0.0}, POINT | {"value": 1.0}, POINT], "mark": 0.5}, {})
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert places == [6.0, WIDTH - 6.0, WIDTH / 2]
    marks = re.findall(r'class="mark" x1="([\d.]+)"', svg)
    assert [float(x) for x in marks] == [WIDTH / 2]


def test_bars_are_as_long_as_their_values() -> None:
    bars = [{"series": name, "value": value} for name, value in (("a", 0.2), ("b", 0.4), ("c", 0.0))]
    svg = draw("bars", "t", {"groups": [{"label": "g", "bars": bars}], "top": 1.0}, {})
    widths = [float(w) for w in re.findall(r'<rect x="6" y="[\d.]+" width="([\d.]+)" height="11" fill', svg)][3:]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == 0.5


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (-0.3, 0.3, [-0.2, 0, 0.2]), (0, 97, [0, 25, 50, 75]), (2, 2, [2])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_plot_of_equal_values_is_drawn() -> None:
    plots = (
        ("intervals", {"points": [POINT | {"low": 0.5, "high": 0.5}]}),
        ("lines", {"series": [{"label": "s", "points": [{"x": 1, "value": 2.0}]}]}),
        ("bars", {"groups": [{"label": "g", "bars": [{"series": "a", "value": 0.0}]}]}),
    )
    for kind, data in plots:
        drawn = draw(kind, "t", data, {})
        assert ElementTree.fromstring(drawn).tag.endswith("svg")
        assert "nan" not in drawn.lower()
