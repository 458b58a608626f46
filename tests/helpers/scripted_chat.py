"""A chat model that answers by a function and notes what it was asked; for tests of who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from PIL import Image

from t2ialign.chat.base import Answer, NoAnswerError, Question, one_by_one


class ScriptedChat:
    """Answers `reply(text, images)`; an empty text is no answer.

    Attributes:
        asked: The texts that it was asked, in order.
        images: The pictures, in order.
        seeds: The seeds, in order.
        closed: How often memory was given back.
    """

    def __init__(
        self, reply: Callable[[str, Sequence[Image.Image]], str], *, name: str = "scripted", instructions: bool = True
    ) -> None:
        self.reply = reply
        self.name = name
        self.takes_instructions = instructions
        self.asked: list[str] = []
        self.images: list[tuple[Image.Image, ...]] = []
        self.seeds: list[int] = []
        self.closed = 0

    def ask(self, text: str, images: Sequence[Image.Image] = (), *, seed: int = 0) -> str:
        self.asked.append(text)
        self.images.append(tuple(images))
        self.seeds.append(seed)
        if answer := self.reply(text, images).strip():
            return answer
        raise NoAnswerError("nothing to say")

    def ask_all(self, questions: Iterable[Question]) -> Iterator[Answer]:
        return one_by_one(self, questions)

    def close(self) -> None:
        self.closed += 1

    def identity(self) -> dict[str, Any]:
        return {"backend": "scripted", "model": self.name}

    def info(self) -> dict[str, Any]:
        return self.identity() | {"asked": len(self.asked)}
