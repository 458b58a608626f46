"""The folder of pairs that labels become: pictures by their digest, a line a pair, counts, and the logs.

Law of this file: the pairs are what stands in the logs of everybody, whoever writes them; they are replaced as a
whole, under a lock, so that two people may label at once; a picture is there before a line names it.

    PAIRS/answers/alice.jsonl      what alice said (`answers`)
    PAIRS/images/SHA256.png        the pictures, as they are encoded in the set
    PAIRS/metadata.jsonl           a line a pair, as docs/datasets.md describes
    PAIRS/label.json               counts
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.annotation.label.answers import FOLDER, UNDO, Answer, locked, read_logs, standing
from t2ialign.data.columns import TIE
from t2ialign.data.files import write_json, write_text, written_aside
from t2ialign.data.images import peek
from t2ialign.errors import DataError

PAIRS = "metadata.jsonl"
COUNTS = "label.json"
PICTURES = "images"
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_LOCK = ".lock"


class PairFolder:
    """A folder of labelled pairs, new or begun.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        """Make the folder, or recognise it.

        Raises:
            DataError: If it holds something else.
        """
        self.path = path
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is a file; give a folder as --output_dir")
        foreign = [each.name for each in path.glob("*") if not each.name.startswith(".")] if path.is_dir() else []
        if foreign and not (path / FOLDER).is_dir():
            raise DataError(f"{path} holds {sorted(foreign)[0]!r}, and no labels; give a new folder as --output_dir")
        (path / FOLDER).mkdir(parents=True, exist_ok=True)

    def store(self, data: bytes) -> tuple[str, str]:
        """Keep an encoded picture.

        Returns:
            Its SHA-256, and its file relative to the folder.

        Raises:
            DataError: If it is no PNG, JPEG or WebP.
        """
        digest = hashlib.sha256(data).hexdigest()
        name = f"{PICTURES}/{digest}.{SUFFIXES[peek(data, name='the picture')[0]]}"
        target = self.path / name
        if not target.is_file() or target.stat().st_size != len(data):
            with written_aside(target) as aside:
                aside.write_bytes(data)
        return digest, name

    def publish(self) -> dict[str, Any]:
        """Write the pairs and the counts that follow from all logs.

        Returns:
            What `label.json` holds.

        Raises:
            DataError: If a log is damaged; nothing is then replaced.
        """
        with locked(self.path / _LOCK):
            logs = read_logs(self.path)
            rows = [row for settings, lines in logs for row in _rows(settings, standing(lines).values())]
            pairs = self.path / PAIRS
            if rows:
                write_text(pairs, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            else:
                pairs.unlink(missing_ok=True)
            counts = {
                "format": 1,
                "pairs": len(rows),
                "ties": sum(row["preference_prob"] == TIE for row in rows),
                "users": {str(settings.get("user")): _counts(settings, lines) for settings, lines in logs},
            }
            write_json(self.path / COUNTS, counts)
        return counts


def _rows(settings: Mapping[str, Any], answers: Iterable[Answer]) -> Iterator[dict[str, Any]]:
    """Make a pair of every answer but the skipped ones; of a tie, the left picture stands as chosen."""
    for answer in answers:
        if answer.answer == "skip":
            continue
        tie = answer.answer == "tie"
        chosen, rejected = ("right", "left") if answer.answer == "right" else ("left", "right")
        yield {
            "prompt": answer.prompt,
            "chosen_file_name": getattr(answer, f"{chosen}_file"),
            "rejected_file_name": getattr(answer, f"{rejected}_file"),
            "user_id": settings.get("user"),
            "preference_prob": TIE if tie else None,
            "aspect": settings.get("aspect"),
            "source": f"label:{settings.get('set')}",
            "prompt_id": answer.prompt_id,
            "chosen_name": getattr(answer, chosen),
            "rejected_name": getattr(answer, rejected),
            "chosen_side": None if tie else chosen,
        }


def _counts(settings: Mapping[str, Any], lines: list[Answer]) -> dict[str, Any]:
    said = Counter(answer.answer for answer in standing(lines).values())
    return {
        "set": settings.get("set"),
        "seed": settings.get("seed"),
        "left": said["left"],
        "right": said["right"],
        "ties": said["tie"],
        "skipped": said["skip"],
        "undone": sum(line.answer == UNDO for line in lines),
    }
