"""Labelled pictures: Diffusion-KTO's CSV, and TRL's unpaired format `prompt`, `completion`, `label` with pictures.

Law of this file: a label is believed only where it is one of the known words. Whether a picture that both won and lost
is good, no one can tell from it alone, so the option `both` does, and how often is counted. A picture's path never
leaves its folder.

The CSV is that of arXiv 2404.04465, a row a picture:

    file_name or file_path     relative to the CSV's folder (or to the option `images`)
    caption
    split or label             exclusive_win, exclusive_lose, or intersections (won against one, lost against another)

Official training code reads `file_name` and `split`; its README documents `file_path` and `label`. Its policy
`gt_label_wi_l` is `both` = win, `gt_label_w_il` is lose, `gt_label_w_l` is drop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.data import columns as cols
from t2ialign.data import sources
from t2ialign.data.files import downloaded, inside
from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions, Row, Stream, picture, stream
from t2ialign.data.importers.trl import WordsError, picture_cell, prompt_text, waiting_for
from t2ialign.data.prompts import csv_lines
from t2ialign.errors import DataError

FORM = cols.UNPAIRED

WORDS = {"exclusive_win": "win", "exclusive_lose": "lose", "intersections": "both"}
"""What Diffusion-KTO calls a picture, in the column `split` or `label`."""
TRUTHS = {"true": "win", "1": "win", "1.0": "win", "false": "lose", "0": "lose", "0.0": "lose"}
"""What else the column `label` may say."""
PATH_COLUMNS = ("file_name", "file_path")
PICTURE_COLUMNS = (*PATH_COLUMNS, "completion", "image", "images")
CAPTION_COLUMNS = ("caption", "prompt", "text")


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written: ours, as far as the source has them."""
    present = _open(source, options).columns
    return (*FORM.required, *(name for name in FORM.optional if name in present))


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every row of the split as a labelled picture, or as the reason to leave it out.

    Raises:
        DataError: If there is no such file, it is damaged, its columns are those of neither format, or it labels words
            and not pictures.
    """
    table = _open(source, options)
    names = _Names.of(table.columns, str(source))
    options.unsafe.check_column(table.columns, str(source))
    root = table.root if options.images is None else options.images
    if root is not None and not root.is_dir():
        raise DataError(f"--images {root}: there is no such folder")
    for where, row in table.rows:
        yield _candidate(row, where, options, names, root)


class _Names:
    """Which columns of a table hold the caption, the picture and the labels."""

    def __init__(self, caption: str, picture: str, labels: tuple[str, ...]) -> None:
        self.caption = caption
        self.picture = picture
        self.labels = labels

    @classmethod
    def of(cls, present: list[str], where: str) -> _Names:
        """Find them, or say which are missing."""
        picture = next((name for name in PICTURE_COLUMNS if name in present), None)
        order = CAPTION_COLUMNS if picture in PATH_COLUMNS else ("prompt", *CAPTION_COLUMNS)
        caption = next((name for name in order if name in present), None)
        labels = tuple(name for name in ("split", "label") if name in present)
        if picture is not None and caption is not None and labels:
            return cls(caption, picture, labels)
        if {"chosen", "rejected"} <= set(present):
            raise DataError(f"{where} holds pairs: bring them to ours with the format trl or folders")
        asked = ((picture, PICTURE_COLUMNS), (caption, CAPTION_COLUMNS), (labels, ("label", "split")))
        missing = " and ".join(" or ".join(names) for found, names in asked if not found)
        raise DataError(f"{where}: no column {missing} among {', '.join(present) or 'none'}; rename the columns")


def _candidate(
    row: Mapping[str, Any], where: str, options: ImportOptions, names: _Names, root: Path | None
) -> Candidate:
    label, notices = _label(row, where, options, names)
    if isinstance(label, Dropped):
        return label
    prompt = prompt_text(row.get(names.caption), row.get(names.picture))
    if reason := options.unsafe.reason(prompt, row):
        return Dropped(reason, where)
    image = _picture(row, where, names, root)
    if isinstance(image, Dropped):
        return image
    others = {name: _typed(name, row[name], where) for name in FORM.optional if name in row}
    return Row({"prompt": prompt, "image": image, "label": label, **others}, where, notices)


def _label(
    row: Mapping[str, Any], where: str, options: ImportOptions, names: _Names
) -> tuple[bool | Dropped, tuple[str, ...]]:
    """Return the label and what is to be counted about it, or why there is none."""
    values = {name: row.get(name) for name in names.labels}
    said = {verdict for name, value in values.items() if (verdict := _verdict(name, value)) is not None}
    if "both" in said:
        if options.both == "drop":
            return Dropped("both won and lost", where), ()
        return options.both == "win", (f"both won and lost, counted as a {options.both}",)
    if len(said) == 1:
        return "win" in said, ()
    if said:
        return Dropped("split and label contradict each other", where), ()
    given = [f"{name} {value!r}" for name, value in values.items() if not _is_empty(value)]
    if given:
        return Dropped("unknown label", f"{where}: {', '.join(given)}"), ()
    return Dropped("no label (empty)", where), ()


def _verdict(name: str, value: Any) -> str | None:
    """Return win, lose or both, or `None` where a cell says neither. A number in `split` may be anything."""
    if isinstance(value, str):
        word = value.strip().lower()
        return WORDS.get(word) or (TRUTHS.get(word) if name == cols.LABEL else None)
    if name != cols.LABEL:
        return None
    try:
        return "win" if cols.label_of(value) else "lose"
    except ValueError:
        return None


def _is_empty(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or value == ""


def _picture(row: Mapping[str, Any], where: str, names: _Names, root: Path | None) -> bytes | Path | Dropped:
    cell = row.get(names.picture)
    if _is_empty(cell) and not row.get("images"):
        return Dropped("picture missing", where)
    if isinstance(cell, str) and names.picture in PATH_COLUMNS:
        return _file(cell, where, root)
    try:
        found = picture(_cell(row, where, names), root)
    except WordsError:
        raise
    except DataError as error:
        return Dropped("unreadable picture", f"{where}: {error}")
    return Dropped("picture missing", where) if found is None else found


def _file(name: str, where: str, root: Path | None) -> Path | Dropped:
    try:
        path = downloaded(name) if root is None else inside(root, name)
    except DataError as error:
        return Dropped("the file lies outside the folder", f"{where}: {error}")
    return path if path.is_file() else Dropped("no such file", f"{where}: {name}")


def _cell(row: Mapping[str, Any], where: str, names: _Names) -> Any:
    """Return the cell of the picture; in TRL's format it may be a message, or wait in `images`."""
    cell, waiting = row.get(names.picture), list(row.get("images") or [])
    if names.picture == "completion" and cell is not None:
        waiting = waiting[waiting_for(row.get(names.caption)) :]
        return picture_cell(cell, waiting, f"{where}, completion")[0]
    if names.picture in ("completion", "images"):
        return waiting[0] if len(waiting) == 1 else None
    return cell


