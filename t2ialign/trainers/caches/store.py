"""Rows of tensors by key, in shards: files that are whole or not there, or memory.

A row is a few named tensors under a key of 16 bytes that says everything the row depends on, so equal keys mean equal
rows. Nothing is ever changed: a writer adds shards of its own under names of their own, a reader takes the union of
what it finds, and two writers who make the same row do no harm. So several processes fill one folder without locks,
and one that is killed loses the rows of the shard that it had not written yet.

    FOLDER/
        about.json                  what the keys' model part is made of
        shard-<hex>.safetensors     keys [n, 16], check [n] and the rows' tensors [n, ...], n rows of one shape
        .aside-<hex>                a shard being written
        damaged-<hex>.safetensors   a shard that was set aside

`check` is the CRC-32 of each row, its key included. A shard that can not be opened is found when the folder is looked
at; a row that was changed is found when it is first read, or by `verify`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2ialign.errors import DataError, SourceError

logger = logging.getLogger(__name__)

KEY_BYTES = 16
ABOUT = "about.json"
SHARD_BYTES = 64 << 20
"""A shard is written when it has grown to this size."""
SHARD_SECONDS = 30.0
"""A shard is written after this time whatever its size, so that a killed process loses no more."""
_STALE_SECONDS = 24 * 3600
_KEYS, _CHECK = "keys", "check"
MISSING = -1
"""The place of a key that has no row."""

Row = Mapping[str, Tensor]


class Shard:
    """Rows of one shape. Of a file, the tensors are memory-mapped when a row is first read, in each process anew.

    Args:
        path: The file, or None.
        tensors: By name, where there is no file.
        count: Number of rows.
    """

    def __init__(self, path: Path | None, tensors: dict[str, Tensor] | None, count: int) -> None:
        self.path = path
        self._tensors = tensors
        self._checked = np.zeros(count if path is not None else 0, dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        """Send the path and not the mapped file to a worker process."""
        return {**self.__dict__, "_tensors": None if self.path is not None else self._tensors}

    def row(self, number: int) -> dict[str, Tensor]:
        """Return a row; of a file, compared with its check the first time.

        Raises:
            SourceError: if the file has changed; no entry of the set is at fault.
        """
        tensors = self._open()
        if self.path is not None and not self._checked[number]:
            if int(tensors[_CHECK][number]) != _check(tensors[_KEYS][number], _fields(tensors, number)):
                raise SourceError(
                    f"{self.path} is damaged: its row {number} is not what was written. `t2ialign data cache` finds "
                    "such shards, sets them aside and fills their rows again"
                )
            self._checked[number] = True
        return _fields(tensors, number)

    def keys(self) -> NDArray[np.uint8]:
        """Return the keys, `[n, 16]`."""
        return self._open()[_KEYS].numpy()

    def intact(self) -> bool:
        """Whether every row is what was written."""
        try:
            for number in range(len(self._checked)):
                self.row(number)
        except SourceError:
            return False
        return True

    def _open(self) -> dict[str, Tensor]:
        if self._tensors is None:
            assert self.path is not None
            try:
                self._tensors = _mapped(self.path)
            except (OSError, ValueError, KeyError) as error:
                raise SourceError(
                    f"{self.path} can not be read any more: {error}; run `t2ialign data cache`, then go on"
                ) from error
        return self._tensors


class Rows:
    """The shards that places point into; it goes to worker processes.

    A place is the number of a shard times 2^32 plus the number of a row in it.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = list(shards)

    def read(self, place: int) -> dict[str, Tensor]:
        """Return the row at a place.

        Raises:
            SourceError: if its shard has changed.
        """
        return self._shards[place >> 32].row(place & 0xFFFFFFFF)


