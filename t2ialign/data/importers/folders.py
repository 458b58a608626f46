"""Two folders of pictures with equal names, and captions: the way people keep pairs by hand.

Law of this file: a pair is two files of the same name (the suffix aside) and a caption; a file without its partner is
left out and counted, and so is a pair without a caption.

    SOURCE/chosen/a.png  SOURCE/rejected/a.jpg      (or w/ and l/); folders inside are allowed
    SOURCE/captions.txt | .csv | .tsv | .jsonl | .json, or a.txt beside a.png
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from t2ialign.data import columns as cols
from t2ialign.data.files import check_whole_characters, inside
from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions, Row
from t2ialign.data.prompts import PROMPT_NAMES, read_rows
from t2ialign.errors import DataError

SIDES = (("chosen", "rejected"), ("w", "l"))
CAPTION_FILES = tuple(f"captions{suffix}" for suffix in (".txt", ".csv", ".tsv", ".jsonl", ".json"))
NAME_COLUMNS = ("file_name", "name", "file", "image")
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

Captions = dict[str, dict[str, Any]]


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written: ours, as far as the captions file has them."""
    captions = _captions(Path(source), []) or {}
    present = {name for row in captions.values() for name in row}
    return (*cols.REQUIRED, *(name for name in cols.OPTIONAL if name in present))


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every name found on either side as a pair, or as the reason to leave it out.

    Raises:
        DataError: If the two folders or the captions are not there, two files of a side share a name, or the captions
            can not be read.
    """
    root = Path(source)
    sides = next((pair for pair in SIDES if all((root / name).is_dir() for name in pair)), None)
    if sides is None:
        raise DataError(f"{root}: no folders chosen/ and rejected/ in it; put the preferred pictures into chosen/")
    chosen, rejected = (_pictures(root, side) for side in sides)
    shared = sorted(chosen.keys() & rejected.keys())
    captions = _captions(root, shared)
    for name in sorted(chosen.keys() | rejected.keys()):
        if name not in rejected:
            yield Dropped(f"no picture of that name in {sides[1]}/", name)
        elif name not in chosen:
            yield Dropped(f"no picture of that name in {sides[0]}/", name)
        else:
            yield _candidate(root, name, chosen[name], rejected[name], captions, options)


def _candidate(
    root: Path, name: str, chosen: str, rejected: str, captions: Captions | None, options: ImportOptions
) -> Candidate:
    row = _beside(root, chosen, rejected) if captions is None else captions.get(name)
    if row is None:
        return Dropped("no caption", name)
    prompt = row.get("prompt")
    if reason := options.unsafe.reason(prompt, row):
        return Dropped(reason, name)
    values: dict[str, Any] = {column: _typed(column, row[column], name) for column in cols.OPTIONAL if column in row}
    tie = values.get("preference_prob") == cols.TIE
    if tie and options.ties == "drop":
        return Dropped("tie", name)
    try:
        values |= {"prompt": prompt, "chosen": inside(root, chosen), "rejected": inside(root, rejected)}
    except DataError:
        return Dropped("the file lies outside the folder", name)
    return Row(values, name, ("ties kept",) if tie else ())


def _typed(column: str, value: Any, name: str) -> Any:
    """Bring a cell of a captions file, which may be text, to its column's type; an empty one to `None`."""
    if value is None or value == "":
        return None
    if column not in cols.NUMBERS:
        return value if column in cols.SCORES else str(value)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"captions, {name}: {column} is {value!r}, a number is needed") from error


def _pictures(root: Path, side: str) -> dict[str, str]:
    """Find the pictures of one side: name without suffix, to path relative to `root`."""
    found: dict[str, str] = {}
    for path in sorted((root / side).rglob("*")):
        relative = path.relative_to(root / side)
        hidden = any(part.startswith((".", "__MACOSX")) for part in relative.parts)
        if hidden or path.suffix.lower() not in PICTURE_SUFFIXES or path.is_dir():
            continue
        name = relative.with_suffix("").as_posix()
        if name in found:
            raise DataError(
                f"{found[name]} and {path.relative_to(root).as_posix()} share a name; rename or remove one"
            )
        found[name] = path.relative_to(root).as_posix()
    return found


def _beside(root: Path, chosen: str, rejected: str) -> dict[str, Any] | None:
    """Read the caption that lies beside one of the two pictures as `<name>.txt`."""
    for picture in (chosen, rejected):
        path = (root / picture).with_suffix(".txt")
        if path.is_file():
            try:
                return {"prompt": inside(root, path.relative_to(root).as_posix()).read_text("utf-8-sig").strip()}
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path.name} can not be read as UTF-8 text: {error}") from error
    return None


def _captions(root: Path, names: list[str]) -> Captions | None:
    """Read the captions file by name of the pair; `None` where there is none, so that they lie beside the pictures."""
    path = next((root / name for name in CAPTION_FILES if (root / name).is_file()), None)
    if path is None:
        return None
    if path.suffix == ".txt":
        return _text_captions(path, names)
    if path.suffix == ".json" and (mapping := _json_mapping(path)) is not None:
        return {_stem(name): _row(value, path, name) for name, value in mapping.items()}
    captions: Captions = {}
    for where, row in read_rows(path):
        column = next((column for column in NAME_COLUMNS if row.get(column)), None)
        if column is None:
            raise DataError(f"{path.name}, {where}: no column {', '.join(NAME_COLUMNS)} with the picture's name")
        captions[_stem(str(row[column]))] = _row(row, path, where)
    return captions


def _text_captions(path: Path, names: list[str]) -> Captions:
    """Read `name<TAB>caption` lines; without any tab, a caption a line in the order of the sorted names."""
    lines = [str(row["prompt"]) for _, row in read_rows(path)]
    if any("\t" in line for line in lines):
        pairs = [line.partition("\t") for line in lines]
        return {_stem(name): {"prompt": caption.strip()} for name, _, caption in pairs}
    if names and len(lines) != len(names):
        raise DataError(
            f"{path.name}: {len(lines)} captions for {len(names)} pairs; write NAME, tab, caption on each line"
        )
    return {name: {"prompt": line} for name, line in zip(names, lines, strict=False)}


def _json_mapping(path: Path) -> Mapping[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.name}: not JSON ({error})") from error
    check_whole_characters(text, value, path.name)
    return value if isinstance(value, Mapping) else None


def _row(value: Any, path: Path, where: str) -> dict[str, Any]:
    row = {"prompt": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    column = next((name for name in PROMPT_NAMES if name in row), None)
    if column is None:
        raise DataError(f"{path.name}, {where}: no column {', '.join(PROMPT_NAMES)}")
    return {**row, "prompt": row[column]}


def _stem(name: str) -> str:
    """Return the name of a pair: without suffix, and without the side it may begin with."""
    path = PurePosixPath(name.strip())
    path = path.with_suffix("") if path.suffix.lower() in PICTURE_SUFFIXES else path
    sides = {side for pair in SIDES for side in pair}
    return PurePosixPath(*path.parts[1:]).as_posix() if len(path.parts) > 1 and path.parts[0] in sides else str(path)
