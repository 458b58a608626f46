"""Streamed sets: the same rows as opened whole, only the bytes that are needed, and what can go wrong meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.pair_sets import encoded, labelled, pair
from helpers.shards import heavy_pair, write_shards
from t2ialign.data import shards
from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
from t2ialign.data.streaming import StreamedRows
from t2ialign.data.unpaired import UnpairedDataset, load_unpaired, write_unpaired
from t2ialign.errors import DataError, SourceError

MIXED: list[dict[str, Any]] = [
    pair(
        n,
        preference_prob=(0.5, 0.75, None)[n % 3],
        user_id=f"u{n % 4}",
        margin=float(n),
        scores_chosen={"clip": 0.5 * n},
        note=f"note {n}",
    )
    for n in range(23)
]


def rows_of(data: PairDataset | UnpairedDataset) -> StreamedRows:
    rows = data._table.dataset
    assert isinstance(rows, StreamedRows)
    return rows


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "WAITS", (0.01, 0.01, 0.01, 0.01))


@pytest.mark.parametrize("groups", [[[23]], [[5, 5, 1], [7], [5]], [[1] * 23]])
def test_a_streamed_set_is_the_same_set(tmp_path: Path, groups: list[list[int]]) -> None:
    write_shards(tmp_path, groups, MIXED)
    whole, streamed = load_pairs(tmp_path), load_pairs(tmp_path, streaming=True)
    assert list(streamed) == list(whole)
    assert (len(streamed), streamed.dropped) == (len(whole), {"ties": 8})
    assert streamed.prompts == whole.prompts
    assert streamed.column_names == whole.column_names
    for name in ["preference_prob", "user_id", "margin", "scores_chosen", "note", "aspect", "chosen"]:
        assert streamed.column(name) == whole.column(name), name
    assert streamed.encoded(4, "rejected") == whole.encoded(4, "rejected")
    assert streamed.feature("chosen") == whole.feature("chosen") or not isinstance(streamed.feature("chosen"), str)
    assert list(streamed.select([7, 0, 7])) == list(whole.select([7, 0, 7]))
    kept = load_pairs(tmp_path, ties="keep", streaming=True)
    assert (len(kept), kept[0].preference_prob) == (23, 0.5)
    with pytest.raises(DataError, match="no column 'nope'"):
        streamed.column("nope")
    assert whole.streamed is None
    assert whole.blocks is None
    count = {"shards": len(groups), "row_groups": sum(map(len, groups))}
    assert (streamed.streamed or {}).items() >= (count | {"commit": None}).items()


def test_pictures_may_be_bytes_structs_or_paths_and_shards_may_differ(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(9))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    first = pa.table(
        {
            "prompt": ["a", "b"],
            "chosen": pa.array([{"bytes": encoded(1), "path": "x"}, {"bytes": None, "path": "a.png"}], kind),
            "rejected": pa.array([encoded(2), encoded(3)], pa.large_binary()),
            "user_id": pa.nulls(2),
        }
    )
    second = pa.table({"prompt": ["c"], "chosen": [{"bytes": encoded(4), "path": None}], "rejected": [encoded(5)]})
    third = second.append_column("user_id", pa.array(["u"])).append_column("margin", pa.array([2]))
    for number, table in enumerate((first, second, third)):
        pq.write_table(table, tmp_path / f"train-{number:05d}-of-00003.parquet")
    streamed = load_pairs(tmp_path, streaming=True)
    assert [each.chosen.getpixel((0, 0))[0] for each in streamed] == [1, 9, 4, 4]  # type: ignore[index]
    assert streamed.column("user_id") == [None, None, None, "u"]
    assert streamed.column("margin") == [None, None, None, 2.0]
    assert [each.margin for each in streamed] == [None, None, None, 2.0]


def test_labelled_pictures_and_pairs_as_such(tmp_path: Path) -> None:
    write_unpaired([labelled(n, n % 2 == 0, weight=float(n)) for n in range(6)], tmp_path / "single")
    whole, streamed = (load_unpaired(tmp_path / "single", streaming=each) for each in (False, True))
    assert list(streamed) == list(whole)
    assert list(streamed.positives()) == list(whole.positives())
    assert streamed.column("image") == whole.column("image")
    write_shards(tmp_path / "pairs", [[3, 4], [2]])
    whole, streamed = (load_unpaired(tmp_path / "pairs", streaming=each) for each in (False, True))
    assert list(streamed) == list(whole)
    assert streamed.column("image") == whole.column("image") == [encoded(n) for n in range(18)]
    assert streamed.positives().encoded(8) == whole.positives().encoded(8)


def read_by_system() -> int:
    """Bytes that this process has read through system calls, whoever asked for them."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="needs Linux's count of bytes read")
