"""Labelled pictures: a picture for a prompt, and whether it is good; what `kto` and `sft` train on.

Law of this file: a picture is decoded when it is indexed and not before; a label is true or false and never guessed. A
set of pairs is seen as two examples a pair, the chosen picture with true and then the rejected one with false; a tie
has neither, so it is dropped and counted.
"""

from __future__ import annotations

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
from t2ialign.data.pairs import PairDataset
from t2ialign.data.sources import BUFFER_MIB, Table, open_table
from t2ialign.data.table_dataset import TableDataset, optional, rows_without_ties, validate
from t2ialign.data.writing import write_unpaired
from t2ialign.errors import DataError

Sides = Literal["both", "chosen"]


@dataclass(frozen=True)
class LabelledImage:
    """One picture, decoded. Optional fields are `None` where the set has no value.

    Attributes:
        index: Number of the row in its split as stored, from 0. Of a pair in row r, the chosen picture has 2r and the
            rejected one 2r + 1.
        prompt: The prompt that the picture was made for.
        image: The picture, 8-bit RGB.
        label: Whether it is good.
        user_id: Who said so.
        group: A group that the picture belongs to.
        source: Where it comes from.
        weight: How much it counts, 0 or more, on the scale of the source.
    """

    index: int
    prompt: str
    image: Image.Image
    label: bool
    user_id: str | None = None
    group: str | None = None
    source: str | None = None
    weight: float | None = None


class UnpairedDataset(TableDataset):
    """A split of labelled pictures, in the order of the source.

    Made by `load_unpaired`, or by `UnpairedDataset.from_pairs`. It can be pickled, for data loader workers; each
    worker then counts its own `notices`.

    Attributes:
        name: What it is called in messages, `SOURCE[SPLIT]`.
        notices: What was done to pictures while decoding (see `open_image`), counted once a picture.
        dropped: How many rows were left out, by reason: `"ties"` (pairs), `"label false"` (pictures).
    """

    _form = cols.UNPAIRED

    def __init__(
        self,
        table: Table,
        rows: npt.NDArray[np.int64],
        dropped: Mapping[str, int],
        *,
        sides: npt.NDArray[np.int8] | None = None,
        label: bool | None = None,
    ) -> None:
        """Take an opened and validated table, of labelled pictures or of pairs.

        Args:
            table: The split.
            rows: The number of the row of each example, int64 of shape [N].
            dropped: How many rows were left out, by reason.
            sides: For a table of pairs, which picture of its row each example is: 0 the chosen, 1 the rejected one;
                int8 of shape [N].
            label: The label of all examples, where a table of pictures has no column `label`.
        """
        super().__init__(table, rows, dropped)
        self._sides = sides
        self._label = label

    @classmethod
    def from_pairs(cls, pairs: PairDataset, sides: Sides = "both") -> UnpairedDataset:
        """See pairs as labelled pictures, without copying or decoding.

        Args:
            pairs: The pairs. Captions of single pictures (`chosen_prompt`, `rejected_prompt`) are not used. Ties that
                were kept are dropped here, and counted.
            sides: `both`: example 2i is the chosen picture of pair i, with label true, and 2i + 1 the rejected one,
                with label false. `chosen`: example i is the chosen picture of pair i.

        Raises:
            DataError: If `sides` is neither, or all pairs are ties.
        """
        if sides not in ("both", "chosen"):
            raise DataError(f"sides must be 'both' or 'chosen', not {sides!r}")
        ties = np.array([value == cols.TIE for value in pairs.column("preference_prob")], dtype=bool)
        rows, count = pairs._rows[~ties], int(ties.sum())
        if not len(rows):
            raise DataError(f"{pairs.name} has no preferences: all {count} pairs are ties; choose another set")
        dropped = pairs.dropped | ({"ties": pairs.dropped.get("ties", 0) + count} if count else {})
        return _pictures_of(pairs._table, rows, dropped, sides)

    def __getitem__(self, index: int) -> LabelledImage:
        """Decode one picture.

        Raises:
            IndexError: If there is no such example.
            DataError: If the picture can not be read; it names the set, the row and the picture.
        """
        row, column = self.row(index), self._picture_column(index)
        values = self._table.dataset[row]
        image = self._decode(row, column, values[column])
        known = [name for name in self._form.optional if name in self.column_names]
        others = {name: optional(name, values[name]) for name in known}
        number = row if self._sides is None else 2 * row + int(self._sides[index])
        return LabelledImage(number, values["prompt"], image, self.labels[index], **others)

    def __iter__(self) -> Iterator[LabelledImage]:
        """Decode the pictures one after the other."""
        return (self[index] for index in range(len(self)))

    @property
    def column_names(self) -> list[str]:
        """The columns, those unknown to us included; of pairs as they are seen here."""
        names = super().column_names
        if self._sides is not None:
            hidden = {*cols.PICTURES, *cols.UNPAIRED.required, cols.WEIGHT}
            return [*cols.UNPAIRED.required, *(name for name in names if name not in hidden)]
        return names if cols.LABEL in names else [*names, cols.LABEL]

    @cached_property
    def labels(self) -> list[bool]:
        """The label of each example."""
        if self._sides is not None:
            return [bool(side == 0) for side in self._sides]
        if self._label is not None:
            return [self._label] * len(self)
        column = self._table.dataset.data.column(cols.LABEL).take(self._rows)
        return [bool(label) for label in pc.cast(column, pa.bool_()).to_pylist()]

    def column(self, name: str) -> list[Any]:
        """Return the values of one column, without decoding anything.

        Args:
            name: One of the columns of labelled pictures, or any other column of the source. An optional column that
                the source lacks is all `None`. Of `image` the encoded form is returned: all of them at once, so mind
                the memory.

        Raises:
            DataError: If there is no such column.
        """
        if name == cols.LABEL:
            return list(self.labels)
        if name == cols.IMAGE and self._sides is not None:
            pictures = [self._table.dataset.data.column(column) for column in cols.PICTURES]
            places = zip(self._rows.tolist(), self._sides.tolist(), strict=True)
            return [pictures[side][row].as_py() for row, side in places]
        return super().column(name)

    def encoded(self, index: int) -> bytes:
        """Return the encoded bytes of one picture, as stored.

        Args:
            index: Position of the example.

        Raises:
            DataError: If its file can not be read or its path leaves the folder.
        """
        return self._encoded(self.row(index), self._picture_column(index))

    def select(self, indices: Iterable[int]) -> UnpairedDataset:
        """Return the examples at these positions, in this order, without copying or decoding.

        Raises:
            IndexError: If a position does not exist.
        """
        return self._at(np.fromiter(indices, dtype=np.int64), self.dropped)

    def positives(self) -> UnpairedDataset:
        """Return the examples whose label is true; the others are counted in `dropped["label false"]`.

        Raises:
            DataError: If there are none.
        """
        good = np.flatnonzero(np.array(self.labels, dtype=bool))
        if not len(good):
            raise DataError(f"{self.name} has no picture with the label true: all {len(self)} are false")
        others = len(self) - len(good)
        return self._at(good, self.dropped | ({"label false": others} if others else {}))

    def _at(self, positions: npt.NDArray[np.int64], dropped: Mapping[str, int]) -> UnpairedDataset:
        sides = None if self._sides is None else self._sides[positions]
        return UnpairedDataset(self._table, self._rows[positions], dropped, sides=sides, label=self._label)

    def _picture_column(self, index: int) -> str:
        return cols.IMAGE if self._sides is None else cols.PICTURES[self._sides[index]]

    def _picture_columns(self) -> tuple[str, ...]:
        return (cols.IMAGE,) if self._sides is None else cols.PICTURES

    def _taken(self) -> bytes:
        """Return rows and labels: large files are sampled, and might not show a changed label."""
        return b"unpaired" + self._rows.tobytes() + bytes(self.labels)


