"""Reading the JSON object that was asked for, and nothing else."""

from __future__ import annotations

import pytest

from t2ialign.chat.json_answers import read_object


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, null]}',
        ' {"a": [1, null]}\n',
        '```json\n{"a": [1, null]}\n```',
        '```\n{"a": [1, null]}\n```\n',
        '<think>is it {"a": 2}?</think>{"a": [1, null]}',
    ],
)
def test_an_object_is_read(text: str) -> None:
    assert read_object(text) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON object"),
        ("[1]", "a list and no object"),
        ('"a"', "a str and no object"),
        ('{"a": 1', "no JSON object"),
        ('{"a": 1} ok', "no JSON object"),
        ('Here: {"a": 1}', "no JSON object"),
        ('{"a": 1}{"a": 1}', "no JSON object"),
        ("{'a': 1}", "no JSON object"),
        ('{"a": 1, "a": 1}', "a key stands twice"),
        ('{"b": {"a": 1, "a": 2}}', "a key stands twice"),
        ('{"a": Infinity}', "Infinity is no number of JSON"),
        ("[" * 100_000, "no JSON object"),
    ],
)
def test_anything_else_is_none(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_object(text)
