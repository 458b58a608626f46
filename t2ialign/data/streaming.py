"""Sets of parquet shards whose pictures are read while they are needed: no download, no copy, nothing written.

Law of this file: opening reads the footers and every column of ours but the pictures, so that texts, numbers, ties and
groups are known and checked as for any other set. Pictures come a row group at a time and stay in memory, up to a
bound, in each process that reads. Row groups that follow each other form blocks, and an order that takes
`BLOCKS_AT_ONCE` blocks at a time reads each row group once an epoch. Which picture a row has never depends on what was
read before.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t2ialign.data import columns as cols
from t2ialign.data.hub_shards import hub_files, open_hub_shards
from t2ialign.data.shards import SAMPLE_BYTES, LocalShard, Shard
from t2ialign.data.sources import Table, local_path, split_files, unreachable
from t2ialign.errors import DataError, SourceError

if TYPE_CHECKING:
    from datasets import Features

logger = logging.getLogger(__name__)

BLOCKS_AT_ONCE = 4
"""Blocks that the order of training mixes (`t2ialign.engine.order.WINDOW`); this many fit into the buffer."""

_THREADS = 16
_OURS = frozenset({*cols.COLUMNS, *cols.UNPAIRED.columns}) - {*cols.PICTURES, cols.IMAGE}


class StreamedRows:
    """The rows of a split, in the manner of `datasets.Dataset`; pictures are read when a row's picture is looked at.

    It can be pickled, for data loader workers: the columns that are in memory go along, what was read of the pictures
    does not.

    Attributes:
        name: Of the set, for messages.
        shards: The files, in the order of their rows.
        schema: Of the rows.
        column_names: Every column of the shards.
        commit: Of a set on the hub, what is read of it; its pictures must be inside the files. Else None.
        groups: Row groups, and which of them are kept.
    """

    def __init__(
        self, name: str, shards: Sequence[Shard], pool: Executor, buffer: int, commit: str | None = None
    ) -> None:
        """Read the small columns.

        Args:
            name: Of the set, for messages.
            shards: With their footers read.
            pool: To read several shards at once.
            buffer: Bytes of pictures to keep.
            commit: Of a hub set, what is read; else None.

        Raises:
            DataError: If the shards do not go together, or a column of ours is damaged.
            SourceError: If a shard can not be read.
        """
        self.name, self.shards, self.commit = name, list(shards), commit
        schemas = [shard.footer.metadata.schema.to_arrow_schema() for shard in shards]
        try:
            self.schema = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"{name}: the shards do not have the same columns: {error}") from error
        self.column_names: list[str] = list(self.schema.names)
        self.groups = RowGroups(shards, buffer)
        small, self._digests = self._read([each for each in self.column_names if each in _OURS], pool)
        self._small = small.combine_chunks()

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.groups.starts[-1])

    def __getitem__(self, row: int) -> Mapping[str, Any]:
        """Return a row; its pictures are `{"bytes", "path"}`, bytes, or a path, and are read when looked at."""
        if not 0 <= row < len(self):
            raise IndexError(f"{self.name} has no row {row}")
        return _Row(self, row)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Return the rows one after the other."""
        return (self[row] for row in range(len(self)))

    @cached_property
    def features(self) -> Features:
        """What `datasets` says of the columns; pictures are not decoded."""
        from datasets import Features, Image

        found = Features.from_arrow_schema(self.schema)
        undecoded = {name: Image(decode=False) for name, kind in found.items() if isinstance(kind, Image)}
        return Features({**found, **undecoded})

    @property
    def described(self) -> dict[str, Any]:
        """`shards`, `row_groups` and `bytes` of the files, and the `commit` of a hub set, else None."""
        return {
            "shards": len(self.shards),
            "row_groups": len(self.groups.starts) - 1,
            "bytes": sum(shard.footer.size for shard in self.shards),
            "commit": self.commit,
        }

    @property
    def data(self) -> StreamedRows:
        """These rows: with `table` and `column`, as the data of a `datasets.Dataset`."""
        return self

    @property
    def table(self) -> pa.Table:
        """The columns that are in memory."""
        return self._small

    def column(self, name: str) -> pa.ChunkedArray | PictureColumn:
        """Return a column. Pictures are read where one looks; another that is not in memory is read whole, now.

        Raises:
            SourceError: If it can not be read.
        """
        if name in self._small.column_names:
            return self._small.column(name)
        if name in self.groups.columns:
            return PictureColumn(self, name, np.arange(len(self)))
        with ThreadPoolExecutor(_THREADS) as pool:
            return self._read([name], pool)[0].column(name)

    def cell(self, row: int, name: str) -> pa.Scalar:
        """Return one value of a row."""
        if name in self._small.column_names:
            return self._small.column(name)[row]
        group, place = self.groups.place(row)
        value = self.groups.read(group, name)[place]
        if self.commit is not None and isinstance(value, pa.StructScalar) and _bytes_of(value.as_py()) is None:
            return pa.scalar(None, value.type)  # a path out of a set on the hub would be looked for here
        return value

    def take_pictures(self, form: cols.Form) -> None:
        """Say which columns hold the pictures, and check by the footers that there are any.

        Args:
            form: Whose columns are known to be there.

        Raises:
            DataError: If a picture is missing, or is a path in a set on the hub; it names the row.
            SourceError: If a row group that has to be looked at can not be read.
        """
        self.groups.take(form.pictures)
        for number, shard in enumerate(self.shards):
            schema = shard.footer.metadata.schema.to_arrow_schema()
            absent = [name for name in form.pictures if name not in schema.names]
            if absent:
                raise DataError(f"{self.name}: {shard.name} has no column {absent[0]}; write all shards alike")
            self._check_kind(schema.empty_table().select(form.pictures), form)
            for group in shard.groups:
                for name in form.pictures:
                    if _only_paths(schema.field(name).type) or shard.nulls(group, name):
                        self._check_group(self.groups.number(number, group), name, form)
        needed = self.groups.needed
        if needed > self.groups.buffer:
            logger.warning(
                "%s: its row groups are so large that each process that reads keeps up to %d MiB of pictures, more "
                "than the %d MiB asked for; smaller row groups need less",
                self.name, -(-needed >> 20), self.groups.buffer >> 20,
            )  # fmt: skip

    def _check_kind(self, empty: pa.Table, form: cols.Form) -> None:
        try:
            next(cols.faults(empty, form), None)
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from error
        texts = [field.name for field in empty.schema if pa.types.is_string(field.type)]
        if self.commit is not None and texts:
            raise DataError(f"{self.name}: {self._no_path(texts[0])}")

    def _check_group(self, group: int, name: str, form: cols.Form) -> None:
        """Look at the pictures of a row group of which the footer says that not all have bytes."""
        first, table = int(self.groups.starts[group]), pa.table({name: self.groups.read(group, name)})
        fault = next(cols.faults(table, form), None)
        if fault is not None:
            moved = cols.Fault(first + fault.row, name, fault.text)
            raise DataError(f"{self.name} {moved}; `t2ialign data check` lists every such row")
        if self.commit is not None:
            row = next(row for row, value in enumerate(table.column(name)) if _bytes_of(value.as_py()) is None)
            raise DataError(f"{self.name} row {first + row}, {self._no_path(name)}")

    def _no_path(self, name: str) -> str:
        return (
            f"{name}: the picture is a path, and of a set on the hub only pictures inside the parquet files are "
            "streamed; leave --streaming out"
        )

    @cached_property
    def _fingerprint(self) -> str:
        """Of the files: names, sizes, footers, every column of ours but the pictures, and a sample of each."""
        with ThreadPoolExecutor(_THREADS) as pool:
            samples = list(pool.map(_sample, self.shards))
        total = hashlib.sha256(b"streamed")
        for shard, digest, sample in zip(self.shards, self._digests, samples, strict=True):
            total.update(f"{shard.name}\0{shard.footer.size}\0{shard.footer.digest}\0{digest}\0".encode())
            total.update(sample)
        return total.hexdigest()[:32]

    def _read(self, names: list[str], pool: Executor) -> tuple[pa.Table, list[str]]:
        """Read whole columns, with a digest of their bytes in each shard."""
        parts = list(pool.map(lambda shard: _columns(shard, names), self.shards))
        table = pa.concat_tables([part for part, _ in parts], promote_options="permissive")
        return table, [digest for _, digest in parts]


