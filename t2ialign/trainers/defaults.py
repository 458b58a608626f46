"""What an option is where the user gave none: by the model's family and the method, or as a published script has it.

Law of this file: values only, each with its source; it imports nothing heavy. `trainers/dpo/README.md` explains them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from t2ialign.engine.config import known
from t2ialign.objectives.beta import HALVED, PLAIN, convert_beta
from t2ialign.trainers.model_config import ModelConfig

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=ModelConfig)

# LoRA: diffusers' README for train_diffusion_dpo.py (16 x 2 pairs, rate 1e-5, constant), here with smaller batches.
_SD_LORA: dict[str, Any] = {
    "steps": 2000,
    "batch_size": 4,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1e-5,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "optimizer": "adamw",
    "gradient_checkpointing": False,
    "caption_dropout": 0.0,
    "beta": 5000.0,
}

# Every weight: launchers/sd15.sh of DiffusionDPO, with the 128 pairs a step of DCPO's run of it on one GPU.
_SD_FULL: dict[str, Any] = {
    "steps": 2000,
    "batch_size": 1,
    "gradient_accumulation_steps": 128,
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup_steps": 500,
    "optimizer": "adamw",
    "gradient_checkpointing": True,
    "caption_dropout": 0.2,
    "beta": 5000.0,
}

# diffusers' README for train_diffusion_dpo_sdxl.py (8 x 2 pairs), and launchers/sdxl.sh of DiffusionDPO.
_SDXL_LORA = _SD_LORA | {"batch_size": 1, "gradient_accumulation_steps": 16, "gradient_checkpointing": True}
_SDXL_FULL = _SD_FULL | {"lr_warmup_steps": 200, "optimizer": "adafactor"}

# mini-SD with LoRA: the best of five settings on validation prompts; docs/results.md shows all five.
_MINI_LORA = _SD_LORA | {
    "steps": 240,
    "batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "beta": 2000.0,
}
# With every weight: a guess that was not searched.
_MINI_FULL = _MINI_LORA | {"learning_rate": 2e-5}

_TABLE: dict[tuple[str, str], dict[str, Any]] = {
    ("sd15", "lora"): _SD_LORA,
    ("sd15", "full"): _SD_FULL,
    ("sd2", "lora"): _SD_LORA,
    ("sd2", "full"): _SD_FULL,
    ("sdxl", "lora"): _SDXL_LORA,
    ("sdxl", "full"): _SDXL_FULL,
    ("mini-sd", "lora"): _MINI_LORA,
    ("mini-sd", "full"): _MINI_FULL,
}

# What an algorithm does otherwise than Diffusion-DPO. The first entry is for every family but mini-SD, whose small
# model takes rates of its own.
_OTHERWISE: dict[str, dict[tuple[str, str], dict[str, Any]]] = {
    "dcpo": {("", ""): {"beta": 500.0, "caption_dropout": 0.0}},  # run.sh of DCPO-T2I
    # MaPO's README: SDXL, 8 x 2 pairs, rate 1e-5, constant, every weight; beta_mapo of its args.py.
    "mapo": {
        ("", ""): {"beta": 0.1, "caption_dropout": 0.0},
        ("", "full"): {
            "learning_rate": 1e-5,
            "gradient_accumulation_steps": 16,
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
        },
        ("mini-sd", ""): {"beta": 0.1},
    },
    # PPD's paper: AdamW, 768 pairs a step, rate 1e-5; its beta is not published.
    "ppd": {
        ("", ""): {
            "embeddings": 1,
            "extractor": "vlm:llava-hf/llava-onevision-qwen2-7b-ov-hf",
        },
        # The best of six settings on users of the train split who were held out; docs/results.md shows all six.
        ("mini-sd", ""): {
            "steps": 480,
            "learning_rate": 1e-4,
            "embeddings": 8,
            "shot_pool": 8,
            "extractor": "clip:mini-clip",
        },
    },
    # The loss of the model's own training; diffusers' train_text_to_image_lora.py and train_text_to_image.py.
    "sft": {("", "lora"): {"learning_rate": 1e-4}, ("", "full"): {"learning_rate": 1e-5}},
    # Diffusion-KTO's example: rate 1e-7 with every weight, warm-up 200; beta_dpo 1000 without a half is 2000 here.
    "kto": {
        ("", ""): {"beta": 2000.0, "caption_dropout": 0.2},
        ("", "full"): {"learning_rate": 1e-7, "lr_warmup_steps": 200, "gradient_accumulation_steps": 32},
    },
    # ReFL.py of ImageReward: every weight, chains of 40 steps that stop at one of 30 to 39; its paper: rate 1e-5. The
    # rate of a LoRA and the batch are ours; guidance is the pipelines' own, so that what is drawn is what is raised.
    "refl": {
        ("", ""): {
            "steps": 1000,
            "num_inference_steps": 40,
            "guidance_scale": 7.5,
            "batch_size": 2,
            "gradient_accumulation_steps": 8,
            "gradient_checkpointing": True,
        },
        ("sdxl", ""): {"guidance_scale": 5.0, "batch_size": 1, "gradient_accumulation_steps": 16},
        ("", "lora"): {"learning_rate": 2e-4},
        ("", "full"): {"learning_rate": 1e-5, "lr_scheduler": "constant", "lr_warmup_steps": 0},
        ("mini-sd", ""): {
            "steps": 25,
            "num_inference_steps": 16,
            "guidance_scale": 4.0,
            "prompts": "mini-prompts",
            "batch_size": 16,
            "gradient_accumulation_steps": 1,
        },
    },
    # config/base.py and dgx.py of ddpo-pytorch at 28d2d8c: guidance 5, 50 steps, rate 1e-4 with a LoRA, 3e-5 without.
    "ddpo": {
        ("", ""): {
            "steps": 200,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
            "batch_size": 8,
            "gradient_accumulation_steps": 16,
            "gradient_checkpointing": False,
            "updates_per_round": 2,
            "pictures_per_prompt": 8,
            "timestep_fraction": 1.0,
        },
        ("sdxl", ""): {"batch_size": 2, "gradient_accumulation_steps": 64, "gradient_checkpointing": True},
        ("", "lora"): {"learning_rate": 1e-4},
        ("", "full"): {"learning_rate": 3e-5, "lr_scheduler": "constant", "lr_warmup_steps": 0},
        ("mini-sd", ""): {
            "learning_rate": 3e-4,
            "guidance_scale": 4.0,
            "prompts": "mini-prompts",
            "steps": 100,
            "num_inference_steps": 8,
            "batch_size": 48,
            "gradient_accumulation_steps": 1,
            "updates_per_round": 1,
            "pictures_per_prompt": 6,
            "timestep_fraction": 0.5,
        },
    },
}

_ALWAYS: dict[str, Any] = {"crop": "center", "flip": "none", "time_ids": "real", "empty_caption": "zeros"}

COMPATS: dict[str, dict[str, Any]] = {
    "none": {},
    "diffusion_dpo_official": {
        "caption_dropout": 0.2,
        "flip": "independent",
        "crop": "center",
        "time_ids": "fixed",
        "empty_caption": "encoded",
    },
    "hf_sdxl": {"caption_dropout": 0.0, "flip": "joint", "crop": "center", "time_ids": "shared"},
    "hf_sd": {"caption_dropout": 0.0, "flip": "independent", "crop": "center"},
    "mapo_official": {"caption_dropout": 0.0, "flip": "joint", "crop": "center", "time_ids": "shared"},
    "dcpo_official": {"caption_dropout": 0.0, "flip": "independent", "crop": "center", "resolution": 512},
    "diffusion_kto": {"caption_dropout": 0.2, "flip": "independent", "crop": "center"},
}
"""What published scripts do with pictures and captions where ours leaves a choice."""

BUCKET_STEP = 64
"""Sides of aspect-ratio buckets are multiples of it: SDXL's appendix I (arXiv 2307.01952), and usual for SD1.5 too."""
MINI_BUCKET_STEP = 8
"""That of mini-SD, whose square has an eighth of SD1.5's side."""

