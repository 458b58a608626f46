"""`t2ialign eval` on the command line: what it says, and what it refuses in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import eval_tiny
from t2ialign.cli.eval import Options, lines
from t2ialign.cli.main import main
from t2ialign.config import parse_arguments
from t2ialign.eval.suites.run import EvalSummary


def test_options_are_read() -> None:
    words = ["mini", "--model", "mini-sd", "--model", "t=a,b/c+d", "--output_dir", "out", "--with", "oracle,clipscore"]
    options = parse_arguments(Options, words, "t2ialign eval")
    assert options.suite == "mini"
    assert options.model == ["mini-sd", "t=a,b/c+d"]
    assert options.scorers == ["oracle", "clipscore"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["minni", "--model", "a", "--model", "b"], "no suite 'minni'"),
        (["mini", "--model", "mini-sd"], "nothing to be compared with"),
        (["mini", "--model", "mini-sd", "--model", "mini-sd"], "both be called"),
        (["mini", "--model", "a", "--model", "b", "--limit", "0"], "limit is 0"),
        (["mini", "--model", "a", "--model", "b", "--resamples", "9"], "resamples is 9"),
        (["mini", "--model", "a", "--model", "b", "--redo", "gids"], "section 'gids'"),
        (["preference", "--model", "a", "--model", "b", "--data", "nowhere"], "no folder 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words, "--output_dir", str(tmp_path / "out")]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_summary_in_lines() -> None:
    page = Path("out/report.html")
    done = EvalSummary(Path("out/report.json"), page, 12, 2, ("grids",), 6, ("tuned is preferred.",), 4.4)
    assert lines(done) == [
        "tuned is preferred.",
        "12 pictures made; 2 image sets scored; sections measured: grids (4 s)",
        f"report: {page}",
    ]
    nothing = EvalSummary(Path("out/report.json"), page, 0, 0, (), 6, (), 0.2)
    assert lines(nothing)[0] == "everything was there already (0 s)"


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = eval_tiny.write_suite(tmp_path / "suite")
    words = ["eval", str(suite), "--model", "base=mini-sd", "--model", "again=mini-sd", "--limit", "2"]
    words += [
        "--images_per_prompt",
        "1",
        "--resamples",
        "200",
        "--workers",
        "0",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "6 pictures made" in first
    assert "No preference is shown between again and base" in first
    assert (tmp_path / "out" / "report.html").is_file()
    assert main(words) == 0
    assert "everything was there already" in capsys.readouterr().out
    assert main([*words, "--seed", "1"]) == 1
    assert "seed: 0 there, 1 now" in capsys.readouterr().err
