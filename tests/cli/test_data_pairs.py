"""`t2ialign data pairs` from the command line: scores, annotations, a file of options, wrong usage, light help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.pair_sets import encoded
from t2ialign.cli.main import main
from t2ialign.data.pairs import load_pairs

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """An image set of six prompts with three pictures each, and scores by two scorers."""
    root = tmp_path / "set"
    lines, rows = [], []
    for prompt in range(6):
        for sample in range(3):
            name = f"images/{prompt:06d}/{sample:04d}.png"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encoded(10 * prompt + sample))
            line = {"file_name": name, "prompt_id": f"p{prompt}", "prompt": f"{chr(97 + prompt) * 9} thing"}
            lines.append(json.dumps({**line, "sample": sample}) + "\n")
            rows += [
                (name, f"p{prompt}", sample, scorer, "1", float(s))
                for scorer, s in (("up", sample), ("down", -sample))
            ]
    (root / "metadata.jsonl").write_text("".join(lines))
    names = ("file_name", "prompt_id", "sample", "scorer", "version", "score")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), root / "scores.parquet")
    return root


def test_scores(tmp_path: Path, scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "data",
        "pairs",
        str(scored),
        "--output_dir",
        str(tmp_path / "out"),
        "--scores",
        str(scored / "scores.parquet"),
    ]
    call += ["--aspect", "up", "--choose", "best_worst", "--soft_labels", "--splits", "train=0.5,test=0.5"]
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert "6 pairs of 18 candidates" in shown
    assert "12 dropped: not among the pairs that were chosen of the prompt" in shown
    train, test = (load_pairs(tmp_path / "out", split=split) for split in ("train", "test"))
    assert not set(train.prompts) & set(test.prompts)
    assert set(train.column("margin")) == {2.0}
    assert main(call) == 0
    assert "(they were there already)" in capsys.readouterr().out
    assert main([*call, "--beta", "2"]) == 1
    assert "beta: 1.0 there, 2.0 now" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "out")]) == 0


def test_weights_from_the_command_line_and_from_a_file(tmp_path: Path, scored: Path) -> None:
    words = ["--weights", "up=1,down=-1", "--rule", "pareto", "--standardize", "false", "--near_duplicates", "none"]
    assert main(["data", "pairs", str(scored), "--output_dir", str(tmp_path / "a"), *words]) == 0
    config = tmp_path / "pairs.yaml"
    text = "weights: {up: 1, down: -1}\nrule: pareto\nstandardize: false\nnear_duplicates: null\n"
    config.write_text(f"sources: [{scored}]\n{text}", encoding="utf-8")
    assert main(["data", "pairs", "--config", str(config), "--output_dir", str(tmp_path / "b")]) == 0
    one, two = (json.loads((tmp_path / name / "pairs.json").read_text()) for name in "ab")
    assert one == two
    assert one["written"] == 18
    assert one["settings"]["near_duplicates"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--aspect", "upp"], "did you mean 'up'"),
        (["--aspect", "up", "--weights", "up=1"], "for the aggregate"),
        (["--aspect", "each,up"], "each stands for all aspects"),
        (["--weights", "up=0"], "all weights are 0"),
        (["--weights", "up"], "name=value"),
        (["--choose", "best"], "best_worst"),
        (["--margin", "-1"], "margin is -1.0"),
        (["--beta", "0"], "beta is 0.0"),
        (["--pairs_per_prompt", "0"], "at least 1"),
        (["--near_duplicates", "2"], "near_duplicates is 2.0"),
        (["--splits", "train=0.5"], "add up to 0.5"),
        (["--splits", "train=1.2,test=-0.2"], "splits.test is -0.2"),
        (["--splits", "train-a=1"], "splits.train-a"),
        (["--image_set", "x", "--scores", "y"], "give one of them"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, scored: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["data", "pairs", str(scored), "--output_dir", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from t2ialign.cli.main import main; main(['data', 'pairs', '--help']); "
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'PIL', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--pairs_per_prompt" in done.stdout


def test_only_the_first_process_works(tmp_path: Path, scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["data", "pairs", str(scored), "--output_dir", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out").exists()
