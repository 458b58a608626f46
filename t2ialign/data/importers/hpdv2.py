"""HPDv2's `train.json` (pairs with `human_preference`) and `test.json` (pictures with averaged ranks).

Law of this file: 1 marks the preferred picture; two equal marks are a tie, never a win. Paths are looked for beside
the file and in the folder called as the split. Averages of several annotators' ranks have no single user.

    {"human_preference": [1, 0], "prompt": ..., "file_path": [a, b], "user_hash": ...}
    {"prompt": ..., "image_path": [a, b, ...], "rank": [1.2, 3.4, ...], "raw_annotations": [...]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions
from t2ialign.data.importers.listed import COLUMNS, Listed, open_listed, ranked
from t2ialign.data.importers.rankings import of_entry

IMAGES = True


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written."""
    return COLUMNS


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every pair, or the reason to leave it out.

    Raises:
        DataError: If the file can not be read.
    """
    listed = open_listed(source, options)
    for where, entry in listed.entries:
        if "human_preference" in entry:
            yield from _pair(listed, entry, where, options)
        elif "rank" in entry:
            yield from of_entry(listed, entry, where, options, "hpdv2")
        else:
            yield Dropped("neither human_preference nor rank", where)


def _pair(listed: Listed, entry: Mapping[str, Any], where: str, options: ImportOptions) -> Iterator[Candidate]:
    marks, names = entry["human_preference"], entry.get("file_path")
    if not isinstance(names, list) or not isinstance(marks, list) or not len(names) == len(marks) == 2:
        yield Dropped("not two pictures with a mark each", where)
    elif not all(isinstance(mark, int | float) and mark in (0, 1) for mark in marks):
        yield Dropped("human_preference not 0 or 1", where)
    else:
        ranks = [2.0 - mark for mark in marks]
        prompt = entry.get("prompt")
        yield from ranked(listed, entry, where, options, prompt=prompt, names=names, ranks=ranks, source="hpdv2")
