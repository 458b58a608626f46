"""A plain folder of pictures with a captions file, as people keep them, as `imagefolder` and as clipscore read them.

    ROOT/captions.csv | .tsv | .jsonl | .json | .txt        or metadata.csv | .jsonl, or a file that is named
    ROOT/any/name.png

A table has the picture in a column file_name, image, file or image_id, and the text in prompt, caption or text;
prompt_id, sample and seed are taken where they are there. A JSON object maps file names, or names without suffix
(clipscore), to texts. A .txt file has a line a picture, in the order of their names.

Law of this file: a caption has a picture (missed by name where it is not there) and a picture has a caption. Pictures
with the same caption and no ids are samples of one prompt.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2ialign.data.files import inside, write_text
from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.layouts.base import (
    PICTURE_SUFFIXES,
    Exported,
    Target,
    place,
    prompt_hash,
    samples_of,
    suffix_of,
)
from t2ialign.data.prompts import CATEGORY_NAMES, PROMPT_NAMES, read_rows
from t2ialign.errors import DataError

FILES = tuple(
    f"{stem}{suffix}" for stem in ("metadata", "captions") for suffix in (".csv", ".tsv", ".jsonl", ".json", ".txt")
)
NAME_COLUMNS = ("file_name", "filename", "image_path", "image", "file", "image_id")
_OWN = {*NAME_COLUMNS, *PROMPT_NAMES, "prompt_id", "id", "sample", "seed", "model", "set", "category"}


def looks_so(root: Path, prompts: Path | None) -> bool:
    """Whether a captions file lies in it, or one is named that says which picture each caption is of."""
    path = prompts if prompts is not None and prompts.is_file() else _captions_file(root)
    if path is None:
        return False
    try:
        rows = _rows(path)
    except DataError:
        return False
    if isinstance(rows, Mapping):
        return any(_stored(root, name) is not None for name in rows)
    if path.suffix == ".txt":
        return prompts is None
    return any(_stored(root, _text(row, NAME_COLUMNS)) is not None for _, row in rows)


def read(root: Path, prompts: Path | None) -> list[ImageRecord]:
    """Return a record for every caption.

    Raises:
        DataError: If there is no captions file, a row lacks its picture or its text, or a picture lacks its caption.
    """
    path = prompts if prompts is not None else _captions_file(root)
    if path is None:
        raise DataError(f"{root}: no captions file in it ({', '.join(FILES[:5])}); name one: --prompts FILE")
    if not path.is_file():
        raise DataError(f"there is no captions file {path}")
    pictures = _pictures(root)
    rows = _paired(path, pictures)
    left = pictures.keys() - {file_name for file_name, _, _ in rows}
    if left:
        raise DataError(f"{root}: {min(left)} has no caption in {path.name} ({len(left)} pictures have none); add it")
    ids = [_text(row, ("prompt_id", "id")) or prompt_hash(text) for _, text, row in rows]
    numbers = samples_of(ids)
    return [_record(*row, prompt_id, number, root) for row, prompt_id, number in zip(rows, ids, numbers, strict=True)]


def _captions_file(root: Path) -> Path | None:
    return next((root / name for name in FILES if (root / name).is_file()), None)


def _pictures(root: Path) -> dict[str, str]:
    """Find all pictures, in folders too: relative name, to the name without suffix."""
    found = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        hidden = any(part.startswith((".", "__MACOSX")) for part in relative.parts)
        if not hidden and path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
            found[relative.as_posix()] = relative.with_suffix("").as_posix()
    return found


def _rows(path: Path) -> Mapping[str, Any] | list[tuple[str, dict[str, Any]]]:
    """Read a captions file: a JSON object as it is, else rows."""
    if path.suffix.lower() == ".json":
        try:
            value = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a JSON file: {error}") from error
        if isinstance(value, Mapping):
            return value
    return read_rows(path)


def _paired(path: Path, pictures: Mapping[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (picture, caption, row) for each caption."""
    rows = _rows(path)
    if isinstance(rows, Mapping):
        listed = [(f"{name!r}", {"file_name": name, "prompt": text}) for name, text in rows.items()]
    elif path.suffix.lower() == ".txt":
        if len(rows) != len(pictures):
            raise DataError(f"{path}: {len(rows)} lines for {len(pictures)} pictures; give each picture a line")
        listed = [(where, {"file_name": name, **row}) for (where, row), name in zip(rows, pictures, strict=True)]
    else:
        listed = rows
    stems = Counter(pictures.values())
    by_stem = {stem: name for name, stem in pictures.items() if stems[stem] == 1}
    paired = []
    for where, row in listed:
        name, text = _text(row, NAME_COLUMNS), _text(row, PROMPT_NAMES)
        if not name or not text:
            wanted = f"a column {', '.join(NAME_COLUMNS)}" if not name else f"a text in {', '.join(PROMPT_NAMES)}"
            raise DataError(f"{path.name}, {where}: {wanted} is needed")
        paired.append((name if name in pictures else by_stem.get(name, name), text, row))
    return paired


def _stored(root: Path, name: str) -> Path | None:
    try:
        paths = [inside(root, name), *(inside(root, f"{name}{suffix}") for suffix in PICTURE_SUFFIXES)]
    except DataError:
        return None
    return next((path for path in paths if path.is_file()), None)


def _text(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    values = (row.get(name) for name in names)
    return next((str(value).strip() for value in values if value is not None and str(value).strip()), "")


def _record(
    file_name: str, prompt: str, row: Mapping[str, Any], prompt_id: str, number: int, root: Path
) -> ImageRecord:
    return ImageRecord(
        file_name,
        prompt_id,
        prompt,
        sample=_whole(row, "sample", file_name, number) or 0,
        seed=_whole(row, "seed", file_name, None),
        model=_text(row, ("model",)) or root.resolve().name,
        set=_text(row, ("set",)),
        category=_text(row, CATEGORY_NAMES) or None,
        extra={key: value for key, value in row.items() if key not in _OWN},
    )


def _whole(row: Mapping[str, Any], name: str, file_name: str, otherwise: int | None) -> int | None:
    value = row.get(name)
    if value is None or value == "":
        return otherwise
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"captions, {file_name}: {name} is {value!r}, a whole number is needed") from error


def export(image_set: ImageSet, target: Target) -> Exported:
    """Write the pictures in one folder, `metadata.csv` for `imagefolder`, and `candidates.json` for clipscore."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file_name", "prompt_id", "sample", "prompt"])
    captions = {}
    encoded = 0
    for number, record in enumerate(image_set.records):
        source = image_set.file(record)
        name = f"{number:06d}"
        file_name = f"{name}{suffix_of(source)}"
        encoded += place(source, target.folder / file_name)
        writer.writerow([file_name, record.prompt_id, record.sample, record.prompt])
        captions[name] = record.prompt
    write_text(target.folder / "metadata.csv", table.getvalue())
    write_text(target.folder / "candidates.json", json.dumps(captions, indent=1, ensure_ascii=False) + "\n")
    hint = "load_dataset('imagefolder', data_dir=FOLDER) and clipscore.py FOLDER/candidates.json FOLDER read it"
    return Exported("captions", target.final, len(captions), encoded, {}, hint)
