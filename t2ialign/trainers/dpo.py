"""Diffusion-DPO (arXiv 2311.12908): follow preference pairs, held to the model they start from.

    L = -E log sigmoid( kappa [ (r_w - e_w) - (r_l - e_l) ] ),   kappa = beta / 2

with e and r the errors of the policy and of the reference on the same noise, w the preferred side. `--objective` puts
another loss on the same margin (docs/objectives.md). Everything but the objective is what training on pairs shares
(`t2ialign.trainers.task`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from t2ialign.data.pairs import PairDataset, Ties, load_pairs
from t2ialign.engine.config import known
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import Objective, family, kappa_from_beta
from t2ialign.objectives.beta import PLAIN
from t2ialign.trainers import facts
from t2ialign.trainers.defaults import beta_convention
from t2ialign.trainers.dpo_config import DPOConfig
from t2ialign.trainers.preference import PreferenceTask
from t2ialign.trainers.task import Autocast
from t2ialign.trainers.trainer import Trainer

C = TypeVar("C", bound=DPOConfig)

Made = tuple[Objective, dict[str, Tensor]]

_PLAIN: dict[str, Callable[[float, DPOConfig], Objective]] = {
    "dpo": lambda kappa, c: family.dpo(kappa, PLAIN),
    "ipo": lambda kappa, c: family.ipo(kappa),
    "hinge": lambda kappa, c: family.hinge(kappa),
    "orpo": lambda kappa, c: family.orpo(c.orpo.weight, c.orpo.kappa),
    "cdpo": lambda kappa, c: family.cdpo(kappa, c.cdpo.flip_rate),
    "rdpo": lambda kappa, c: family.rdpo(kappa, c.rdpo.flip_rate),
    "fdpo": lambda kappa, c: family.fdpo(kappa, c.fdpo.divergence, c.fdpo.alpha, c.fdpo.strength),
    "alpha_dpo": lambda kappa, c: family.alpha_dpo(kappa, c.alpha_dpo.mu, c.alpha_dpo.dynamic, c.alpha_dpo.alpha),
    "dr_dpo": lambda kappa, c: family.dr_dpo(kappa, c.dr_dpo.temperature),
    "kl_dro": lambda kappa, c: family.kl_dro(kappa, c.kl_dro.temperature),
}
"""Objectives that need nothing but the errors of a pair."""


def _soft(kappa: float, c: DPOConfig, pairs: PairDataset) -> Made:
    return family.soft(kappa, c.soft.form), {"preference_prob": facts.preference_probs(pairs, c.soft.temperature)}


def _offset(kappa: float, c: DPOConfig, pairs: PairDataset) -> Made:
    return family.offset(kappa, c.offset.scale, c.offset.shape), {"gap": facts.margins(pairs)}


def _modpo(kappa: float, c: DPOConfig, pairs: PairDataset) -> Made:
    gaps = facts.score_gaps(pairs, list(c.modpo.weights))
    return family.modpo(kappa, list(c.modpo.weights.values())), {"score_gaps": gaps}


def _directional(kappa: float, c: DPOConfig, pairs: PairDataset) -> Made:
    gaps = facts.score_gaps(pairs, list(c.directional.weights))
    gap = gaps @ torch.tensor(list(c.directional.weights.values()))
    return family.directional(kappa), {"preference_prob": torch.sigmoid(gap / c.directional.temperature)}


def _group_robust(kappa: float, c: DPOConfig, pairs: PairDataset) -> Made:
    numbers, names = facts.groups(pairs, c.group_robust.by)
    return family.group_robust(kappa, len(names), c.group_robust.rate), {"group": numbers}


def _maxmin(kappa: float, c: DPOConfig, pairs: PairDataset) -> Made:
    numbers, names = facts.groups(pairs, c.maxmin.by)
    return family.maxmin(kappa, len(names)), {"group": numbers}


_INFORMED: dict[str, Callable[[float, DPOConfig, PairDataset], Made]] = {
    "soft": _soft,
    "offset": _offset,
    "modpo": _modpo,
    "directional": _directional,
    "group_robust": _group_robust,
    "maxmin": _maxmin,
}
"""Objectives that need columns of the pair set as well."""


def make_objective(config: DPOConfig, pairs: PairDataset) -> Made:
    """Return the objective that the options name, and what it needs to know of each pair.

    Raises:
        DataError: if the pair set lacks what it needs; the pair and the mend are named.
    """
    kappa = kappa_from_beta(known(config.beta, "beta"), beta_convention(config.compat))
    if config.objective in _PLAIN:
        return _PLAIN[config.objective](kappa, config), {}
    return _INFORMED[config.objective](kappa, config, pairs)


class PairTrainer(Trainer[C, PairDataset]):
    """Trains on preference pairs with an objective of the family; DPO, DCPO and PPD are such."""

    task_class: type[PreferenceTask] = PreferenceTask

    def load_data(self) -> PairDataset:
        """Open the pairs; ties stay for objectives that can use them."""
        config = self.config
        ties: Ties = "keep" if config.objective in ("soft", "directional") else "drop"
        return load_pairs(config.pairs, split=config.split, revision=config.pairs_revision, ties=ties)

    def build(self, model: DiffusionModel, data: PairDataset, autocast: Autocast) -> PreferenceTask:
        """Put model, pairs and objective together."""
        return self.task_class(model, data, config=self.config, autocast=autocast, **self.parts(data))

    def parts(self, pairs: PairDataset) -> dict[str, Any]:
        """Return the objective, what it needs to know of each pair, and the stages of a curriculum."""
        objective, known_facts = make_objective(self.config, pairs)
        stages = facts.curriculum(pairs, self.config.curriculum_stages)
        return {"objective": objective, "facts": known_facts, "stages": stages}


class DiffusionDPOTrainer(PairTrainer[DPOConfig]):
    """Trains with Diffusion-DPO; `DiffusionDPOTrainer(DPOConfig(model=..., pairs=..., output_dir=...)).train()`."""

    algorithm = "dpo"


def train(config: DPOConfig) -> dict[str, Any]:
    """Run `t2ialign train dpo` and return what `report.json` holds."""
    return DiffusionDPOTrainer(config).train()
