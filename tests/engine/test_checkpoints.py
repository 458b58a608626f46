"""A checkpoint is whole or not there."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from t2ialign.engine import checkpoints
from t2ialign.engine.checkpoints import (
    Checkpoint,
    list_checkpoints,
    open_checkpoint,
    read_checkpoint,
    remove_later,
    write_checkpoint,
    write_folder,
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


def spoil(path: Path, how: str) -> None:
    """Damages a checkpoint in one of the ways that a disk or a copy does."""
    manifest, weights = path / "manifest.json", path / "trainable.safetensors"
    content = weights.read_bytes()
    if how == "manifest cut":
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif how == "manifest of something else":
        manifest.write_text("[]")
    elif how == "manifest of another step":
        manifest.write_text(manifest.read_text().replace('"step": 3', '"step": 4'))
    elif how == "file missing":
        weights.unlink()
    elif how == "file cut":
        weights.write_bytes(content[:-1])
    elif how == "bit turned":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


WAYS = [
    "manifest cut",
    "manifest of something else",
    "manifest of another step",
    "file missing",
    "file cut",
    "bit turned",
]


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_one_is_passed_over_with_a_warning_and_refused_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        write_checkpoint(folder, example(step))
    spoil(folder / "step-000003", how)
    with caplog.at_level(logging.WARNING):
        path, found = open_checkpoint(tmp_path, "latest")
    assert (path.name, found.step) == ("step-000002", 2)
    assert "step-000003 is damaged and passed over" in caplog.text
    if how != "manifest of another step":
        with pytest.raises(DataError, match="step-000003"):
            open_checkpoint(tmp_path, str(folder / "step-000003"))
    if how != "bit turned":  # its sums are compared when it is read
        assert [path.name for path in list_checkpoints(folder)] == ["step-000001", "step-000002"]
        write_checkpoint(folder, example(3))
        assert open_checkpoint(tmp_path, "latest")[1].step == 3
    remove_later(folder, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", "step-000002"]


def test_damaged_ones_are_pruned_but_count_for_nothing(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, example(step))
    spoil(tmp_path / "step-000003", "file cut")
    spoil(tmp_path / "step-000001", "file cut")
    write_checkpoint(tmp_path, example(4), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002", "step-000004"]
    assert not (tmp_path / "step-000001").exists()


def test_room_is_asked_for_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoints"
    write_checkpoint(folder, example(1))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    usage = type(shutil.disk_usage(folder))(10**9, 10**9, checkpoints.MARGIN)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DataError, match=r"it takes 17 MB and 17 MB are free.*--resume latest"):
            write_checkpoint(folder, example(2), keep=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    write_checkpoint(folder, example(2), keep=1)


def test_a_folder_of_any_name_keeps_the_examples_and_is_read_by_name(tmp_path: Path) -> None:
    target = tmp_path / "not-finite-step-000004"
    write_folder(target, example(3), {"steps": [4]})
    path, found = open_checkpoint(tmp_path, str(target))
    assert (path, found.step) == (target, 3)
    assert json.loads((target / "examples.json").read_text()) == {"steps": [4]}
    (target / "examples.json").write_text("{}")
    with pytest.raises(DataError, match=r"examples\.json"):
        open_checkpoint(tmp_path, str(target))


def test_latest_passes_over_one_that_the_disk_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path / "checkpoints", example(step))
    describe = checkpoints.describe

    def failing(path: Path) -> object:
        if "step-000002" in str(path):
            raise OSError(5, "Input/output error")
        return describe(path)

    monkeypatch.setattr(checkpoints, "describe", failing)
    with caplog.at_level(logging.WARNING):
        _, found = open_checkpoint(tmp_path, "latest")
    assert found.step == 1
    assert "Input/output error" in caplog.text
