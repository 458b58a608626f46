"""UltraFeedback-style ratings: `completions[].annotations.{aspect}.{Rating, Rationale}`, as VLFeedback has them too.

Law of this file: ratings are read as `rated` says: texts such as "4", and "N/A" where there is none. A completion is a
picture, named by `file_name`, `image`, `image_path` or `path`.

    {"instruction": ..., "completions": [{"model": ..., "file_name": path,
        "annotations": {"Aesthetic": {"Rating": "4", "Rationale": ...}, "Fidelity": {"Rating": "N/A", ...}}}, ...]}
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
    """Yield every two completions in every aspect as a pair, or as the reason to leave it out.

    Raises:
        DataError: If the file can not be read.
    """
    for each in rated(source, options):
        yield from [each] if isinstance(each, Dropped) else pairs_of(each, options, "ultrafeedback")


def rated(source: str | Path, options: ImportOptions) -> Iterator[RatedPrompt | Dropped]:
    """Yield the rated prompts themselves."""
    return read_prompts(source, options, lambda entry: entry.get("completions"), ("instruction", "prompt"))