def test_only_the_bytes_that_are_needed_are_read(tmp_path: Path) -> None:
    write_shards(tmp_path, [[4] * 8] * 5, [heavy_pair(n, user_id=f"u{n}", margin=1.0) for n in range(160)])
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size > 8e6
    load_pairs(tmp_path, streaming=True)[0]  # whatever is imported for it
    begun = read_by_system()
    pairs = load_pairs(tmp_path, streaming=True)
    assert (len(pairs.prompts), len(pairs.column("margin"))) == (160, 160)
    opened = read_by_system() - begun
    assert opened < 0.12 * size
    pairs[7]
    one = read_by_system() - begun - opened
    assert 0.9 < one / (size / 40) < 1.1
    pairs[4], pairs[5], pairs[6]
    assert read_by_system() - begun - opened - one < 10_000  # all of the row group is there
    assert rows_of(pairs).groups.fetched == 1


def blocks_in_rows(pairs: PairDataset) -> list[list[int]]:
    return [block.tolist() for block in pairs.blocks or []]


def test_blocks_are_row_groups_that_fit_into_the_buffer_four_times(tmp_path: Path) -> None:
    rows = [heavy_pair(n, preference_prob=0.5 if n in (0, 1, 5) else 1.0) for n in range(20)]
    write_shards(tmp_path, [[2, 2, 2], [2, 2], [6, 2, 2]], rows)
    each = 2 * 27 * 1024 * 2 / 2**20  # MiB of a row group of two pairs
    alone = load_pairs(tmp_path, streaming=True, buffer_mib=1)
    assert 1 / 4 / each == pytest.approx(2.4, abs=0.1)  # two row groups of two pairs to a block
    assert blocks_in_rows(alone) == [[0, 1], [2, 3, 4], [5, 6], [*range(7, 13)], [*range(13, 17)]]
    assert blocks_in_rows(load_pairs(tmp_path, streaming=True)) == [[*range(17)]]
    assert [len(block) for block in load_unpaired(tmp_path, streaming=True).blocks or []] == [34]
    picked = alone.select([16, 0, 3, 5])
    assert blocks_in_rows(picked) == [[1], [2], [3], [0]]