class Store:
    """Rows by key.

    Args:
        folder: Where the shards lie; None keeps them in memory.
        about: What the folder's name stands for, written into it.
    """

    def __init__(self, folder: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.about = dict(about or {})
        self._shards: list[Shard] = []
        self._known: set[str] = set()
        self._places: dict[bytes, int] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    @property
    def rows(self) -> Rows:
        """What the places point into."""
        return Rows(self._shards)

    def places(self, keys: Iterable[bytes]) -> NDArray[np.int64]:
        """Return the place of each key, `MISSING` where there is none."""
        return np.array([self._places.get(key, MISSING) for key in keys], dtype=np.int64)

    def refresh(self) -> None:
        """Take in the shards that others have written meanwhile; set those aside that can not be opened."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            if path.name not in self._known:
                self._known.add(path.name)
                try:
                    keys = _mapped(path)[_KEYS].numpy().copy()
                except (FileNotFoundError, PermissionError) as error:
                    if not path.exists():
                        continue  # another process has set it aside
                    raise SourceError(
                        f"{path} can not be opened ({error}): may you read it, and are there file handles left?"
                    ) from error
                except (OSError, ValueError, KeyError) as error:
                    _set_aside(path, str(error))
                    continue
                self._take(Shard(path, None, len(keys)), keys)

    def verify(self) -> int:
        """Compare every row with its check, set damaged shards aside, and return how many there were."""
        damaged = [shard for shard in self._shards if shard.path is not None and not shard.intact()]
        for shard in damaged:
            assert shard.path is not None
            _set_aside(shard.path, "a row is not what was written")
        if damaged:
            self._shards, self._known, self._places = [], set(), {}
            self.refresh()
        return len(damaged)

    def add(self, rows: Mapping[bytes, Row]) -> int:
        """Keep rows that are not there yet, and return the bytes they take.

        Raises:
            DataError: if they can not be written.
        """
        fresh = {key: row for key, row in rows.items() if key not in self._places}
        groups: dict[tuple[Any, ...], list[bytes]] = {}
        for key, row in fresh.items():
            groups.setdefault(tuple((name, row[name].shape) for name in sorted(row)), []).append(key)
        return sum(self._add_shard({key: fresh[key] for key in keys}) for keys in groups.values())

    def _add_shard(self, rows: Mapping[bytes, Row]) -> int:
        keys = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), KEY_BYTES).copy()
        names = sorted(next(iter(rows.values())))
        tensors = {name: torch.stack([row[name] for row in rows.values()]) for name in names}
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if self.folder is None:
            self._take(Shard(None, tensors, len(rows)), keys)
            return size
        tensors[_KEYS] = torch.from_numpy(keys)
        checks = [_check(key, _fields(tensors, number)) for number, key in enumerate(tensors[_KEYS])]
        tensors[_CHECK] = torch.tensor(checks, dtype=torch.int64)
        try:
            path = self._write(tensors)
        except (OSError, RuntimeError) as error:  # safetensors passes a full disk on as its own error
            raise DataError(
                f"cannot write a shard into {self.folder}: {error}; free some room and run again; what is there stays"
            ) from error
        self._known.add(path.name)
        self._take(Shard(path, None, len(rows)), keys)
        return size

    def _write(self, tensors: Mapping[str, Tensor]) -> Path:
        from safetensors.torch import save_file

        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex[:16]
        if not (self.folder / ABOUT).is_file():
            _write_whole(self.folder / ABOUT, json.dumps(self.about, indent=2, sort_keys=True) + "\n")
        aside, path = self.folder / f".aside-{name}", self.folder / f"shard-{name}.safetensors"
        try:
            save_file(dict(tensors), aside)
            shutil.copymode(self.folder / ABOUT, aside)  # safetensors lets nobody else read it
            _sync(aside)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync(self.folder)
        return path

    def _take(self, shard: Shard, keys: NDArray[np.uint8]) -> None:
        first = len(self._shards) << 32
        self._shards.append(shard)
        for number, key in enumerate(keys):
            self._places.setdefault(key.tobytes(), first + number)

    def clear_asides(self) -> None:
        """Remove what writers who were killed have left, a day later."""
        for path in self.folder.glob(".aside-*") if self.folder is not None else ():
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue


class Writer:
    """Collects rows and adds them to a store a shard at a time.

    Args:
        store: Where they go.

    Attributes:
        bytes: Added so far.
        rows: Added so far.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.bytes = 0
        self.rows = 0
        self._waiting: dict[bytes, Row] = {}
        self._waiting_bytes = 0
        self._since = time.monotonic()

    def put(self, key: bytes, row: Row) -> bool:
        """Take a row, and return whether a shard was written."""
        self._waiting[key] = row
        self._waiting_bytes += sum(tensor.numel() * tensor.element_size() for tensor in row.values())
        if self._waiting_bytes >= SHARD_BYTES or time.monotonic() - self._since >= SHARD_SECONDS:
            self.flush()
            return True
        return False

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            self.bytes += self.store.add(self._waiting)
            self.rows += len(self._waiting)
        self._waiting, self._waiting_bytes, self._since = {}, 0, time.monotonic()


def require_space(folder: Path, wanted: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        DataError: naming the bytes that are needed and those that are free.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if wanted * 1.02 > free:
        raise DataError(
            f"{folder} would grow by {wanted / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free; free some room, "
            "name another cache_dir, or keep less: --cache_dtype bf16, --posterior mean"
        )


def _mapped(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a shard, memory-mapped.

    Raises:
        ValueError: if it is no whole shard.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            names: list[str] = list(opened.keys())
            tensors = {name: opened.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    keys, check = tensors.get(_KEYS), tensors.get(_CHECK)
    if keys is None or check is None or keys.shape[1:] != (KEY_BYTES,) or keys.dtype != torch.uint8:
        raise ValueError("it has no keys")
    if {len(tensor) for tensor in tensors.values()} != {len(keys)} or check.dtype != torch.int64:
        raise ValueError("its tensors do not have as many rows as its keys")
    return tensors


def _fields(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    return {name: tensor[number] for name, tensor in tensors.items() if name not in (_KEYS, _CHECK)}


def _check(key: Tensor, row: Row) -> int:
    value = zlib.crc32(key.numpy().tobytes())
    for name in sorted(row):
        value = zlib.crc32(row[name].contiguous().reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def _set_aside(path: Path, why: str) -> None:
    target = path.with_name(path.name.replace("shard-", "damaged-", 1))
    try:
        os.replace(path, target)
    except FileNotFoundError:
        return
    logger.warning("%s is damaged (%s); it is set aside as %s and its rows are filled again", path, why, target.name)


def _write_whole(path: Path, text: str) -> None:
    aside = path.with_name(f".aside-{uuid.uuid4().hex[:16]}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
