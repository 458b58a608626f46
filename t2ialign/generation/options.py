"""The options of `t2ialign generate`.

Law of this file: no heavy library is imported here, for the command line reads it to print its help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError

SCHEDULERS = ("auto", "pipeline", "ddim", "ddpm", "euler", "euler_ancestral", "dpmpp_2m", "unipc")
"""`auto` is `ddim` for mini-sd and `pipeline`, the model's own scheduler, for everything else."""
GUIDANCE_CHOICES = ("each", "drawn")
"""What several guidance scales mean."""


@dataclass
class GenerateOptions:
    """What to generate, with which models, for whom, and where to put it.

    With one model (and at most one adapter, user and guidance scale) `output_dir` is the image set; with several,
    each gets the folder `output_dir/<label>`, unless all go into `one_set`. Several adapters go with one model, or one
    adapter with each model in the order given, where `none` leaves a model as it is. Several users go with one model
    and adapter, or one user with each of them; one user alone is that of all.
    """

    model: list[str] = option(
        REQUIRED, "mini-sd, a folder, a hub id, a checkpoint file, or a run's final/; repeat it for several models."
    )
    prompts: str = option(REQUIRED, "Prompt file: txt (a line a prompt), jsonl, json, csv or tsv.")
    output_dir: Path = option(REQUIRED, "Folder of the image set; of several sets where there are several models.")
    adapter: list[str] = option(
        [], "LoRA or user adapter of a run, RUN/final; repeat it for several, `none` for no adapter."
    )
    user: list[str] = option(
        [],
        "User's file, or several with weights, a.safetensors:0.3,b.safetensors:0.7; repeat it, `none` for nobody.",
        separator=None,
    )
    label: list[str] = option([], "Name of each model in the image set, in the order of the models.")
    images_per_prompt: int = option(1, "Pictures of each prompt, numbered from 0; each has its own seed.")
    num_inference_steps: int | None = option(None, "Denoising steps; default 25 for mini-sd, 50 otherwise.")
    guidance_scale: float | list[float] | None = option(
        None, "Classifier-free guidance, or several scales, 3,5,7.5; default 4 for mini-sd, 5 for SDXL, 7.5 otherwise."
    )
    guidance_choice: str = option(
        "each",
        "Several scales: each of them for each model, or one of them drawn for each picture.",
        choices=GUIDANCE_CHOICES,
    )
    one_set: bool = option(False, "Bring the pictures of all models, users and scales into one image set.")
    user_guidance_scale: float | None = option(
        None, "How strongly the user counts; default as strongly as the text, 0 is the base model."
    )
    negative_prompt: str = option("", "What the pictures should not show.")
    scheduler: str = option("auto", "How to denoise; auto is ddim for mini-sd, else the model's.", choices=SCHEDULERS)
    height: int | None = option(None, "Height in pixels, a multiple of 8; default the model's own.")
    width: int | None = option(None, "Width in pixels, a multiple of 8; default the model's own.")
    batch_size: int = option(8, "Pictures made at once; it changes speed and memory, not pictures.")
    seed: int = option(0, "Seed of the run; with prompt id and sample number it makes the seed of a picture.")
    limit: int | None = option(None, "Only the first so many prompts.")
    dtype: str = option(
        "auto",
        "Number format; auto is float32, in which pictures agree whatever the batch.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")
    attention: str = option("auto", "Attention backend.", choices=("auto", "sdpa", "xformers"))
    channels_last: bool = option(
        False, "Channels-last layout of the convolutions: faster in half precision on recent GPUs."
    )
    compile: bool = option(
        False, "Compile UNet and VAE (torch.compile): a minute or more at first, then faster batches of equal size."
    )
    revision: str | None = option(None, "Branch, tag or commit of the models on the hub.")

    def __post_init__(self) -> None:
        """Check ranges and whether models, adapters and labels go together."""
        for name in ("images_per_prompt", "num_inference_steps", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        self._check_scales()
        for name in ("height", "width"):
            value = getattr(self, name)
            if value is not None and (value < 8 or value % 8):
                raise ConfigError(f"{name} is {value}; it must be a positive multiple of 8")
        self._check_variants()
        self._check_users()

    @property
    def guidance_scales(self) -> tuple[float | None, ...]:
        """The scales asked for, as they were given; `None` for the model's default."""
        given = self.guidance_scale
        return tuple(given) if isinstance(given, list | tuple) else (given,)

    def _check_scales(self) -> None:
        scales = self.guidance_scales
        if not scales:
            raise ConfigError("guidance_scale is an empty list; give a scale, or leave it out")
        for scale in scales:
            if scale is not None and not 0 <= scale < math.inf:
                raise ConfigError(f"guidance_scale is {scale}; it must be 0 or more (1 or less: no guidance)")
        if len(set(scales)) < len(scales):
            raise ConfigError(f"guidance_scale is {', '.join(map(str, scales))}; give each scale once")
        if self.guidance_choice == "drawn" and len(scales) < 2:
            raise ConfigError("guidance_choice is drawn, but there is nothing to draw from; give several scales")

    def _check_variants(self) -> None:
        if not self.model:
            raise ConfigError("no model is given; name one with --model")
        if len(self.model) > 1 and self.adapter and len(self.adapter) != len(self.model):
            raise ConfigError(
                f"{len(self.adapter)} adapters for {len(self.model)} models; give one model, or one adapter "
                "for each model ('none' where a model takes none)"
            )
        count = max(len(self.model), len(self.adapter))
        if count > 1 and len(self.user) > 1 and len(self.user) != count:
            raise ConfigError(
                f"{len(self.user)} users for {count} models; give one user, or one for each model "
                "('none' where a model draws for nobody)"
            )
        count = max(count, len(self.user))
        if self.label and len(self.label) != count:
            raise ConfigError(f"{len(self.label)} labels for {count} models; give one for each, or none at all")
        repeated = {label for label in self.label if self.label.count(label) > 1}
        if repeated:
            raise ConfigError(f"the label {sorted(repeated)[0]!r} is given twice; labels must differ")
        for label in self.label:
            if not label or label in (".", "..") or set(label) & set('/\\:*?"<>|'):
                raise ConfigError(f"the label {label!r} cannot be a folder's name; use letters, digits, '-', '_', '.'")

    def _check_users(self) -> None:
        scale = self.user_guidance_scale
        if scale is None:
            return
        if not 0 <= scale < math.inf:
            raise ConfigError(f"user_guidance_scale is {scale}; it must be 0 or more (0: the base model)")
        if all(user.lower() == "none" for user in self.user):
            raise ConfigError(f"user_guidance_scale is {scale}, but no user is given; name one with --user")
