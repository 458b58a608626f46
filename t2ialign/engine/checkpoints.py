"""Checkpoints that are whole or not there.

The disk is asked for room; a checkpoint is written aside, every file is fsynced, the manifest with sizes and sha256 is
written last, the folder is renamed, and only then are older ones pruned. A folder without a valid manifest is no
checkpoint: a process killed at any moment leaves either the old ones or the old ones and a whole new one. One that was
damaged later (other sizes, other sums) is never gone on from: `latest` passes over it, saying so, to the next older.

    checkpoints/step-000100/
        trainable.safetensors    the trained parameters, by name
        optimizer.safetensors    the optimizer's tensors
        optimizer.json           what the optimizer keeps beside tensors
        average.safetensors      the moving average, if there is one
        task.safetensors         what the task has learned beside the weights, if anything
        state.json               step, counters, scale of fp16
        examples.json            where a run stopped on numbers that are not finite: which examples the steps saw
        manifest.json            step, config, versions, and of each file its bytes and sha256
"""

from __future__ import annotations

import errno
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
EXAMPLES = "examples.json"
FORMAT = 1
MARGIN = 16 * 2**20
"""Bytes that must be free beside those of a checkpoint: its JSON files, the metrics until the next one."""

_STEP = "step-"
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
        DataError: if the disk has too little room; what was there is as it was.
    """
    target = folder / f"step-{checkpoint.step:06d}"
    if flaw(target) is None:
        return target
    write_folder(target, checkpoint)
    _prune(folder, keep)
    return target


def write_folder(target: Path, checkpoint: Checkpoint, examples: Any = None) -> None:
    """Write a checkpoint into a folder of any name, whole or not at all; a damaged one of that name makes way.

    Args:
        target: The folder.
        checkpoint: What to write.
        examples: Kept as `examples.json` beside the state, if given.

    Raises:
        DataError: if the disk has too little room.
    """
    from safetensors import SafetensorError

    folder = target.parent
    aside = folder / f"{_ASIDE}{target.name}-{os.getpid()}"
    try:
        _make_folder(folder)
        for stale in folder.glob(f"{_ASIDE}{target.name.rstrip('0123456789')}*"):
            shutil.rmtree(stale, ignore_errors=True)
        _ask_for_room(folder, checkpoint)
        aside.mkdir()
        _write_files(aside, checkpoint)
        if examples is not None:
            _save_json(aside / EXAMPLES, examples)
        _write_manifest(aside, checkpoint)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise DataError(
            f"cannot write a checkpoint into {folder}: {error}. Those that were there are as they were: make room, "
            "and go on with --resume latest"
        ) from error
    shutil.rmtree(target, ignore_errors=True)
    os.replace(aside, target)
    _sync(folder)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True)
        _sync(folder.parent)


def _ask_for_room(folder: Path, checkpoint: Checkpoint) -> None:
    """Raise OSError if the disk has less room than the checkpoint and a margin take."""
    _, tensors = pack(dict(checkpoint.optimizer), copy=False)
    every = [*checkpoint.trainable.values(), *tensors.values(), *(checkpoint.average or ()), *checkpoint.task.values()]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in every) + MARGIN
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"it takes {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free")


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
    from safetensors import SafetensorError

    manifest = read_manifest(path)
    try:
        for name, expected in manifest["files"].items():
            file = path / name
            if not file.is_file() or describe(file) != expected:
                raise DataError(f"{file} is missing or not as its manifest says; resume from another checkpoint")
        return _read_files(path, manifest)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no checkpoint that can be read ({error}); resume from another one") from error


def _read_files(path: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    from safetensors.torch import load_file

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
        DataError: if there is none that can be read, or it is of another format.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a checkpoint (no readable {MANIFEST})") from error
    kind = manifest.get("format") if isinstance(manifest, dict) else None
    if kind != FORMAT:
        raise DataError(f"{path} has checkpoint format {kind!r}; this version reads {FORMAT}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not isinstance(manifest.get("config"), dict):
        raise DataError(f"{path} is not a checkpoint ({MANIFEST} names no files or no options)")
    if any(name != Path(name).name or not isinstance(entry, dict) for name, entry in files.items()):
        raise DataError(f"{path} is not a checkpoint ({MANIFEST} names files elsewhere)")
    return manifest


def flaw(path: Path) -> str | None:
    """Return what is wrong with a checkpoint at a quick look: its manifest, or a size; None if nothing is.

    The sums are compared when it is read.
    """
    try:
        manifest = read_manifest(path)
    except DataError as error:
        return str(error)
    match = _NAME.fullmatch(path.name)
    if match and manifest.get("step") != int(match[1]):
        return f"{path} holds step {manifest.get('step')}"
    try:
        for name, expected in manifest["files"].items():
            file = path / name
            if not file.is_file() or file.stat().st_size != expected.get("bytes"):
                return f"{file} is missing or has another size than its manifest says"
    except OSError as error:
        return f"{path} can not be read: {error}"
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run that are whole at a quick look, oldest first."""
    return [path for path in _numbered(folder) if flaw(path) is None]


def _numbered(folder: Path) -> list[Path]:
    """Return every folder with a checkpoint's name, whole or not, oldest first."""
    return sorted((path for path in folder.glob(f"{_STEP}*") if _NAME.fullmatch(path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_STEP))


def open_checkpoint(output_dir: Path, resume: str) -> tuple[Path, Checkpoint]:
    """Read the checkpoint that `--resume` names.

    Args:
        output_dir: Of the run.
        resume: `"latest"`, or a checkpoint's folder.

    Returns:
        Its folder and what it holds. For `"latest"` that is the newest whole one; newer ones that are damaged are
        named in a warning.

    Raises:
        DataError: if there is none, or the one that was named is damaged.
    """
    if resume != "latest":
        return Path(resume), read_checkpoint(Path(resume))
    damaged = 0
    for path in reversed(_numbered(output_dir / "checkpoints")):
        try:
            found = flaw(path)
            if found is None:
                return path, read_checkpoint(path)
        except DataError as error:
            found = str(error)
        damaged += 1
        logger.warning("%s is damaged and passed over (%s); the next older checkpoint is tried", path.name, found)
    why = f"no whole checkpoint to resume from, {damaged} damaged" if damaged else "no checkpoint to resume from"
    raise DataError(f"{output_dir} has {why}; leave out --resume to begin anew elsewhere")


def remove_later(folder: Path, step: int) -> None:
    """Remove the checkpoints after `step`, damaged ones too, which a run that goes on from there will write anew."""
    for path in _numbered(folder):
        if _step_of(path) > step:
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
    """Remove what is older than the `keep` newest whole checkpoints."""
    kept = list_checkpoints(folder)[-keep:] if keep > 0 else []
    for path in _numbered(folder) if kept else ():
        if _step_of(path) < _step_of(kept[0]):
            logger.info("removing %s, older than the %d checkpoints to keep", path.name, keep)
            _remove(path)


def _remove(path: Path) -> None:
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
