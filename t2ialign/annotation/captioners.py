"""Captioners: who writes down what a picture shows.

Law of this file: a captioner sees one picture at a time (with the prompt it was made for, where that is asked for),
and says nothing rather than guess; what becomes of that is not its business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from t2ialign.chat.base import Answer, ChatModel, Question
from t2ialign.chat.options import ChatOptions, is_chat_spec, load_chat
from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

PROMPT_MARK = "{prompt}"

INSTRUCTION = (
    "Describe this image in one sentence of at most 40 words, as a caption: the objects, their colours, number and "
    "places, the background, and the style. Answer with the caption alone."
)
INSTRUCTION_WITH_PROMPT = (
    'This image was generated from the prompt "{prompt}", which it may follow only in part. Write a caption of what '
    "the image really shows, in the style of that prompt, in one sentence of at most 40 words: the objects, their "
    "colours, number and places, the background, and the style. Answer with the caption alone."
)


class Captioner(Protocol):
    """Writes captions of pictures.

    Attributes:
        name: What it is called in files and messages.
        uses_prompt: Whether the prompt enters (DCPO's "in-distribution" captions) or not ("out of distribution").
    """

    name: str
    uses_prompt: bool

    def captions(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Caption the one picture of each question; its text is the prompt that the picture was made for.

        Yields:
            An answer a question, in any order; without a text where the picture can not be read.

        Raises:
            ModelError: If the model can not be asked at all.
        """
        ...

    def close(self) -> None:
        """Give memory back; it may be asked again."""
        ...

    def identity(self) -> dict[str, Any]:
        """Say what captions depend on, as JSON values: equal identities mean that captions may be mixed."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what is recorded, as JSON values."""
        ...


class OracleCaptioner:
    """The oracle of the mini-world: exact, and silent about pictures from elsewhere."""

    name = "oracle"
    uses_prompt = False

    def captions(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """See `Captioner`."""
        from t2ialign.mini import oracle
        from t2ialign.mini.world import describe

        for question in questions:
            reading = oracle.read(_picture(question))
            text = describe(reading.spec) if reading.spec is not None else None
            yield Answer(question.key, text, reading.reason)

    def close(self) -> None:
        """See `Captioner`."""

    def identity(self) -> dict[str, Any]:
        """See `Captioner`."""
        return {"captioner": self.name}

    def info(self) -> dict[str, Any]:
        """See `Captioner`."""
        return self.identity()


class ChatCaptioner:
    """A vision-language model with an instruction, or a plain captioner."""

    def __init__(self, chat: ChatModel, *, with_prompt: bool | None = None, instruction: str | None = None) -> None:
        """Take a loaded model.

        Args:
            chat: See `ChatModel`.
            with_prompt: Whether the instruction tells the prompt. By default it does, as captions that know the prompt
                did better in the DCPO paper, unless the model takes no instructions.
            instruction: Words of one's own; `{prompt}` in them stands for the prompt.

        Raises:
            ConfigError: If these contradict each other, or the model takes no instructions.
        """
        self.name = chat.name
        self.chat = chat
        self.instruction = _instruction(chat, with_prompt, instruction)
        self.uses_prompt = PROMPT_MARK in self.instruction

    def captions(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """See `Captioner`."""
        asked = (
            replace(question, text=self.instruction.replace(PROMPT_MARK, question.text)) for question in questions
        )
        return (cleaned(answer) for answer in self.chat.ask_all(asked))

    def close(self) -> None:
        """See `Captioner`."""
        self.chat.close()

    def identity(self) -> dict[str, Any]:
        """See `Captioner`."""
        return {"captioner": self.chat.identity(), "instruction": self.instruction}

    def info(self) -> dict[str, Any]:
        """See `Captioner`."""
        return {"captioner": self.chat.info(), "instruction": self.instruction}


def load_captioner(
    spec: str,
    *,
    with_prompt: bool | None = None,
    instruction: str | None = None,
    options: ChatOptions | None = None,
) -> Captioner:
    """Load a captioner.

    Args:
        spec: `oracle`, `hf:MODEL` or `openai:MODEL` (see `t2ialign.chat.options.load_chat`).
        with_prompt: See `ChatCaptioner`.
        instruction: See `ChatCaptioner`.
        options: How a chat model answers.

    Raises:
        ConfigError: If the name is unknown, or the options do not fit.
        ModelError: If the model can not be loaded.
    """
    if spec == "oracle":
        if with_prompt or instruction is not None:
            raise ConfigError("the oracle takes no instruction and no prompt; leave with_prompt and instruction out")
        return OracleCaptioner()
    if not is_chat_spec(spec):
        raise ConfigError(f"unknown captioner {spec!r}; known are oracle, hf:MODEL and openai:MODEL")
    return ChatCaptioner(load_chat(spec, options), with_prompt=with_prompt, instruction=instruction)


def _instruction(chat: ChatModel, with_prompt: bool | None, given: str | None) -> str:
    if not chat.takes_instructions:
        if with_prompt or given is not None:
            raise ConfigError(
                f"{chat.name} is a plain captioner: it takes no instruction and no prompt; leave them out"
            )
        return ""
    if given is None:
        return INSTRUCTION if with_prompt is False else INSTRUCTION_WITH_PROMPT
    if not given.strip():
        raise ConfigError("the instruction is empty; say what to describe, or leave it out")
    if with_prompt is not None and with_prompt != (PROMPT_MARK in given):
        has = "holds no" if with_prompt else "holds"
        raise ConfigError(f"with_prompt is {str(with_prompt).lower()}, but the instruction {has} {PROMPT_MARK}")
    return given


def _picture(question: Question) -> Image.Image:
    (image,) = question.images
    return image


_THOUGHT = re.compile(r"^.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"^(?:caption|answer|paraphrase)\s*:\s*", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


def cleaned(answer: Answer) -> Answer:
    """Take off what a model puts around a caption: what it thought aloud, a label, quotation marks, line breaks."""
    if answer.text is None:
        return answer
    text = " ".join(_THOUGHT.sub("", answer.text).split())
    text = _LABEL.sub("", text.strip("*")).strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    text = text.encode("utf-8", "ignore").decode("utf-8")  # no half characters of a broken stream
    return Answer(answer.key, text) if text else Answer(answer.key, None, "an empty answer")
