"""`train reward` in a process of its own: killed without warning, and resumed to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from t2ialign.engine.checkpoints import list_checkpoints
from t2ialign.engine.metrics import read_metrics

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
KINDS: dict[str, list[str]] = {
    "cosine": ["--pairs", "mini-pairs", "--eval_split", "validation", "--dual_captions", "true"],
    "pal": ["--pairs", "mini-user-pairs", "--eval_split", "test", "--head", "pal", "--method", "full"],
}


def command(kind: str, output: Path, *more: str) -> list[str]:
    options = "--model mini-clip --steps 8 --batch_size 4 --gradient_accumulation_steps 2 --checkpoint_every 2"
    fixed = f"{options} --learning_rate 1e-3 --lr_warmup_steps 2 --output_dir {output}"
    return [sys.executable, "-m", "t2ialign", "train", "reward", *fixed.split(), *KINDS[kind], *more]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def run(*arguments: str) -> None:
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.name}/{key}": value
        for file in sorted(folder.glob("*.safetensors"))
        for key, value in load_file(file).items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole, output = tmp_path / "whole", tmp_path / "killed"
    run(*command(kind, whole))
    running = subprocess.Popen(command(kind, output), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list_checkpoints(output / "checkpoints")) < 1 and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (output / "final").exists()
    run(*command(kind, output, "--resume", "latest"))
    mine, theirs = tensors(output / "final"), tensors(whole / "final")
    assert mine
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    lines = [[line["loss"] for line in read_metrics(folder / "metrics.jsonl")] for folder in (output, whole)]
    assert len(lines[1]) == 8
    assert lines[0] == lines[1]
