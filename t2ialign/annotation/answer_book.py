"""The answer book: what was asked and what was said, a line an answer, written as they come.

Law of this file: a line that stands is never asked for again. A stop may tear the last line; it is taken back, and its
question asked once more. A damaged line in between is an error that names it, for it was paid for.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from t2ialign.chat.base import Answer, Usage
from t2ialign.errors import DataError


def question_key(kind: str, identity: Mapping[str, Any], *parts: bytes) -> str:
    """Name a question by all that its answer depends on.

    Args:
        kind: What is done, `caption` or `perturb`; it begins the key.
        identity: Of who is asked.
        parts: What is asked about.

    Returns:
        The kind, a colon, and 40 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False).encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"{kind}:{digest.hexdigest()[:40]}"


class AnswerBook:
    """Answers by the key of their question, in memory and in a file. Use it as a context manager.

    Attributes:
        path: The file, JSON lines with `key` and `text`; where there is no text, it is null, and `reason` and, if so,
            `refused` stand there; `usage` where it is known.

    Several threads may add.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there and get ready to add.

        Raises:
            DataError: If a line other than a torn last one is no answer.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._answers = _read(path)
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self._answers)

    def __contains__(self, key: str) -> bool:
        """Whether a question was answered."""
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        """Return an answer.

        Raises:
            KeyError: If the question was not answered.
        """
        return self._answers[key]

    def add(self, answer: Answer) -> None:
        """Write an answer down; a key that is there already is not written again."""
        line: dict[str, Any] = {"key": answer.key, "text": answer.text}
        if answer.text is None:
            line["reason"] = answer.reason
        if answer.refused:
            line["refused"] = True
        if answer.usage is not None:
            line["usage"] = {name: value for name, value in asdict(answer.usage).items() if value is not None}
        written = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._lock:
            if answer.key not in self._answers:
                self._append(written)
                self._answers[answer.key] = answer

    def _append(self, line: bytes) -> None:
        """Write a line, or nothing: a full disk may take a part of it, which would spoil the next one."""
        end = os.fstat(self._file.fileno()).st_size
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(end)
            raise

    def used(self) -> Iterator[Usage]:
        """Go through what the answers took, as far as it is known."""
        return (answer.usage for answer in [*self._answers.values()] if answer.usage is not None)

    def close(self) -> None:
        """Flush to disk. Repeat it freely."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def _read(path: Path) -> dict[str, Answer]:
    """Read the answers; cut a torn last line off, and end a whole one that lacks its line end."""
    if not path.is_file():
        return {}
    data = path.read_bytes()
    *lines, tail = data.split(b"\n")
    if tail:
        try:
            _answer(tail, "")
        except DataError:
            with path.open("rb+") as handle:
                handle.truncate(len(data) - len(tail))
        else:
            lines.append(tail)
            with path.open("ab") as handle:
                handle.write(b"\n")
    found: dict[str, Answer] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            answer = _answer(line, f"{path}, line {number}")
            found[answer.key] = answer
    return found


def _answer(line: bytes, where: str) -> Answer:
    try:
        value = json.loads(line.decode("utf-8"))
        key, text, reason = value["key"], value["text"], value.get("reason", "")
        usage = Usage(**value["usage"]) if "usage" in value else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where}: no answer ({error}); remove the line to have it asked again") from error
    if not isinstance(key, str) or not isinstance(text, str | None) or not isinstance(reason, str):
        raise DataError(f"{where}: no answer; remove the line to have it asked again")
    return Answer(key, text, reason, value.get("refused") is True, usage)
