"""Preference pairs: two pictures for a prompt, and which of them is preferred.

Law of this file: a pair is decoded when it is indexed and not before; a tie is dropped and counted unless it was asked
for, and never becomes a winner; what is wrong with a row is said with its number.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from t2ialign.data import columns as cols
from t2ialign.data.files import inside
from t2ialign.data.images import open_image
from t2ialign.data.sources import Table, content_hash, open_table
from t2ialign.data.writing import write_pairs
from t2ialign.errors import DataError

Ties = Literal["drop", "keep"]


@dataclass(frozen=True)
class PreferencePair:
    """One pair, decoded. Optional fields are `None` where the set has no value.

    Attributes:
        index: Number of the row in its split as stored, from 0, ties included.
        prompt: The prompt that both pictures were made for.
        chosen: The preferred picture, 8-bit RGB. In a tie (`preference_prob` 0.5) neither is preferred.
        rejected: The other picture, 8-bit RGB, of its own size.
        chosen_prompt: A caption of the chosen picture alone.
        rejected_prompt: A caption of the rejected picture alone.
        user_id: Who preferred it.
        preference_prob: Probability that the chosen picture is preferred, in [0.5, 1].
        margin: By how much, on the scale of the source.
        group: A group that the pair belongs to, for group-robust training.
        aspect: What was judged, for instance `aesthetics`.
        scores_chosen: Scores of the chosen picture by name.
        scores_rejected: Scores of the rejected picture by name.
        source: Where the pair comes from.
    """

    index: int
    prompt: str
    chosen: Image.Image
    rejected: Image.Image
    chosen_prompt: str | None = None
    rejected_prompt: str | None = None
    user_id: str | None = None
    preference_prob: float | None = None
    margin: float | None = None
    group: str | None = None
    aspect: str | None = None
    scores_chosen: dict[str, float] | None = None
    scores_rejected: dict[str, float] | None = None
    source: str | None = None


class PairDataset:
    """A split of preference pairs, in the order of the source.

    Made by `load_pairs`. It can be pickled, for data loader workers; each worker then counts its own `notices`.

    Attributes:
        name: What it is called in messages, `SOURCE[SPLIT]`.
        notices: What was done to pictures while decoding (see `open_image`), counted once a picture.
        dropped: How many rows were left out, by reason (`"ties"`).
    """

    def __init__(self, table: Table, rows: npt.NDArray[np.int64], dropped: Mapping[str, int]) -> None:
        """Take an opened and validated table.

        Args:
            table: The split.
            rows: The numbers of the rows that belong, int64 of shape [N].
            dropped: How many rows were left out, by reason.
        """
        self.name = table.name
        self.notices: Counter[str] = Counter()
        self.dropped = dict(dropped)
        self._table = table
        self._rows = rows
        self._noticed: set[tuple[int, str]] = set()

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._rows)

    def __getitem__(self, index: int) -> PreferencePair:
        """Decode one pair.

        Raises:
            IndexError: If there is no such pair.
            DataError: If a picture can not be read; it names the set, the row and the picture.
        """
        row = self.row(index)
        values = self._table.dataset[row]
        chosen, rejected = (self._decode(row, side, values[side]) for side in cols.PICTURES)
        optional = {name: _optional(name, values.get(name)) for name in cols.OPTIONAL}
        return PreferencePair(row, values["prompt"], chosen, rejected, **optional)

    def __iter__(self) -> Iterator[PreferencePair]:
        """Decode the pairs one after the other."""
        return (self[index] for index in range(len(self)))

    @property
    def column_names(self) -> list[str]:
        """The columns of the source, those unknown to us included."""
        return list(self._table.dataset.column_names)

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of each pair."""
        return [str(prompt) for prompt in self.column("prompt")]

    def column(self, name: str) -> list[Any]:
        """Return the values of one column, without decoding anything.

        Args:
            name: One of `COLUMNS`, or any other column of the source. An optional column that the source lacks is all
                `None`. Of a picture column the encoded form is returned: all of them at once, so mind the memory.

        Raises:
            DataError: If there is no such column.
        """
        if name not in self.column_names:
            if name in cols.OPTIONAL:
                return [None] * len(self)
            raise DataError(f"{self.name} has no column {name!r}; it has {', '.join(self.column_names)}")
        values = self._table.dataset.data.column(name).take(self._rows).to_pylist()
        return [_optional(name, value) for value in values] if name in cols.OPTIONAL else values

    def row(self, index: int) -> int:
        """Return the number of a pair's row in its split as stored, from 0."""
        return int(self._rows[index])

    def encoded(self, index: int, side: str) -> bytes:
        """Return the encoded bytes of one picture, as stored.

        Args:
            index: Position of the pair.
            side: `chosen` or `rejected`.

        Raises:
            DataError: If its file can not be read or its path leaves the folder.
        """
        row = self.row(index)
        source = self._source(row, side, self._table.dataset[row][side])
        if isinstance(source, bytes):
            return source
        try:
            return source.read_bytes()
        except OSError as error:
            raise DataError(f"{self._where(row, side)}: {error}") from error

    def select(self, indices: Iterable[int]) -> PairDataset:
        """Return the pairs at these positions, in this order, without copying or decoding.

        Raises:
            IndexError: If a position does not exist.
        """
        return PairDataset(self._table, self._rows[np.fromiter(indices, dtype=np.int64)], self.dropped)

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when the content, the pairs taken or their order change.

        Picture files beside a `metadata.jsonl` enter by name and size, large parquet files by samples
        (`content_hash`).
        """
        digest = hashlib.sha256(self._rows.tobytes())
        if self._table.files:
            digest.update(content_hash(self._table.files).encode())
            for size in self._picture_file_sizes():
                digest.update(b"%d\0" % size)
        else:
            digest.update(str(self._table.dataset._fingerprint).encode())
        return digest.hexdigest()[:32]

    def _picture_file_sizes(self) -> Iterator[int]:
        if self._table.files[0].suffix in (".parquet", ".arrow") or self._table.root is None:
            return
        for side in cols.PICTURES:
            for name in self._table.dataset.data.column(side).to_pylist():
                path = inside(self._table.root, name) if isinstance(name, str) else None
                yield path.stat().st_size if path is not None and path.is_file() else -1

    def _where(self, row: int, side: str) -> str:
        return f"{self.name} row {row}, {side}"

    def _source(self, row: int, side: str, value: Any) -> bytes | Path:
        """Return encoded bytes, or the path of a picture after it was found to lie inside the set's folder."""
        path = value
        if isinstance(value, Mapping):
            if value.get("bytes") is not None:
                return bytes(value["bytes"])
            path = value.get("path")
        if isinstance(path, bytes):
            return path
        if self._table.root is None and isinstance(path, str):
            return Path(path)
        try:
            return inside(self._table.root or Path(), path)
        except DataError as error:
            raise DataError(f"{self._where(row, side)}: {error}") from error

    def _decode(self, row: int, side: str, value: Any) -> Image.Image:
        notices: Counter[str] = Counter()
        picture = open_image(self._source(row, side, value), notices=notices, name=self._where(row, side))
        if notices and (row, side) not in self._noticed:
            self._noticed.add((row, side))
            self.notices.update(notices)
        return picture