def test_an_order_in_blocks_reads_each_row_group_once_an_epoch_for_each_reader(tmp_path: Path) -> None:
    from t2ialign.engine.order import WINDOW, Schedule

    rng = np.random.default_rng(0)
    write_shards(tmp_path, [[3, 2, 3], [1, 3, 4, 2], [3] * 6, [2] * 4], [heavy_pair(n) for n in range(44)])
    pairs = load_pairs(tmp_path, streaming=True, buffer_mib=1)
    groups = rows_of(pairs).groups
    blocks = pairs.blocks
    assert blocks is not None
    assert len(blocks) > 2 * WINDOW - 2
    schedule = Schedule(seed=1, length=44, steps=33, batch_size=2, processes=2, blocks=blocks)
    readers = [ForkingPickler.loads(ForkingPickler.dumps(pairs)) for _ in range(2)]
    most = 0
    for epoch in range(3):
        met: list[set[int]] = [set(), set()]
        kept = [len(rows_of(reader).groups._kept) for reader in readers]
        for n in range(44 * epoch, 44 * epoch + 44):
            reader = readers[n // 2 % 2]
            assert reader[schedule.index(n)].index == pairs.row(schedule.index(n))
            met[n // 2 % 2].add(groups.place(pairs.row(schedule.index(n)))[0])
            most = max(most, sum(table.nbytes for table in rows_of(reader).groups._kept.values()))
        for number, reader in enumerate(readers):
            assert len(met[number]) - kept[number] <= rows_of(reader).groups.fetched <= len(met[number])
            rows_of(reader).groups.fetched = 0
    assert 0.5 * 2**20 < most < 1.02 * 2**20
    straight = ForkingPickler.loads(ForkingPickler.dumps(pairs))
    for n in range(44):
        straight[schedule.index(n)]
    assert rows_of(straight).groups.fetched == len(groups.starts) - 1
    for n in rng.integers(0, 1000, 3).tolist():  # from any place on, no more than the blocks of that place
        resumed = ForkingPickler.loads(ForkingPickler.dumps(pairs))
        resumed[schedule.index(n)]
        assert rows_of(resumed).groups.fetched == 1


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_any_order_of_reading_gives_the_rows(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]], data: st.DataObject
) -> None:
    folder = write_shards(tmp_path_factory.mktemp("shards"), groups)
    count = sum(map(sum, groups))
    pairs = load_pairs(folder, streaming=True, buffer_mib=1)
    rows_of(pairs).groups.buffer = 600  # bytes: a picture or two
    for index in data.draw(st.lists(st.integers(0, count - 1), max_size=12)):
        assert pairs.encoded(index, "chosen") == encoded(2 * index)
        assert pairs.encoded(index, "rejected") == encoded(2 * index + 1)
    shutil.rmtree(folder)


def test_row_groups_larger_than_the_buffer_are_told_and_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(tmp_path, [[20], [20]], [heavy_pair(n) for n in range(40)])
    pairs = load_pairs(tmp_path, streaming=True, buffer_mib=1)
    assert "each process that reads keeps up to 3 MiB of pictures, more than the 1 MiB asked for" in caplog.text
    for index in [0, 30, 1, 31]:
        assert pairs[index].prompt == f"prompt {index}"
    assert rows_of(pairs).groups.fetched == 2


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    write_shards(tmp_path, [[8] * 6], [heavy_pair(n) for n in range(48)])
    pairs = load_pairs(tmp_path, streaming=True, buffer_mib=1)  # room for four row groups, as each is a block
    for group in [0, 1, 2, 3, 0, 4]:
        pairs.encoded(8 * group, "chosen")
    assert rows_of(pairs).groups.fetched == 5
    pairs.encoded(7, "rejected")
    assert rows_of(pairs).groups.fetched == 5
    pairs.encoded(8, "chosen")
    assert rows_of(pairs).groups.fetched == 6


def test_it_goes_to_a_worker_without_what_was_read(tmp_path: Path) -> None:
    write_shards(tmp_path, [[4, 4]], [heavy_pair(n) for n in range(8)])
    pairs = load_pairs(tmp_path, streaming=True)
    small = len(ForkingPickler.dumps(pairs))
    expected = list(pairs)
    assert len(ForkingPickler.dumps(pairs)) < small + 1000
    copy = ForkingPickler.loads(ForkingPickler.dumps(pairs))
    assert list(copy) == expected
    assert copy.fingerprint == pairs.fingerprint


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    def fingerprint(name: str, groups: list[list[int]], **changed: Any) -> str:
        rows = [pair(n, user_id=f"u{n}") for n in range(6)]
        rows[3] |= changed
        return load_pairs(write_shards(tmp_path / name, groups, rows), streaming=True).fingerprint

    first = fingerprint("first", [[3], [3]])
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    for file in (tmp_path / "copy").iterdir():
        os.utime(file, (1, 1))
    assert load_pairs(tmp_path / "copy", streaming=True).fingerprint == first
    others = [
        fingerprint("prompt", [[3], [3]], prompt="prompt X"),
        fingerprint("user", [[3], [3]], user_id="uX"),
        fingerprint("picture", [[3], [3]], chosen=encoded(200)),
        fingerprint("order", [[4], [2]]),
        load_pairs(tmp_path / "first", streaming=True).select([1, 0]).fingerprint,
    ]
    assert len({first, *others}) == 6


