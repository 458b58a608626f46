"""Pick-a-Pic v1 and v2: two pictures in `jpg_0` and `jpg_1`, and which one a user preferred in `label_0`.

Law of this file: a label is believed only where the row says that there is one. Rows with `has_label` false or
`are_different` false, and ties (label 0.5, or equal labels), are no preferences; official training code ignores the
first two flags, and where it does not know the set's name it makes a tie a win of picture 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.data.columns import TIE
from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions, Row, Stream, picture, stream
from t2ialign.errors import DataError

More = Callable[[Mapping[str, Any], bool], tuple[dict[str, Any], tuple[str, ...]]]
"""From a row of the source, and whether picture 0 is the chosen one, to further cells and what to count about them."""

COLUMNS = ("prompt", "chosen", "rejected", "user_id", "preference_prob", "source")


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written."""
    return COLUMNS


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every row of the split as a pair, or as the reason to leave it out.

    Raises:
        DataError: If the columns are not those of Pick-a-Pic.
    """
    table = stream(source, options)
    check_columns(table, source)
    options.unsafe.check_column(table.columns, str(source))
    for where, row in table.rows:
        yield candidate(row, where, options, table.root)


def check_columns(table: Stream, source: str | Path) -> None:
    """Refuse a table without Pick-a-Pic's columns.

    Raises:
        DataError: It names what is missing and what is there.
    """
    missing = [name for name in ("caption", "jpg_0", "jpg_1", "label_0") if name not in table.columns]
    if missing:
        mend = (
            "its pictures are elsewhere: take the variant with pictures"
            if "image_0_url" in table.columns
            else ("is it of another format?")
        )
        raise DataError(f"{source}: no column {', '.join(missing)} among {', '.join(table.columns)}; {mend}")


def candidate(
    row: Mapping[str, Any],
    where: str,
    options: ImportOptions,
    root: Path | None,
    *,
    name: str = "pickapic",
    more: More | None = None,
) -> Candidate:
    """Make a pair of a row, or say why it is left out.

    Args:
        row: With Pick-a-Pic's columns.
        where: Words for where it stands.
        options: What the importer was told.
        root: The folder that paths are relative to; `None` for a hub dataset.
        name: What the column `source` says.
        more: Gives further cells, for sets that have more columns.
    """
    label = _label(row)
    if isinstance(label, str):
        return Dropped(label, where)
    if label == TIE and options.ties == "drop":
        return Dropped("tie", where)
    if reason := options.unsafe.reason(row["caption"], row):
        return Dropped(reason, where)
    try:
        first, second = picture(row["jpg_0"], root), picture(row["jpg_1"], root)
    except DataError:
        return Dropped("unreadable picture", where)
    if first is None or second is None:
        return Dropped("unreadable picture", where)
    user = row.get("user_id")
    values = {
        "prompt": row["caption"],
        "chosen": second if label == 0 else first,
        "rejected": first if label == 0 else second,
        "user_id": None if user is None else str(user),
        "preference_prob": TIE if label == TIE else None,
        "source": name,
    }
    added, notices = more(row, label != 0) if more is not None else ({}, ())
    return Row(values | added, where, (("ties kept",) if label == TIE else ()) + notices)


def _label(row: Mapping[str, Any]) -> float | str:
    """Return 1.0 where picture 0 won, 0.0 where picture 1 did, 0.5 for a tie; or why there is no label."""
    if row.get("has_label") is False:
        return "no label (has_label is false)"
    if row.get("are_different") is False:
        return "pictures not different (are_different is false)"
    labels = [row.get("label_0"), row.get("label_1", "absent")]
    if labels[0] is None or labels[1] is None or any(isinstance(x, float) and math.isnan(x) for x in labels):
        return "no label (empty)"
    first, second = labels
    if first not in (0, TIE, 1) or second not in (0, TIE, 1, "absent"):
        return "label not 0, 0.5 or 1"
    if second == "absent":
        return float(first)
    if first == second:
        return TIE
    return float(first) if first + second == 1 else "labels contradict each other"
