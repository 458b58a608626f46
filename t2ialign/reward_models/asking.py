"""What scorers share that ask a chat model: how it is named and set, and what happens where it gives no answer.

Law of this file: a missing answer is no number. It is NaN in a tensor, no row in a score file, and counted; it is
never filled in.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from t2ialign.chat.options import ChatOptions, is_chat_spec, load_chat
from t2ialign.errors import ModelError
from t2ialign.reward_models.base import pick_device

if TYPE_CHECKING:
    import torch

    from t2ialign.chat.base import ChatModel

logger = logging.getLogger(__name__)


class AskingScorer:
    """Base of scorers that ask a chat model. A scorer sets `name`, `version` and `settings`.

    Attributes:
        chat: The model.
        device: Where it runs; the CPU for an endpoint.
        batch_size: Pictures asked about at a time; it changes speed and memory, not scores.
        may_abstain: A score may be NaN: there is none.
        unanswered: Reasons why there was no score, counted so far.
        settings: What is asked and what an answer means, for `info`.
    """

    name: str
    version: str
    higher_is_better = True
    may_abstain = True
    settings: dict[str, Any]

    def __init__(self, chat: ChatModel, batch_size: int, device: torch.device) -> None:
        """Take a loaded model.

        Raises:
            ModelError: If it reads no instructions.
        """
        if not chat.takes_instructions:
            raise ModelError(
                f"{chat.name} is a plain captioner and reads no words; choose a model with a chat template, such as "
                "LLaVA or Qwen-VL"
            )
        self.chat, self.batch_size, self.device = chat, batch_size, device
        self.unanswered: Counter[str] = Counter()

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Return 0: nothing is cut."""
        return 0

    def aggregate(self, scores: Sequence[float]) -> float:
        """Return the mean of the scores that there are; NaN where there is none."""
        there = [score for score in scores if score == score]
        return sum(there) / len(there) if there else float("nan")

    def info(self) -> dict[str, Any]:
        """Say what is asked of which model, and what a score is."""
        identity = self.chat.identity()
        packages = ("transformers", "torch", "pillow") if identity["backend"] == "hf" else ("openai", "pillow")
        return {
            "scorer": self.name,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            **self.settings,
            "model": identity,
            "preprocessing": {"rgb": "Pillow's convert", "then": "the model's own image processor"},
            "versions": {package: version(package) for package in packages},
        }

    def digest(self) -> str:
        """Return eight hexadecimal digits that differ where another question or another model is meant."""
        told = json.dumps([self.settings, self.chat.identity()], sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    def note(self, reasons: Sequence[str], asked: int) -> None:
        """Count missing answers, and tell of them."""
        if reasons:
            self.unanswered.update(reasons)
            logger.warning("%s: no score for %d of %d pictures (%s)", self.name, len(reasons), asked, reasons[0])


def load_asked(name: str, checkpoint: str, options: ChatOptions) -> tuple[ChatModel, torch.device]:
    """Load the chat model of a scorer.

    Args:
        name: Of the scorer, for messages.
        checkpoint: `hf:MODEL`, `openai:MODEL`, or a folder or hub id of transformers alone.
        options: How it answers.

    Returns:
        The model, and where it runs.

    Raises:
        ConfigError: If a setting does not fit.
        ModelError: If no model is named, or it cannot be loaded.
    """
    import torch

    if not checkpoint:
        raise ModelError(
            f"{name} needs a vision-language model: {name}@hf:MODEL (a folder or a hub id, such as "
            f"hf:Qwen/Qwen2.5-VL-7B-Instruct), or {name}@openai:MODEL?base_url=..."
        )
    chat = load_chat(checkpoint if is_chat_spec(checkpoint) else f"hf:{checkpoint}", options)
    return chat, pick_device(options.device) if chat.identity()["backend"] == "hf" else torch.device("cpu")
