"""ImageRewardDB's JSON: `id`, `prompt`, `generations` and `ranking`, as its `test.json` has them.

Law of this file: a rank is what the experts said, lower being better, ties and gaps as they are; a prompt becomes the
pairs of every two of its pictures, as its own training code makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions
from t2ialign.data.importers.listed import COLUMNS, open_listed
from t2ialign.data.importers.rankings import of_entry

IMAGES = True


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written."""
    return COLUMNS


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every two pictures of every prompt as a pair, or as the reason to leave it out.

    Raises:
        DataError: If the file can not be read.
    """
    listed = open_listed(source, options)
    for where, entry in listed.entries:
        if "generations" not in entry or "ranking" not in entry:
            yield Dropped("no generations and ranking", where)
            continue
        yield from of_entry(listed, entry, where, options, "imagereward")