def test_the_fingerprint_shows_changes_that_neither_size_nor_footer_shows(tmp_path: Path) -> None:
    def opened(name: str, change: Callable[[list[dict[str, Any]]], None]) -> tuple[str, int, str]:
        rows = [heavy_pair(n) for n in range(8)]
        change(rows)
        pairs = load_pairs(write_shards(tmp_path / name, [[4, 4]], rows, "none"), streaming=True)
        footer = rows_of(pairs).shards[0].footer
        return footer.digest, footer.size, pairs.fingerprint

    def swap_prompts(rows: list[dict[str, Any]]) -> None:
        rows[1]["prompt"], rows[2]["prompt"] = rows[2]["prompt"], rows[1]["prompt"]

    def change_pixel(rows: list[dict[str, Any]]) -> None:
        rows[4]["chosen"] = rows[4]["chosen"][:1000] + b"!" + rows[4]["chosen"][1001:]

    found = [opened("first", lambda _: None), opened("prompts", swap_prompts), opened("pixel", change_pixel)]
    assert len({each[:2] for each in found}) == 1
    assert len({each[2] for each in found}) == 3


def test_faults_are_found_at_opening(tmp_path: Path) -> None:
    rows = [pair(n) for n in range(6)]
    rows[4]["rejected"] = None
    write_shards(tmp_path / "null", [[2, 2, 2]], rows)
    with pytest.raises(DataError, match=r"null\[train\] row 4, rejected: the picture is missing"):
        load_pairs(tmp_path / "null", streaming=True)
    rows = [pair(n) for n in range(3)]
    rows[1]["prompt"] = " "
    with pytest.raises(DataError, match="row 1, prompt: empty"):
        load_pairs(write_shards(tmp_path / "empty", [[2, 1]], rows), streaming=True)
    with pytest.raises(DataError, match=r"column chosen: pictures .* are needed, not int64"):
        load_pairs(write_shards(tmp_path / "int", [[1]], [pair(0) | {"chosen": 3}]), streaming=True)
    with pytest.raises(DataError, match="no column rejected"):
        load_pairs(write_shards(tmp_path / "few", [[1]], [{"prompt": "a", "chosen": encoded(1)}]), streaming=True)
    pickapic = {"caption": "a", "jpg_0": encoded(0), "jpg_1": encoded(1), "label_0": 1.0}
    with pytest.raises(DataError, match="data import pickapic"):
        load_pairs(write_shards(tmp_path / "pickapic", [[1]], [pickapic]), streaming=True)
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        load_pairs(tmp_path / "few", split="test", streaming=True)
    write_shards(tmp_path / "cut", [[2, 2]])
    file = next((tmp_path / "cut").iterdir())
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet does not end like a parquet file"):
        load_pairs(tmp_path / "cut", streaming=True)
    data = bytearray(file.read_bytes() + b"AR1")
    data[-8:-4] = (1 << 30).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(DataError, match="the footer is damaged"):
        load_pairs(tmp_path / "cut", streaming=True)


def test_what_is_not_parquet_is_refused_with_the_mend(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "metadata.jsonl").write_text('{"prompt": "a", "chosen": "a.png", "rejected": "b.png"}\n')
    with pytest.raises(DataError, match=r"only parquet files are streamed, .* its pictures are files; leave --str"):
        load_pairs(tmp_path, streaming=True)
    datasets.Dataset.from_dict({"prompt": ["a"]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="it is mapped where it is; leave --streaming out"):
        load_pairs(tmp_path / "saved", streaming=True)
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/00000.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"webdataset shards .* write them as parquet"):
        load_pairs(tmp_path / "tars", streaming=True)
    with pytest.raises(DataError, match="--revision 'v1' is for hub datasets"):
        load_pairs(write_shards(tmp_path / "few", [[1]]), revision="v1", streaming=True)


