"""Resuming in processes of its own: two gloo processes, from two to one and back, and numbers that are not finite."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.resuming import assert_same_run, lines, prepare
from t2ialign.engine.checkpoints import list_checkpoints, read_checkpoint

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "resuming.py"
pytestmark = pytest.mark.slow


def command(case: str, folder: Path, output: Path, processes: int, **options: Any) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    split = {"batch_size": 2 // processes, "sample_every": 2, "learning_rate": 1e-5}
    if case == "reward":
        split.pop("sample_every")
    return [*launcher, str(SCRIPT), case, str(folder), str(output), json.dumps({**split, **options})]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def run(case: str, folder: Path, output: Path, processes: int = 1, fails: bool = False, **options: Any) -> str:
    done = subprocess.run(
        command(case, folder, output, processes, **options),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("resume"))


@pytest.mark.parametrize("case", ["group robust", "ddpo"])
def test_two_processes_that_a_signal_to_one_stops_go_on_to_the_same_bits(
    tmp_path: Path, folder: Path, case: str
) -> None:
    straight, other = tmp_path / "straight", tmp_path / "other"
    own: dict[str, Any] = {"ema": True, "workers": 0 if case == "ddpo" else 2, "checkpoint_every": 5}
    run(case, folder, straight, 2, **own)
    run(case, folder, other, 2, **own, signal_at={"1": 5})
    assert not (other / "final").exists()
    assert 1 <= len(lines(other)) < 5
    run(case, folder, other, 2, **own, resume="latest")
    assert_same_run(straight, other, pictures=True)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("case", ["maxmin", "kto", "reward"])
def test_a_run_goes_on_in_another_number_of_processes(
    tmp_path: Path, folder: Path, case: str, before: int, after: int
) -> None:
    straight, other = tmp_path / "straight", tmp_path / "other"
    # As in test_resume: what rounds otherwise must not be made much of.
    own: dict[str, Any] = {} if case == "reward" else {"beta": 10.0}
    run(case, folder, straight, before, **own)
    shutil.copytree(straight, other)
    for path in list_checkpoints(other / "checkpoints")[2:]:
        shutil.rmtree(path)
    run(case, folder, other, after, **own, resume="latest")
    alone, together = lines(straight), lines(other)
    assert len(alone) == len(together) == 5
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-6, abs=0)


def test_a_process_that_is_told_with_its_workers_saves_and_goes_on(tmp_path: Path, folder: Path) -> None:
    """As a batch system tells all processes of a job at once."""
    straight, other = tmp_path / "straight", tmp_path / "other"
    own: dict[str, Any] = {"workers": 2, "steps": 12, "checkpoint_every": 12}
    run("dpo", folder, straight, **own)
    running = subprocess.Popen(
        command("dpo", folder, other, 1, **own),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log, deadline = other / "metrics.jsonl", time.monotonic() + 300
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 0, said[-3000:]
    assert not (other / "final").exists()
    run("dpo", folder, other, **own, resume="latest")
    assert_same_run(straight, other, pictures=True)


def test_what_is_not_finite_in_one_process_is_skipped_by_both_and_can_be_repeated(
    tmp_path: Path, folder: Path
) -> None:
    output = tmp_path / "run"
    own: dict[str, Any] = {"max_bad_steps": 2, "checkpoint_every": 0}
    said = run("dpo", folder, output, 2, fails=True, **own, poison={"1": [4, 7, 9]})
    assert "2 steps in a row were not finite" in said
    assert [line["skipped"] for line in lines(output)] == [False, True, False, True, True]
    dump = output / "not-finite-step-000004"
    told = json.loads((dump / "examples.json").read_text())
    assert [step["step"] for step in told["steps"]] == [4, 5]
    assert {"n", "index", "timestep", "captions"} <= set(told["steps"][0]["examples"][0])
    kept = read_checkpoint(dump)
    assert (kept.step, kept.state["skipped"]) == (3, 1)

    before = lines(output)
    again = run("dpo", folder, output, 2, fails=True, **own, poison={"1": [1, 3]}, resume=str(dump))
    assert "2 steps in a row were not finite" in again
    assert lines(output) == before
    run("dpo", folder, output, 2, **own, resume=str(dump))
    straight = tmp_path / "straight"
    run("dpo", folder, straight, 2, **own, poison={"1": [4]})
    assert lines(output) == lines(straight)