class _Row(Mapping[str, Any]):
    """A row whose values are looked up when they are asked for."""

    def __init__(self, rows: StreamedRows, number: int) -> None:
        self._rows, self._number = rows, number

    def __getitem__(self, name: str) -> Any:
        if name not in self._rows.column_names:
            raise KeyError(name)
        return self._rows.cell(self._number, name).as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.column_names)

    def __len__(self) -> int:
        return len(self._rows.column_names)


class PictureColumn:
    """A column of pictures, each read when it is looked at; as much of an Arrow array as is needed."""

    def __init__(self, rows: StreamedRows, name: str, numbers: npt.NDArray[np.int64]) -> None:
        self._rows, self._name, self._numbers = rows, name, numbers

    def __getitem__(self, index: int) -> pa.Scalar:
        """Return one of them, encoded."""
        return self._rows.cell(int(self._numbers[index]), self._name)

    def take(self, indices: npt.NDArray[np.int64]) -> PictureColumn:
        """Return those at some places; nothing is read."""
        return PictureColumn(self._rows, self._name, self._numbers[indices])

    def to_pylist(self) -> list[Any]:
        """Read all of them."""
        return [self[index].as_py() for index in range(len(self._numbers))]


class RowGroups:
    """The row groups of some shards, numbered through, and the pictures of those that were read last.

    Attributes:
        starts: First row of each row group, and the number of rows, int64 `[G + 1]`.
        buffer: Bytes to keep, as asked for.
        fetched: How many row groups this process has read.
        columns: The columns of pictures.
    """

    def __init__(self, shards: Sequence[Shard], buffer: int) -> None:
        self._places = [(shard, group) for shard in shards for group in shard.groups]
        self._firsts = np.cumsum([0, *(len(shard.groups) for shard in shards)])
        self.starts = np.cumsum([0, *(shard.rows(group) for shard, group in self._places)], dtype=np.int64)
        self.buffer, self.fetched = buffer, 0
        self.columns: tuple[str, ...] = ()
        self._sizes: npt.NDArray[np.int64] = np.zeros(len(self._places), dtype=np.int64)
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was read."""
        return self.__dict__ | {"_kept": OrderedDict(), "fetched": 0}

    def take(self, columns: Sequence[str]) -> None:
        """Say which columns are read together."""
        self.columns = tuple(columns)
        sizes = [shard.unpacked_bytes(group, columns) for shard, group in self._places]
        self._sizes = np.array(sizes, dtype=np.int64)

    @cached_property
    def block_starts(self) -> npt.NDArray[np.int64]:
        """The first row group of each block, and the number of row groups.

        A block is as many row groups as fit into the buffer `BLOCKS_AT_ONCE` times, at least one.
        """
        starts, held, most = [0], 0, self.buffer // BLOCKS_AT_ONCE
        for group, size in enumerate(self._sizes.tolist()):
            if held and held + size > most:
                starts.append(group)
                held = 0
            held += size
        return np.array([*starts, len(self._sizes)], dtype=np.int64)

    @cached_property
    def needed(self) -> int:
        """What `BLOCKS_AT_ONCE` blocks take at most, bytes."""
        sizes = np.add.reduceat(self._sizes, self.block_starts[:-1]) if len(self._sizes) else self._sizes
        return int(np.sort(sizes)[-BLOCKS_AT_ONCE:].sum())

    def block_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of the block of each row."""
        firsts = self.starts[self.block_starts[:-1]]
        return np.searchsorted(firsts, rows, side="right").astype(np.int64) - 1

    def number(self, shard: int, group: int) -> int:
        """Return the number of a shard's row group."""
        return int(self._firsts[shard]) + group

    def place(self, row: int) -> tuple[int, int]:
        """Return the row group of a row, and the place in it."""
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        return group, row - int(self.starts[group])

    def read(self, group: int, column: str) -> pa.ChunkedArray:
        """Return a column of a row group: from memory, or read now in place of what was used longest ago.

        Raises:
            SourceError: If it can not be read; it names the shard and the row group.
        """
        if column not in self.columns:
            return self._fetch(group, [column]).column(column)
        if group not in self._kept:
            self._make_room(int(self._sizes[group]))
            self._kept[group] = self._fetch(group, self.columns)
        self._kept.move_to_end(group)
        return self._kept[group].column(column)

    def _fetch(self, group: int, columns: Sequence[str]) -> pa.Table:
        shard, number = self._places[group]
        self.fetched += 1
        return shard.row_group(number, columns)

    def _make_room(self, size: int) -> None:
        bound = max(self.buffer, self.needed)
        held = int(self._sizes[list(self._kept)].sum())
        while self._kept and held + size > bound:
            oldest, _ = self._kept.popitem(last=False)
            held -= int(self._sizes[oldest])


