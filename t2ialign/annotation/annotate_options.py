"""The options of `t2ialign annotate`.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.chat.options import ChatOptions
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from t2ialign.annotation.annotators.scorers import Settings


@dataclass
class RatingChatOptions(ChatOptions):
    """How chat models answer; an answer about four pictures is longer than a caption."""

    max_new_tokens: int = option(2048, "The longest answer, in tokens; 4 pictures and 4 aspects take some 800.")


@dataclass
class AnnotateOptions:
    """Which pictures are rated, by whom and how, and where ratings go."""

    image_set: Path = option(REQUIRED, "The image set.", positional=True, metavar="SET")
    annotator: str = option(
        REQUIRED,
        "oracle (mini world), openai:MODEL, hf:MODEL, scorers:[ASPECT=]SCORER,..., or replay:DIR (earlier ones).",
    )
    output_dir: Path = option(REQUIRED, "Folder of the annotations.")
    layout: str | None = option(
        None, "How the set is laid out, as in `t2ialign score`. Default: seen from the folder."
    )
    prompts: Path | None = option(None, "File or folder of the prompts, for layouts that keep them elsewhere.")
    limit: int | None = option(None, "Only the first so many prompts.")
    seed: int = option(0, "With a prompt's id it decides the order in which its pictures are shown.")
    second_pass: bool = option(False, "Show all pictures again, in the reversed order.")
    too_many: str = option(
        "error",
        "What becomes of a prompt with more than 4 pictures: an error, or split into sheets of 2 to 4.",
        choices=("error", "split"),
    )
    scale: str = option(
        "numbers", "Marks as 1 to 5, or as words from very poor to excellent.", choices=("numbers", "words")
    )
    calls: str = option(
        "joint",
        "joint: four aspects in one question; per_aspect: a question an aspect, dearer, less halo.",
        choices=("joint", "per_aspect"),
    )
    repeats: int = option(2, "How often a question is asked again whose answer can not be read; then it is null.")
    longest_side: int | None = option(None, "Shrink pictures to so many pixels before a chat model sees them.")
    price_prompt: float | None = option(None, "What a million tokens read cost, in your currency.")
    price_completion: float | None = option(None, "What a million tokens written cost.")
    budget: float | None = option(None, "Stop, to be continued, when all answers of this folder cost so much.")
    mapping: str = option(
        "quantiles",
        "scorers: how a score becomes 1 to 5: by fifths of the set, by bands of equal width, linear, or as it is.",
        choices=("quantiles", "range", "linear", "as_is"),
    )
    batch_size: int = option(32, "scorers: pictures scored at once.")
    workers: int | None = option(None, "scorers: processes that decode pictures. Default: one a processor, at most 8.")
    allow_gaps: bool = option(False, "Pictures that can not be read: leave their ratings null, and count them.")
    chat: RatingChatOptions = option(RatingChatOptions, "How openai: and hf: models answer.")
    overwrite: bool = option(
        False, "Write again what was made with other options. Answers are kept, and used where they fit."
    )

    def __post_init__(self) -> None:
        """Refuse values out of range, and what does not go together."""
        for name, lowest in (("limit", 1), ("longest_side", 16), ("batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ConfigError(f"{name} is {value}; it must be at least {lowest}")
        if not 0 <= self.repeats <= 9:
            raise ConfigError(f"repeats is {self.repeats}; it must lie between 0 and 9")
        for name in ("price_prompt", "price_completion", "budget"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}; it must be a number, 0 or more")
        if self.budget is not None and (self.price_prompt is None or self.price_completion is None):
            raise ConfigError("a budget needs prices; give --price_prompt and --price_completion, a million tokens")

    def scorer_settings(self) -> Settings:
        """Return what concerns scorers."""
        from t2ialign.annotation.annotators.scorers import Settings

        device = self.chat.device
        return Settings(self.mapping, self.layout, self.prompts, self.batch_size, self.workers, device)
