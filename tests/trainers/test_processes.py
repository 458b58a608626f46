"""Runs in processes of their own: killed without warning and resumed; two processes instead of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.pairs import colour_pairs
from t2ialign.engine.checkpoints import list_checkpoints
from t2ialign.engine.metrics import read_metrics

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "train_tiny.py"
pytestmark = pytest.mark.slow

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("dpo", {"beta": 500.0}),
    "group robust": ("dpo", {"beta": 500.0, "objective": "group_robust"}),
    "alpha-DPO over the step": (
        "dpo",
        {
            "beta": 500.0,
            "objective": "alpha_dpo",
            "alpha_dpo.dynamic": "batch",
            "gradient_accumulation_steps": 2,
            # With the usual 1e-8 a gradient that is all rounding moves a weight as far as any other.
            "adam_epsilon": 1e-4,
        },
    ),
    "kto": ("kto", {"beta": 500.0}),
    "ppd": ("ppd", {"beta": 500.0, "extractor": "clip:mini-clip", "shots": 2, "shot_pool": 2, "embeddings": 1}),
}
"""Algorithms and options that run in processes of their own."""


def command(kind: str, *arguments: object, processes: int = 1) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    algorithm, options = KINDS[kind]
    return [*launcher, str(SCRIPT), algorithm, json.dumps(options), *map(str, arguments)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def run(kind: str, *arguments: object, processes: int = 1) -> None:
    done = subprocess.run(
        command(kind, *arguments, processes=processes),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def weights(output: Path) -> dict[str, torch.Tensor]:
    (file,) = (output / "final").glob("*.safetensors")
    return dict(load_file(file))


@pytest.fixture(scope="module")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    colour_pairs(folder, 12, user_id=lambda n: "ann" if n % 2 else "bob", group=lambda n: f"group {n % 3}")
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, pairs_folder: Path) -> Callable[[str], Path]:
    """Makes a run of six steps that nobody disturbs, once a kind."""
    folder = tmp_path_factory.mktemp("straight")

    def make(kind: str) -> Path:
        output = folder / kind.replace(" ", "-")
        if not output.exists():
            run(kind, output, pairs_folder, 6)
        return output

    return make


@pytest.mark.parametrize("kind", ["dpo", "group robust", "kto", "ppd"])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, pairs_folder: Path, straight: Callable[[str], Path], kind: str
) -> None:
    output, whole = tmp_path / "run", straight(kind)
    running = subprocess.Popen(command(kind, output, pairs_folder, 6), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list_checkpoints(output / "checkpoints")) < 2 and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (output / "final").exists()
    run(kind, output, pairs_folder, 6, "latest")
    mine, theirs = weights(output), weights(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert [line["loss"] for line in read_metrics(output / "metrics.jsonl")] == [
        line["loss"] for line in read_metrics(whole / "metrics.jsonl")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_do_the_same_run_as_one(
    tmp_path: Path, pairs_folder: Path, straight: Callable[[str], Path], kind: str
) -> None:
    output, whole = tmp_path / "run", straight(kind)
    run(kind, output, pairs_folder, 6, processes=2)
    alone, together = (read_metrics(folder / "metrics.jsonl") for folder in (whole, output))
    assert len(alone) == len(together) == 6
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["margin_p95"] == pytest.approx(one["margin_p95"], abs=1e-2)
        assert two["error_chosen"] == pytest.approx(one["error_chosen"], abs=1e-5)
    mine, theirs = weights(output), weights(whole)
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=0, atol=1e-5)