def open_streamed(source: str | Path, split: str, revision: str | None, buffer: int) -> Table:
    """Open one split of parquet files so that its pictures are read while they are needed.

    Args:
        source: A folder with parquet files, one such file, a packaged set, or the id of a hub dataset.
        split: Its name.
        revision: Branch, tag or commit of a hub dataset.
        buffer: Bytes of pictures that a process keeps.

    Raises:
        DataError: If the source or the split does not exist, can not be reached, or is not of parquet files.
    """
    path = local_path(source)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            if path is None:
                files = hub_files(str(source), split, revision)
                commit = files[0].commit
                shards = open_hub_shards(files, pool)
                rows = StreamedRows(f"{source}@{commit[:8]}[{split}]", shards, pool, buffer, commit)
                return Table(rows, None, rows.name)
            if revision is not None:
                raise DataError(f"--revision {revision!r} is for hub datasets, but {source} is a folder; leave it out")
            local = _parquet_files(path, split)
            rows = StreamedRows(f"{source}[{split}]", list(pool.map(LocalShard, local)), pool, buffer)
            return Table(rows, local[0].parent, rows.name)
    except (SourceError, OSError) as error:
        if path is None:
            raise unreachable(str(source), error) from error
        raise DataError(f"{source}[{split}] can not be read: {error}") from error


