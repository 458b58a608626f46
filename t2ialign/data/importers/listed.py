"""What the importers of JSON files share: entries of a list or of lines, and the pictures that they name.

Law of this file: an entry is known by its number; a picture's path is looked for where its format keeps pictures, and
never outside that folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from t2ialign.data.columns import TIE
from t2ialign.data.files import check_whole_characters, inside, read_json_lines
from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions, Row
from t2ialign.errors import DataError

COLUMNS = ("prompt", "chosen", "rejected", "user_id", "preference_prob", "margin", "source")
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Listed:
    """A file of entries.

    Attributes:
        path: The file.
        entries: Each with words for where it stands.
        roots: Folders in which its pictures are looked for, in this order.
    """

    path: Path
    entries: Iterator[tuple[str, dict[str, Any]]]
    roots: tuple[Path, ...]

    def picture(self, name: object) -> Path:
        """Return where a picture is, or where it ought to be.

        Raises:
            DataError: If the path is none, or leaves the folder.
        """
        first = inside(self.roots[0], name)
        if first.is_file():
            return first
        tried = (inside(root, f"{name}{suffix}") for root in self.roots for suffix in SUFFIXES)
        return next((place for place in tried if place.is_file()), first)


def open_listed(source: str | Path, options: ImportOptions, names: Sequence[str] = ()) -> Listed:
    """Open a JSON list or a file of JSON lines.

    Args:
        source: The file, or a folder with `SPLIT.json`, `SPLIT.jsonl`, or one of `names`.
        options: What the importer was told. Pictures are relative to `images`, else to the file's folder, or to the
            folder in it that is called as the split.
        names: File names to look for in a folder besides.

    Raises:
        DataError: If there is no such file, or it is no list of objects.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        wanted = [f"{options.split}.json", f"{options.split}.jsonl", *names]
        found = next((path / name for name in wanted if (path / name).is_file()), None)
        if found is None:
            raise DataError(f"{path} holds none of {', '.join(wanted)}; name the file itself")
        path = found
    if not path.is_file():
        raise DataError(f"there is no file {source}; this format is read from a local file")
    root = options.images or path.parent
    if not root.is_dir():
        raise DataError(f"there is no folder of pictures {root}; name it with --images")
    roots = (root, root / options.split) if (root / options.split).is_dir() else (root,)
    return Listed(path, _entries(path), roots)


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() == ".jsonl":
        for number, entry in read_json_lines(path):
            yield f"line {number}", entry
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
        listed = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.name} can not be read as JSON: {error}") from error
    if not isinstance(listed, list):
        raise DataError(f"{path.name}: a JSON list is needed, not {type(listed).__name__}")
    check_whole_characters(text, listed, path.name)
    for number, entry in enumerate(listed):
        yield f"entry {number}", entry if isinstance(entry, dict) else {}


def first_of(entry: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first of these values that is there."""
    return next((entry[name] for name in names if entry.get(name) is not None), None)


def text_or_none(value: Any) -> str | None:
    """Return a text or number as text; `None` stays."""
    return None if value is None else str(value)


def ranked(
    listed: Listed,
    entry: Mapping[str, Any],
    where: str,
    options: ImportOptions,
    *,
    prompt: Any,
    names: Sequence[Any],
    ranks: Sequence[float],
    source: str,
) -> Iterator[Candidate]:
    """Yield a pair for every two pictures of a ranking; equal ranks are ties.

    Args:
        listed: The file.
        entry: The entry, for the unsafe column and the user.
        where: Where it stands.
        options: What the importer was told.
        prompt: The prompt.
        names: Paths of the pictures, [n].
        ranks: Their ranks, [n]; lower is better.
        source: What the column `source` says.
    """
    reason = options.unsafe.reason(prompt, entry)
    user = text_or_none(first_of(entry, ("user_id", "user_hash")))
    places = [_place(listed, name) for name in names]
    for i, j in combinations(range(len(names)), 2):
        here = f"{where}, pictures {i} and {j}"
        tie = ranks[i] == ranks[j]
        better, worse = (i, j) if ranks[i] <= ranks[j] else (j, i)
        chosen, rejected = places[better], places[worse]
        if reason:
            yield Dropped(reason, here)
        elif tie and options.ties == "drop":
            yield Dropped("tie", here)
        elif chosen is None or rejected is None:
            yield Dropped("unreadable picture", here)
        else:
            values = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "user_id": user}
            values |= {"preference_prob": TIE if tie else None, "margin": float(ranks[worse] - ranks[better])}
            yield Row(values | {"source": source}, here, ("ties kept",) if tie else ())


def _place(listed: Listed, name: Any) -> Path | None:
    try:
        return listed.picture(name)
    except DataError:
        return None
