"""Answers that are kept as they come, so that nobody is asked twice about one picture.

Law of this file: a missing answer is not kept, and asked for again the next time; an answer belongs to whoever gave
it, as they describe themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.data.files import write_text

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.eval.attributes.answers import Answers


class KeptAnswers:
    """Somebody who answers, and a file of lines with what was said."""

    def __init__(self, answers: Answers, file: Path) -> None:
        """Read what is there; lines of others, and a torn last one, are passed over."""
        self.answers, self.file = answers, file
        described = json.dumps(self.info(), sort_keys=True, default=str)
        self._who = hashlib.sha256(described.encode()).hexdigest()[:16]
        self._kept: dict[str, str] = {}
        if file.is_file():
            whole, kept = file.read_text(encoding="utf-8", errors="replace"), ""
            for text in whole.splitlines(keepends=True):
                try:
                    line = json.loads(text) if text.endswith("\n") else {}
                    if line["who"] == self._who:
                        self._kept[line["mark"]] = str(line["answer"])
                except (ValueError, KeyError, TypeError):
                    continue
                kept += text
            if kept != whole:
                write_text(file, kept)

    def __call__(self, images: Sequence[Image.Image], question: str, options: Sequence[str]) -> list[str | None]:
        """Answer, asking only about pictures that have no answer yet."""
        marks = [_mark(image, question, options) for image in images]
        left = [i for i, mark in enumerate(marks) if mark not in self._kept]
        if left:
            said = self.answers([images[i] for i in left], question, options)
            given = {marks[i]: answer for i, answer in zip(left, said, strict=True) if answer is not None}
            lines = [{"mark": mark, "who": self._who, "answer": answer} for mark, answer in given.items()]
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            self._kept |= given
        return [self._kept.get(mark) for mark in marks]

    def info(self) -> dict[str, Any]:
        """Say what whoever answers says."""
        described: dict[str, Any] = getattr(self.answers, "info", dict)()
        return described


def _mark(image: Image.Image, question: str, options: Sequence[str]) -> str:
    asked = json.dumps([question, list(options), list(image.size)]).encode()
    return hashlib.sha256(asked + image.convert("RGB").tobytes()).hexdigest()
