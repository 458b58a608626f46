"""Scores on their way: a line for each batch and scorer, so that a stop at any moment loses a batch at most.

Law of this file: a line that is whole counts, a torn one does not. Each process writes a part of its own; whoever has
the score file brings the parts into it. Before a part is begun, the infos beside the score file say how its scores are
computed, and the score file holds no score that was computed otherwise.

    scores.part-0.jsonl     {"scorer", "version", "rows": [[file_name, prompt_id, sample, score], ...]}
                            {"digests": {file_name: sha256}, "gaps": {file_name: what is wrong}, "notices": {...}}
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2ialign.errors import DataError
from t2ialign.reward_models.score_files import Key, Row, ScoreTable


@dataclass
class Brought:
    """What parts hold beside scores.

    Attributes:
        gaps: Pictures that could not be read, by file name, with the reason.
        notices: What scorers did not see of the pictures, counted.
    """

    gaps: dict[str, str] = field(default_factory=dict)
    notices: Counter[str] = field(default_factory=Counter)


class ScorePart:
    """The part of a score file that one process writes.

    Attributes:
        path: Of the part.
    """

    def __init__(self, scores: Path, rank: int) -> None:
        """Begin a part; there must be none of that rank.

        Args:
            scores: The score file.
            rank: Number of this process.
        """
        self.path = scores.with_name(f"{scores.stem}.part-{rank}.jsonl")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lines = self.path.open("xb", buffering=0)

    def add(self, scorer: str, version: str, rows: Sequence[tuple[str, str, int, float]]) -> None:
        """Add scores of one scorer: (file_name, prompt_id, sample, score)."""
        self._write({"scorer": scorer, "version": version, "rows": rows})

    def add_pictures(self, digests: Mapping[str, str], gaps: Mapping[str, str], notices: Mapping[str, int]) -> None:
        """Add what was learned of the pictures of a batch.

        Args:
            digests: SHA-256 of picture files, by file name.
            gaps: Pictures that could not be read, by file name, with the reason.
            notices: What scorers did not see, counted.
        """
        if digests or gaps or notices:
            self._write({"digests": digests, "gaps": gaps, "notices": notices})

    def _write(self, line: dict[str, Any]) -> None:
        self._lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n")

    def close(self) -> None:
        """End the part. Repeat it freely."""
        self._lines.close()


def part_files(scores: Path) -> list[Path]:
    """Return the parts beside a score file."""
    return sorted(scores.parent.glob(f"{_escaped(scores.stem)}.part-*.jsonl"))


def bring_in(table: ScoreTable) -> Brought:
    """Take over what the parts beside a score file hold; the file itself is not written, the parts stay.

    Raises:
        DataError: If a whole line is not of this form.
    """
    brought = Brought()
    for part in part_files(table.path):
        for number, line in enumerate(part.read_bytes().split(b"\n")[:-1], 1):
            try:
                _take(table, json.loads(line), brought)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise DataError(
                    f"{part}, line {number}: no scores as t2ialign writes them ({error}); remove the file"
                ) from error
    return brought


def _take(table: ScoreTable, line: dict[str, Any], brought: Brought) -> None:
    for file_name, prompt_id, sample, score in line.get("rows", ()):
        table.rows[Key(file_name, line["scorer"], line["version"])] = Row(prompt_id, sample, score)
    table.digests.update(line.get("digests", {}))
    brought.gaps.update(line.get("gaps", {}))
    brought.notices.update(line.get("notices", {}))


def _escaped(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


@contextmanager
def held(scores: Path) -> Iterator[None]:
    """Keep other runs away from a score file, by a lock that ends with this process however it ends.

    Workers do not inherit such a lock, so one that outlives a killed run by a moment holds up nobody. Where the system
    has no such locks (Windows), nothing is done.

    Raises:
        DataError: If another run holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    scores.parent.mkdir(parents=True, exist_ok=True)
    path = scores.with_name(f".{scores.name}.lock")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise DataError(f"another run is writing {scores}; wait for it, or choose another --output") from error
        if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
            break
        os.close(handle)  # its last holder removed it between our two steps
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
