"""Score files: `scores.parquet` and the `scores.<scorer>.json` beside it.

Law of this file: `file_name` is relative to the folder of the score file, so one file may hold several
image sets; files are written aside and renamed, so a reader never meets half of one.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from t2ialign.data.files import written_aside
from t2ialign.errors import DataError

COLUMNS = ("file_name", "prompt_id", "sample", "scorer", "version", "score")
"""The columns of a score file."""
_DIGESTS = b"t2ialign.pictures"
"""Key in the parquet file's own metadata: the SHA-256 of each scored picture, by file name."""
VOLATILE = ("n_truncated", "device")
"""Keys of a scorer's info that say nothing of how a score is computed, beyond its last digits."""


class Key(NamedTuple):
    """What a score belongs to."""

    file_name: str
    scorer: str
    version: str


class Row(NamedTuple):
    """A score, and the place of its picture in its set."""

    prompt_id: str
    sample: int
    score: float


@dataclass
class ScoreTable:
    """The content of a score file.

    Attributes:
        path: Of the parquet file.
        rows: Scores by key.
        digests: SHA-256 of each scored picture, by file name.
    """

    path: Path
    rows: dict[Key, Row] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ScoreTable:
        """Read a score file; an absent one is an empty table.

        Raises:
            DataError: If the file is no parquet file with the columns of `COLUMNS`.
        """
        table = cls(Path(path))
        if not table.path.exists():
            return table
        import pyarrow.lib
        from pyarrow import parquet

        try:
            content = parquet.read_table(table.path)
        except (pyarrow.lib.ArrowException, OSError) as error:
            raise DataError(f"{path} is no readable parquet file ({error}); delete it and score again") from error
        missing = [name for name in COLUMNS if name not in content.column_names]
        if missing:
            raise DataError(
                f"{path} is no score file: it lacks the column {missing[0]!r} (needed: {', '.join(COLUMNS)})"
            )
        columns = [content.column(name).to_pylist() for name in COLUMNS]
        for file_name, prompt_id, sample, scorer, version, score in zip(*columns, strict=True):
            table.rows[Key(file_name, scorer, version)] = Row(prompt_id, sample, score)
        table.digests = json.loads((content.schema.metadata or {}).get(_DIGESTS, b"{}"))
        return table

    def names_in(self, folder: Path, file_names: Iterable[str]) -> dict[str, str]:
        """Return for pictures of a folder, named relative to it, their path from the score file's folder."""
        there = Path(os.path.relpath(folder.resolve(), self.path.parent.resolve())).as_posix()
        prefix = "" if there == "." else f"{there}/"
        return {name: f"{prefix}{posixpath.normpath(name)}" for name in file_names}

    def drop(self, keys: Iterable[Key]) -> None:
        """Remove rows."""
        for key in list(keys):
            del self.rows[key]

    def write(self) -> None:
        """Write the file as a whole, sorted by scorer, version and file name: the same scores give the same file."""
        import pyarrow
        from pyarrow import parquet

        values = [(*key, *row) for key, row in sorted(self.rows.items(), key=_place)]
        named = {
            "file_name": ([v[0] for v in values], pyarrow.string()),
            "prompt_id": ([v[3] for v in values], pyarrow.string()),
            "sample": ([v[4] for v in values], pyarrow.int64()),
            "scorer": ([v[1] for v in values], pyarrow.string()),
            "version": ([v[2] for v in values], pyarrow.string()),
            "score": ([v[5] for v in values], pyarrow.float64()),
        }
        content = pyarrow.table({name: pyarrow.array(*column) for name, column in named.items()})
        used = {key.file_name for key in self.rows}
        digests = {name: digest for name, digest in self.digests.items() if name in used}
        content = content.replace_schema_metadata({_DIGESTS: json.dumps(digests, sort_keys=True)})
        with written_aside(self.path) as aside:
            parquet.write_table(content, aside)


def _place(row: tuple[Key, Row]) -> tuple[str, str, str]:
    key = row[0]
    return (key.scorer, key.version, key.file_name)


def info_path(scores: Path, scorer: str) -> Path:
    """Return where a scorer's info stands: `scores.<scorer>.json` beside `scores.parquet`."""
    return scores.with_name(f"{scores.stem}.{scorer}.json")


def read_infos(scores: Path, scorer: str) -> dict[str, dict[str, Any]]:
    """Read the infos of a scorer by version; empty where there is no file.

    Raises:
        DataError: If the file is no JSON of that form.
    """
    path = info_path(scores, scorer)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["versions"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not describe a scorer ({error}); delete it and score again") from error


def write_infos(scores: Path, scorer: str, versions: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the infos of a scorer by version."""
    text = json.dumps({"scorer": scorer, "versions": versions}, indent=2, ensure_ascii=False)
    with written_aside(info_path(scores, scorer)) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def summary_path(scores: Path) -> Path:
    """Return where the last run on each set is summed up: `scores.summary.json` beside `scores.parquet`."""
    return scores.with_name(f"{scores.stem}.summary.json")


def write_summary(scores: Path, image_set: str, summary: Mapping[str, Any]) -> None:
    """Write what a run on one set did, and leave what stands of other sets.

    Args:
        scores: The score file.
        image_set: The set's folder, relative to that of the score file.
        summary: JSON values.
    """
    path = summary_path(scores)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["sets"] if path.exists() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not sum up scores ({error}); delete it and score again") from error
    text = json.dumps({"sets": content | {image_set: summary}}, indent=2, ensure_ascii=False)
    with written_aside(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def same_info(first: Mapping[str, Any] | None, second: Mapping[str, Any]) -> bool:
    """Tell whether two infos describe the same computation."""
    if first is None:
        return False
    one, two = ({k: v for k, v in info.items() if k not in VOLATILE} for info in (first, second))
    return bool(json.loads(json.dumps(one)) == json.loads(json.dumps(two)))
