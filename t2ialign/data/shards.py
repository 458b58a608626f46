"""Parquet files that are read in ranges: here, on a mount, or on the hub.

Law of this file: only the bytes that are needed are read. The footer is read once, when the set is opened, and goes to
worker processes with the shard; whatever is asked for later is a range of bytes that the footer names. A shard that is
no longer what it was then is refused. What fails is tried `ATTEMPTS` times, with growing waits, before it is an error.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from t2ialign.errors import DataError, SourceError

logger = logging.getLogger(__name__)

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between two attempts to read something."""
ATTEMPTS = len(WAITS) + 1
GAP_BYTES = 64 << 10
"""Ranges that lie nearer to each other than this are read as one."""
SAMPLE_BYTES = 64 << 10
"""What of the middle of each shard enters the fingerprint."""

_TAIL_BYTES = 64 << 10
_END_BYTES = 8
_MAGIC = b"PAR1"
_TOO_LARGE = (1 << 31) - 1
"""Arrow holds at most this many bytes of a column of pictures in one piece."""

Range = tuple[int, int]
"""First byte, and the one after the last."""


class ChangedError(Exception):
    """A shard is not what it was when the set was opened."""


@dataclass(frozen=True)
class Footer:
    """What the end of a parquet file says.

    Attributes:
        size: Of the file, bytes.
        length: Of the footer, bytes, its own length and mark included.
        digest: Of the footer, 64 hexadecimal digits.
        metadata: Where every column of every row group lies, and its statistics.
    """

    size: int
    length: int
    digest: str
    metadata: pq.FileMetaData


