"""What a chat model offers.

Law of this file: it knows no model and loads nothing heavy. An answer depends on its own question alone, never on
what was asked before it or beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from t2ialign.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image


class NoAnswerError(ModelError):
    """A model was asked and gave nothing that could be used: an empty text, or a refusal. Others may be asked on."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        key: Comes back with the answer.
        text: The words; for a captioner without instructions (`ChatModel.takes_instructions`) they must be empty.
        images: RGB pictures that the words speak of, in order.
        seed: Where answers are sampled, the seed of this one; in [0, 2**63).
    """

    key: str
    text: str
    images: tuple[Image.Image, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        key: That of the question.
        text: The answer, outer blanks removed, not empty; `None` where there is none.
        reason: Why there is none; empty where there is one.
    """

    key: str
    text: str | None
    reason: str = ""


class ChatModel(Protocol):
    """A model that answers questions.

    Attributes:
        name: What it is called in messages and files; no path of this machine.
        takes_instructions: Whether it reads the question's words. A plain captioner does not: it is given a picture
            and an empty text.
    """

    name: str
    takes_instructions: bool

    def ask(self, text: str, images: Sequence[Image.Image] = (), *, seed: int = 0) -> str:
        """Answer one question.

        Raises:
            NoAnswerError: If the model gives nothing.
            ModelError: If it can not be asked at all.
        """
        ...

    def ask_all(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answer many, as fast as the backend can, and hand out each answer as soon as it is there, in any order.

        Questions are taken from the iterable a few at a time, so their pictures need not all be in memory.

        Raises:
            ModelError: If it can not be asked at all. Answers that were under way then are handed out before.
        """
        ...

    def close(self) -> None:
        """Give memory back; the model may be asked again."""
        ...

    def identity(self) -> dict[str, Any]:
        """Say what the answers depend on, as JSON values: equal identities mean that answers may be mixed."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what is recorded about the model, as JSON values: the identity, how it runs, library versions."""
        ...


def one_by_one(model: ChatModel, questions: Iterable[Question]) -> Iterator[Answer]:
    """Ask a model question by question; the simplest `ask_all`."""
    for question in questions:
        yield answered(model, question)


def answered(model: ChatModel, question: Question) -> Answer:
    """Ask one question and turn `NoAnswerError` into an answer without a text."""
    try:
        return Answer(question.key, model.ask(question.text, question.images, seed=question.seed))
    except NoAnswerError as error:
        return Answer(question.key, None, str(error))
