"""A checkpoint is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from t2ialign.engine import checkpoints
from t2ialign.engine.checkpoints import (
    Checkpoint,
    open_checkpoint,
    list_checkpoints,
    read_checkpoint,
    remove_later,
    write_checkpoint,
)
from t2ialign.errors import DataError


def example(step: int) -> Checkpoint:
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    return Checkpoint(
        step=step,
        trainable={"a.weight": torch.arange(4.0).reshape(2, 2) + step},
        optimizer=optimizer,
        average=[torch.zeros(2, 2), torch.ones(1)],
        state={"skipped": 1, "scaler": None},
        config={"seed": 0, "lora.targets": ["to_q"]},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, example(7))
    back = read_checkpoint(path)
    assert path.name == "step-000007"
    assert back.step == 7
    assert torch.equal(back.trainable["a.weight"], example(7).trainable["a.weight"])
    assert repr(back.optimizer) == repr(example(7).optimizer)
    assert back.average is not None
    assert [tensor.tolist() for tensor in back.average] == [[[0, 0], [0, 0]], [1]]
    assert dict(back.state) == {"skipped": 1, "scaler": None}
    assert dict(back.config) == {"seed": 0, "lora.targets": ["to_q"]}


def test_the_newest_stay_and_nothing_is_written_twice(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write_checkpoint(tmp_path, example(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000003", "step-000004"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]
    before = (tmp_path / "step-000004" / "manifest.json").stat().st_mtime_ns
    write_checkpoint(tmp_path, example(4), keep=2)
    assert (tmp_path / "step-000004" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "name", ["trainable.safetensors", "optimizer.safetensors", "optimizer.json", "average.safetensors", "state.json"]
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    file = write_checkpoint(tmp_path, example(1)) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_checkpoint(file.parent)
    file.unlink()
    with pytest.raises(DataError, match=name):
        read_checkpoint(file.parent)


@pytest.mark.parametrize("moment", ["_write_files", "_write_manifest", "replace", "_prune"])
def test_a_kill_at_any_moment_leaves_whole_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write_checkpoint(tmp_path / "checkpoints", example(1))

    class Killed(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os if moment == "replace" else checkpoints, moment, killed)
        with pytest.raises(Killed):
            write_checkpoint(tmp_path / "checkpoints", example(2), keep=1)
    path, newest = open_checkpoint(tmp_path, "latest")
    assert newest.step == int(path.name[-6:]) == (2 if moment == "_prune" else 1)
    write_checkpoint(tmp_path / "checkpoints", example(3), keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_save_json", full)
    with pytest.raises(DataError, match="No space left"):
        write_checkpoint(tmp_path, example(1))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    broken = write_checkpoint(tmp_path / "checkpoints", example(2))
    (broken / "manifest.json").unlink()
    assert list_checkpoints(tmp_path / "checkpoints") == []
    with pytest.raises(DataError, match="no whole checkpoint to resume from, 1 damaged"):
        open_checkpoint(tmp_path, "latest")
    with pytest.raises(DataError, match="not a checkpoint"):
        open_checkpoint(tmp_path, str(broken))
    assert read_checkpoint(write_checkpoint(tmp_path / "checkpoints", example(2))).step == 2


def test_later_ones_are_removed_on_going_back(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, example(step))
    remove_later(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000001", "step-000002"]
