"""A tiny model and options for training it in a second or two."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from helpers.tiny import tiny_pipeline
from t2ialign.cli.train import load_object
from t2ialign.config import load
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.dpo_config import DPOConfig
from t2ialign.trainers.registry import ALGORITHMS
from t2ialign.trainers.trainer import Trainer

FAMILIES = [("sd15", "epsilon"), ("sd2", "epsilon"), ("sd2", "v_prediction"), ("sdxl", "epsilon")]


def tiny_model(family: str = "sd15", prediction_type: str | None = None, seed: int = 0) -> DiffusionModel:
    """A tiny pipeline of a family, wrapped; equal arguments give equal weights."""
    return DiffusionModel.from_pipeline(tiny_pipeline(family, prediction_type, seed), "tiny")


SHORT: dict[str, Any] = {
    "model": "tiny",
    "pairs": "colours",
    "steps": 4,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "mixed_precision": "no",
    "checkpoint_every": 0,
}
"""Options of a short run, whatever its algorithm."""


def dpo_config(output_dir: Path, **changes: Any) -> DPOConfig:
    """Options of a short run of DPO."""
    return DPOConfig(output_dir=output_dir, **{**SHORT, "beta": 500.0, **changes})


def short_config(algorithm: str, output_dir: Path, **changes: Any) -> Any:
    """Options of a short run of any algorithm; dotted names reach nested ones."""
    cls = load_object(ALGORITHMS[algorithm].config)
    return load(cls, None, {**SHORT, "output_dir": str(output_dir), **changes})


def trainer_of(algorithm: str) -> Any:
    """The trainer class of an algorithm."""
    module = importlib.import_module(f"t2ialign.trainers.{algorithm}")
    found = [value for name, value in vars(module).items() if getattr(value, "algorithm", None) == algorithm]
    return next(value for value in found if issubclass(value, Trainer))
