"""Geo-tags by a vision-language model.

Law of this file: an answer is one JSON object with exactly the keys asked for, each a text or null, or it is none.
What cannot be read is asked again a bounded number of times, then counted, and never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from t2ialign.chat.base import Question
from t2ialign.errors import ModelError
from t2ialign.eval.culture.geotag import GeoTag, stated_tag
from t2ialign.eval.culture.kernels import LEVELS

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.chat.base import ChatModel

QUESTION = """Look at the picture. Which cultural artifact does it show (a dish, a building or place, a garment, a \
dance, a painting, ...), and which country and continent is that artifact most closely associated with?
Judge by what is to be seen. If nothing in the picture tells, answer null for that key; do not guess.
The continent is one of Africa, Asia, Europe, North America, Oceania, South America.{hints}
Answer with one JSON object and nothing else: {"continent": "...", "country": "...", "artifact": "..."}"""
"""The question; `{hints}` becomes a line with examples of artifacts, or nothing."""


class ChatTagger:
    """A vision-language model as a tagger.

    Attributes:
        source: `"chat:"` and the model's name.
        batch_size: Pictures asked about at a time.
    """

    def __init__(
        self,
        chat: ChatModel,
        *,
        hints: Sequence[str] = (),
        question: str = QUESTION,
        attempts: int = 3,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        """Take a model (`t2ialign.chat.options.load_chat`).

        Args:
            chat: The model; it must read instructions.
            hints: Names of artifacts shown as examples, as CUBE's notebook does with samples of its concept space.
            question: What is asked, with `{hints}` at most once.
            attempts: How often a picture is asked about at most, until the answer can be read.
            seed: Of answers that are drawn.
            batch_size: Pictures asked about at a time.

        Raises:
            ModelError: If the model reads no instructions.
            ValueError: If an argument is out of range.
        """
        if not chat.takes_instructions:
            raise ModelError(
                f"{chat.name} is a plain captioner and reads no words; choose a model with a chat template"
            )
        if attempts < 1 or batch_size < 1:
            raise ValueError(f"attempts is {attempts} and batch_size {batch_size}; both must be at least 1")
        line = f"\nExamples of artifacts: {json.dumps(list(hints), ensure_ascii=False)}" if hints else ""
        self.chat, self.attempts, self.seed, self.batch_size = chat, attempts, seed, batch_size
        self.question = question.replace("{hints}", line)
        self.source = f"chat:{chat.name}"

    def tag(self, images: Sequence[Image.Image]) -> list[GeoTag]:
        """Ask about pictures; one without a readable answer has no label, and the reason as its problem."""
        found: dict[int, GeoTag] = {}
        left = list(range(len(images)))
        for attempt in range(self.attempts):
            asked = (Question(str(i), self.question, (images[i],), seed=self.seed + attempt) for i in left)
            for answer in self.chat.ask_all(asked):
                tag, problem = (None, answer.reason) if answer.text is None else read_answer(answer.text)
                found[int(answer.key)] = tag or GeoTag(problem=f"unreadable answer: {problem}")
            left = [i for i in left if found[i].problem.startswith("unreadable answer")]
        return [found[i] for i in range(len(images))]

    def info(self) -> dict[str, Any]:
        """Say what is asked of which model."""
        return {"tagger": "chat", "question": self.question, "attempts": self.attempts, "seed": self.seed} | {
            "model": self.chat.identity()
        }


def read_answer(text: str) -> tuple[GeoTag | None, str]:
    """Read an answer strictly: one JSON object, perhaps in a code fence, with `LEVELS` as its keys.

    Returns:
        The tag, or `None` and what is wrong with the answer.
    """
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*)\n\s*```", text.strip(), re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return None, f"no JSON object ({str(error).splitlines()[0]})"
    if not isinstance(found, dict) or set(found) != set(LEVELS):
        keys = ", ".join(sorted(found)) if isinstance(found, dict) else type(found).__name__
        return None, f"the keys are {keys or 'none'}; asked for are {', '.join(LEVELS)}"
    for key, value in found.items():
        if value is not None and not isinstance(value, str):
            return None, f"{key} is {json.dumps(value)}, neither a text nor null"
    return stated_tag(found["continent"], found["country"], found["artifact"]), ""


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