RATE_PER_PAIR = 1e-8
"""Rate of full tuning for each pair of a step: `--learning_rate 1e-8 --scale_lr` in DiffusionDPO's launchers."""


def beta_convention(compat: str) -> str:
    """Return what beta means under `--compat` (see `t2ialign.objectives.beta`)."""
    return PLAIN if compat in ("hf_sd", "diffusion_kto") else HALVED


def family_defaults(family: str, method: str, algorithm: str = "dpo") -> dict[str, Any]:
    """Return the defaults of a family, method and algorithm; an unknown family is treated as SD1.5.

    A method other than full, such as PPD's user adapter, trains few weights and begins from what LoRA takes.
    """
    kind = "full" if method == "full" else "lora"
    defaults = dict(_TABLE.get((family, kind), _TABLE["sd15", kind]))
    otherwise = _OTHERWISE.get(algorithm, {})
    for which in (family,) if family == "mini-sd" else ("", family):
        defaults |= otherwise.get((which, ""), {}) | otherwise.get((which, kind), {})
    return defaults


def resolve(config: C, *, family: str, resolution: int, processes: int = 1, algorithm: str = "dpo") -> C:
    """Return the options with every value known, and log what was filled in.

    Args:
        config: As the user gave it.
        family: Of the model: "sd15", "sd2", "sdxl", "mini-sd" or "sd".
        resolution: The model's own, in pixels.
        processes: Number of processes; the rate of full tuning grows with the pairs of a step.
        algorithm: Whose defaults are filled in.
    """
    compat = config.official
    own = family_defaults(family, config.method, algorithm)
    defaults = {**_ALWAYS, **own, "resolution": resolution, **COMPATS[compat]}
    defaults["beta"] = convert_beta(defaults["beta"], HALVED, beta_convention(compat))
    filled = _missing(config, defaults)
    if getattr(config, "aspect_buckets", False):
        step = MINI_BUCKET_STEP if family == "mini-sd" else BUCKET_STEP
        batch = replace(config, **filled).batch_size
        filled |= _missing(config, {"bucket_step": step, "bucket_group": batch})
    if config.learning_rate is None and "learning_rate" not in filled:
        filled["learning_rate"] = RATE_PER_PAIR * _pairs_per_step(replace(config, **filled), processes)
    lora = replace(config.lora, alpha=float(config.lora.rank)) if config.lora.alpha is None else config.lora
    if filled:
        shown = ", ".join(f"{name} {value}" for name, value in sorted(filled.items()))
        logger.info("defaults for %s with %s: %s", family, config.method, shown)
    return replace(config, **filled, lora=lora)


def _missing(config: ModelConfig, defaults: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(config)} & defaults.keys()
    return {name: defaults[name] for name in names if getattr(config, name) is None}


def _pairs_per_step(config: ModelConfig, processes: int) -> int:
    batch = known(config.batch_size, "batch_size")
    return batch * known(config.gradient_accumulation_steps, "gradient_accumulation_steps") * processes
