"""Perturbers: who changes a caption, so that it fits a picture less.

Law of this file: the result is a function of (seed, caption, strength) and of the perturber; strengths are weak,
medium and strong, as in the DCPO paper (arXiv 2502.06023).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol

from t2ialign.annotation.captioners import cleaned
from t2ialign.annotation.word_perturber import SHARES, perturb_words
from t2ialign.chat.base import Answer, ChatModel, Question
from t2ialign.chat.options import ChatOptions, is_chat_spec, load_chat
from t2ialign.errors import ConfigError

STRENGTHS = tuple(SHARES)
CAPTION_MARK = "{caption}"
INSTRUCTION = (
    "Paraphrase and perturb this image caption: change about {share} of its words, so that it reads well and is of "
    "the same length, but describes a {far} picture. Answer with the new caption alone.\n\nCaption: {caption}"
)
_WORDS = {
    "weak": ("a quarter", "slightly different"),
    "medium": ("half", "clearly different"),
    "strong": ("three quarters", "very different"),
}


class Perturber(Protocol):
    """Changes captions.

    Attributes:
        name: What it is called in files and messages.
    """

    name: str

    def perturb(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Change the text of each question; its seed is that of the draw.

        Yields:
            An answer a question, in any order; without a text where the model gave none.

        Raises:
            ModelError: If the model can not be asked at all.
        """
        ...

    def close(self) -> None:
        """Give memory back; it may be asked again."""
        ...

    def identity(self) -> dict[str, Any]:
        """Say what the results depend on besides seed and caption, as JSON values."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what is recorded, as JSON values."""
        ...


class WordPerturber:
    """The word-level perturber (`word_perturber`): no weights, always another text."""

    name = "words"

    def __init__(self, strength: str, seed: int) -> None:
        """Set the strength, one of `STRENGTHS`, and the seed."""
        self.strength = strength
        self.seed = seed

    def perturb(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """See `Perturber`."""
        for question in questions:
            yield Answer(question.key, perturb_words(question.text, self.strength, self.seed))

    def close(self) -> None:
        """See `Perturber`."""

    def identity(self) -> dict[str, Any]:
        """See `Perturber`."""
        return {"perturber": self.name, "strength": self.strength, "share": SHARES[self.strength]}

    def info(self) -> dict[str, Any]:
        """See `Perturber`."""
        return self.identity()


class ChatPerturber:
    """Any model that follows an instruction: chat or text-to-text."""

    def __init__(self, chat: ChatModel, strength: str, instruction: str | None = None) -> None:
        """Take a loaded model.

        Args:
            chat: See `ChatModel`.
            strength: One of `STRENGTHS`.
            instruction: Words of one's own, with `{caption}` where the caption belongs. By default the strength is
                said in words.

        Raises:
            ConfigError: If the instruction has no place for the caption, or the model takes no instructions.
        """
        if not chat.takes_instructions:
            raise ConfigError(f"{chat.name} is a plain captioner and changes no captions; choose a language model")
        if instruction is not None and CAPTION_MARK not in instruction:
            raise ConfigError(f"the instruction {instruction!r} has no place for the caption; write {CAPTION_MARK}")
        self.name = chat.name
        self.chat = chat
        self.strength = strength
        share, far = _WORDS[strength]
        self.instruction = instruction or INSTRUCTION.replace("{share}", share).replace("{far}", far)

    def perturb(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """See `Perturber`."""
        asked = (
            replace(question, text=self.instruction.replace(CAPTION_MARK, question.text)) for question in questions
        )
        return (cleaned(answer) for answer in self.chat.ask_all(asked))

    def close(self) -> None:
        """See `Perturber`."""
        self.chat.close()

    def identity(self) -> dict[str, Any]:
        """See `Perturber`."""
        return {"perturber": self.chat.identity(), "strength": self.strength, "instruction": self.instruction}

    def info(self) -> dict[str, Any]:
        """See `Perturber`."""
        return self.identity() | {"perturber": self.chat.info()}


def load_perturber(
    spec: str,
    strength: str = "medium",
    seed: int = 0,
    *,
    instruction: str | None = None,
    options: ChatOptions | None = None,
) -> Perturber:
    """Load a perturber.

    Args:
        spec: `words`; `dipper:MODEL` (a DIPPER, `kalpeshk2011/dipper-paraphraser-xxl` where none is named);
            `hf:MODEL` or `openai:MODEL` (see `t2ialign.chat.options.load_chat`).
        strength: One of `STRENGTHS`.
        seed: Of the word-level perturber; of models the seed of each question counts.
        instruction: For `hf:` and `openai:`; see `ChatPerturber`.
        options: How a chat model answers.

    Raises:
        ConfigError: If the name or the strength is unknown, or the options do not fit.
        ModelError: If the model can not be loaded.
    """
    if strength not in STRENGTHS:
        raise ConfigError(f"strength is {strength!r}; it must be one of {', '.join(STRENGTHS)}")
    if is_chat_spec(spec):
        return ChatPerturber(load_chat(spec, options), strength, instruction)
    if instruction is not None:
        raise ConfigError(f"the perturber {spec!r} takes no instruction; hf:MODEL and openai:MODEL do")
    if spec == "words":
        return WordPerturber(strength, seed)
    if spec.partition(":")[0].partition("?")[0] == "dipper":
        from t2ialign.annotation.dipper import load_dipper

        return load_dipper(spec, strength, options)
    near = difflib.get_close_matches(spec, ("words", "dipper"), 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"unknown perturber {spec!r}; known are words, dipper:MODEL, hf:MODEL, openai:MODEL{hint}")
