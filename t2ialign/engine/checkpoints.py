"""Checkpoints that are whole or not there.

A checkpoint is written aside, every file is fsynced, the manifest with sizes and sha256 is written last, the
folder is renamed, and only then are older ones pruned. A folder without a valid manifest is no checkpoint: a
process killed at any moment leaves either the old ones or the old ones and a whole new one.

    checkpoints/step-000100/
        trainable.safetensors    the trained parameters, by name
        optimizer.safetensors    the optimizer's tensors
        optimizer.json           what the optimizer keeps beside tensors
        average.safetensors      the moving average, if there is one
        task.safetensors         what the task has learned beside the weights, if anything
        state.json               step, counters, scale of fp16
        manifest.json            step, config, versions, and of each file its bytes and sha256
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from t2ialign.engine.packing import pack, unpack
from t2ialign.errors import DataError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d{6,})")
_ASIDE = ".aside-"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on.

    Attributes:
        step: Optimizer steps done.
        trainable: The trained parameters by name.
        optimizer: The optimizer's `state_dict()`.
        average: The moving average in the order of the parameters, or None.
        task: What the task has learned beside the weights.
        state: Plain values: counters, the scale of fp16, the average's number of updates.
        config: The resolved options of the run, for comparing on resume.
    """

    step: int
    trainable: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    average: list[Tensor] | None = None
    task: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 0) -> Path:
    """Write a checkpoint into `folder/step-NNNNNN`, unless it is there already, and prune older ones.

    Args:
        folder: The run's `checkpoints/`.
        checkpoint: What to write.
        keep: How many of the newest stay; 0 keeps all.

    Returns:
        The new folder.

    Raises:
        DataError: if the disk has too little room.
    """
    name = f"step-{checkpoint.step:06d}"
    target = folder / name
    if (target / MANIFEST).is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(stale, ignore_errors=True)
    aside = folder / f"{_ASIDE}{name}-{os.getpid()}"
    aside.mkdir()
    try:
        _write_files(aside, checkpoint)
        _write_manifest(aside, checkpoint)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise DataError(f"cannot write a checkpoint into {folder}: {error}; free some room and resume") from error
    shutil.rmtree(target, ignore_errors=True)  # what a removal that was interrupted left
    os.replace(aside, target)
    _sync(folder)
    _prune(folder, keep)
    return target


def _write_files(aside: Path, checkpoint: Checkpoint) -> None:
    structure, tensors = pack(dict(checkpoint.optimizer))
    _save_tensors(aside / "trainable.safetensors", checkpoint.trainable)
    _save_tensors(aside / "optimizer.safetensors", tensors)
    if checkpoint.average is not None:
        numbered = {f"{number:06d}": tensor for number, tensor in enumerate(checkpoint.average)}
        _save_tensors(aside / "average.safetensors", numbered)
    if checkpoint.task:
        _save_tensors(aside / "task.safetensors", checkpoint.task)
    _save_json(aside / "optimizer.json", structure)
    _save_json(aside / "state.json", {"step": checkpoint.step, **checkpoint.state})


def _write_manifest(aside: Path, checkpoint: Checkpoint) -> None:
    files = {path.name: describe(path) for path in sorted(aside.iterdir())}
    _save_json(
        aside / MANIFEST,
        {
            "format": FORMAT,
            "step": checkpoint.step,
            "config": dict(checkpoint.config),
            "versions": {name: version(name) for name in ("torch", "diffusers", "accelerate", "peft")},
            "files": files,
        },
    )
    _sync(aside)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after comparing every file with the manifest.

    Raises:
        DataError: if a file is missing, or differs from the manifest.
    """
    from safetensors.torch import load_file

    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file() or describe(file) != expected:
            raise DataError(f"{file} is missing or not as its manifest says; resume from another checkpoint")
    average, task = path / "average.safetensors", path / "task.safetensors"
    state = json.loads((path / "state.json").read_text())
    structure = json.loads((path / "optimizer.json").read_text())
    return Checkpoint(
        step=state.pop("step"),
        trainable=load_file(path / "trainable.safetensors"),
        optimizer=unpack(structure, load_file(path / "optimizer.safetensors")),
        average=[tensor for _, tensor in sorted(load_file(average).items())] if average.is_file() else None,
        task=load_file(task) if task.is_file() else {},
        state=state,
        config=manifest["config"],
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest.

    Raises:
        DataError: if there is none, or it is of another format.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a checkpoint (no readable {MANIFEST})") from error
    if manifest.get("format") != FORMAT:
        raise DataError(f"{path} has checkpoint format {manifest.get('format')!r}; this version reads {FORMAT}")
    return manifest


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    found = []
    for path in folder.glob("step-*"):
        match = _NAME.fullmatch(path.name)
        if match and (path / MANIFEST).is_file():
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def find_checkpoint(output_dir: Path, resume: str) -> Path:
    """Return the checkpoint that `--resume` names.

    Args:
        output_dir: Of the run.
        resume: `"latest"`, or a checkpoint's folder.

    Raises:
        DataError: if there is none.
    """
    if resume != "latest":
        path = Path(resume)
        read_manifest(path)
        return path
    found = list_checkpoints(output_dir / "checkpoints")
    if not found:
        raise DataError(f"{output_dir} has no checkpoint to resume from; leave out --resume to begin anew elsewhere")
    return found[-1]


def remove_later(folder: Path, step: int) -> None:
    """Remove the checkpoints after `step`, which a run that goes on from there will write anew."""
    for path in list_checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            _remove(path)


def describe(path: Path) -> dict[str, Any]:
    """Return a file's size in bytes and its sha256."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    _sync(path)


def _save_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, default=str) + "\n")
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(folder: Path, keep: int) -> None:
    if keep <= 0:
        return
    for path in list_checkpoints(folder)[:-keep]:
        logger.info("removing %s, older than the %d checkpoints to keep", path.name, keep)
        _remove(path)


def _remove(path: Path) -> None:
    (path / MANIFEST).unlink()
    shutil.rmtree(path, ignore_errors=True)
