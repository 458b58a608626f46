"""Answers: a log a person, a line an answer or an undoing, flushed to disk as they come and never changed.

Law of this file: a line that stands was given; undoing is a line too. A stop may tear the last line, which is taken
back; any other damaged line is an error that names it. While a program holds a person's log, no other may.

    PAIRS/answers/alice.jsonl      a line with the settings, then the answers
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from t2ialign.errors import DataError

FOLDER = "answers"
ANSWERS = ("left", "right", "tie", "skip")
UNDO = "undo"
FORMAT = 1
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class Answer:
    """One line of a log: what was asked and what was said.

    Attributes:
        question: Id of the question, 32 hexadecimal digits.
        answer: `left`, `right`, `tie`, `skip`, or `undo`, which takes the question's answer back.
        prompt_id: Id of the prompt.
        prompt: Its text.
        left: What the set calls the picture on the left.
        right: The same of the other one.
        left_sha256: Of the encoded picture on the left.
        right_sha256: The same of the other one.
        left_file: File of the picture on the left in the folder of pairs; empty for a skipped question.
        right_file: The same of the other one.
        seconds: From the moment the pictures were there to the answer, by the page's clock.
        time: When it was written, UTC, ISO 8601.
    """

    question: str
    answer: str
    prompt_id: str = ""
    prompt: str = ""
    left: str = ""
    right: str = ""
    left_sha256: str = ""
    right_sha256: str = ""
    left_file: str = ""
    right_file: str = ""
    seconds: float | None = None
    time: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no answer (ValueError)."""
        if self.answer not in (*ANSWERS, UNDO):
            raise ValueError(f"{self.answer!r} is none of {', '.join((*ANSWERS, UNDO))}")
        texts = (value for name, value in asdict(self).items() if name != "seconds")
        if not all(isinstance(value, str) for value in texts) or not isinstance(self.seconds, int | float | None):
            raise ValueError("a value has a wrong type")


class AnswerLog:
    """The log of one person. Use it as a context manager.

    Attributes:
        path: The file.
        lines: How many answers and undoings it holds.
    """

    def __init__(self, folder: Path, user: str, settings: Mapping[str, Any]) -> None:
        """Open the log, or begin it.

        Args:
            folder: Folder of the pairs.
            user: Whose.
            settings: What the questions depend on; they must be those that the log began with.

        Raises:
            DataError: If another program holds it, it is damaged, or was begun with other settings.
        """
        self.path = folder / FOLDER / f"{file_stem(user)}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+", buffering=0)
        try:
            if not lock(self._file.fileno(), wait=False):
                raise DataError(f"another program writes {self.path}: {user} labels there now; stop it, or be another")
            self._begin({"format": FORMAT, "user": user, **settings})
        except BaseException:
            self._file.close()
            raise

    def _begin(self, settings: dict[str, Any]) -> None:
        _take_back_torn_line(self.path)
        there, answers = read_log(self.path)
        self.lines = len(answers)
        self._standing = standing(answers)
        if there is None:
            self._write(settings)
            _flush_folder(self.path.parent)
            return
        differing = [key for key in sorted(there | settings) if there.get(key) != settings.get(key)]
        if differing:
            shown = "; ".join(f"{key}: {there.get(key)!r} there, {settings.get(key)!r} now" for key in differing)
            raise DataError(
                f"{self.path} was begun otherwise ({shown}); give the same options, another --user or another "
                "--output_dir"
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def standing(self) -> dict[str, Answer]:
        """The answers that were not taken back, by question, in the order in which they were given."""
        return dict(self._standing)

    def add(self, answer: Answer) -> None:
        """Write a line and flush it to disk."""
        self._write(asdict(answer))
        self.lines += 1
        _apply(self._standing, answer)

    def close(self) -> None:
        """Close, which gives the log free. Repeat it freely."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(data) != len(data):  # a disk that fills takes a part, and raises nothing
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(before)  # or the next line would be written behind a torn one
            raise


def file_stem(user: str) -> str:
    """Return a file name for a user: the id where it is plain, else what is readable of it and a digest."""
    if _PLAIN_NAME.fullmatch(user):
        return user
    readable = re.sub(r"[^A-Za-z0-9_]+", "_", user)[:60] or "_"
    return f"{readable}-{hashlib.sha256(user.encode()).hexdigest()[:12]}"


def read_logs(folder: Path) -> list[tuple[dict[str, Any], list[Answer]]]:
    """Read every log of a folder of pairs that has begun: its settings and its lines, in the order of the files.

    Raises:
        DataError: If a log is damaged.
    """
    logs = (read_log(path) for path in sorted((folder / FOLDER).glob("*.jsonl")))
    return [(settings, answers) for settings, answers in logs if settings is not None]


def read_log(path: Path) -> tuple[dict[str, Any] | None, list[Answer]]:
    """Read a log: its settings (`None` where it has not begun) and its lines; a torn last line is passed over.

    Raises:
        DataError: If a line is damaged.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    settings: dict[str, Any] | None = None
    answers: list[Answer] = []
    known = {each.name for each in fields(Answer)}
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line.decode("utf-8"))
            if settings is None:
                settings = dict(value)
            else:
                answers.append(Answer(**{key: each for key, each in value.items() if key in known}))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: no answer ({error}); repair the line, or remove it") from error
    return settings, answers


def standing(answers: list[Answer]) -> dict[str, Answer]:
    """Return what stands of a log: the last answer to each question that was not taken back, in order."""
    found: dict[str, Answer] = {}
    for answer in answers:
        _apply(found, answer)
    return found


def _apply(found: dict[str, Answer], answer: Answer) -> None:
    found.pop(answer.question, None)
    if answer.answer != UNDO:
        found[answer.question] = answer


def _take_back_torn_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("rb+") as handle:
            handle.truncate(whole)
            os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    """Have a new file's name on disk too, where the system lets a folder be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(handle: int, *, wait: bool) -> bool:
    """Lock an open file until it is closed, however the program ends; false if another holds it and we do not wait.

    Where the system has no such locks (Windows) it does nothing and is true.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one program at a time through the block; `path` is a file that exists for this alone."""
    with path.open("ab") as handle:
        lock(handle.fileno(), wait=True)
        yield
