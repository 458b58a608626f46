"""The columns of pairs and of labelled pictures: names, types in parquet, and what is wrong with a table of them.

Law of this file: a fault is found before the first picture is decoded, and is said with the row that has it. Which of
the two forms a table has is told by its columns.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from t2ialign.data.files import told
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
"""Every column of pairs that means something to us. Others are carried along and read with `PairDataset.column`."""

TIE = 0.5
"""The preference probability that says: neither picture is better."""

IMAGE, LABEL, WEIGHT = "image", "label", "weight"
"""The columns that labelled pictures have and pairs have not."""


@dataclass(frozen=True)
class Form:
    """One of the two forms that a set has.

    Attributes:
        name: `pairs` or `unpaired`.
        unit: What a row is: `pair` or `picture`.
        title: What a set is called.
        required: Columns that must be there, the prompt first.
        optional: Columns that may be there.
        pictures: Those of the required columns that hold pictures.
    """

    name: str
    unit: str
    title: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    pictures: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that means something in this form, in the order in which it is written."""
        return (*self.required, *self.optional)

    @property
    def described(self) -> str:
        """The title with the required columns."""
        return f"{self.title.lower()} ({', '.join(self.required)})"


PAIRS = Form("pairs", "pair", "Preference pairs", REQUIRED, OPTIONAL, PICTURES)
UNPAIRED = Form(
    "unpaired",
    "picture",
    "Labelled pictures",
    ("prompt", IMAGE, LABEL),
    ("user_id", "group", "source", WEIGHT),
    (IMAGE,),
)
FORMS = {form.name: form for form in (PAIRS, UNPAIRED)}


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


def features(columns: Iterator[str] | tuple[str, ...] = COLUMNS, extra: Mapping[str, Any] | None = None) -> Features:
    """Return the Hugging Face `datasets` features of these columns, as we write them.

    Args:
        columns: Names out of the columns of either form. Pictures are `Image`, texts strings, numbers float64, labels
            bool; scores are a JSON object as text, for its names differ from set to set.
        extra: Features of further columns, which come last.
    """
    from datasets import Features, Image, Value

    kinds: dict[str, Any] = {name: Value("string") for name in ("prompt", *TEXTS, *SCORES)}
    kinds |= {name: Value("float64") for name in (*NUMBERS, WEIGHT)} | {name: Image() for name in (*PICTURES, IMAGE)}
    ours = {name: Value("bool") if name == LABEL else kinds[name] for name in columns}
    return Features(ours | dict(extra or {}))


def form_of(present: list[str], where: str, *, unlabelled: bool = False) -> Form:
    """Tell by its columns whether a table holds labelled pictures or pairs.

    Args:
        present: The columns that are there.
        where: What to call the table in the error.
        unlabelled: Whether pictures without the column `label` will do.

    Raises:
        DataError: If the columns are those of neither, or of both; it names the two forms.
    """
    needed = [name for name in UNPAIRED.required if name != LABEL or not unlabelled]
    found = [form for form, names in ((UNPAIRED, needed), (PAIRS, REQUIRED)) if set(names) <= set(present)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{where}: the columns are those of {UNPAIRED.described} and of {PAIRS.described} at once; remove those "
            "that are not meant"
        )
    nearer = max((UNPAIRED, PAIRS), key=lambda form: len(set(form.required) & set(present)))
    mend = _mend([name for name in nearer.required if name not in present], present)
    raise DataError(
        f"{where}: neither {UNPAIRED.described} nor {PAIRS.described} among {', '.join(present) or 'none'}; {mend}"
    )


def check_columns(present: list[str], where: str, form: Form = PAIRS) -> None:
    """Refuse a table that lacks a required column.

    Args:
        present: The columns that are there.
        where: What to call the table in the error.
        form: What the table should hold.

    Raises:
        DataError: If a required column is missing; it names what is there, the nearest name, and the importer where
            the columns are those of a known format.
    """
    missing = [name for name in form.required if name not in present]
    if not missing:
        return
    other = UNPAIRED if form is PAIRS else PAIRS
    mend = _mend(missing, present)
    if set(other.required) <= set(present):
        mend = f"these are {other.described}, where {form.title.lower()} are needed"
    raise DataError(f"{where}: no column {', '.join(missing)} among {', '.join(present) or 'none'}; {mend}")