@pytest.fixture
def opened(tmp_path: Path) -> tuple[Path, PairDataset]:
    """Two shards, the first row group of the first of them read."""
    folder = write_shards(tmp_path / "set", [[2, 2], [2, 2]])
    pairs = load_pairs(folder, streaming=True)
    pairs[0]
    return folder, pairs


def test_a_shard_that_vanishes_ends_the_run_and_names_itself(opened: tuple[Path, PairDataset]) -> None:
    folder, pairs = opened
    (folder / "train-00001-of-00002.parquet").unlink()
    assert pairs[3].prompt == "prompt 3"
    with pytest.raises(
        SourceError,
        match=r"train-00001-of-00002.parquet, row group 1 could not be read in 5 attempts .* --resume latest",
    ) as caught:
        pairs[7]
    assert not isinstance(caught.value, DataError)


def test_a_shard_that_comes_back_in_time_is_read(
    opened: tuple[Path, PairDataset], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, pairs = opened
    file = folder / "train-00001-of-00002.parquet"
    away = file.rename(folder / "away")
    monkeypatch.setattr(shards, "WAITS", (0.1, 0.6))

    def return_it() -> None:
        time.sleep(0.3)
        away.rename(file)

    thread = threading.Thread(target=return_it)
    thread.start()
    assert pairs[7].prompt == "prompt 7"
    thread.join()
    assert "train-00001-of-00002.parquet, row group 1 could not be read" in caplog.text


def test_a_shard_that_changes_is_refused_and_one_written_again_is_not(opened: tuple[Path, PairDataset]) -> None:
    folder, pairs = opened
    file = folder / "train-00001-of-00002.parquet"
    same = file.read_bytes()
    file.unlink()
    file.write_bytes(same)
    assert pairs[5].prompt == "prompt 5"
    other = write_shards(folder.parent / "other", [[2, 2], [2, 2]], [pair(n + 1) for n in range(8)])
    shutil.copy(other / file.name, file)
    with pytest.raises(SourceError, match=r"row group 1: it is not the file that it was .* begin a new run"):
        pairs[6]
    renamed = same.replace(b"prompt 7", b"prompt 9")
    assert len(renamed) == len(same)
    assert renamed != same
    file.write_bytes(renamed)  # of the same size, with other statistics in the footer
    with pytest.raises(SourceError, match="it is not the file that it was"):
        pairs[6]
    file.write_bytes(same[: len(same) // 2])
    with pytest.raises(SourceError, match="it is not the file that it was"):
        pairs[6]


def test_damage_inside_a_row_group_names_it(opened: tuple[Path, PairDataset]) -> None:
    folder, pairs = opened
    file = folder / "train-00001-of-00002.parquet"
    first, end = rows_of(pairs).shards[1].chunks(1, ["chosen"])[0]
    data = bytearray(file.read_bytes())
    data[first:end] = bytes(end - first)
    file.write_bytes(data)
    assert pairs[5].prompt == "prompt 5"
    with pytest.raises(SourceError, match=r"train-00001-of-00002.parquet, row group 1 could not be read in 5"):
        pairs[6]


def test_a_footer_longer_than_the_first_look(tmp_path: Path) -> None:
    rows = [pair(n, **{f"column_{m}": "x" * 40 for m in range(60)}) for n in range(30)]
    write_shards(tmp_path, [[1] * 30], rows)
    file = next(tmp_path.iterdir())
    assert int.from_bytes(file.read_bytes()[-8:-4], "little") > 65536
    assert list(load_pairs(tmp_path, streaming=True)) == list(load_pairs(tmp_path))


def test_ranges_near_to_each_other_are_joined() -> None:
    assert shards.joined([(0, 10), (15, 20), (26, 30), (30, 31)], gap=5) == [(0, 20), (26, 31)]
    assert shards.joined([(0, 10), (2, 5)], gap=0) == [(0, 10)]


def test_what_we_write_streams(tmp_path: Path) -> None:
    write_pairs((pair(n) for n in range(150)), tmp_path)
    pairs = load_pairs(tmp_path, streaming=True)
    assert (pairs.streamed or {})["row_groups"] == 3
    assert [each.index for each in pairs] == list(range(150))