def _typed(name: str, value: Any, where: str) -> Any:
    """Bring an optional cell, which may be text, to its column's type; an empty one to `None`."""
    if _is_empty(value):
        return None
    if name != cols.WEIGHT:
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {name} is {value!r}, a number is needed") from error


def _open(source: str | Path, options: ImportOptions) -> Stream:
    """Open the CSV of a split, or a table of another kind."""
    path = sources.local_path(source)
    found = None if path is None else _csv_of(path, options.split)
    if found is not None:
        return _csv_stream(found)
    try:
        return stream(source, options)
    except DataError as error:
        if path is not None and path.is_dir() and any(path.glob("*.csv")):
            raise DataError(
                f"{path} has no {options.split}_processed_v3.csv or {options.split}.csv for the split "
                f"{options.split!r}; name another split, or the CSV file itself"
            ) from error
        raise


def _csv_of(path: Path, split: str) -> Path | None:
    """Find the CSV of a split; official code wants `SPLIT_processed_v3.csv`, or `metadata.csv` without splits."""
    if path.is_file():
        return path if path.suffix.lower() == ".csv" else None
    names = [f"{split}_processed_v3.csv", f"{split}.csv", *(["metadata.csv"] if split == "train" else [])]
    if found := next((path / name for name in names if (path / name).is_file()), None):
        return found
    others = sorted(path.glob(f"{split}_processed*.csv"))
    if len(others) > 1:
        raise DataError(f"{path} has {', '.join(each.name for each in others)}; name the one that is meant")
    return others[0] if others else None


def _csv_stream(path: Path) -> Stream:
    """Read a CSV row by row; the names of its columns in lower case."""
    header = next(_csv_cells(path), None)
    if header is None:
        raise DataError(f"{path.name} is empty; a line with the names of the columns is needed")
    names = [cell.strip().lower() for cell in header[1]]
    return Stream([name for name in names if name], _csv_rows(path, names), path.parent)


def _csv_rows(path: Path, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = _csv_cells(path)
    next(rows)
    for number, cells in rows:
        if len(cells) > len(names):
            raise DataError(
                f"{path.name}, line {number}: {len(cells)} cells under {len(names)} columns; quote a cell that "
                "holds a comma"
            )
        yield f"line {number}", dict(zip(names, cells, strict=False))


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for number, cells in csv_lines(lines, path.name):
                if any(cell.strip() for cell in cells):
                    yield number, cells
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} can not be read as UTF-8 text: {error}; save it as UTF-8") from error
