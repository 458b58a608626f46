"""Rows in shards: what is read is what was written, whoever wrote it, whoever was killed, and whatever broke."""

from __future__ import annotations

import logging
import os
import pickle
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from t2ialign.errors import DataError, SourceError
from t2ialign.trainers.caches import store as stores
from t2ialign.trainers.caches.store import MISSING, Store, Writer, require_space


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def row(number: int, shape: tuple[int, ...] = (3, 4), dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name in ("mean", "std")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) and value.dtype == other[name].dtype for name, value in one.items()
    )


def read(store: Store, number: int) -> dict[str, Tensor]:
    (place,) = store.places([key(number)])
    return store.rows.read(int(place))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kept", ["memory", "folder"])
def test_rows_of_any_shape_come_back_bit_for_bit(tmp_path: Path, kept: str, dtype: torch.dtype) -> None:
    folder = tmp_path / "rows" if kept == "folder" else None
    store = Store(folder)
    shapes = [(3, 4), (2, 6), (3, 4), (5,)]
    store.add({key(n): row(n, shape, dtype) for n, shape in enumerate(shapes)})
    for opened in (store,) if folder is None else (store, Store(folder)):
        assert len(opened) == 4
        for n, shape in enumerate(shapes):
            assert same(read(opened, n), row(n, shape, dtype))
    assert store.places([key(9)]).tolist() == [MISSING]


def test_readers_take_the_union_of_what_writers_add(tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    one.add({key(n): row(n) for n in (0, 1, 2)})
    other.add({key(n): row(n) for n in (2, 3)})  # it has not looked, so row 2 is there twice
    assert key(3) not in one
    one.refresh()
    other.refresh()
    assert len(one) == len(other) == len(Store(tmp_path)) == 4
    assert all(same(read(one, n), row(n)) for n in range(4))
    assert one.add({key(3): row(3)}) == 0
    assert len(list(tmp_path.glob("shard-*"))) == 2


def test_worker_processes_get_paths_and_not_the_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add({key(n): row(n, (64, 64)) for n in range(20)})
    place = int(store.places([key(7)])[0])
    rows = store.rows
    rows.read(place)
    sent = pickle.dumps(rows)
    assert len(sent) < 3000
    assert same(pickle.loads(sent).read(place), row(7, (64, 64)))


def shard_of(folder: Path) -> Path:
    (path,) = folder.glob("shard-*.safetensors")
    return path


@pytest.mark.parametrize("how", ["cut short", "empty", "no header", "of something else", "rows of other numbers"])
def test_a_shard_that_can_not_be_opened_is_named_set_aside_and_filled_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    Store(tmp_path).add({key(n): row(n) for n in range(3)})
    path = shard_of(tmp_path)
    whole = path.read_bytes()
    if how == "cut short":
        path.write_bytes(whole[:-5])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no header":
        path.write_bytes(b"\xff" * 64 + whole[64:])
    elif how == "of something else":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        save_file({"keys": torch.zeros(3, 16, dtype=torch.uint8), "check": torch.zeros(2, dtype=torch.int64)}, path)
    with caplog.at_level(logging.WARNING):
        store = Store(tmp_path)
    assert str(path) in caplog.text
    assert len(store) == 0
    assert not path.exists()
    assert len(list(tmp_path.glob("damaged-*"))) == 1
    store.add({key(n): row(n) for n in range(3)})
    assert len(Store(tmp_path)) == 3


def test_a_changed_row_is_found_when_it_is_read_and_by_verify(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add({key(n): row(n) for n in range(3)})
    store.add({key(5): row(5)})
    path = next(
        each
        for each in tmp_path.glob("shard-*")
        if each.stat().st_size == max(other.stat().st_size for other in tmp_path.glob("shard-*"))
    )
    raw = bytearray(path.read_bytes())
    at = raw.rindex(row(1)["std"].numpy().tobytes())
    raw[at + 3] ^= 0x10
    path.write_bytes(raw)
    opened = Store(tmp_path)
    assert same(read(opened, 0), row(0))
    with pytest.raises(SourceError, match=path.name):
        read(opened, 1)
    assert opened.verify() == 1
    assert not path.exists()
    assert [n for n in range(6) if key(n) in opened] == [5]
    assert opened.verify() == 0


def test_a_changed_key_is_no_other_picture(tmp_path: Path) -> None:
    Store(tmp_path).add({key(1): row(1)})
    path = shard_of(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(key(1)) + 15] = 2
    path.write_bytes(raw)
    opened = Store(tmp_path)
    assert key(2) in opened
    with pytest.raises(SourceError, match="damaged"):
        read(opened, 2)


def test_what_a_killed_writer_left_is_no_shard_and_goes_after_a_day(tmp_path: Path) -> None:
    Store(tmp_path).add({key(1): row(1)})
    young, old = tmp_path / ".aside-1", tmp_path / ".aside-2"
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    store = Store(tmp_path)
    store.clear_asides()
    assert len(store) == 1
    assert young.exists()
    assert not old.exists()


def test_the_disk_is_asked_first(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(DataError, match=r"1000000000\.00 GB .* free"):
        require_space(tmp_path / "new", 10**18)


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write a shard into"):
        Store(tmp_path / "file").add({key(1): row(1)})


def test_a_writer_makes_shards_by_size_and_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SHARD_BYTES", 3 * 96)  # a row takes 96 bytes
    writer = Writer(Store(tmp_path))
    assert [writer.put(key(n), row(n)) for n in range(7)] == [False, False, True] * 2 + [False]
    assert len(Store(tmp_path)) == 6
    monkeypatch.setattr(stores, "SHARD_SECONDS", 0.0)
    assert writer.put(key(7), row(7))
    writer.flush()
    assert (writer.rows, writer.bytes) == (8, 8 * 96)


def test_writers_killed_at_any_moment_leave_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SHARD_BYTES", 4 * 96)
    chance = random.Random(0)
    for turn in range(12):
        child = os.fork()
        if child == 0:
            writer = Writer(Store(tmp_path))
            for n in range(turn * 40, turn * 40 + 40000):
                writer.put(key(n), row(n))
            os._exit(0)
        wanted = len(list(tmp_path.glob("shard-*"))) + 5
        while len(list(tmp_path.glob("shard-*"))) < wanted:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        store = Store(tmp_path)
        assert store.verify() == 0
        assert not list(tmp_path.glob("damaged-*"))
    store = Store(tmp_path)
    assert len(store) > 50
    present = [n for n in range(5000) if key(n) in store]
    assert all(same(read(store, n), row(n)) for n in present[::7])
