"""Scorers without weights, and short runs of the algorithms that follow one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.training import SHORT, tiny_model
from t2ialign.config import load
from t2ialign.trainers.ddpo import DDPOTrainer
from t2ialign.trainers.ddpo_config import DDPOConfig
from t2ialign.trainers.refl import ReFLTrainer
from t2ialign.trainers.refl_config import ReFLConfig

PROMPTS = ["a red circle", "a blue square", "two green stars", "a flag"]
TRAINERS: dict[str, Any] = {"refl": ReFLTrainer, "ddpo": DDPOTrainer}
CONFIGS: dict[str, Any] = {"refl": ReFLConfig, "ddpo": DDPOConfig}
OPTIONS: dict[str, Any] = {
    "scorer": "red",
    "num_inference_steps": 4,
    "guidance_scale": 3.0,
    "watch_every": 0,
    "lr_scheduler": "constant",
}
DDPO: dict[str, Any] = {
    "updates_per_round": 1,
    "pictures_per_prompt": 2,
    "timestep_fraction": 1.0,
    "statistics": 4,
    "statistics_from": 2,
}


class Red:
    """How red a picture is, between 0 and 1 and a little more for longer prompts; without gradients."""

    name = "red"
    version = "red@1"
    higher_is_better = True

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> Tensor:
        import numpy as np

        pixels = torch.stack([torch.from_numpy(np.array(image, dtype="float32")) / 255 for image in images])
        return self.of(prompts, pixels.permute(0, 3, 1, 2))

    def of(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """The score of pixels `[B, 3, H, W]` in [0, 1]."""
        longer = torch.tensor([len(prompt) for prompt in prompts]) / 100
        each: Tensor = pixels[:, 0].mean(dim=(1, 2)) - pixels[:, 1:].mean(dim=(1, 2, 3)) ** 2 + longer
        return each


class SmoothRed(Red):
    """The same with gradients."""

    def score_tensors(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return self.of(prompts, images)


class Blue:
    """How blue a picture is."""

    name = "blue"

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> Tensor:
        import numpy as np

        return torch.tensor([float(np.array(image)[:, :, 2].mean()) / 255 for image in images])


def guided(algorithm: str, output: Path, *, family: str = "sd15", **changes: Any) -> Any:
    """A trainer of a tiny model; `scorer_object`, `watch_object`, `prompts` and `prediction_type` are no options."""
    prediction_type = changes.pop("prediction_type", None)
    scorer = changes.pop("scorer_object", SmoothRed())
    watch = changes.pop("watch_object", None)
    prompts = changes.pop("prompts", PROMPTS)
    own = DDPO if algorithm == "ddpo" else {}
    short = {name: value for name, value in SHORT.items() if name != "pairs"}
    config = load(CONFIGS[algorithm], None, {**short, **OPTIONS, **own, "output_dir": str(output), **changes})
    return TRAINERS[algorithm](config, scorer, watch, model=tiny_model(family, prediction_type), prompts=prompts)


def train_guided(algorithm: str, output: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """Run it, and return trainer and report."""
    trainer = guided(algorithm, output, **changes)
    return trainer, trainer.train()


def ready(algorithm: str, output: Path, **changes: Any) -> Any:
    """The task of a trainer, set up as the engine would, on the CPU."""
    from t2ialign.engine.loop import make_schedule
    from t2ialign.engine.processes import make_accelerator

    trainer = guided(algorithm, output, **changes)
    accelerator = make_accelerator(trainer.config)
    task = trainer._prepare(accelerator)
    task.schedule = make_schedule(task, trainer.config, accelerator)
    task.setup(accelerator.device, task.schedule, lambda: False)
    return task


def first_batch(task: Any) -> Any:
    """The batch of its first step."""
    from t2ialign.engine.randomness import Draws

    keys = task.schedule.batch(0, 0)
    return task.examples.collate([task.examples.read(index, Draws(task.config.seed, n)) for n, index in keys])
