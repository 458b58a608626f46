"""A session: one person, one list of questions, and where they are in it.

Law of this file: an answer is for the question that is open, or it is none; before it returns, the answer is on disk
and in the pairs. Questions that nobody could answer (a picture that can not be read, twice the same picture) are
passed over and counted, never answered.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from t2ialign.annotation.label.answers import ANSWERS, UNDO, Answer, AnswerLog
from t2ialign.annotation.label.folder import PairFolder
from t2ialign.annotation.label.questions import Question
from t2ialign.annotation.label.sources import Source
from t2ialign.data.images import open_image, peek
from t2ialign.errors import DataError

logger = logging.getLogger(__name__)

SIDES = ("left", "right")
MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
LONGEST_SECONDS = 86_400.0
_KEPT = 6
"""Questions whose encoded pictures are in memory: the open one, the one after it, and some to go back to."""

Pair = tuple[bytes, bytes]


class NotOpenError(Exception):
    """What was answered is not the open question: another tab was quicker, or a key was pressed twice."""


class Session:
    """Questions, answers, and the way back. All methods may be called from several threads."""

    def __init__(
        self, source: Source, folder: PairFolder, log: AnswerLog, questions: Sequence[Question], *, user: str, ask: str
    ) -> None:
        """Go on where the log ends.

        Args:
            source: Where the pictures are.
            folder: Where the pairs go.
            log: Of this person.
            questions: What is asked, in order.
            user: Who it is.
            ask: What the page asks.
        """
        self.passed_over: Counter[str] = Counter()
        self.user = user
        self._source, self._folder, self._log = source, folder, log
        self._questions = list(questions)
        self._numbers = {question.id: question.number for question in self._questions}
        self._ask = ask
        self._unfit: set[int] = set()
        self._pictures: OrderedDict[int, Pair] = OrderedDict()
        self._lock = threading.RLock()
        standing = log.standing
        self._answered = {self._numbers[name] for name in standing if name in self._numbers}
        self._start = 0
        """Every question before this one is answered or unfit, or in the next list."""
        self._again: list[int] = []
        """Questions whose answers were taken back, the one that is open last."""

    def state(self) -> dict[str, Any]:
        """Say what is to be shown: the open question, the one after it, progress, and whether there is a way back."""
        with self._lock:
            number, following = self._open()
            open_ = None if number is None else self._questions[number]
            total = len(self._questions) - len(self._unfit)
            return {
                "user": self.user,
                "ask": self._ask,
                "question": None if open_ is None else {"number": open_.number, "prompt": open_.couple.prompt},
                "next": following,
                "answered": len(self._answered),
                "total": total,
                "labelled": sum(answer.answer != "skip" for answer in self._log.standing.values()),
                "can_undo": self._last() is not None,
                "passed_over": sum(self.passed_over.values()),
            }

    def picture(self, number: int, side: str) -> tuple[bytes, str]:
        """Return an encoded picture of the open question or of the one after it, and its MIME type.

        Raises:
            NotOpenError: If the question is another one, or there is no such side.
        """
        with self._lock:
            if side not in SIDES or number not in self._open():
                raise NotOpenError(f"there is no picture {number} {side} now")
            data = self._pair(number)[self._questions[number].place(side)]
            return data, MIME[peek(data, name="the picture")[0]]

    def answer(self, number: int, said: str, seconds: float | None = None) -> None:
        """Take an answer to the open question.

        Args:
            number: Of the question.
            said: `left`, `right`, `tie` or `skip`.
            seconds: How long it took.

        Raises:
            NotOpenError: If it is not the open question.
            ValueError: If that is no answer.
        """
        if said not in ANSWERS:
            raise ValueError(f"{said!r} is no answer; known are {', '.join(ANSWERS)}")
        with self._lock:
            if number != self._open()[0]:
                raise NotOpenError(f"question {number} is not the one that is open")
            self._log.add(self._line(self._questions[number], said, _plausible(seconds)))
            self._answered.add(number)
            self._folder.publish()

    def undo(self) -> None:
        """Take the last answer back and open its question again.

        Raises:
            NotOpenError: If there is none.
        """
        with self._lock:
            last = self._last()
            if last is None:
                raise NotOpenError("there is nothing to take back")
            question = self._questions[last]
            self._log.add(Answer(question.id, UNDO, prompt_id=question.couple.prompt_id, time=_now()))
            self._answered.discard(last)
            self._again.append(last)
            self._folder.publish()

    def counts(self) -> dict[str, int]:
        """Count what stands of this person's answers, by what was said."""
        with self._lock:
            said = Counter(answer.answer for answer in self._log.standing.values())
            return {name: said[name] for name in ANSWERS}

    def _line(self, question: Question, said: str, seconds: float | None) -> Answer:
        couple = question.couple
        more: dict[str, Any] = {}
        if said != "skip":
            pair = self._pair(question.number)
            for side in SIDES:
                digest, file = self._folder.store(pair[question.place(side)])
                more |= {f"{side}_sha256": digest, f"{side}_file": file}
        return Answer(
            question.id,
            said,
            prompt_id=couple.prompt_id,
            prompt=couple.prompt,
            left=question.name("left"),
            right=question.name("right"),
            seconds=seconds,
            time=_now(),
            **more,
        )

    def _last(self) -> int | None:
        """Return the question that was answered last, among those of this list."""
        names = reversed(list(self._log.standing))
        return next((self._numbers[name] for name in names if name in self._numbers), None)

    def _open(self) -> tuple[int | None, int | None]:
        """Return the question that waits for an answer, and the one after it."""
        self._again = [number for number in self._again if self._waits(number)]
        again = self._again[::-1][:2]
        while self._start < len(self._questions) and not self._waits(self._start):
            self._start += 1
        rest = (n for n in range(self._start, len(self._questions)) if n not in self._again and self._waits(n))
        found = [*again, *islice(rest, 2 - len(again)), None, None]
        return found[0], found[1]

    def _waits(self, number: int) -> bool:
        return number not in self._answered and number not in self._unfit and self._is_fit(number)

    def _is_fit(self, number: int) -> bool:
        """Whether a question can be answered; if not it is passed over, with a word in the log."""
        if number in self._pictures:
            return True
        couple = self._questions[number].couple
        try:
            pair = (self._source.encoded(couple, 0), self._source.encoded(couple, 1))
            first, second = (open_image(data, name=name) for data, name in zip(pair, couple.names, strict=True))
        except DataError as error:
            logger.warning("passed over: %s", error)
            return self._pass_over(number, "unreadable")
        if first.size == second.size and first.tobytes() == second.tobytes():
            return self._pass_over(number, "identical")
        self._pictures[number] = pair
        while len(self._pictures) > _KEPT:
            self._pictures.popitem(last=False)
        return True

    def _pass_over(self, number: int, why: str) -> bool:
        self._unfit.add(number)
        self.passed_over[why] += 1
        return False

    def _pair(self, number: int) -> Pair:
        """Return the encoded pictures of a question that is known to be fit, in the couple's order."""
        if number not in self._pictures and not self._is_fit(number):
            raise NotOpenError(f"the pictures of question {number} are no longer there")
        return self._pictures[number]


def _plausible(seconds: float | None) -> float | None:
    """Keep a duration that can be one, to the millisecond."""
    if seconds is None or not 0 <= seconds <= LONGEST_SECONDS:
        return None
    return round(float(seconds), 3)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
