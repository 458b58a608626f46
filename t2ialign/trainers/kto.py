"""Diffusion-KTO (arXiv 2404.04465): learn from pictures that are labelled good or bad, without partners.

    L = E[ w_y (1 - U(v)) ],   v = +-(h - h0),   h = kappa (r - e),   h0 = max(0, mean of h over the step)

with + for a good picture and - for a bad one, U the value function and e and r the errors of policy and reference. A
pair set is taken as two pictures a pair.
"""

from __future__ import annotations

from typing import Any

from t2ialign.data.unpaired import UnpairedDataset, load_unpaired
from t2ialign.engine.config import known
from t2ialign.errors import DataError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import KTO, kappa_from_beta
from t2ialign.trainers.defaults import beta_convention
from t2ialign.trainers.kto_config import KTOConfig
from t2ialign.trainers.task import Autocast
from t2ialign.trainers.unpaired import UnpairedTask, UnpairedTrainer


class KTOTrainer(UnpairedTrainer[KTOConfig]):
    """Trains with Diffusion-KTO; `KTOTrainer(KTOConfig(model=..., pairs=..., output_dir=...)).train()`."""

    algorithm = "kto"

    def load_data(self) -> UnpairedDataset:
        """Open the pictures."""
        return load_unpaired(self.config.pairs, **self.config.opening)

    def check_data(self, data: UnpairedDataset) -> None:
        """Refuse labels that are all the same."""
        if len(set(data.labels)) < 2:
            raise DataError(f"every label of {data.name} is {data.labels[0]}; KTO needs good pictures and bad ones")

    def build(self, model: DiffusionModel, data: UnpairedDataset, autocast: Autocast) -> UnpairedTask:
        """Put model, pictures and the KTO loss together."""
        config = self.config
        kappa = kappa_from_beta(known(config.beta, "beta"), beta_convention(config.compat))
        objective = KTO(kappa, config.desirable_weight, config.undesirable_weight, config.value)
        return UnpairedTask(model, data, objective, config, autocast)


def train(config: KTOConfig) -> dict[str, Any]:
    """Run `t2ialign train kto` and return what `report.json` holds."""
    return KTOTrainer(config).train()
