"""What pairs and labelled pictures share: rows of an opened table whose pictures are decoded when they are indexed.

Law of this file: nothing is decoded before it is asked for; a picture is named by its set, row and column; a path that
leaves the set's folder is refused.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from t2ialign.data import columns as cols
from t2ialign.data.files import downloaded, inside
from t2ialign.data.images import open_image
from t2ialign.data.sources import Table, content_hash
from t2ialign.data.streaming import StreamedRows
from t2ialign.errors import DataError


class TableDataset:
    """Rows of a split, in the order in which they were taken.

    It can be pickled, for data loader workers; each worker then counts its own `notices`.

    Attributes:
        name: What it is called in messages, `SOURCE[SPLIT]`.
        notices: What was done to pictures while decoding (see `open_image`), counted once a picture.
        dropped: How many rows were left out, by reason.
    """

    _form = cols.PAIRS

    def __init__(self, table: Table, rows: npt.NDArray[np.int64], dropped: Mapping[str, int]) -> None:
        """Take an opened and validated table.

        Args:
            table: The split.
            rows: The number of the row of each example, int64 of shape [N].
            dropped: How many rows were left out, by reason.
        """
        self.name = table.name
        self.notices: Counter[str] = Counter()
        self.dropped = dict(dropped)
        self._table = table
        self._rows = rows
        self._noticed: set[tuple[int, str]] = set()

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._rows)

    @property
    def column_names(self) -> list[str]:
        """The columns of the source, those unknown to us included."""
        return list(self._table.dataset.column_names)

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of each example."""
        return [str(prompt) for prompt in self.column("prompt")]

    def column(self, name: str) -> list[Any]:
        """Return the values of one column, without decoding anything.

        Args:
            name: One of the columns of `t2ialign.data.columns`, or any other column of the source. An optional column
                that the source lacks is all `None`. Of a picture column the encoded form is returned: all of them at
                once, so mind the memory.

        Raises:
            DataError: If there is no such column.
        """
        if name not in self.column_names:
            if name in self._form.optional:
                return [None] * len(self)
            raise DataError(f"{self.name} has no column {name!r}; it has {', '.join(self.column_names)}")
        values = self._table.dataset.data.column(name).take(self._rows).to_pylist()
        return [optional(name, value) for value in values] if name in self._form.optional else values

    def feature(self, name: str) -> Any:
        """Return the `datasets` feature of a column that is there."""
        from datasets import Image

        found = self._table.dataset.features[name]
        return Image() if isinstance(found, Image) else found  # opening a table turned its decoding off

    @property
    def blocks(self) -> list[npt.NDArray[np.int64]] | None:
        """Positions of the examples that are stored together, of a streamed set; None where reading any is alike."""
        if not isinstance(self._table.dataset, StreamedRows):
            return None
        of = self._table.dataset.groups.block_of(self._rows)
        order = np.argsort(of, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(of[order])) + 1)

    @property
    def streamed(self) -> dict[str, Any] | None:
        """What is read while it is needed (`StreamedRows.described`); None where the set was opened whole."""
        rows = self._table.dataset
        return rows.described if isinstance(rows, StreamedRows) else None

    def row(self, index: int) -> int:
        """Return the number of an example's row in its split as stored, from 0."""
        return int(self._rows[index])

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when the content, the examples taken or their order change.

        Picture files beside a `metadata.jsonl` enter by name and size, large parquet files by samples
        (`content_hash`).
        """
        digest = hashlib.sha256(self._taken())
        if self._table.files:
            digest.update(content_hash(self._table.files).encode())
            for size in self._picture_file_sizes():
                digest.update(b"%d\0" % size)
        else:
            digest.update(str(self._table.dataset._fingerprint).encode())
        return digest.hexdigest()[:32]

    def _taken(self) -> bytes:
        """Return what was taken of the table, for the fingerprint."""
        return self._rows.tobytes()

    def _picture_columns(self) -> tuple[str, ...]:
        return self._form.pictures

    def _picture_file_sizes(self) -> Iterator[int]:
        if self._table.files[0].suffix in (".parquet", ".arrow") or self._table.root is None:
            return
        for column in self._picture_columns():
            for name in self._table.dataset.data.column(column).to_pylist():
                path = inside(self._table.root, name) if isinstance(name, str) else None
                yield path.stat().st_size if path is not None and path.is_file() else -1

    def _where(self, row: int, column: str) -> str:
        return f"{self.name} row {row}, {column}"

    def _source(self, row: int, column: str, value: Any) -> bytes | Path:
        """Return encoded bytes, or the path of a picture after it was found to lie inside the set's folder."""
        path = value
        if isinstance(value, Mapping):
            if value.get("bytes") is not None:
                return bytes(value["bytes"])
            path = value.get("path")
        if isinstance(path, bytes):
            return path
        try:
            return downloaded(path) if self._table.root is None else inside(self._table.root, path)
        except DataError as error:
            raise DataError(f"{self._where(row, column)}: {error}") from error

    def _encoded(self, row: int, column: str) -> bytes:
        source = self._source(row, column, self._table.dataset[row][column])
        if isinstance(source, bytes):
            return source
        try:
            return source.read_bytes()
        except OSError as error:
            raise DataError(f"{self._where(row, column)}: {error}") from error

    def _decode(self, row: int, column: str, value: Any) -> Image.Image:
        notices: Counter[str] = Counter()
        picture = open_image(self._source(row, column, value), notices=notices, name=self._where(row, column))
        if notices and (row, column) not in self._noticed:
            self._noticed.add((row, column))
            self.notices.update(notices)
        return picture


def validate(table: Table, form: cols.Form) -> None:
    """Refuse a table whose texts, numbers or labels are not those of a form; pictures are not decoded.

    Args:
        table: The split; that its columns are those of the form is known.
        form: What it should hold.

    Raises:
        DataError: If a row is invalid (the first is named), or a column has a type that can not serve.
    """
    cols.check_label_names(table.dataset.features.get(cols.LABEL) if form is cols.UNPAIRED else None, table.name)
    try:
        fault = next(cols.faults(table.dataset.data.table, form), None)
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    if fault is not None:
        raise DataError(f"{table.name} {fault}; `t2ialign data check` lists every such row")
    if isinstance(table.dataset, StreamedRows):
        table.dataset.take_pictures(form)


def rows_without_ties(table: Table) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    """Return the numbers of the rows of a table of pairs that are no ties, and how many ties there are, if any."""
    rows = np.arange(len(table.dataset), dtype=np.int64)
    if "preference_prob" not in table.dataset.column_names:
        return rows, {}
    values = pc.cast(table.dataset.data.column("preference_prob"), pa.float64())
    kept = rows[pc.fill_null(pc.not_equal(values, cols.TIE), True).to_numpy()]
    return kept, {"ties": len(rows) - len(kept)} if len(kept) < len(rows) else {}


def optional(name: str, value: Any) -> Any:
    """Bring a value of an optional column to the type of our attribute."""
    if value is None:
        return None
    if name in cols.SCORES:
        return cols.scores_of(value)
    return float(value) if name in (*cols.NUMBERS, cols.WEIGHT) else str(value)
