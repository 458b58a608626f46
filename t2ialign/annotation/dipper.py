"""DIPPER (arXiv 2303.13408), the paraphrase model of the DCPO paper, as a perturber.

Law of this file: what the model is given is, character for character, what the published script of DCPO gives it:
`lexical = L, order = O PREFIX <sent> SENTENCES </sent>`, three sentences at a time, where L is 100 less the lexical
diversity (40, 60, 80 for weak, medium, strong), O is 100 less the order diversity of 0, and the prefix grows by what
was written so far. Words are drawn with top_p 0.75, up to 256 tokens. Two things are ours: a splitter finds where
sentences end without a download, and the draws are seeded by caption and window.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from t2ialign.annotation import draws
from t2ialign.chat.base import Answer, ChatModel, NoAnswerError, Question
from t2ialign.chat.options import ChatOptions, with_settings
from t2ialign.errors import ConfigError

MODEL = "kalpeshk2011/dipper-paraphraser-xxl"
TOKENIZER = "google/t5-v1_1-xxl"
"""Where its tokenizer is; the model's own repository has none."""
LEX_DIVERSITY = {"weak": 40, "medium": 60, "strong": 80}
ORDER_DIVERSITY = 0
PREFIX = "Paraphrase and perturb the following image caption."
WINDOW = 3
"""Sentences that are changed at once."""
TOP_P = 0.75
MAX_NEW_TOKENS = 255
"""The script's `max_length` of 256 counts the token that begins the answer."""

_ENDS = re.compile(r"""[.!?…]+["'”’)\]]*(?=\s+["'“‘(\[]?[^\W_a-z])""")
_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "no", "fig", "mt", "ft", "e.g", "i.e", "ca")


def sentences(text: str) -> list[str]:
    """Split a text into sentences.

    A sentence ends with a stop, an exclamation or a question mark, before a blank and anything but a small letter;
    not after an abbreviation (`Dr.`, `St.`) or an initial (`J.`).
    """
    text = " ".join(text.split())
    found, start = [], 0
    for end in _ENDS.finditer(text):
        word = text[start : end.start()].rpartition(" ")[2].lstrip("\"'“‘([").lower()
        initial = len(word) == 1 and word.isalpha() and word not in ("a", "i")
        if end.group().startswith(".") and (word in _ABBREVIATIONS or initial):
            continue
        found.append(text[start : end.end()].strip())
        start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def control(window: str, prefix: str, strength: str) -> str:
    """Write what the model is given for some sentences."""
    codes = f"lexical = {100 - LEX_DIVERSITY[strength]}, order = {100 - ORDER_DIVERSITY}"
    return f"{codes} {prefix} <sent> {window} </sent>"


class DipperPerturber:
    """Captions paraphrased by DIPPER."""

    def __init__(self, chat: ChatModel, strength: str) -> None:
        """Take the loaded model and a strength out of `LEX_DIVERSITY`."""
        self.name = chat.name
        self.chat = chat
        self.strength = strength

    def perturb(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """See `Perturber`."""
        for question in questions:
            text = self._paraphrase(question)
            yield Answer(question.key, text) if text else Answer(question.key, None, "an empty answer")

    def _paraphrase(self, question: Question) -> str:
        split = sentences(question.text)
        prefix, written = PREFIX, ""
        for start in range(0, len(split), WINDOW):
            asked = control(" ".join(split[start : start + WINDOW]), prefix, self.strength)
            try:
                part = self.chat.ask(asked, seed=draws.number(question.seed, question.text, str(start)))
            except NoAnswerError:
                part = ""
            prefix += " " + part
            written += " " + part
        return " ".join(written.split())

    def close(self) -> None:
        """See `Perturber`."""
        self.chat.close()

    def identity(self) -> dict[str, Any]:
        """See `Perturber`."""
        return {
            "perturber": self.chat.identity(),
            "strength": self.strength,
            "lex_diversity": LEX_DIVERSITY[self.strength],
            "order_diversity": ORDER_DIVERSITY,
            "instruction": PREFIX,
        }

    def info(self) -> dict[str, Any]:
        """See `Perturber`."""
        return self.identity() | {"perturber": self.chat.info()}


def load_dipper(spec: str, strength: str, options: ChatOptions | None = None) -> DipperPerturber:
    """Load DIPPER.

    Args:
        spec: `dipper`, or `dipper:MODEL` with a folder or hub id; settings of `ChatOptions` after a question mark,
            for instance `dipper:MODEL?revision=refs/pr/1`. Temperature, top_p and length are DIPPER's own unless they
            are set there.
        strength: A key of `LEX_DIVERSITY`.
        options: What holds for revision, device and number format where the spec says nothing.

    Raises:
        ConfigError: If a setting is unknown.
        ModelError: If the model can not be loaded; only safetensors are read.
    """
    from t2ialign.chat.hf import load_hf

    head, _, query = spec.strip().partition("?")
    model = head.partition(":")[2] or MODEL
    base = replace(options or ChatOptions(), temperature=1.0, top_p=TOP_P, max_new_tokens=MAX_NEW_TOKENS)
    settings = with_settings(base, query, spec)
    if not settings.temperature:
        raise ConfigError(f"{spec!r}: DIPPER draws its words; its temperature can not be 0")
    if settings.tokenizer is None and not _has_tokenizer(model):
        settings = replace(settings, tokenizer=TOKENIZER)
    return DipperPerturber(load_hf(model, settings), strength)


def _has_tokenizer(model: str) -> bool:
    folder = Path(model).expanduser()
    return any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model", "tokenizer_config.json"))
