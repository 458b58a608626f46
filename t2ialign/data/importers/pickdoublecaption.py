"""Pick-Double-Caption (DCPO, arXiv 2502.06023): Pick-a-Pic with a caption of each picture, for dual captions.

Law of this file: captions change sides together with their pictures. Labels, ties and flags are Pick-a-Pic's, read by
`pickapic`. A caption that is missing is null and counted; its pair stays.

The published column list could not be looked at when this was written; `caption_0` and `caption_1` are the names that
the paper's own scripts read. Where a copy has others, name them: `--caption_columns NAME_0,NAME_1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.data.importers import pickapic
from t2ialign.data.importers.base import Candidate, ImportOptions, stream
from t2ialign.errors import DataError

CAPTION_COLUMNS = ("caption_0", "caption_1")
CAPTIONS = ("chosen_prompt", "rejected_prompt")


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written."""
    return (*pickapic.COLUMNS, *CAPTIONS)


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every row of the split as a pair with a caption a side, or as the reason to leave it out.

    Raises:
        DataError: If the columns are not those of Pick-a-Pic, or the caption columns are not there.
    """
    table = stream(source, options)
    pickapic.check_columns(table, source)
    names = options.caption_columns or CAPTION_COLUMNS
    if missing := [name for name in names if name not in table.columns]:
        raise DataError(
            f"{source}: no column {', '.join(missing)} among {', '.join(table.columns)}; name the two with the "
            "captions of picture 0 and 1 by --caption_columns NAME_0,NAME_1, or import it as pickapic"
        )
    options.unsafe.check_column(table.columns, str(source))

    def captions(row: Mapping[str, Any], first_is_chosen: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
        texts = [_text(row[name]) for name in names]
        ordered = texts if first_is_chosen else texts[::-1]
        notices = tuple("captions missing" for text in texts if text is None)
        return dict(zip(CAPTIONS, ordered, strict=True)), notices

    for where, row in table.rows:
        yield pickapic.candidate(row, where, options, table.root, name="pickdoublecaption", more=captions)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
