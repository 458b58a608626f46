"""Families: which kind of Stable Diffusion a pipeline is, read from its class and its UNet's configuration.

Law: the one place that tells families apart; a pipeline that t2ialign cannot train is refused here, by name.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from t2ialign.errors import ModelError

Family = Literal["mini-sd", "sd15", "sd2", "sdxl", "sd"]

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
"""Pipeline classes that can be loaded; the names stand in `model_index.json`."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")

_WIDTHS: dict[int, Family] = {768: "sd15", 1024: "sd2"}


def check_pipeline_class(name: str, class_name: str) -> None:
    """Refuses a pipeline class other than the two text-to-image ones.

    Raises:
        ModelError: `class_name` is not in `PIPELINES`.
    """
    if class_name not in PIPELINES:
        raise ModelError(
            f"model {name!r} is a {class_name}; t2ialign works with {' and '.join(PIPELINES)} "
            "(Stable Diffusion 1.5, 2.x, SDXL and their fine-tunes): choose a text-to-image model of one of these"
        )


def detect_family(pipeline: Any, name: str = "") -> Family:
    """The family of a loaded pipeline.

    SDXL by its class; mini-SD by its name or by a UNet configured as the embedded one; then by the width of the text
    states that the UNet attends to: 768 is SD 1.x, 1024 is SD 2.x. Anything else of the right class is "sd".

    Raises:
        ModelError: The class is not supported, or the UNet takes more than latents (inpainting, depth, editing).
    """
    check_pipeline_class(name, type(pipeline).__name__)
    config = pipeline.unet.config
    latent_channels = pipeline.vae.config.latent_channels
    if config.in_channels != latent_channels:
        raise ModelError(
            f"model {name!r} has a UNet with {config.in_channels} input channels for latents of {latent_channels}: "
            "an inpainting, depth or editing model; choose a plain text-to-image model"
        )
    if type(pipeline).__name__ == "StableDiffusionXLPipeline":
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise ModelError(
                f"model {name!r} lacks one of SDXL's two text encoders (a refiner?): choose the SDXL base"
            )
        return "sdxl"
    if name == "mini-sd" or _same_shape(dict(config), _mini_config()):
        return "mini-sd"
    return _WIDTHS.get(config.cross_attention_dim, "sd")


def native_resolution(pipeline: Any) -> int:
    """The side in pixels that the UNet was made for: its `sample_size` times the VAE's factor (512 for SD 1.5)."""
    size = pipeline.unet.config.sample_size
    side = max(size) if isinstance(size, list | tuple) else int(size)
    return int(side * pipeline.vae_scale_factor)


def _mini_config() -> dict[str, Any] | None:
    from t2ialign.mini import resource

    try:
        folder = resource("mini-sd")
    except FileNotFoundError:
        return None
    if folder is None or not (folder / "unet" / "config.json").is_file():
        return None
    content: dict[str, Any] = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    return content


def _same_shape(config: dict[str, Any], other: dict[str, Any] | None) -> bool:
    keys = ("cross_attention_dim", "block_out_channels", "layers_per_block", "sample_size", "attention_head_dim")

    def shape(of: dict[str, Any]) -> list[Any]:
        return [list(of[key]) if isinstance(of.get(key), list | tuple) else of.get(key) for key in keys]

    return other is not None and shape(config) == shape(other)