def _parquet_files(path: Path, split: str) -> list[Path]:
    files = split_files(path, split)
    if files[0].suffix != ".parquet":
        kept = "its pictures are files" if files[0].suffix in (".jsonl", ".ndjson") else "it is mapped where it is"
        raise DataError(
            f"{path}: only parquet files are streamed, and this set needs no streaming, for {kept}; leave --streaming "
            "out"
        )
    return files


def _columns(shard: Shard, names: Sequence[str]) -> tuple[pa.Table, str]:
    present = [name for name in names if name in shard.footer.metadata.schema.to_arrow_schema().names]
    ranges = sorted(place for group in shard.groups for place in shard.chunks(group, present))
    data, digest = shard.fetch(ranges), hashlib.sha256()
    for first, end in ranges:
        digest.update(data.bytes_of(first, end))
    try:
        table = shard.table(shard.groups, present, data)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard.name}: {', '.join(present)} can not be read: {error}; fetch it again") from error
    return table, digest.hexdigest()


def _sample(shard: Shard) -> bytes:
    middle = shard.footer.size // 2
    place = (middle, min(middle + SAMPLE_BYTES, shard.footer.size))
    return shard.fetch([place]).bytes_of(*place)


def _only_paths(kind: pa.DataType) -> bool:
    """Whether no picture of a column has bytes, by its type."""
    if not pa.types.is_struct(kind):
        return False
    return kind.get_field_index("bytes") < 0 or bool(pa.types.is_null(kind.field("bytes").type))


def _bytes_of(value: Any) -> Any:
    return value.get("bytes") if isinstance(value, Mapping) else value
