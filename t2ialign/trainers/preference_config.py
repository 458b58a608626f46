"""Options that every algorithm on pictures has: model, pairs, pictures, captions, caches.

Law of this file: it imports nothing heavy, because the command line reads it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from t2ialign.config import REQUIRED, option
from t2ialign.engine.config import TrainConfig
from t2ialign.errors import ConfigError

ATTENTIONS = ("auto", "sdpa", "xformers")
CROPS = ("center", "random")
FLIPS = ("none", "joint", "independent")
TIME_IDS = ("real", "fixed", "shared")
EMPTY_CAPTIONS = ("zeros", "encoded")


@dataclass(kw_only=True)
class LoraOptions:
    """The low-rank adapter, when --method is lora."""

    rank: int = option(8, "Rank of the update of each layer.")
    alpha: float | None = option(None, "Scale of the update is alpha / rank. Default: the rank, so that it is 1.")
    targets: tuple[str, ...] = option(
        ("to_q", "to_k", "to_v", "to_out.0"), "Layers of the UNet that get an update, by the end of their name."
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}; it must be at least 1")
        if self.alpha is not None and not self.alpha > 0:
            raise ConfigError(f"lora.alpha is {self.alpha}; it must be above 0")
        if not self.targets:
            raise ConfigError("lora.targets is empty; name at least one layer, such as to_q")


@dataclass(kw_only=True)
class PreferenceConfig(TrainConfig):
    """What training on pictures needs to know beside the loop's options."""

    METHODS: ClassVar[tuple[str, ...]] = ("lora", "full")
    COMPATS: ClassVar[tuple[str, ...]] = ("none",)

    model: str = option(
        REQUIRED, "mini-sd, a pipeline folder, a hub id, a single-file checkpoint, or an earlier run's final/."
    )
    revision: str | None = option(None, "Revision of a model on the hub.")
    pairs: str = option(
        REQUIRED, "mini-pairs, mini-user-pairs, a folder of pairs or of labelled pictures, or a hub dataset id."
    )
    pairs_revision: str | None = option(None, "Revision of a pair set on the hub.")
    split: str = option("train", "Split of the pair set to train on.")

    method: str = option("lora", "Train a LoRA, or every weight of the UNet.", choices=METHODS)
    lora: LoraOptions = field(default_factory=LoraOptions)
    attention: str = option("auto", "Attention backend of the UNet.", choices=ATTENTIONS)
    gradient_checkpointing: bool | None = option(
        None, "Recompute activations in the backward pass: less memory, more time. Default: by model family."
    )

    resolution: int | None = option(None, "Side of the training pictures, pixels. Default: the model's own.")
    crop: str | None = option(
        None, "Where a picture longer than wide is cut; both sides alike. Default: center.", choices=CROPS
    )
    flip: str | None = option(
        None, "Random mirroring: none, joint for the pair, or independent. Default: none.", choices=FLIPS
    )
    caption_dropout: float | None = option(
        None,
        "Chance of training on the empty caption, both sides of a pair together. Default: by algorithm and family.",
    )
    time_ids: str | None = option(
        None,
        "SDXL's size and crop ids: each picture's real ones, the fixed ones of the official code, or shared: the "
        "chosen picture's for both. Default: real.",
        choices=TIME_IDS,
    )
    empty_caption: str | None = option(
        None,
        "The empty caption of SDXL: zeros, which its pipeline takes for guidance, or encoded like any text. "
        "Default: zeros where the model's configuration says so.",
        choices=EMPTY_CAPTIONS,
    )
    cache_latents: bool | None = option(
        None, "Encode every picture once, before training. Default: where they fit and are not randomly cut."
    )
    cache_text: bool | None = option(None, "Encode every caption once, before training. Default: where they fit.")

    sample_prompts: tuple[str, ...] = option(
        (),
        "A prompt of the sample pictures (repeat it), or one prompt file. Default: the first captions of the pairs.",
        separator=None,
    )
    push_to_hub: str | None = option(None, "Repository id to push final/ to; the token comes from the environment.")
    estimate: bool = option(False, "Measure parameters, memory and time on a dry step, and write nothing.")

    @property
    def official(self) -> str:
        """The published script that is imitated, or "none"."""
        return str(getattr(self, "compat", "none"))

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.resolution is not None and (self.resolution < 8 or self.resolution % 8):
            raise ConfigError(f"resolution is {self.resolution}; it must be a positive multiple of 8")
        if self.caption_dropout is not None and not 0 <= self.caption_dropout <= 1:
            raise ConfigError(f"caption_dropout is {self.caption_dropout}; it must be between 0 and 1")
        for name, choices in (
            ("method", self.METHODS),
            ("attention", ATTENTIONS),
            ("crop", CROPS),
            ("flip", FLIPS),
            ("time_ids", TIME_IDS),
            ("empty_caption", EMPTY_CAPTIONS),
        ):
            self._check_choice(name, choices)
