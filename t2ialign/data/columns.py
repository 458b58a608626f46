"""The columns of a preference pair: their names, their types in parquet, and what is wrong with a table of them.

Law of this file: a fault is found before the first picture is decoded, and is said with the row that has it.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from t2ialign.errors import DataError

if TYPE_CHECKING:
    from datasets import Features

PICTURES = ("chosen", "rejected")
TEXTS = ("chosen_prompt", "rejected_prompt", "user_id", "group", "aspect", "source")
NUMBERS = ("preference_prob", "margin")
SCORES = ("scores_chosen", "scores_rejected")
REQUIRED = ("prompt", *PICTURES)
OPTIONAL = (*TEXTS, *NUMBERS, *SCORES)
COLUMNS = (*REQUIRED, *OPTIONAL)
"""Every column that means something to us. Others are carried along and can be read with `PairDataset.column`."""

TIE = 0.5
"""The preference probability that says: neither picture is better."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one row.

    Attributes:
        row: Number of the row in its split, counted from 0.
        column: The column it is in.
        text: What is wrong, with the value.
    """

    row: int
    column: str
    text: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"row {self.row}, {self.column}: {self.text}"


def features(columns: Iterator[str] | tuple[str, ...] = COLUMNS) -> Features:
    """Return the Hugging Face `datasets` features of these columns, as we write them.

    Args:
        columns: Names out of `COLUMNS`. Pictures are `Image`, texts strings, numbers float64; scores are a JSON object
            as text, for its names differ from set to set.
    """
    from datasets import Features, Image, Value

    kinds: dict[str, Any] = {name: Value("string") for name in ("prompt", *TEXTS, *SCORES)}
    kinds |= {name: Value("float64") for name in NUMBERS} | {name: Image() for name in PICTURES}
    return Features({name: kinds[name] for name in columns})


def check_columns(present: list[str], where: str) -> None:
    """Refuse a table that lacks a required column.

    Args:
        present: The columns that are there.
        where: What to call the table in the error.

    Raises:
        DataError: If `prompt`, `chosen` or `rejected` is missing; it names what is there, the nearest name, and the
            importer where the columns are those of a known format.
    """
    missing = [name for name in REQUIRED if name not in present]
    if not missing:
        return
    mend = "rename the columns"
    if {"jpg_0", "jpg_1", "label_0"} <= set(present):
        mend = "this is Pick-a-Pic's format: bring it to ours with `t2ialign data import pickapic`"
    elif near := difflib.get_close_matches(missing[0], present, n=1):
        mend = f"did you mean {near[0]!r}? Rename it"
    raise DataError(f"{where}: no column {', '.join(missing)} among {', '.join(present) or 'none'}; {mend}")


def faults(table: pa.Table) -> Iterator[Fault]:
    """Find what is wrong with the rows of a table of pairs, pictures not decoded.

    Args:
        table: With any of `COLUMNS`.

    Yields:
        A fault for each bad value, column by column: a missing or empty prompt, a picture without bytes and path, a
        preference_prob outside [0.5, 1], a number that is not finite, scores that are no mapping from names to
        numbers.

    Raises:
        DataError: If a whole column has a type that can not serve.
    """
    for name in COLUMNS:
        if name not in table.column_names:
            continue
        column = table.column(name)
        if name == "prompt":
            yield from _text_faults(name, column, required=True)
        elif name in PICTURES:
            yield from _picture_faults(name, column)
        elif name in TEXTS:
            yield from _text_faults(name, column, required=False)
        elif name in NUMBERS:
            yield from _number_faults(name, column)
        else:
            yield from _score_faults(name, column)


def _true(mask: pa.ChunkedArray) -> Iterator[int]:
    for index in pc.indices_nonzero(pc.fill_null(mask, False)):
        yield index.as_py()


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text_faults(name: str, column: pa.ChunkedArray, *, required: bool) -> Iterator[Fault]:
    kind = column.type
    if pa.types.is_null(kind) and not required:
        return
    if not (_is_text(kind) or (name == "user_id" and pa.types.is_integer(kind))):
        raise DataError(f"column {name}: text is needed, not {kind}; convert it")
    if not required:
        return
    for row in _true(pc.is_null(column)):
        yield Fault(row, name, "missing; give it a text or leave the row out")
    empty = pc.equal(pc.utf8_trim_whitespace(pc.cast(column, pa.large_string())), "")
    for row in _true(empty):
        yield Fault(row, name, "empty; give it a text or leave the row out")


def _picture_faults(name: str, column: pa.ChunkedArray) -> Iterator[Fault]:
    kind = column.type
    if pa.types.is_struct(kind):
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        if not {"bytes", "path"} & set(fields):
            raise DataError(f"column {name}: a picture is stored as bytes or path, not as {kind}")
        absent = pc.is_null(column)
        empty = None
        for field in ("bytes", "path"):
            if field in fields:
                null = pc.is_null(pc.struct_field(column, field))
                empty = null if empty is None else pc.and_(empty, null)
        absent = pc.or_(absent, empty)
    elif _is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        absent = pc.is_null(column)
    else:
        raise DataError(f"column {name}: pictures (encoded bytes, or relative paths) are needed, not {kind}")
    for row in _true(absent):
        yield Fault(row, name, "the picture is missing; give its bytes or path, or leave the row out")


def _number_faults(name: str, column: pa.ChunkedArray) -> Iterator[Fault]:
    kind = column.type
    if pa.types.is_null(kind):
        return
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise DataError(f"column {name}: numbers are needed, not {kind}; convert it")
    values = pc.cast(column, pa.float64())
    for row in _true(pc.invert(pc.is_finite(values))):
        yield Fault(row, name, f"{values[row].as_py()} is not a number; write a value, or null where there is none")
    if name == "preference_prob":
        outside = pc.and_(pc.is_finite(values), pc.or_(pc.less(values, TIE), pc.greater(values, 1.0)))
        for row in _true(outside):
            value = values[row].as_py()
            yield Fault(row, name, f"{value:g} is outside [0.5, 1]; below 0.5 swap chosen and rejected")


def _score_faults(name: str, column: pa.ChunkedArray) -> Iterator[Fault]:
    if pa.types.is_null(column.type):
        return
    for row, value in enumerate(column):
        try:
            scores_of(value.as_py())
        except ValueError as error:
            yield Fault(row, name, str(error))


def scores_of(value: object) -> dict[str, float] | None:
    """Bring the scores of one picture to a mapping from name to number.

    Args:
        value: A mapping (null values are passed over), a JSON object as text, a list of `{"name", "score"}`, a single
            number (called `score`), or `None`.

    Returns:
        The scores, or `None` where there are none.

    Raises:
        ValueError: If it is none of these, or a number is not finite.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no JSON object of scores") from error
    if isinstance(value, list) and all(isinstance(item, Mapping) and {"name", "score"} <= set(item) for item in value):
        value = {item["name"]: item["score"] for item in value}
    if _is_number(value):
        value = {"score": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is no mapping from names to numbers")
    given = {str(key): number for key, number in value.items() if number is not None}
    bad = [key for key, number in given.items() if not (_is_number(number) and math.isfinite(number))]
    if bad:
        raise ValueError(f"the score {bad[0]!r} is {given[bad[0]]!r}, not a finite number")
    return {key: float(number) for key, number in given.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
