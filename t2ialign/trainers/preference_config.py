"""Options that every algorithm on pictures has: pairs, pictures, captions, caches.

Law of this file: it imports nothing heavy, because the command line reads it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError
from t2ialign.trainers.model_config import ModelConfig

CROPS = ("center", "random")
FLIPS = ("none", "joint", "independent")
TIME_IDS = ("real", "fixed", "shared")
EMPTY_CAPTIONS = ("zeros", "encoded")


@dataclass(kw_only=True)
class PreferenceConfig(ModelConfig):
    """What training on pictures needs to know beside the model's options."""

    COMPATS: ClassVar[tuple[str, ...]] = ("none",)

    pairs: str = option(
        REQUIRED, "mini-pairs, mini-user-pairs, a folder of pairs or of labelled pictures, or a hub dataset id."
    )
    pairs_revision: str | None = option(None, "Revision of a pair set on the hub.")
    split: str = option("train", "Split of the pair set to train on.")

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

    @property
    def data_name(self) -> str | None:
        """Name of the preference pairs or pictures."""
        return self.pairs

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.caption_dropout is not None and not 0 <= self.caption_dropout <= 1:
            raise ConfigError(f"caption_dropout is {self.caption_dropout}; it must be between 0 and 1")
        for name, choices in (
            ("crop", CROPS),
            ("flip", FLIPS),
            ("time_ids", TIME_IDS),
            ("empty_caption", EMPTY_CAPTIONS),
        ):
            self._check_choice(name, choices)
