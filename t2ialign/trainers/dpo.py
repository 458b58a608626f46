"""Diffusion-DPO (arXiv 2311.12908): follow preference pairs, held to the model they start from.

    L = -E log sigmoid( kappa [ (r_w - e_w) - (r_l - e_l) ] ),   kappa = beta / 2

with e and r the errors of the policy and of the reference on the same noise, w the preferred side. Everything but the
objective is what training on pairs shares (`t2ialign.trainers.preference`).
"""

from __future__ import annotations

from typing import Any

from t2ialign.engine.config import known
from t2ialign.objectives import Objective, dpo
from t2ialign.trainers.defaults import beta_convention
from t2ialign.trainers.dpo_config import DPOConfig
from t2ialign.trainers.trainer import PreferenceTrainer


class DiffusionDPOTrainer(PreferenceTrainer[DPOConfig]):
    """Trains with Diffusion-DPO; `DiffusionDPOTrainer(DPOConfig(model=..., pairs=..., output_dir=...)).train()`."""

    algorithm = "dpo"

    def objective(self) -> Objective:
        """Return `-log sigmoid` of the margin, with beta in the convention that `--compat` names."""
        return dpo(known(self.config.beta, "beta"), beta_convention(self.config.compat))


def train(config: DPOConfig) -> dict[str, Any]:
    """Run `t2ialign train dpo` and return what `report.json` holds."""
    return DiffusionDPOTrainer(config).train()
