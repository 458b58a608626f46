"""Runs in processes of their own: killed without warning and resumed; two processes instead of one."""

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

from helpers.pairs import colour_pairs
from t2ialign.engine.checkpoints import list_checkpoints
from t2ialign.engine.metrics import read_metrics

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "train_tiny.py"
WEIGHTS = Path("final") / "pytorch_lora_weights.safetensors"
pytestmark = pytest.mark.slow


def command(*arguments: object, processes: int = 1) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*launcher, str(SCRIPT), *map(str, arguments)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def run(*arguments: object, processes: int = 1) -> None:
    done = subprocess.run(
        command(*arguments, processes=processes),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    colour_pairs(folder)
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, pairs_folder: Path) -> Path:
    """A run of six steps that nobody disturbs."""
    output = tmp_path_factory.mktemp("straight") / "run"
    run(output, pairs_folder, 6)
    return output


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, pairs_folder: Path, straight: Path) -> None:
    output = tmp_path / "run"
    running = subprocess.Popen(command(output, pairs_folder, 6), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list_checkpoints(output / "checkpoints")) < 2 and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (output / "final").exists()
    run(output, pairs_folder, 6, "latest")
    mine, theirs = load_file(output / WEIGHTS), load_file(straight / WEIGHTS)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert [line["loss"] for line in read_metrics(output / "metrics.jsonl")] == [
        line["loss"] for line in read_metrics(straight / "metrics.jsonl")
    ]


def test_two_processes_do_the_same_run_as_one(tmp_path: Path, pairs_folder: Path, straight: Path) -> None:
    output = tmp_path / "run"
    run(output, pairs_folder, 6, processes=2)
    alone, together = (read_metrics(folder / "metrics.jsonl") for folder in (straight, output))
    assert len(alone) == len(together) == 6
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["margin_p95"] == pytest.approx(one["margin_p95"], abs=1e-2)
        assert two["error_chosen"] == pytest.approx(one["error_chosen"], abs=1e-5)
    mine, theirs = load_file(output / WEIGHTS), load_file(straight / WEIGHTS)
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=0, atol=1e-5)
