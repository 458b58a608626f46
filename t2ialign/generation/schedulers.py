"""Schedulers: the ways to denoise that `--scheduler` offers, made from a model's own settings.

Law of this file: whatever is chosen, the noise schedule and the prediction type stay the model's.
"""

from __future__ import annotations

from typing import Any

from t2ialign.errors import ConfigError
from t2ialign.generation.options import SCHEDULERS

_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": False}),
    "ddpm": ("DDPMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Class in diffusers, and settings taken where the model's own settings are silent."""

_UNCLIPPED = {"clip_sample": False, "thresholding": False}
"""Latents are not bounded by 1 as pixels are, so a scheduler must not clip its prediction of them."""


def make_scheduler(name: str, own: Any, family: str) -> Any:
    """Make a fresh scheduler.

    Args:
        name: One of `SCHEDULERS`. `auto` is `ddim` for mini-sd, and `pipeline` for every other family;
            `pipeline` is a copy of the model's own.
        own: The model's scheduler; it is left alone.
        family: The model's family, as in `DiffusionModel.family`.

    Raises:
        ConfigError: If `name` is none of `SCHEDULERS`.
    """
    import diffusers

    if name == "auto":
        name = "ddim" if family == "mini-sd" else "pipeline"
    if name == "pipeline":
        return type(own).from_config(own.config)
    if name not in _CLASSES:
        raise ConfigError(f"unknown scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}")
    class_name, defaults = _CLASSES[name]
    wanted = getattr(diffusers, class_name)
    if type(own) is wanted:
        settings = dict(own.config)
    else:  # what the model's settings merely leave at another class's default says nothing of the model
        silent = set(own.config.get("_use_default_values", ())) | {"_use_default_values", "_class_name"}
        settings = {**defaults, **{key: value for key, value in own.config.items() if key not in silent}}
    settings.pop("_use_default_values", None)
    return wanted.from_config({**settings, **_UNCLIPPED})
