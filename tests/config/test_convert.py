"""Conversion by the annotation: what fits, what does not, and that messages name key, value and mend."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.config.convert import convert, type_name
from t2ialign.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        ("1e3", int, 1000),
        (2.0, int, 2),
        ("-7", int, -7),
        ("1e-4", float, 1e-4),
        (3, float, 3.0),
        ("inf", float, math.inf),
        ("yes", bool, True),
        ("False", bool, False),
        ("off", bool, False),
        (1, bool, True),
        ("a, b", str, "a, b"),
        (1.5, str, "1.5"),
        ("x/y", Path, Path("x/y")),
        ("none", int | None, None),
        ("Null", str | None, None),
        (None, float | None, None),
        ("5", int | None, 5),
        ("5", int | float, 5),
        ("5.5", int | float, 5.5),
        (5.0, int | float, 5.0),
        ("a,b", list[str], ["a", "b"]),
        ("1, 2", list[int], [1, 2]),
        ("", list[str], []),
        ([1, "2"], list[int], [1, 2]),
        (4, list[int], [4]),
        ("3,4", tuple[int, int], (3, 4)),
        ("a,b,c", tuple[str, ...], ("a", "b", "c")),
        ("FULL", Literal["lora", "full"], "full"),
        ("2", Literal[1, 2], 2),
        ("a=1,b=2", dict[str, int], {"a": 1, "b": 2}),
        ({"a": "1"}, dict[str, float], {"a": 1.0}),
        ({"anything": [1]}, Any, {"anything": [1]}),
    ],
)
def test_what_fits(value: Any, annotation: Any, expected: Any) -> None:
    converted = convert(value, annotation, "key")
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "words"),
    [
        ("1.5", int, "whole number"),
        (True, int, "whole number"),
        ("many", int, "whole number"),
        ("inf", int, "whole number"),
        ("nan", float, "number"),
        (False, float, "number"),
        ("perhaps", bool, "true or false"),
        (2, bool, "true or false"),
        (True, str, "quotes"),
        ("", Path, "path"),
        (3, Path, "path"),
        ("some", int | None, "whole number"),
        ("some", int | float, "INT or FLOAT"),
        ("ful", Literal["lora", "full"], "did you mean 'full'"),
        ("1,2,3", tuple[int, int], "3 values, 2 are needed"),
        ("1,x", list[int], "'x'"),
        ({"a": 1}, list[int], "list"),
        (None, list[int], "list"),
        ("a", dict[str, int], "name=value"),
        ([1], dict[str, int], "mapping"),
    ],
)
def test_what_does_not_fit(value: Any, annotation: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(value, annotation, "lora.rank")
    assert words in str(caught.value)
    assert str(caught.value).startswith("lora.rank")


def test_a_list_without_separator_keeps_commas() -> None:
    assert convert("a red circle, a blue one", list[str], "key", separator=None) == ["a red circle, a blue one"]


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/someone")
    assert convert("~/pairs", Path, "key") == Path("/homes/someone/pairs")


@given(st.integers())
def test_integers_come_back(number: int) -> None:
    assert convert(str(number), int, "key") == number


@given(st.floats(allow_nan=False))
def test_floats_come_back(number: float) -> None:
    assert convert(repr(number), float, "key") == number


@given(st.text())
def test_texts_are_left_alone(text: str) -> None:
    assert convert(text, str, "key") == text


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())))
def test_nothing_but_config_errors(value: Any) -> None:
    for annotation in (
        int,
        float,
        bool,
        str,
        Path,
        int | None,
        list[int],
        tuple[int, int],
        Literal["a"],
        dict[str, int],
    ):
        try:
            converted = convert(value, annotation, "key")
        except ConfigError:
            continue
        assert convert(converted, annotation, "key") == converted


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (int | None, "INT"),
        (list[Path], "PATH,..."),
        (tuple[int, int], "INT,INT"),
        (Literal["a", "b"], "{a,b}"),
        (int | float, "INT|FLOAT"),
    ],
)
def test_type_names(annotation: Any, name: str) -> None:
    assert type_name(annotation) == name
