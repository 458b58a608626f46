"""SIGKILL at a hundred random moments, saves included, and full disks: the run goes on to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.resuming import assert_same_run, prepare, trainer_for
from t2ialign.engine.checkpoints import list_checkpoints, read_checkpoint
from t2ialign.errors import DataError

HELPERS = Path(__file__).resolve().parent.parent / "helpers"


@pytest.mark.slow
def test_a_hundred_kills_cost_nothing_but_the_step_under_way(tmp_path: Path) -> None:
    path = os.pathsep.join([str(HELPERS.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HELPERS / "killed_runs.py"), str(tmp_path), "100", "7"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["kills"] >= 100
    assert found["in_save"] >= 5, "too few kills fell within the writing of a checkpoint to say anything"
    assert found["finished"] >= 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    output = tmp_path_factory.mktemp("straight") / "run"
    trainer_for("dpo", folder, output, sample_every=2).train()
    return output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB; skips where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user can not mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fills a disk up to some bytes."""
    file = disk / "ballast"
    with file.open("wb") as ballast:
        ballast.write(b"\0" * max(0, shutil.disk_usage(disk).free - left))
    return file


class Filling:
    """Fills the disk when a method of an object is called with a step of at least `step`, before it does its work."""

    def __init__(self, task: Any, name: str, step: int, disk: Path, left: int) -> None:
        self.inner, self.task, self.step, self.disk, self.left = getattr(task, name), task, step, disk, left
        self.steps = 0
        setattr(task, name, self)

    def __call__(self, *arguments: Any) -> Any:
        self.steps += 1
        if self.steps == self.step and not (self.disk / "ballast").exists():
            fill(self.disk, self.left)
        return self.inner(*arguments)


@pytest.mark.parametrize(
    ("method", "call", "left", "said"),
    [
        ("end_step", 3, 4 << 20, "MB are free"),  # refused before a byte is written
        ("write_samples", 2, 0, "No space left"),
        ("write_final", 1, 0, "No space left"),
        ("end_step", 3, 0, "MB are free"),  # the log's lines have no room either
    ],
    ids=["checkpoint", "samples", "final", "metrics"],
)
def test_a_full_disk_is_said_and_costs_nothing(
    small_disk: Path, folder: Path, straight: Path, method: str, call: int, left: int, said: str
) -> None:
    output = small_disk / "run"
    trainer = trainer_for("dpo", folder, output, sample_every=2)
    make = trainer.make_task

    def made(accelerator: Any) -> Any:
        task = make(accelerator)
        Filling(task, method, call, small_disk, left)
        return task

    trainer.make_task = made
    with pytest.raises(DataError, match=said) as failed:
        trainer.train()
    assert "--resume latest" in str(failed.value)
    whole = list_checkpoints(output / "checkpoints")
    assert read_checkpoint(whole[-1]).step == {"end_step": 2, "write_samples": 4, "write_final": 5}[method]
    assert not list(output.rglob(".aside*"))
    assert not (output / "final").exists()
    (small_disk / "ballast").unlink()
    report = trainer_for("dpo", folder, output, sample_every=2, resume="latest").train()
    assert report["status"] == "done"
    assert_same_run(straight, output, pictures=True)


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_leaves_the_last_one(
    small_disk: Path, folder: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system promises room that is not there, the files themselves are refused."""
    from t2ialign.engine import checkpoints

    monkeypatch.setattr(checkpoints, "_ask_for_room", lambda *_: None)
    output = small_disk / "run"
    trainer = trainer_for("dpo", folder, output, sample_every=2)
    make = trainer.make_task

    def made(accelerator: Any) -> Any:
        task = make(accelerator)
        Filling(task, "end_step", 3, small_disk, 40_000)
        return task

    trainer.make_task = made
    with pytest.raises(DataError, match="--resume latest"):
        trainer.train()
    assert [path.name for path in list_checkpoints(output / "checkpoints")] == ["step-000001", "step-000002"]
    assert not list(output.rglob(".aside*"))
    (small_disk / "ballast").unlink()
    trainer_for("dpo", folder, output, sample_every=2, resume="latest").train()
    assert_same_run(straight, output, pictures=True)