def _mend(missing: list[str], present: list[str]) -> str:
    there = set(present)
    if {"jpg_0", "jpg_1", "label_0"} <= there:
        return "this is Pick-a-Pic's format: bring it to ours with `t2ialign data import pickapic`"
    if {"completion", LABEL} <= there:
        return "this is TRL's unpaired format: bring it to ours with `t2ialign data import kto`"
    if {"file_name", "file_path"} & there and {"split", LABEL} & there:
        return "this looks like Diffusion-KTO's format: bring it to ours with `t2ialign data import kto`"
    if near := difflib.get_close_matches(missing[0], present, n=1):
        return f"did you mean {near[0]!r}? Rename it"
    return "rename the columns"


def check_label_names(feature: object, where: str) -> None:
    """Refuse a column `label` of Hugging Face's `ClassLabel` whose numbers stand for names of their own.

    Args:
        feature: The `datasets` feature of the column, or `None`.
        where: What to call the table in the error.

    Raises:
        DataError: If it has names that are not 0 and 1, or false and true, in this order.
    """
    names = getattr(feature, "names", None)
    if names is None or [str(name).lower() for name in names] in (["0", "1"], ["false", "true"]):
        return
    raise DataError(
        f"{where}: the numbers in column label stand for the names {', '.join(map(str, names))}, which do not say "
        "what is good; make it a column of true and false"
    )


def faults(table: pa.Table, form: Form = PAIRS) -> Iterator[Fault]:
    """Find what is wrong with the rows of a table, pictures not decoded.

    Args:
        table: With any of the columns of `form`.
        form: What the table holds.

    Yields:
        A fault for each bad value, column by column: a missing or empty prompt, a picture without bytes and path, a
        label that is not true, false, 1 or 0, a preference_prob outside [0.5, 1], a number that is not finite, a
        negative weight, scores that are no mapping from names to numbers.

    Raises:
        DataError: If a whole column has a type that can not serve.
    """
    for name in form.columns:
        if name not in table.column_names:
            continue
        column = table.column(name)
        if name == "prompt":
            yield from _text_faults(name, column, required=True)
        elif name in form.pictures:
            yield from _picture_faults(name, column)
        elif name == LABEL:
            yield from _label_faults(name, column)
        elif name in TEXTS:
            yield from _text_faults(name, column, required=False)
        elif name in (*NUMBERS, WEIGHT):
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
    if name == WEIGHT:
        for row in _true(pc.less(values, 0.0)):
            yield Fault(row, name, f"{values[row].as_py():g} is negative; a weight is 0 or more")


def _label_faults(name: str, column: pa.ChunkedArray) -> Iterator[Fault]:
    kind = column.type
    known = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    if not any(fits(kind) for fits in known):
        raise DataError(f"column {name}: true and false (or 1 and 0) are needed, not {kind}; convert it")
    for row in _true(pc.is_null(column)):
        yield Fault(row, name, "missing; write true or false, or leave the row out")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = pc.cast(column, pa.float64(), safe=False)
        for row in _true(pc.invert(pc.or_(pc.equal(values, 0.0), pc.equal(values, 1.0)))):
            yield Fault(row, name, f"{values[row].as_py():g} is no label; write true or false (or 1 or 0)")


def label_of(value: object) -> bool:
    """Bring a label to true or false.

    Args:
        value: A bool, or a number (of Python or NumPy) that is 0 or 1.

    Raises:
        ValueError: If it is anything else, `None` and NaN included.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, int | float) and plain in (0, 1):
        return bool(plain)
    raise ValueError(f"{value!r} is no label; write True or False (or 1 or 0)")


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
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{told(value)} is no JSON object of scores") from error
    if isinstance(value, list) and all(isinstance(item, Mapping) and {"name", "score"} <= set(item) for item in value):
        value = {item["name"]: item["score"] for item in value}
    if _is_number(value):
        value = {"score": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{told(value)} is no mapping from names to numbers")
    given = {str(key): number for key, number in value.items() if number is not None}
    bad = [key for key, number in given.items() if not (_is_number(number) and math.isfinite(number))]
    if bad:
        raise ValueError(f"the score {told(bad[0])} is {told(given[bad[0]])}, not a finite number")
    return {key: float(number) for key, number in given.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
