"""What the importers share: candidates, options, and rows streamed from tables of any kind.

Law of this file: memory holds a row group of the source at most (parquet can not be read in smaller pieces where its
pages are that large), whatever the size of the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from t2ialign.data import sources
from t2ialign.data.files import downloaded, inside
from t2ialign.data.importers.unsafe import UnsafeFilter
from t2ialign.errors import DataError

BATCH_ROWS = 16

Both = Literal["win", "lose", "drop"]
"""What a picture that won against one and lost against another counts as."""


@dataclass(frozen=True)
class ImportOptions:
    """What an importer is told.

    Attributes:
        split: Which split to read.
        revision: Branch, tag or commit of a hub dataset.
        ties: Whether ties are left out or kept with `preference_prob` 0.5.
        unsafe: Tells which prompts are left out.
        both: What becomes of pictures that both won and lost, where they are labelled one by one.
        images: The folder that paths of pictures are relative to; `None` for that of the table.
        caption_columns: Columns with a caption of picture 0 and of picture 1; `None` for the format's own.
    """

    split: str
    revision: str | None
    ties: Literal["drop", "keep"]
    unsafe: UnsafeFilter
    both: Both = "win"
    images: Path | None = None
    caption_columns: tuple[str, str] | None = None


@dataclass(frozen=True)
class Dropped:
    """A row that is left out.

    Attributes:
        reason: Why, in a few words that are counted.
        where: Which row it was.
    """

    reason: str
    where: str


@dataclass(frozen=True)
class Row(Mapping[str, Any]):
    """A pair or a labelled picture in our columns.

    Attributes:
        cells: The columns; pictures as bytes or paths.
        where: Which row of the source it was.
        notices: What is to be counted about it.
    """

    cells: dict[str, Any]
    where: str
    notices: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> Any:
        """Return one column."""
        return self.cells[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self.cells)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.cells)


Candidate = Row | Dropped


@dataclass(frozen=True)
class Stream:
    """Rows of a table that are read one after the other.

    Attributes:
        columns: Names of its columns.
        rows: Each with words for where it stands.
        root: The folder that paths in it are relative to; `None` for a hub dataset.
    """

    columns: list[str]
    rows: Iterator[tuple[str, dict[str, Any]]]
    root: Path | None


def stream(source: str | Path, options: ImportOptions) -> Stream:
    """Open a split of parquet files, JSON lines, a saved dataset or a hub dataset, to be read row by row.

    Raises:
        DataError: If it does not exist or can not be read.
    """
    path = sources.local_path(source)
    if path is None:
        return _hub_stream(str(source), options)
    files = sources.split_files(path, options.split)
    if files[0].suffix == ".parquet":
        import pyarrow.parquet as pq

        return Stream(pq.read_schema(files[0]).names, _parquet_rows(files), files[0].parent)
    table = sources.open_table(path, options.split)
    rows = ((f"row {number}", row) for number, row in enumerate(table.dataset))
    return Stream(table.dataset.column_names, rows, table.root)


def _parquet_rows(files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    for path in files:
        try:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    for row in batch.to_pylist():
                        yield f"row {number}", row
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} can not be read: {error}; fetch it again") from error


def _hub_stream(source: str, options: ImportOptions) -> Stream:
    from datasets import Image, load_dataset

    try:
        dataset = load_dataset(source, split=options.split, revision=options.revision, streaming=True)
        for name, feature in (dataset.features or {}).items():
            if isinstance(feature, Image):
                dataset = dataset.cast_column(name, Image(decode=False))
        columns = list(dataset.column_names or next(iter(dataset)))
    except Exception as error:
        raise sources.unreachable(source, error) from error
    return Stream(columns, ((f"row {number}", row) for number, row in enumerate(dataset)), None)


def picture(value: Any, root: Path | None) -> bytes | Path | None:
    """Bring a picture's cell to its encoded bytes, or to a path that was found to lie inside `root`.

    Returns:
        `None` where the cell holds no picture.

    Raises:
        DataError: If the path leaves `root`.
    """
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str) and value:
        return downloaded(value) if root is None else inside(root, value)
    return None
