"""Supervised fine-tuning on the pictures that are wanted: the plain loss of a diffusion model's own training.

    L = E[e],   e = mean (prediction - target)^2

Of pairs it sees the preferred side alone; of single pictures with labels those whose label is true; of pictures
without labels all.
"""

from __future__ import annotations

from typing import Any

from t2ialign.data.unpaired import UnpairedDataset, load_unpaired
from t2ialign.errors import DataError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import Supervised
from t2ialign.trainers.sft_config import SFTConfig
from t2ialign.trainers.task import Autocast
from t2ialign.trainers.unpaired import UnpairedTask, UnpairedTrainer


class SFTTrainer(UnpairedTrainer[SFTConfig]):
    """Fine-tunes on wanted pictures; `SFTTrainer(SFTConfig(model=..., pairs=..., output_dir=...)).train()`."""

    algorithm = "sft"

    def load_data(self) -> UnpairedDataset:
        """Open the pictures; where they have no labels, all of them are wanted."""
        return load_unpaired(self.config.pairs, label=True, **self.config.opening)

    def check_data(self, data: UnpairedDataset) -> None:
        """Refuse a set in which no picture is wanted."""
        if not any(data.labels):
            raise DataError(f"{data.name} has no picture whose label is true; there is nothing to learn from")

    def build(self, model: DiffusionModel, data: UnpairedDataset, autocast: Autocast) -> UnpairedTask:
        """Put the model and the wanted pictures together."""
        return UnpairedTask(model, data.positives(), Supervised(), self.config, autocast)


def train(config: SFTConfig) -> dict[str, Any]:
    """Run `t2ialign train sft` and return what `report.json` holds."""
    return SFTTrainer(config).train()
