"""Who answers a question about pictures with one of a closed list: a function, a chat model, the mini-world's oracle.

Law of this file: an answer is one of the options, `OTHER` for something else, or `None` where there is none. Nothing
is guessed from words that come near.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from t2ialign.chat.base import Question
from t2ialign.chat.json_answers import read_object
from t2ialign.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.chat.base import ChatModel
    from t2ialign.mini.world import Spec

OTHER = "none of these"
"""The answer that something else is to be seen, or that it can not be told."""

Answers = Callable[[Sequence["Image.Image"], str, Sequence[str]], Sequence[str | None]]
"""(pictures, question, options) to an answer for each picture: an option, `OTHER`, or `None` for no answer."""

ASKED = """{question}
Choose exactly one of these, letter for letter: {options}.
Choose "none of these" if it is something else or cannot be seen.
Answer with one JSON object and nothing else: {"answer": "..."}"""


class ChatAnswers:
    """A vision-language model that chooses among options.

    Attributes:
        failures: What was wrong with answers that could not be read, and how often.
    """

    def __init__(self, chat: ChatModel, *, attempts: int = 3, seed: int = 0) -> None:
        """Take a model (`t2ialign.chat.options.load_chat`).

        Raises:
            ModelError: If the model reads no instructions.
        """
        if not chat.takes_instructions:
            raise ModelError(
                f"{chat.name} is a plain captioner and reads no words; choose a model with a chat template"
            )
        self.chat, self.attempts, self.seed = chat, attempts, seed
        self.failures: dict[str, int] = {}

    def __call__(self, images: Sequence[Image.Image], question: str, options: Sequence[str]) -> list[str | None]:
        """Ask about each picture by itself, at most `attempts` times."""
        listed = ", ".join(f'"{each}"' for each in [*options, OTHER])
        words = ASKED.replace("{question}", question).replace("{options}", listed)
        known = {each.casefold(): each for each in [*options, OTHER]}
        found: dict[int, str] = {}
        why: dict[int, str] = {}
        for attempt in range(self.attempts):
            left = [place for place in range(len(images)) if place not in found]
            asked = (Question(str(place), words, (images[place],), seed=self.seed + attempt) for place in left)
            for answer in self.chat.ask_all(asked):
                said, problem = (None, answer.reason) if answer.text is None else _read(answer.text, known)
                if said is None:
                    why[int(answer.key)] = problem
                else:
                    found[int(answer.key)] = said
        for place, problem in why.items():
            if place not in found:
                self.failures[problem] = self.failures.get(problem, 0) + 1
        return [found.get(place) for place in range(len(images))]

    def info(self) -> dict[str, Any]:
        """Say what is asked of which model."""
        return {"answers": "chat", "words": ASKED, "attempts": self.attempts, "seed": self.seed} | {
            "model": self.chat.identity()
        }


def _read(text: str, known: dict[str, str]) -> tuple[str | None, str]:
    try:
        found = read_object(text)
    except ValueError as error:
        return None, str(error)
    if set(found) != {"answer"} or not isinstance(found["answer"], str):
        return None, "the one key is to be 'answer', with a text"
    said = known.get(" ".join(found["answer"].split()).casefold())
    return said, "" if said else "it is none of the options"


_QUESTIONS = {
    "color": re.compile(r"What is the color of the (\w+)\?"),
    "size": re.compile(r"What is the size of the (\w+)\?"),
    "shape": re.compile(r"What is the shape of the (object)\?"),
    "continent": re.compile(r"Which continent is the (flag) from\?"),
}


class OracleAnswers:
    """The oracle of the mini-world. It answers the questions of `concepts.mini_concepts`, and the shape of an object.

    A picture that it cannot read has no answer; one without the object in question gets `OTHER`.
    """

    def __call__(self, images: Sequence[Image.Image], question: str, options: Sequence[str]) -> list[str | None]:
        """Read each picture.

        Raises:
            ValueError: If the question is none that the oracle knows.
        """
        from t2ialign.mini.oracle import read

        about = next(((kind, m[1]) for kind, words in _QUESTIONS.items() if (m := words.fullmatch(question))), None)
        if about is None:
            raise ValueError(f"the oracle does not know the question {question!r}; it knows those of mini_concepts()")
        said: list[str | None] = []
        for image in images:
            spec = read(image).spec
            seen = None if spec is None else _seen(spec, *about)
            said.append(None if spec is None else seen if seen in options else OTHER)
        return said

    def info(self) -> dict[str, Any]:
        """Say who reads."""
        return {"answers": "mini-world oracle"}


def _seen(spec: Spec, kind: str, what: str) -> str | None:
    from t2ialign.mini.flags import FLAGS

    if kind == "continent":
        return FLAGS[spec.country].continent if spec.country else None
    if what == "background":
        return spec.background
    for thing in spec.things:
        if what in (thing.shape, "object"):
            found: str | None = getattr(thing, kind)
            return found
    return None
