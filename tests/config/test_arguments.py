"""The command-line side of options: words, lists, flags, positionals, help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.config import REQUIRED, option, parse_arguments
from t2ialign.config.arguments import help_text
from t2ialign.errors import ConfigError


@dataclass
class Nested:
    """How deep it goes, in 100 % of cases."""

    depth: int = option(3, "Depth, up to 100 %.")


@dataclass
class Words:
    base: Path = option(REQUIRED, "The base.", positional=True)
    others: list[Path] = option([], "The others.", positional=True)
    scorers: list[str] = option([], "Scorers.", flag="with")
    prompts: list[str] = option([], "Prompts.", separator=None)
    rate: float = option(1.0, "Rate.")
    flag: bool = option(False, "Switch.")
    maybe: bool | None = option(None, "Switch that may be left open.")
    nested: Nested = option(Nested, "")


def parse(*words: str) -> Words:
    return parse_arguments(Words, words, "t2ialign words")


def test_positionals_mix_with_options() -> None:
    parsed = parse("a", "--rate", "-1e-5", "b", "--flag", "c", "--nested.depth=7")
    assert parsed.base == Path("a")
    assert parsed.others == [Path("b"), Path("c")]
    assert (parsed.rate, parsed.flag, parsed.nested.depth) == (-1e-5, True, 7)


def test_a_negative_number_is_no_flag() -> None:
    assert parse("a", "-1", "--rate", "-.5").others == [Path("-1")]


def test_flags() -> None:
    assert parse("a").flag is False
    assert parse("a").maybe is None
    assert parse("a", "--flag", "false").flag is False
    assert parse("a", "--maybe=no").maybe is False
    assert parse("--maybe", "a").base == Path("a")


def test_lists_take_commas_or_their_flag_again() -> None:
    assert parse("a", "--with", "x,y", "--with", "z").scorers == ["x", "y", "z"]
    assert parse("a", "--prompts", "one, two", "--prompts", "three").prompts == ["one, two", "three"]


def test_two_dashes_end_the_options() -> None:
    assert parse("--flag", "--", "--odd-name", "b").base == Path("--odd-name")


def test_a_configuration_file_is_overridden(tmp_path: Path) -> None:
    source = tmp_path / "words.yaml"
    source.write_text("base: from_file\nrate: 2\nnested: {depth: 5}\n", encoding="utf-8")
    parsed = parse("--config", str(source), "--rate", "4")
    assert (parsed.base, parsed.rate, parsed.nested.depth) == (Path("from_file"), 4.0, 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--rat", "1"], "unknown option '--rat'; did you mean '--rate'?"),
        (["a", "--depth", "1"], "did you mean '--nested.depth'"),
        (["a", "-x"], "unknown option '-x'"),
        (["a", "--rate"], "--rate needs a value"),
        (["a", "--rate", "--flag"], "--rate needs a value"),
        (["a", "--rate", "1", "--rate", "2"], "--rate is given twice"),
        (["a", "--rate", "quick"], "rate: 'quick' is not a number"),
        ([], "base is required"),
    ],
)
def test_wrong_usage(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*words)
    assert message in str(caught.value)


def test_words_left_over() -> None:
    with pytest.raises(ConfigError, match="unexpected argument 'x'"):
        parse_arguments(Nested, ["x"], "t2ialign nested")


flags = st.sampled_from(["--rate", "--rate=2", "--flag", "--with", "--", "-1", "-q", "true", "--nested.depth", "3"])


@given(st.lists(st.text(min_size=1) | flags, max_size=6))
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    try:
        parsed = parse("base", *words)
    except ConfigError:
        return
    assert parsed.base == Path("base")
    assert all(str(other) for other in parsed.others)


def test_help_shows_groups_defaults_and_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        parse("--help")
    assert leave.value.code == 0
    shown = capsys.readouterr().out
    assert shown == help_text(Words, "t2ialign words")
    assert "usage: t2ialign words BASE [OTHERS ...]" in shown
    assert "--with TEXT,..." in shown
    assert "--prompts TEXT " in shown
    assert "Rate. (default: 1.0)" in shown
    assert "nested: How deep it goes, in 100 % of cases" in shown
    assert "Depth, up to 100 %. (default: 3)" in shown