class Shard(ABC):
    """One parquet file. It can be pickled, and holds nothing open.

    Attributes:
        name: The file's name in messages and in the fingerprint.
        footer: As it was when the set was opened.
    """

    name: str
    footer: Footer

    @abstractmethod
    def read(self, first: int, end: int) -> bytes:
        """Read a range of bytes, once.

        Raises:
            ChangedError: If the file is no longer that of the footer.
            Exception: Whatever reading raises.
        """

    def rows(self, group: int) -> int:
        """Return the number of rows of a row group."""
        return int(self.footer.metadata.row_group(group).num_rows)

    @property
    def groups(self) -> range:
        """The numbers of the row groups."""
        return range(self.footer.metadata.num_row_groups)

    def chunks(self, group: int, columns: Iterable[str]) -> list[Range]:
        """Return the bytes in which the columns of a row group lie, in the order of the file."""
        found, wanted = self.footer.metadata.row_group(group), set(columns)
        ranges = []
        for number in range(found.num_columns):
            chunk = found.column(number)
            if chunk.path_in_schema.split(".")[0] in wanted:
                first = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                    first = min(first, chunk.dictionary_page_offset)
                ranges.append((int(first), int(first + chunk.total_compressed_size)))
        return sorted(ranges)

    def unpacked_bytes(self, group: int, columns: Iterable[str]) -> int:
        """Return what the columns of a row group take in memory, about.

        Raises:
            DataError: If one of them is too large for a row group.
        """
        found, wanted, total = self.footer.metadata.row_group(group), set(columns), 0
        for number in range(found.num_columns):
            chunk = found.column(number)
            if chunk.path_in_schema.split(".")[0] not in wanted:
                continue
            if chunk.total_uncompressed_size > _TOO_LARGE:
                raise DataError(
                    f"{self.name}, row group {group}, {chunk.path_in_schema}: {chunk.total_uncompressed_size >> 20} "
                    "MiB in one row group, more than Arrow takes; write the set with smaller row groups"
                )
            total += int(chunk.total_uncompressed_size)
        return total

    def nulls(self, group: int, column: str) -> int:
        """Return how many pictures of a row group have no bytes, by its footer; 0 where it does not say."""
        found = self.footer.metadata.row_group(group)
        for number in range(found.num_columns):
            chunk = found.column(number)
            if chunk.path_in_schema in (column, f"{column}.bytes"):
                known = chunk.statistics
                return int(known.null_count) if known is not None and known.has_null_count else 0
        return self.rows(group)

    def fetch(self, ranges: Sequence[Range]) -> Ranges:
        """Read ranges of bytes, those that lie close together at once; each is tried again where it fails.

        Raises:
            SourceError: If a range can not be had, or the file has changed.
        """
        read = [(first, persistent(partial(self.read, first, end), self.name)) for first, end in joined(ranges)]
        return Ranges(read, self)

    def table(self, groups: Sequence[int], columns: Sequence[str], data: Ranges) -> pa.Table:
        """Make the columns of some row groups of the bytes that were fetched."""
        source = pa.PythonFile(data, mode="r")
        file = pq.ParquetFile(source, metadata=self.footer.metadata)
        return file.read_row_groups(list(groups), columns=list(columns), use_threads=False)

    def row_group(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Read the columns of one row group.

        Raises:
            SourceError: If they can not be had or are damaged; it names the shard and the row group.
        """
        where, ranges = f"{self.name}, row group {group}", self.chunks(group, columns)

        def work() -> pa.Table:
            read = [(first, self.read(first, end)) for first, end in joined(ranges)]
            return self.table([group], columns, Ranges(read, self))

        return persistent(work, where)


class Ranges(io.RawIOBase):
    """A file of which some ranges are in memory, for pyarrow; anything else is read when it is asked for."""

    def __init__(self, ranges: Sequence[tuple[int, bytes]], shard: Shard) -> None:
        super().__init__()
        self._ranges, self._shard, self._place = sorted(ranges), shard, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._shard.footer.size}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        left = self._shard.footer.size - self._place
        size = left if size is None or size < 0 else min(size, left)
        found = self.bytes_of(self._place, self._place + size)
        self._place += len(found)
        return found

    def bytes_of(self, first: int, end: int) -> bytes:
        """Return a range."""
        number = bisect_right(self._ranges, first, key=lambda each: each[0]) - 1
        if number >= 0:
            start, data = self._ranges[number]
            if end <= start + len(data):
                return data if (start, len(data)) == (first, end - first) else data[first - start : end - start]
        return self._shard.read(first, end)


class LocalShard(Shard):
    """A file here or on a mount."""

    def __init__(self, path: Path) -> None:
        """Read the footer.

        Raises:
            DataError: If the file is not parquet, or can not be read.
        """
        self.path, self.name = path, path.name
        with path.open("rb", buffering=0) as handle:
            self._seen = _state(handle)
            self.footer = read_footer(lambda first, end: _read(handle, first, end), self._seen[0], self.name)

    def read(self, first: int, end: int) -> bytes:
        """Read a range of bytes, once; the file is opened for it, so that one that was replaced is noticed."""
        with self.path.open("rb", buffering=0) as handle:
            if _state(handle) != self._seen:
                self._compare(handle)
            return _read(handle, first, end)

    def _compare(self, handle: io.FileIO) -> None:
        """Take a file that was written anew only if its size and footer are the same."""
        state, footer = _state(handle), self.footer
        if state[0] == footer.size:
            now = _read(handle, footer.size - footer.length, footer.size)
            if hashlib.sha256(now).hexdigest() == footer.digest:
                self._seen = state
                return
        raise ChangedError("it is not the file that it was when the set was opened")


def _state(handle: io.FileIO) -> tuple[int, int, int]:
    found = os.fstat(handle.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ino


def _read(handle: io.FileIO, first: int, end: int) -> bytes:
    handle.seek(first)
    parts, left = [], end - first
    while left:
        part = handle.read(left)
        if not part:
            raise EOFError(f"the file ends at byte {end - left}")
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_footer(read: Callable[[int, int], bytes], size: int, name: str) -> Footer:
    """Read the footer of a parquet file: its last 64 KiB, and more only where it is longer.

    Args:
        read: Reads a range of bytes.
        size: Of the file.
        name: Of the file, for messages.

    Raises:
        DataError: If the file is no parquet file, or its footer is damaged.
    """
    tail = read(max(0, size - _TAIL_BYTES), size) if size >= _END_BYTES else b""
    if tail[-4:] != _MAGIC:
        raise DataError(
            f"{name} does not end like a parquet file; it is damaged or cut short: fetch or write it again"
        )
    length = int.from_bytes(tail[-_END_BYTES:-4], "little") + _END_BYTES
    if length > size:
        raise DataError(f"{name}: the footer is damaged; fetch or write the file again")
    if length > len(tail):
        tail = read(size - length, size - len(tail)) + tail
    tail = tail[-length:]
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name}: the footer can not be read: {error}; fetch or write the file again") from error
    return Footer(size, length, hashlib.sha256(tail).hexdigest(), metadata)


def joined(ranges: Sequence[Range], gap: int = GAP_BYTES) -> list[Range]:
    """Join sorted ranges that lie nearer to each other than `gap` bytes."""
    found: list[Range] = []
    for first, end in ranges:
        if found and first - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found


def persistent(work: Callable[[], T], where: str) -> T:
    """Try something that reads, `ATTEMPTS` times.

    Args:
        work: What to do.
        where: What is read, for messages.

    Raises:
        SourceError: If it fails every time, or the file has changed.
    """
    for attempt, wait in enumerate([*WAITS, None], 1):
        try:
            return work()
        except ChangedError as error:
            raise SourceError(f"{where}: {error}; put the old files back, or begin a new run") from error
        except (OSError, EOFError, pa.ArrowException, *_network_errors()) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if wait is None:
                raise SourceError(
                    f"{where} could not be read in {attempt} attempts ({reason}); what was saved is kept: once it "
                    "can be read again, go on with --resume latest"
                ) from error
            logger.warning("%s could not be read (%s); trying again in %g s", where, reason, wait)
            time.sleep(wait)
    raise AssertionError


def _network_errors() -> Iterator[type[Exception]]:
    """Yield the errors of the hub's client that are no OSError, where it is used at all."""
    import sys

    for name in ("httpx2", "httpx"):
        if name in sys.modules:
            yield sys.modules[name].HTTPError
