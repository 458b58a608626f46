"""Options that every algorithm on a diffusion model has: which model, and what of it is trained.

Law of this file: it imports nothing heavy, because the command line reads it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from t2ialign.config import REQUIRED, option
from t2ialign.engine.config import TrainConfig
from t2ialign.errors import ConfigError

ATTENTIONS = ("auto", "sdpa", "xformers")
VAE_TYPES = ("auto", "float32")


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
class ModelConfig(TrainConfig):
    """What training a diffusion model needs to know beside the loop's options."""

    METHODS: ClassVar[tuple[str, ...]] = ("lora", "full")

    model: str = option(
        REQUIRED, "mini-sd, a pipeline folder, a hub id, a single-file checkpoint, or an earlier run's final/."
    )
    revision: str | None = option(None, "Revision of a model on the hub.")
    method: str = option("lora", "Train a LoRA, or every weight of the UNet.", choices=METHODS)
    lora: LoraOptions = field(default_factory=LoraOptions)
    attention: str = option("auto", "Attention backend of the UNet.", choices=ATTENTIONS)
    gradient_checkpointing: bool | None = option(
        None, "Recompute activations in the backward pass: less memory, more time. Default: by model family."
    )
    vae_dtype: str = option(
        "auto",
        "Number format of the VAE. auto is that of frozen weights, but float32 where its configuration asks for it.",
        choices=VAE_TYPES,
    )
    vae_slicing: bool = option(False, "The VAE takes a batch one picture at a time: less memory, a little more time.")
    channels_last: bool = option(
        False, "Channels-last layout of the UNet's convolutions: faster in half precision on recent GPUs."
    )
    compile: bool = option(False, "Compile the UNet (torch.compile): minutes before the first step, then faster ones.")
    resolution: int | None = option(None, "Side of the training pictures, pixels. Default: the model's own.")
    sample_prompts: tuple[str, ...] = option(
        (),
        "A prompt of the sample pictures (repeat it), or one prompt file. Default: the first prompts of the run.",
        separator=None,
    )
    push_to_hub: str | None = option(None, "Repository id to push final/ to; the token comes from the environment.")
    estimate: bool = option(
        False, "Measure parameters, memory and time on a dry step, show them, and write nothing into output_dir."
    )
    estimate_file: Path | None = option(None, "With --estimate: also write it to this JSON file.")

    @property
    def official(self) -> str:
        """The published script that is imitated, or "none"."""
        return str(getattr(self, "compat", "none"))

    @property
    def data_name(self) -> str | None:
        """Name of the preference pairs or pictures, for the card; None where there are none."""
        return None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.resolution is not None and (self.resolution < 8 or self.resolution % 8):
            raise ConfigError(f"resolution is {self.resolution}; it must be a positive multiple of 8")
        self._check_choice("method", self.METHODS)
        self._check_choice("attention", ATTENTIONS)
        self._check_choice("vae_dtype", VAE_TYPES)
