"""Findings: figures as rows, to JSON and back, and words that round as people do."""

from __future__ import annotations

import json

import pytest

from t2ialign.eval.suites.findings import Findings, Row, cell, number, percent, span, span_percent, table
from t2ialign.eval.suites.plan import differences
from t2ialign.eval.suites.report import check, shown_rows


def example() -> Findings:
    findings = Findings("preference", "Preference")
    row = findings.add("win_rate", 0.63, key=("scenes", "oracle"), low=0.58, high=0.68, n=100)
    findings.say("tuned is preferred", [row], "better", headline=True)
    findings.blocks.append(table("Rates", ["a", "b"], [["x", cell("63 %", row)]], ["one"]))
    return findings


def test_findings_come_back_from_json() -> None:
    findings = example()
    assert Findings.from_dict(json.loads(json.dumps(findings.to_dict()))) == findings
    assert findings.rows[0].id == "preference/scenes/oracle/win_rate"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_is_a_number(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Row("x", "s", "m", value)
    with pytest.raises(ValueError, match="finite"):
        Row("x", "s", "m", 1.0, low=value)


def test_what_is_shown_needs_a_row() -> None:
    findings = example()
    assert set(shown_rows(findings.to_dict()["blocks"])) == {"preference/scenes/oracle/win_rate"}
    check([findings])
    findings.rows.clear()
    with pytest.raises(ValueError, match="has no row"):
        check([findings])
    twice = example()
    with pytest.raises(ValueError, match="two figures"):
        check([twice, example()])


@pytest.mark.parametrize(
    ("value", "text"), [(0.63, "63 %"), (0.634, "63 %"), (0.004, "0.4 %"), (0.996, "99.6 %"), (0, "0 %"), (1, "100 %")]
)
def test_a_share_in_words(value: float, text: str) -> None:
    assert percent(value) == text


def test_spans_in_words() -> None:
    assert span_percent(0.58, 0.68) == "58 to 68"
    assert span(None, 1.0) == "–"
    assert span(-0.0123, 12345.6) == "-0.0123 to 1.23e+04"
    assert number(0) == "0"


def test_differences_are_named_leaf_by_leaf() -> None:
    there = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": 3}
    mine = {"a": {"b": 2, "c": [1, {"d": 5}]}, "f": 3}
    assert differences(there, there) == []
    assert differences(there, mine) == [
        "a.b: 1 there, 2 now",
        "a.c[1].d: 2 there, 5 now",
        "e: 3 there, nothing now",
        "f: nothing there, 3 now",
    ]
    assert differences([1], [1, 2], "x") == ["x: [1] there, [1, 2] now"]
