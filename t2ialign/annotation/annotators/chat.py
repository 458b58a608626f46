"""A chat model as an annotator: an OpenAI-compatible endpoint, or a model of transformers on this machine.

Law of this file: an answer is on disk before the thread that got it asks anything further, under all that it depends
on, so nothing is paid for twice. An answer that can not be read is asked for again, with what was wrong with it, a
bounded number of times, then it is null. A refusal is an answer: it is kept, counted, and not asked again.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.annotation import draws
from t2ialign.annotation.annotations import ASPECTS
from t2ialign.annotation.annotators import questions
from t2ialign.annotation.annotators.base import Desk, Marks, Outcome, Status
from t2ialign.annotation.annotators.ledger import Ledger, Prices
from t2ialign.annotation.answer_book import AnswerBook, question_key
from t2ialign.chat.base import Answer, Endpoint, Question, UnreachableError
from t2ialign.chat.openai_api import in_parallel
from t2ialign.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.annotation.sheets import Sheet
    from t2ialign.chat.base import ChatModel

logger = logging.getLogger(__name__)

ANSWERS = "answers.jsonl"
LOST_IN_A_ROW = 3
"""Questions that an endpoint leaves without any answer, one after the other, before it is taken for gone."""
LONGEST_PROBLEM = 200
"""Characters of a problem that are told to the model."""
REFUSED, UNREADABLE, NO_ANSWER, GAP = "refused", "unreadable", "no answer", "a picture that can not be read"
"""What may be wrong with an answer, or with what is asked about."""


@dataclass(frozen=True)
class Manner:
    """How a chat model is asked.

    Attributes:
        scale: One of `questions.SCALES`.
        calls: `joint` for all aspects in one question, `per_aspect` for a question an aspect.
        repeats: How often a question is asked again whose answer can not be read.
        longest_side: Pictures whose longer side has more pixels are shrunk to it; `None` to show them as they are.
        seed: Of answers that are drawn.
    """

    scale: str = "numbers"
    calls: str = "joint"
    repeats: int = 2
    longest_side: int | None = None
    seed: int = 0

    @property
    def forms(self) -> tuple[tuple[str, ...], ...]:
        """The aspects of each question about a sheet."""
        return (ASPECTS,) if self.calls == "joint" else tuple((aspect,) for aspect in ASPECTS)

    def to_dict(self) -> dict[str, Any]:
        """Return what an answer depends on."""
        told = {"template": questions.TEMPLATE, "scale": self.scale, "calls": self.calls, "repeats": self.repeats}
        return told | {"longest_side": self.longest_side}


@dataclass(frozen=True)
class Step:
    """How far one question about a sheet has come.

    Attributes:
        key: Of the question that is to be asked next; empty where it is settled.
        text: Its words.
        marks: What was said, by aspect, in the order shown; empty where there is nothing.
        problem: `REFUSED`, `UNREADABLE` or `NO_ANSWER`, where it is settled without marks.
        answers: All answers so far.
    """

    key: str = ""
    text: str = ""
    marks: dict[str, list[tuple[int, str]]] | None = None
    problem: str = ""
    answers: tuple[Answer, ...] = ()


Item = tuple["Sheet", tuple[str, ...]]
"""A sheet and the aspects of one question about it."""


class ChatAnnotator:
    """Asks a chat model about each sheet. See `Annotator`."""

    aspects: tuple[str, ...] = ASPECTS
    sees_order = True
    resumes = True
    shares = False

    def __init__(self, name: str, chat: ChatModel, manner: Manner, prices: Prices | None = None) -> None:
        """Take a loaded model.

        Raises:
            ConfigError: If it reads no words.
        """
        if not chat.takes_instructions:
            raise ConfigError(f"{chat.name} is a plain captioner and reads no words; choose a vision-language model")
        self.name = name
        self.chat = chat
        self.manner = manner
        self._identity = dict(chat.identity())
        if self._identity.get("temperature"):
            self._identity["seed"] = manner.seed
        self._prices = prices or Prices()
        self._book: AnswerBook | None = None
        self._ledger = Ledger(self._prices)
        self._sheets: Sequence[Sheet] = ()
        self._gaps: dict[str, str] = {}
        self._gap_sheets: set[tuple[str, tuple[str, ...], int]] = set()
        self._lost: dict[str, str] = {}
        self._lost_in_a_row = 0
        self._asked = 0
        self._lock = threading.Lock()

    # What is asked, and how far it is

    def step(self, sheet: Sheet, aspects: tuple[str, ...]) -> Step:
        """Go through the answers about a sheet: what they come to, or what is to be asked next."""
        assert self._book is not None, "work comes first"
        count, manner = len(sheet.records), self.manner
        answers: list[Answer] = []
        kind = problem = ""
        for attempt in range(1 + manner.repeats):
            text = questions.wording(sheet.prompt, count, aspects, manner.scale, problem, attempt)
            key = self._key(sheet, text)
            if key not in self._book:
                return Step(key, text, answers=tuple(answers))
            answer = self._book[key]
            answers.append(answer)
            if answer.refused or (answer.text is not None and questions.is_refusal(answer.text)):
                return Step(problem=REFUSED, answers=tuple(answers))
            if answer.text is None:
                kind, problem = NO_ANSWER, answer.reason
            else:
                try:
                    marks = questions.read_answer(answer.text, count, aspects, manner.scale)
                    return Step(marks=marks, answers=tuple(answers))
                except ValueError as error:
                    kind, problem = UNREADABLE, str(error)
            problem = problem[:LONGEST_PROBLEM]
        return Step(problem=kind, answers=tuple(answers))

    def _key(self, sheet: Sheet, text: str) -> str:
        shown = [sheet.sha256[place].encode() for place in sheet.permutation]
        size = str(self.manner.longest_side).encode()
        about = (sheet.prompt_id.encode("utf-8", "surrogatepass"), size, text.encode("utf-8", "surrogatepass"), *shown)
        return question_key("rate", self._identity, *about)

    def _question(self, item: Item, step: Step) -> Question:
        sheet, aspects = item
        pictures = tuple(_shrunk(picture, self.manner.longest_side) for picture in sheet.shown())
        return Question(
            step.key,
            step.text,
            pictures,
            draws.number(self.manner.seed, step.key),
            questions.labels(len(pictures)),
            questions.schema(len(pictures), aspects, self.manner.scale),
        )

    # Asking

    def work(self, sheets: Sequence[Sheet], desk: Desk) -> Outcome:
        """See `Annotator`; answers are in `answers.jsonl` of the folder."""
        from tqdm import tqdm

        self._book = AnswerBook(desk.folder / ANSWERS)
        self._ledger = Ledger(self._prices, self._book.used())
        self._sheets = sheets
        # by key: sheets of pictures that are the same to the byte are one question, whose answer serves all of them
        asked = {self.step(sheet, form).key: (sheet, form) for sheet in sheets for form in self.manner.forms}
        open_ = deque(item for key, item in asked.items() if key)
        with tqdm(total=len(open_), desc=self.name, unit="question", disable=None if desk.progress else True) as bar:
            while open_:
                if desk.stop():
                    return Outcome("stopped", f"{len(open_):,} questions are left")
                if not self._ledger.room(0):
                    return Outcome("budget", self._spent(len(open_)))
                try:
                    self._ask(open_, desk, bar)
                except UnreachableError:
                    if not desk.stop():
                        raise
        if self._lost:
            reason = next(iter(self._lost.values()))
            status: Status = "stopped" if desk.stop() else "incomplete"
            return Outcome(status, f"{len(self._lost):,} questions were not answered, the first: {reason}")
        return Outcome()

    def _ask(self, open_: deque[Item], desk: Desk, bar: Any) -> None:
        """Ask what is open, until nothing is, a stop is asked for, or the budget has no room."""
        under_way: dict[str, Item] = {}

        def source() -> Iterator[Question]:
            while open_ and not desk.stop() and self._ledger.room(len(under_way)):
                item = open_.popleft()
                step = self.step(*item)
                try:
                    question = self._question(item, step)
                except DataError as error:
                    if not desk.allow_gaps:
                        raise
                    self._gaps.setdefault(item[0].prompt_id, str(error))
                    self._gap_sheets.add(_sheet_key(item[0]))
                    bar.update()
                    continue
                under_way[step.key] = item
                yield question

        try:
            for answer in self._answers(source()):
                item = under_way.pop(answer.key)
                if self.step(*item).key and answer.key not in self._lost:
                    open_.appendleft(item)
                else:
                    bar.update()
        finally:
            open_.extendleft(item for item in under_way.values() if self.step(*item).key)

    def _answers(self, asked: Iterator[Question]) -> Iterator[Answer]:
        """Ask, as the backend does it best; each answer is in the book before its thread asks on."""
        if isinstance(self.chat, Endpoint):
            yield from in_parallel(self._answered, asked, self.chat.parallel)
            return
        for answer in self.chat.ask_all(asked):
            self._keep(answer)
            yield answer

    def _answered(self, question: Question) -> Answer:
        """Ask an endpoint, in one of several threads; a question that it leaves is noted, and asked another time."""
        assert isinstance(self.chat, Endpoint)
        try:
            answer = self.chat.answer(question)
        except UnreachableError as error:
            with self._lock:
                self._lost_in_a_row += 1
                self._lost[question.key] = str(error)
                gone = self._lost_in_a_row >= LOST_IN_A_ROW
            if gone:
                self.chat.halt()
                raise
            return Answer(question.key, None, str(error))
        self._keep(answer)
        return answer

    def _keep(self, answer: Answer) -> None:
        assert self._book is not None
        self._book.add(answer)
        with self._lock:
            self._asked += 1
            self._lost_in_a_row = 0
        self._ledger.enter(answer.usage, self.chat.name, refused=answer.refused)

    def _spent(self, left: int) -> str:
        spent = f"{self._ledger.spent:.4f} of {self._prices.budget}"
        return f"the budget is spent ({spent}); {left:,} questions are left. A higher --budget goes on"

    # What came of it

    def marks(self, sheet: Sheet) -> Marks | None:
        """See `Annotator`."""
        steps = [(form, self.step(sheet, form)) for form in self.manner.forms]
        gap = _sheet_key(sheet) in self._gap_sheets
        if any(step.key for _, step in steps) and not gap:
            return None
        count = len(sheet.records)
        ratings: dict[str, list[float | None]] = {aspect: [None] * count for aspect in ASPECTS}
        rationales = {aspect: [""] * count for aspect in ASPECTS}
        for _, step in steps:
            for aspect, said in (step.marks or {}).items():
                for place, (rating, rationale) in zip(sheet.permutation, said, strict=True):
                    ratings[aspect][place] = rating
                    rationales[aspect][place] = rationale
        problems = [GAP] if gap else list(dict.fromkeys(step.problem for _, step in steps if step.problem))
        answers = [answer for _, step in steps for answer in step.answers]
        raw = [answer.reason if answer.text is None else answer.text for answer in answers]
        params = {**self.manner.to_dict(), "model": self.chat.name}
        return Marks(ratings, rationales, ", ".join(problems), raw, params, self._usage(answers))

    def _usage(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Sum up what the answers took; a count that one of them lacks is not told."""
        used = [answer.usage for answer in answers]
        found: dict[str, float] = {"calls": len(answers)}
        for name in ("prompt_tokens", "completion_tokens"):
            counts: list[int | None] = [None if usage is None else getattr(usage, name) for usage in used]
            if None not in counts:
                found[name] = sum(count or 0 for count in counts)
        costs = [None if usage is None else self._prices.cost(usage) for usage in used]
        if costs and None not in costs:
            found["cost"] = round(sum(cost for cost in costs if cost is not None), 9)
        return found

    def halt(self) -> None:
        """See `Annotator`."""
        if isinstance(self.chat, Endpoint):
            self.chat.halt()

    def close(self) -> None:
        """See `Annotator`."""
        if self._book is not None:
            self._book.close()
        self.chat.close()

    def identity(self) -> dict[str, Any]:
        """See `Annotator`."""
        return {"annotator": self.name, "model": self.chat.identity(), **self.manner.to_dict()}

    def info(self) -> dict[str, Any]:
        """See `Annotator`."""
        return {"annotator": self.name, "model": self.chat.info(), **self.manner.to_dict()}

    def counts(self) -> dict[str, Any]:
        """See `Annotator`: questions and answers of all runs, and of this one what was sent again."""
        info = self.chat.info()
        again = info.get("asked_again_for", {})
        return {
            "usage": self._ledger.to_dict(),
            "gaps": self._gaps,
            "questions": self._questions(),
            "this_run": {"answers": self._asked, "sent_again": sum(again.values()), "sent_again_for": again},
        }

    def _questions(self) -> dict[str, int]:
        """Count questions by what became of them, and how often one was asked again for want of a readable answer."""
        names = ("answered", "refused", "unreadable", "no_answer", "open", "asked_again")
        found: Counter[str] = Counter(dict.fromkeys(names, 0))
        for sheet in self._sheets:
            for form in self.manner.forms:
                step = self.step(sheet, form)
                found["open" if step.key else step.problem.replace(" ", "_") or "answered"] += 1
                found["asked_again"] += max(0, len(step.answers) - 1)
        return dict(found)


def _sheet_key(sheet: Sheet) -> tuple[str, tuple[str, ...], int]:
    return sheet.prompt_id, tuple(sheet.images), sheet.order


def _shrunk(picture: Image.Image, longest: int | None) -> Image.Image:
    """Bring the longer side down to so many pixels; smaller pictures stay as they are."""
    if longest is None or max(picture.size) <= longest:
        return picture
    small = picture.copy()
    small.thumbnail((longest, longest), reducing_gap=3.0)
    return small
