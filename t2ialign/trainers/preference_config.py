"""Options that every algorithm on pictures has: pairs, pictures, captions, caches.

Law of this file: it imports nothing heavy, because the command line reads it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError
from t2ialign.trainers.model_config import ModelConfig

CROPS = ("center", "random")
FLIPS = ("none", "joint", "independent")
TIME_IDS = ("real", "fixed", "shared")
EMPTY_CAPTIONS = ("zeros", "encoded")
POSTERIORS = ("sample", "mean")
CACHE_TYPES = ("auto", "float32", "bf16", "fp16")


@dataclass(kw_only=True)
class PreferenceConfig(ModelConfig):
    """What training on pictures needs to know beside the model's options."""

    COMPATS: ClassVar[tuple[str, ...]] = ("none",)

    pairs: str = option(
        REQUIRED, "mini-pairs, mini-user-pairs, a folder of pairs or of labelled pictures, or a hub dataset id."
    )
    pairs_revision: str | None = option(None, "Revision of a pair set on the hub.")
    split: str = option("train", "Split of the pair set to train on.")
    streaming: bool = option(
        False, "Read the pictures of parquet files, or of a hub dataset, while they are needed: no download, no copy."
    )
    streaming_buffer: int = option(512, "MiB of pictures that each process and worker keeps of a streamed set.")

    crop: str | None = option(
        None, "Where a picture longer than wide is cut; both sides alike. Default: center.", choices=CROPS
    )
    crop_positions: int = option(
        0, "A random cut is one of this many places, so that it can be encoded once; 0 for any place."
    )
    aspect_buckets: bool = option(
        False, "Sizes of about resolution x resolution pixels that suit each pair's shape, in place of squares."
    )
    bucket_step: int | None = option(None, "Sides of these sizes are multiples of it, pixels. Default: by family.")
    bucket_ratio: float = option(4.0, "Their longer side over the shorter is at most this.")
    bucket_group: int | None = option(
        None, "Examples in a row that are of one size, a multiple of the batch size. Default: the batch size."
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
    posterior: str = option(
        "sample", "Train on a sample of what the VAE sees in a picture, or on its mean.", choices=POSTERIORS
    )
    cache_dir: Path | None = option(
        None, "Folder of encoded pictures and captions that runs share; what is missing is filled in."
    )
    cache_latents: bool | None = option(
        None,
        "Encode every picture once, before training. Default: with cache_dir, or where it pays and they fit into "
        "memory; never where they are cut anywhere.",
    )
    cache_text: bool | None = option(
        None,
        "Encode every caption once, before training. Default: with cache_dir, or where it pays and they fit into "
        "memory.",
    )
    cache_dtype: str = option(
        "auto",
        "Number format in which they are kept. auto is the one they are computed in, which trains like no cache.",
        choices=CACHE_TYPES,
    )
    cache_batch_size: int | None = option(
        None, "Pictures that are encoded at once for a cache. Default: 2 megapixels, 32 pictures at most."
    )
    keep_encoders: bool = option(
        False, "Leave VAE and text encoders on the accelerator, though all that they encode is cached."
    )

    @property
    def data_name(self) -> str | None:
        """Name of the preference pairs or pictures."""
        return self.pairs

    @property
    def opening(self) -> dict[str, Any]:
        """How the set is opened: arguments of `load_pairs` and `load_unpaired`."""
        return {
            "split": self.split,
            "revision": self.pairs_revision,
            "streaming": self.streaming,
            "buffer_mib": self.streaming_buffer,
        }

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        self._check("streaming_buffer", lower=1)
        self._check("cache_batch_size", lower=1)
        self._check("crop_positions", lower=0)
        self._check("bucket_ratio", lower=1)
        for name in ("bucket_step", "bucket_group"):
            self._check(name, lower=1)
        if self.bucket_step is not None and self.bucket_step % 8:
            raise ConfigError(f"bucket_step is {self.bucket_step}; it must be a multiple of 8")
        if self.caption_dropout is not None and not 0 <= self.caption_dropout <= 1:
            raise ConfigError(f"caption_dropout is {self.caption_dropout}; it must be between 0 and 1")
        for name, choices in (
            ("crop", CROPS),
            ("flip", FLIPS),
            ("time_ids", TIME_IDS),
            ("empty_caption", EMPTY_CAPTIONS),
            ("posterior", POSTERIORS),
            ("cache_dtype", CACHE_TYPES),
        ):
            self._check_choice(name, choices)
