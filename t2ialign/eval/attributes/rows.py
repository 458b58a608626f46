"""Rows of results in a parquet file.

Law of this file: the file appears whole or not at all; its columns are the rows' keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2ialign.data.files import written_aside


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with equal keys; `seed` is an unsigned number of 64 bits, other types are those of the values."""
    import pyarrow
    from pyarrow import parquet

    names = list(rows[0]) if rows else []
    types = {"seed": pyarrow.uint64()}
    columns = {name: pyarrow.array([row[name] for row in rows], types.get(name)) for name in names}
    with written_aside(Path(path)) as aside:
        parquet.write_table(pyarrow.table(columns), aside)
