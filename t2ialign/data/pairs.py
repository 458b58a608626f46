"""Preference pairs: two pictures for a prompt, and which of them is preferred.

Law of this file: a pair is decoded when it is indexed and not before; a tie is dropped and counted unless it was asked
for, and never becomes a winner; what is wrong with a row is said with its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from t2ialign.data import columns as cols
from t2ialign.data.sources import BUFFER_MIB, Table, open_table
from t2ialign.data.table_dataset import TableDataset, optional, rows_without_ties, validate
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


class PairDataset(TableDataset):
    """A split of preference pairs, in the order of the source.

    Made by `load_pairs`. It can be pickled, for data loader workers; each worker then counts its own `notices`.

    Attributes:
        name: What it is called in messages, `SOURCE[SPLIT]`.
        notices: What was done to pictures while decoding (see `open_image`), counted once a picture.
        dropped: How many rows were left out, by reason (`"ties"`).
    """

    def __getitem__(self, index: int) -> PreferencePair:
        """Decode one pair.

        Raises:
            IndexError: If there is no such pair.
            DataError: If a picture can not be read; it names the set, the row and the picture.
        """
        row = self.row(index)
        values = self._table.dataset[row]
        chosen, rejected = (self._decode(row, side, values[side]) for side in cols.PICTURES)
        others = {name: optional(name, values.get(name)) for name in cols.OPTIONAL}
        return PreferencePair(row, values["prompt"], chosen, rejected, **others)

    def __iter__(self) -> Iterator[PreferencePair]:
        """Decode the pairs one after the other."""
        return (self[index] for index in range(len(self)))

    def encoded(self, index: int, side: str) -> bytes:
        """Return the encoded bytes of one picture, as stored.

        Args:
            index: Position of the pair.
            side: `chosen` or `rejected`.

        Raises:
            DataError: If its file can not be read or its path leaves the folder.
        """
        return self._encoded(self.row(index), side)

    def select(self, indices: Iterable[int]) -> PairDataset:
        """Return the pairs at these positions, in this order, without copying or decoding.

        Raises:
            IndexError: If a position does not exist.
        """
        return PairDataset(self._table, self._rows[np.fromiter(indices, dtype=np.int64)], self.dropped)


def load_pairs(
    source: str | Path,
    *,
    split: str = "train",
    revision: str | None = None,
    ties: Ties = "drop",
    streaming: bool = False,
    buffer_mib: int = BUFFER_MIB,
) -> PairDataset:
    """Open preference pairs, lazily.

    Args:
        source: `mini-pairs` or `mini-user-pairs` (packaged), a folder with parquet files (`SPLIT-*.parquet`, also
            under `data/`), a folder with `metadata.jsonl` (or `SPLIT/metadata.jsonl`) and picture files, a folder
            written by `datasets.save_to_disk`, a single `.parquet` or `.jsonl` file, or the id of a hub dataset.
        split: Which split. A single file is `train`.
        revision: Branch, tag or commit of a hub dataset; name one to get the same data tomorrow.
        ties: Whether rows with `preference_prob` exactly 0.5 are dropped, and counted in `dropped["ties"]`, or kept.
        streaming: Read the pictures of parquet files, or of a hub dataset, a row group at a time while they are
            needed, with neither a download nor a copy.
        buffer_mib: How many MiB of them a process keeps, so that none is read twice (docs/streaming.md).

    Returns:
        The pairs; the texts and numbers are validated, the pictures are not yet decoded.

    Raises:
        DataError: If the source or split does not exist or can not be reached, a column is missing or of the wrong
            type, a row is invalid (the first is named), or no pair is left.
    """
    if ties not in ("drop", "keep"):
        raise DataError(f"ties must be 'drop' or 'keep', not {ties!r}")
    table = open_table(source, split, revision, streaming=streaming, buffer_mib=buffer_mib)
    cols.check_columns(table.dataset.column_names, table.name)
    validate(table, cols.PAIRS)
    return from_table(table, ties)


def from_table(table: Table, ties: Ties) -> PairDataset:
    """Make the dataset of a table whose rows are known to be valid; ties are dropped or kept.

    Raises:
        DataError: If no pair is left.
    """
    rows, dropped = rows_without_ties(table)
    if ties == "keep":
        rows, dropped = np.arange(len(table.dataset), dtype=np.int64), {}
    if not len(rows):
        why = f": all {dropped['ties']} rows are ties" if dropped else ""
        raise DataError(f"{table.name} has no pairs{why}; ask for ties with ties='keep', or choose another set")
    return PairDataset(table, rows, dropped)


__all__ = ["PairDataset", "PreferencePair", "Ties", "load_pairs", "write_pairs"]
