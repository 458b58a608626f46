"""The options of `t2ialign data captions`.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2ialign.chat.options import ChatOptions
from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

STRATEGIES = ("captioning", "perturbation", "hybrid")
"""DCPO-c, DCPO-p and DCPO-h of arXiv 2502.06023."""
STRENGTHS = ("weak", "medium", "strong")
ON_UNREADABLE = ("prompt", "drop", "error")
GIVEN = "given"
"""The captioner that takes the captions which the pairs have already."""
ALL = "all"


@dataclass
class DualCaptionOptions:
    """Which pairs get captions, who writes them, and where to put the result."""

    pairs: str = option(REQUIRED, "mini-pairs, a folder of pairs, or a hub dataset id.", positional=True)
    strategy: str = option(
        REQUIRED,
        "captioning: a caption of each picture; perturbation: the prompt, and the prompt changed; hybrid: a caption "
        "of the chosen picture, and a changed caption.",
        choices=STRATEGIES,
    )
    output_dir: Path = option(REQUIRED, "Folder of the pairs to write.")
    split: list[str] = option(
        ["train"], "Splits that get captions, or all; the others come over as they are, without captions."
    )
    revision: str | None = option(None, "Branch, tag or commit of a hub dataset.")
    captioner: str = option(
        "oracle",
        "oracle (mini world), hf:MODEL, openai:MODEL, or given: the chosen_prompt and rejected_prompt that are there.",
    )
    with_prompt: bool | None = option(
        None, "Tell the captioner the prompt of the picture. Default: yes, where it takes instructions."
    )
    instruction: str | None = option(
        None, "What the captioner is told; {prompt} stands for the prompt. Default: a sentence on what to describe."
    )
    perturber: str = option("words", "words (by rule, no weights), dipper:MODEL, hf:MODEL, openai:MODEL.")
    strength: str = option("medium", "How much the perturber changes.", choices=STRENGTHS)
    perturb_instruction: str | None = option(
        None, "What the perturber hf: or openai: is told; {caption} stands for the caption. Default: by strength."
    )
    hybrid_source: str = option(
        "rejected",
        "hybrid: which caption is changed for the rejected side; chosen is the ablation.",
        choices=("rejected", "chosen"),
    )
    seed: int = option(0, "With a caption it decides how it is changed.")
    on_unreadable: str = option(
        "prompt",
        "What becomes of a caption that could not be had: the pair's prompt instead, drop the pair, or an error.",
        choices=ON_UNREADABLE,
    )
    tokenizer: str | None = option(
        None, "Tokenizer that says which captions are cut: a folder or a hub id. Default: estimate without one."
    )
    limit: int | None = option(None, "Only the first so many pairs of each split; the rest is left out.")
    chat: ChatOptions = option(ChatOptions, "How hf: and openai: models answer.")
    overwrite: bool = option(
        False, "Write again what was written with other options. Answers of models are kept and used where they fit."
    )

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if not self.split:
            raise ConfigError("no split is given; name one with --split, or leave it out")
        if ALL in self.split and len(self.split) > 1:
            raise ConfigError(f"split is {', '.join(self.split)}; name splits, or all alone")
        if len(set(self.split)) < len(self.split):
            raise ConfigError(f"split is {', '.join(self.split)}; name each once")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; it must be at least 1")
        if self.hybrid_source != "rejected" and self.strategy != "hybrid":
            raise ConfigError(f"hybrid_source is for the strategy hybrid, not for {self.strategy}; leave it out")

    @property
    def captioned(self) -> tuple[str, ...]:
        """The sides whose pictures are captioned."""
        if self.strategy == "perturbation":
            return ()
        if self.strategy == "hybrid" and self.hybrid_source == "chosen":
            return ("chosen",)
        return ("chosen", "rejected")

    @property
    def perturbs(self) -> bool:
        """Whether a perturber is needed."""
        return self.strategy != "captioning"
