"""A tiny model and options for training it in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.tiny import tiny_pipeline
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.dpo_config import DPOConfig

FAMILIES = [("sd15", "epsilon"), ("sd2", "epsilon"), ("sd2", "v_prediction"), ("sdxl", "epsilon")]


def tiny_model(family: str = "sd15", prediction_type: str | None = None, seed: int = 0) -> DiffusionModel:
    """A tiny pipeline of a family, wrapped; equal arguments give equal weights."""
    return DiffusionModel.from_pipeline(tiny_pipeline(family, prediction_type, seed), "tiny")


def dpo_config(output_dir: Path, **changes: Any) -> DPOConfig:
    """Options of a short run."""
    options: dict[str, Any] = {
        "model": "tiny",
        "pairs": "colours",
        "steps": 4,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "beta": 500.0,
        "mixed_precision": "no",
        "checkpoint_every": 0,
    }
    return DPOConfig(output_dir=output_dir, **{**options, **changes})