def load_pairs(
    source: str | Path, *, split: str = "train", revision: str | None = None, ties: Ties = "drop"
) -> PairDataset:
    """Open preference pairs, lazily.

    Args:
        source: `mini-pairs` or `mini-user-pairs` (packaged), a folder with parquet files (`SPLIT-*.parquet`, also
            under `data/`), a folder with `metadata.jsonl` (or `SPLIT/metadata.jsonl`) and picture files, a folder
            written by `datasets.save_to_disk`, a single `.parquet` or `.jsonl` file, or the id of a hub dataset.
        split: Which split. A single file is `train`.
        revision: Branch, tag or commit of a hub dataset; name one to get the same data tomorrow.
        ties: Whether rows with `preference_prob` exactly 0.5 are dropped, and counted in `dropped["ties"]`, or kept.

    Returns:
        The pairs; the texts and numbers are validated, the pictures are not yet decoded.

    Raises:
        DataError: If the source or split does not exist or can not be reached, a column is missing or of the wrong
            type, a row is invalid (the first is named), or no pair is left.
    """
    if ties not in ("drop", "keep"):
        raise DataError(f"ties must be 'drop' or 'keep', not {ties!r}")
    table = open_table(source, split, revision)
    cols.check_columns(table.dataset.column_names, table.name)
    try:
        fault = next(cols.faults(table.dataset.data.table), None)
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    if fault is not None:
        raise DataError(f"{table.name} {fault}; `t2ialign data check` lists every such row")
    return from_table(table, ties)


def from_table(table: Table, ties: Ties) -> PairDataset:
    """Make the dataset of a table whose rows are known to be valid; ties are dropped or kept.

    Raises:
        DataError: If no pair is left.
    """
    rows = np.arange(len(table.dataset), dtype=np.int64)
    dropped: dict[str, int] = {}
    if ties == "drop" and "preference_prob" in table.dataset.column_names:
        values = pc.cast(table.dataset.data.column("preference_prob"), pa.float64())
        rows = rows[pc.fill_null(pc.not_equal(values, cols.TIE), True).to_numpy()]
        dropped = {"ties": len(values) - len(rows)} if len(rows) < len(values) else {}
    if not len(rows):
        why = f": all {dropped['ties']} rows are ties" if dropped else ""
        raise DataError(f"{table.name} has no pairs{why}; ask for ties with ties='keep', or choose another set")
    return PairDataset(table, rows, dropped)


def _optional(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in cols.SCORES:
        return cols.scores_of(value)
    return float(value) if name in cols.NUMBERS else str(value)


__all__ = ["PairDataset", "PreferencePair", "Ties", "load_pairs", "write_pairs"]
