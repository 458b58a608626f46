"""Plain rankings: prompts with several pictures each, in the order of preference, from JSON or JSON lines.

Law of this file: lower is better; equal ranks are ties, never a win; where no ranks are given the best comes first. A
ranking becomes the pairs of every two of its pictures.

    {"prompt": ..., "images": [path, ...], "ranking": [1, 2, 2, 4]}      also with user_id, which is kept
    {"prompt": ..., "images": [best, ..., worst]}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions
from t2ialign.data.importers.listed import COLUMNS, Listed, first_of, open_listed, ranked

IMAGES = True
PROMPTS = ("prompt", "caption", "text")
PICTURES = ("images", "generations", "image_path", "file_path")
RANKS = ("ranking", "rank", "ranks")


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written."""
    return COLUMNS


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every two pictures of every ranking as a pair, or as the reason to leave it out.

    Raises:
        DataError: If the file can not be read.
    """
    listed = open_listed(source, options, ("rankings.json", "rankings.jsonl"))
    for where, entry in listed.entries:
        yield from of_entry(listed, entry, where, options, "rankings")


def of_entry(
    listed: Listed, entry: Mapping[str, Any], where: str, options: ImportOptions, source: str
) -> Iterator[Candidate]:
    """Yield the pairs of one ranking, or why there are none."""
    names, ranks = first_of(entry, PICTURES), first_of(entry, RANKS)
    if not isinstance(names, list):
        yield Dropped("no list of pictures", where)
        return
    if ranks is None and source == "rankings":
        ranks = list(range(1, len(names) + 1))
    if not isinstance(ranks, list) or len(ranks) != len(names) or not all(map(_is_rank, ranks)):
        yield Dropped("not a rank for each picture", where)
        return
    if len(names) < 2:
        yield Dropped("a single picture", where)
        return
    prompt = first_of(entry, PROMPTS)
    yield from ranked(listed, entry, where, options, prompt=prompt, names=names, ranks=ranks, source=source)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
