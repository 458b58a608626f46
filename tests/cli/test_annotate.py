"""`t2ialign annotate`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.annotator_server import Faults, RatingServer
from helpers.rated_sets import mini_set
from t2ialign.annotation.annotations import read_annotations
from t2ialign.cli.annotate import EXAMPLES, exit_code
from t2ialign.cli.main import main


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_the_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mini_set(tmp_path / "set", prompts=2)
    assert main(["annotate", str(path), "--annotator", "oracle", "--output_dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 of 2 annotations of 2 prompts, 2 complete"
    assert "  harmlessness: 8 rated (1:0 2:0 3:0 4:0 5:8)" in said
    assert said[-1] == f"annotations: {tmp_path / 'out'}"


def test_an_endpoint_with_settings_in_its_name_and_a_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = mini_set(tmp_path / "set", prompts=6, pictures=2), tmp_path / "out"
    with RatingServer(Faults(bias=1.0)) as server:
        words = ["annotate", str(path), "--annotator", f"openai:m?base_url={server.url}&parallel=1"]
        words += ["--output_dir", str(out), "--second_pass", "--price_prompt", "2", "--price_completion", "8"]
        assert main([*words, "--budget", "0.0100"]) == 1
        said = capsys.readouterr().out
        assert "budget: the budget is spent (0.0" in said
        report = json.loads((out / "report.json").read_text())
        assert report["status"] == "budget"
        assert 0 < len(read_annotations(out)) == report["annotations"]["written"] < 12
        assert main(words) == 0
        said = capsys.readouterr().out
    assert "12 of 12 annotations of 6 prompts, 12 complete" in said
    assert "aesthetic, same in both orders: " in said
    assert "questions: 12 answered, 0 refused, 0 without a readable answer, 0 open; 0 repeated" in said
    assert "cost 0.0" in said
    assert max(server.paid.values()) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--annotator", "gpt"], 2, "unknown annotator 'gpt'; known are oracle"),
        (["--annotator", "openai:m?tempo=1"], 2, "unknown setting 'tempo'"),
        (["--annotator", "oracle", "--second_pass"], 2, "oracle sees no order of pictures"),
        (["--annotator", "oracle", "--repeats", "99"], 2, "repeats is 99"),
        (["--annotator", "oracle", "--limit", "0"], 2, "limit is 0; it must be at least 1"),
        (["--annotator", "openai:m", "--budget", "1"], 2, "a budget needs prices"),
        (["--annotator", "replay:nowhere"], 1, "holds no annotations"),
        (["--annotator", "hf:nowhere/nothing"], 1, "nowhere/nothing"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    assert main(["annotate", str(path), "--output_dir", str(tmp_path / "out"), *words]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_prompts_of_the_wide_world_are_nothing_for_the_oracle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    meta = path / "metadata.jsonl"
    lines = [json.loads(line) | {"prompt": "a cat on a mat"} for line in meta.read_text().splitlines()]
    meta.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["annotate", str(path), "--annotator", "oracle", "--output_dir", str(tmp_path / "out")]) == 1
    assert "the oracle can not rate a prompt" in capsys.readouterr().err


def test_exit_codes() -> None:
    codes = [
        exit_code({"status": status, "signal": signal, "aspects": {"fidelity": {"rated": 3}}})
        for status, signal in [
            ("done", None), ("budget", None), ("incomplete", None), ("stopped", "SIGINT"), ("stopped", "SIGTERM"),
        ]
    ]  # fmt: skip
    assert codes == [0, 1, 1, 130, 143]


def test_an_annotator_that_rates_nothing_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mini_set(tmp_path / "set", prompts=2, pictures=2)
    with RatingServer(Faults(refusal=1.0)) as server:
        words = ["annotate", str(path), "--annotator", "openai:m", "--chat.base_url", server.url]
        assert main([*words, "--output_dir", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "2 of 2 annotations of 2 prompts, 0 complete" in said
    assert "  refused: 2" in said
    assert "no picture has a rating" in said


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--second_pass" in said
    assert "--chat.requests_per_minute" in said
    assert "ratings/gpt-4o" in EXAMPLES
