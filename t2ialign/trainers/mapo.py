"""MaPO (arXiv 2406.06424): follow preference pairs without any reference model.

    L = E[e_w] - beta * E log sigmoid( T [ S(e_w) - S(e_l) ] ),   S(e) = s e / (exp(s e) - 1)

with e the errors of the model on the same noise, w the preferred side and T the number of timesteps. Nothing is held
to the model that training starts from, and no copy of it is ever made.
"""

from __future__ import annotations

from typing import Any

from t2ialign.data.pairs import PairDataset, load_pairs
from t2ialign.engine.config import known
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import family
from t2ialign.trainers.mapo_config import MaPOConfig
from t2ialign.trainers.preference import PreferenceTask
from t2ialign.trainers.task import Autocast
from t2ialign.trainers.trainer import Trainer


class MaPOTrainer(Trainer[MaPOConfig, PairDataset]):
    """Trains with MaPO; `MaPOTrainer(MaPOConfig(model=..., pairs=..., output_dir=...)).train()`."""

    algorithm = "mapo"

    def load_data(self) -> PairDataset:
        """Open the pairs."""
        return load_pairs(self.config.pairs, **self.config.opening)

    def build(self, model: DiffusionModel, data: PairDataset, autocast: Autocast) -> PreferenceTask:
        """Put model, pairs and the odds score together."""
        objective = family.mapo(
            known(self.config.beta, "beta"), self.config.snr, scale=float(model.num_train_timesteps)
        )
        return PreferenceTask(model, data, objective, self.config, autocast)


def train(config: MaPOConfig) -> dict[str, Any]:
    """Run `t2ialign train mapo` and return what `report.json` holds."""
    return MaPOTrainer(config).train()
