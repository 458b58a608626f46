"""VisionPrefer-style JSON lines: a prompt, its pictures, and for each a rating and a rationale in each aspect.

Law of this file: ratings are read as `rated` says. The set's own schema was never published; this is the form in which
it is described, with the names that files of this kind use:

    {"prompt_id": ..., "prompt": ..., "images": [{"file_name": path, "model": ...,
        "ratings": {"prompt_following": 4, ...} or {"Aesthetic": {"Rating": "4", "Rationale": ...}, ...},
        "rationales": {"prompt_following": ...}}, ...]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions
from t2ialign.data.importers.rated import COLUMNS, RatedPrompt, pairs_of, read_prompts

IMAGES = True


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written."""
    return COLUMNS


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every two pictures in every aspect as a pair, or as the reason to leave it out.

    Raises:
        DataError: If the file can not be read.
    """
    for each in rated(source, options):
        yield from [each] if isinstance(each, Dropped) else pairs_of(each, options, "visionprefer")


def rated(source: str | Path, options: ImportOptions) -> Iterator[RatedPrompt | Dropped]:
    """Yield the rated prompts themselves."""
    return read_prompts(source, options, lambda entry: entry.get("images"), ("prompt", "caption", "text"))