def load_unpaired(
    source: str | Path,
    *,
    split: str = "train",
    revision: str | None = None,
    ties: Literal["drop"] = "drop",
    label: bool | None = None,
    streaming: bool = False,
    buffer_mib: int = BUFFER_MIB,
) -> UnpairedDataset:
    """Open labelled pictures, or pairs seen as such, lazily. The columns tell which of the two a source is.

    Args:
        source: Of any kind that `load_pairs` opens, with the columns `prompt`, `image` and `label`, or with those of
            pairs.
        split: Which split. A single file is `train`.
        revision: Branch, tag or commit of a hub dataset; name one to get the same data tomorrow.
        ties: What becomes of ties in a set of pairs. A tie has no label, so they are dropped, and counted in
            `dropped["ties"]`.
        label: The label of all pictures of a set without a column `label`, for instance true for pictures to imitate.
            By default such a set is refused; where the column is there, it holds.
        streaming: As for `load_pairs`.
        buffer_mib: As for `load_pairs`.

    Returns:
        The pictures; texts, numbers and labels are validated, the pictures are not yet decoded.

    Raises:
        DataError: If the source or split does not exist or can not be reached, the columns are those of neither form,
            a row is invalid (the first is named), or nothing is left.
    """
    if ties != "drop":
        raise DataError(f"ties must be 'drop', not {ties!r}: a tie has no label")
    table = open_table(source, split, revision, streaming=streaming, buffer_mib=buffer_mib)
    form = cols.form_of(table.dataset.column_names, table.name, unlabelled=label is not None)
    validate(table, form)
    if form is cols.PAIRS:
        rows, dropped = rows_without_ties(table)
        if not len(rows):
            why = f": all {dropped['ties']} rows are ties" if dropped else ""
            raise DataError(f"{table.name} has no pairs{why}; choose another set")
        return _pictures_of(table, rows, dropped, "both")
    return from_table(table, label)


def from_table(table: Table, label: bool | None = None) -> UnpairedDataset:
    """Make the dataset of a table of labelled pictures whose rows are known to be valid.

    Raises:
        DataError: If it is empty.
    """
    if not len(table.dataset):
        raise DataError(f"{table.name} has no pictures; choose another set")
    known = cols.LABEL in table.dataset.column_names
    rows = np.arange(len(table.dataset), dtype=np.int64)
    return UnpairedDataset(table, rows, {}, label=None if known else label)


def _pictures_of(
    table: Table, rows: npt.NDArray[np.int64], dropped: Mapping[str, int], sides: Sides
) -> UnpairedDataset:
    each = (0, 1) if sides == "both" else (0,)
    which = np.tile(np.array(each, dtype=np.int8), len(rows))
    return UnpairedDataset(table, np.repeat(rows, len(each)), dropped, sides=which)


__all__ = ["LabelledImage", "Sides", "UnpairedDataset", "load_unpaired", "write_unpaired"]
