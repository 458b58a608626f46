"""`t2ialign data captions` from the command line: the packaged pairs, wrong usage, and that help is light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from t2ialign.cli.main import main
from t2ialign.data.pairs import load_pairs
from t2ialign.mini import world

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_packaged_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["data", "captions", "mini-pairs", "--strategy", "hybrid", "--limit", "12", "--strength", "weak"]
    call += ["--output_dir", str(tmp_path / "out")]
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert "train: 12 of 12 pairs written" in shown
    before, after = load_pairs("mini-pairs").select(range(12)), load_pairs(tmp_path / "out")
    # the packaged captions are the oracle's own
    assert after.column("chosen_prompt") == before.column("chosen_prompt")
    for old, new in zip(before.column("rejected_prompt"), after.column("rejected_prompt"), strict=True):
        assert world.parse(new) != world.parse(old)
    assert len(load_pairs(tmp_path / "out", split="test")) == len(load_pairs("mini-pairs", split="test"))
    assert main(call) == 0
    assert "0 answers got" in capsys.readouterr().out
    assert main([*call, "--seed", "1"]) == 1
    assert "error: " in capsys.readouterr().err


def test_options_from_a_file(tmp_path: Path) -> None:
    config = tmp_path / "captions.yaml"
    config.write_text("pairs: mini-pairs\nstrategy: perturbation\nlimit: 2\nchat:\n  parallel: 2\n", encoding="utf-8")
    assert main(["data", "captions", "--config", str(config), "--output_dir", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "captions.json").read_text())["settings"]["limit"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "hybird"], "did you mean 'hybrid'"),
        ([], "strategy is required"),
        (["--strategy", "hybrid", "--strength", "mild"], "weak, medium, strong"),
        (["--strategy", "hybrid", "--captioner", "blip"], "unknown captioner 'blip'"),
        (["--strategy", "hybrid", "--chat.timeout", "0"], "timeout is 0.0 s"),
        (["--strategy", "hybrid", "--chat.key_env", "sk-1"], "name the variable, not the key itself"),
    ],
)
def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["data", "captions", "mini-pairs", "--output_dir", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from t2ialign.cli.main import main; main(['data', 'captions', '--help']); "
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'PIL', 'pyarrow', 'openai'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--chat.base_url" in done.stdout


def test_only_the_first_process_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    target = tmp_path / "out"
    assert main(["data", "captions", "mini-pairs", "--strategy", "captioning", "--output_dir", str(target)]) == 0
    assert not target.exists()
