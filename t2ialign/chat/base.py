"""What a chat model offers.

Law of this file: it knows no model and loads nothing heavy. An answer depends on its own question alone, never on
what was asked before it or beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from t2ialign.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image


class NoAnswerError(ModelError):
    """A model was asked and gave nothing that could be used: an empty text, or a refusal. Others may be asked on."""


class UnreachableError(ModelError):
    """A question could not be put: the endpoint was busy, failed or was silent, however often it was asked."""


@dataclass(frozen=True)
class Usage:
    """What an answer took.

    Attributes:
        requests: Requests that were sent for it; 0 for a model in this process.
        prompt_tokens: Tokens read, pictures among them; `None` where it is not told.
        completion_tokens: Tokens written; likewise.
    """

    requests: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        key: Comes back with the answer.
        text: The words; for a captioner without instructions (`ChatModel.takes_instructions`) they must be empty.
        images: RGB pictures that the words speak of, in order.
        seed: Where answers are sampled, the seed of this one; in [0, 2**63).
        labels: Words before each picture, as many as pictures; empty for none.
        schema: JSON schema that the answer shall follow, for backends that can hold a model to it; the words must ask
            for it too.
    """

    key: str
    text: str
    images: tuple[Image.Image, ...] = ()
    seed: int = 0
    labels: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None

    def parts(self) -> Iterator[str | Image.Image]:
        """Go through labels, pictures and words in the order in which a model gets them."""
        for place, image in enumerate(self.images):
            if self.labels:
                yield self.labels[place]
            yield image
        yield self.text


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        key: That of the question.
        text: The answer, outer blanks removed, not empty; `None` where there is none.
        reason: Why there is none; empty where there is one.
        refused: Whether the model, or a filter before it, would not answer.
        usage: What it took, where that is known; it is no part of what was said.
    """

    key: str
    text: str | None
    reason: str = ""
    refused: bool = False
    usage: Usage | None = field(default=None, compare=False)


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


@runtime_checkable
class Endpoint(Protocol):
    """A chat model elsewhere, that several threads may ask at once.

    Attributes:
        parallel: How many questions may be under way at once.
    """

    parallel: int

    def answer(self, question: Question) -> Answer:
        """Answer one question; without a text where the model gives nothing.

        Raises:
            UnreachableError: If it could not be put, though the model may answer others.
            ModelError: If the model can not be asked at all.
        """
        ...

    def halt(self) -> None:
        """Try no question again that fails from now on, and end pauses."""
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
