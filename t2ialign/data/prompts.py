"""Prompt files: txt, jsonl, json, csv and tsv, as they lie about in the world, to one list of prompts.

Law of this file: a prompt is read as it was written, outer blanks aside; each has an id that does not change when
prompts are added after it, and two prompts never share one.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2ialign.data.files import check_whole_characters
from t2ialign.errors import DataError

PROMPT_NAMES = ("prompt", "caption", "text")
CATEGORY_NAMES = ("category", "tag", "domain")
_TSV_CELL = re.compile(r'(?:("(?:[^"]|"")*")|([^\t\r\n]*))(\t|\r?\n|\r|\Z)')
SUFFIXES = (".txt", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")


@dataclass(frozen=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        prompt_id: Unique in its set; seeds and file names follow from it.
        prompt: The text.
        set: Name of the set; the file's stem where the file does not say.
        category: What the file calls category, tag or domain; `None` where it does not say.
        extra: All other columns, names in lower case.
    """

    prompt_id: str
    prompt: str
    set: str
    category: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def read_prompts(path: str | Path, limit: int | None = None) -> list[Prompt]:
    """Read a prompt file.

    Args:
        path: `.txt` (a line a prompt, blank lines passed over), `.jsonl` (objects or strings a line), `.json` (a list
            of objects or strings), `.csv` or `.tsv` (a header line; quoted cells may hold line breaks). UTF-8, with or
            without a byte order mark. The prompt is in a column `prompt`, `caption` or `text`, the case of the letters
            does not matter.
        limit: Keep the first so many.

    Returns:
        The prompts in the file's order. `prompt_id` is the column of that name; or a column `id` where every row has
        one and all differ; or `STEM-000000`, `STEM-000001`, ... by position.

    Raises:
        DataError: If the file is missing, not UTF-8, of another kind, empty, without a prompt column, or a row has no
            prompt or an id that another one has. The row is named.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit must be 1 or more, not {limit}")
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path.name} holds no prompt")
    ids = _ids(rows, path)
    prompts = [_prompt(row, where, prompt_id, path) for (where, row), prompt_id in zip(rows, ids, strict=True)]
    return prompts[:limit]


def read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read the rows of a txt, jsonl, json, csv or tsv file, whatever their columns.

    Args:
        path: As for `read_prompts`.

    Returns:
        Words for where the row stands, and the row, names in lower case. A bare line or string is the column `prompt`.

    Raises:
        DataError: If the file is missing, not UTF-8, of another kind, or damaged.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: prompts are read from {', '.join(SUFFIXES)} files; name one of these")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no prompt file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can not be read as UTF-8 text: {error}; save it as UTF-8") from error
    match path.suffix.lower():
        case ".txt":
            lines = enumerate(io.StringIO(text, newline=None), 1)
            return [(f"line {n}", {"prompt": line.strip()}) for n, line in lines if line.strip()]
        case ".json":
            return _json_rows(text, path)
        case ".csv" | ".tsv":
            return _table_rows(text, path)
        case _:
            return _line_rows(text, path)


def _lower(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).strip().lower(): value for key, value in row.items()}


def _object(value: Any, where: str, path: Path) -> dict[str, Any]:
    if isinstance(value, str):
        return {"prompt": value}
    if isinstance(value, Mapping):
        return _lower(value)
    raise DataError(f"{path.name}, {where}: an object or a string is needed, not {type(value).__name__}")


def _loads(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    check_whole_characters(text, value, where)
    return value


def _json_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    value = _loads(text, path.name)
    if not isinstance(value, list):
        raise DataError(f"{path.name}: a JSON list is needed, not {type(value).__name__}")
    return [(f"entry {n}", _object(item, f"entry {n}", path)) for n, item in enumerate(value)]


def _line_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(f"line {n}", _object(_loads(line, f"{path.name}, line {n}"), f"line {n}", path)) for n, line in lines]


def _table_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    rows: list[tuple[str, dict[str, Any]]] = []
    header: list[str] | None = None
    for number, cells in (
        _tsv_lines(text) if path.suffix.lower() == ".tsv" else csv_lines(io.StringIO(text, newline=""), path.name)
    ):
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip().lower() for cell in cells]
            continue
        where = f"line {number}"
        if len(cells) > len(header):
            raise DataError(
                f"{path.name}, {where}: {len(cells)} cells under {len(header)} columns; quote a cell that holds the "
                "separator"
            )
        rows.append((where, dict(zip(header, cells, strict=False))))
    return rows


def csv_lines(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a CSV file one after the other.

    Args:
        lines: Its lines, their ends untouched.
        name: What to call the file in an error.

    Yields:
        The line a row begins on, counted from 1, and its cells.

    Raises:
        DataError: If a quoted cell is damaged; it names the line.
    """
    reader = csv.reader(lines, strict=True)
    begin = 1
    try:
        for cells in reader:
            yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{name}, line {begin}: {error}; double the quotes inside a quoted cell and close it"
        ) from error


def _tsv_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield as `csv_lines` does. Quotes that do not wrap a whole cell are letters: PartiPrompts begins a cell so."""
    number, begin, cells = 1, 1, []
    for match in _TSV_CELL.finditer(text):
        quoted, plain, end = match.groups()
        cells.append(plain if quoted is None else quoted[1:-1].replace('""', '"'))
        number += match[0].count("\n")
        if end != "\t":
            yield begin, cells
            begin, cells = number, []
        if not end:
            return


def _ids(rows: Sequence[tuple[str, dict[str, Any]]], path: Path) -> list[str]:
    if any(_filled(row.get("prompt_id")) for _, row in rows):
        first: dict[str, str] = {}
        for where, row in rows:
            prompt_id = str(row.get("prompt_id") or "").strip()
            if not prompt_id:
                raise DataError(f"{path.name}, {where}: no prompt_id, where other rows have one; give it one")
            if prompt_id in first:
                raise DataError(f"{path.name}, {where}: prompt_id {prompt_id!r} is that of {first[prompt_id]} too")
            first[prompt_id] = where
        return list(first)
    ids = [str(row["id"]).strip() if _filled(row.get("id")) else "" for _, row in rows]
    if all(ids) and len(set(ids)) == len(ids):
        return ids
    return [f"{path.stem}-{number:06d}" for number in range(len(rows))]


def _filled(value: Any) -> bool:
    return value is not None and bool(str(value).strip())


def _prompt(row: dict[str, Any], where: str, prompt_id: str, path: Path) -> Prompt:
    column = next((name for name in PROMPT_NAMES if name in row), None)
    if column is None:
        raise DataError(
            f"{path.name}, {where}: no column {', '.join(PROMPT_NAMES)} among {', '.join(row) or 'none'}; rename one"
        )
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{path.name}, {where}: the prompt is {text!r}; give it a text or leave the row out")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{path.name}, {where}: the prompt {text!r} holds half a character; repair the file")
    category = next((str(row[name]) for name in CATEGORY_NAMES if _filled(row.get(name))), None)
    used = {column, "prompt_id", "set", "category"}
    extra = {name: value for name, value in row.items() if name not in used}
    return Prompt(prompt_id, text.strip(), str(row.get("set") or path.stem), category, extra)
