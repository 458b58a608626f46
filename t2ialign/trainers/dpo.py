"""Diffusion-DPO (arXiv 2311.12908): follow preference pairs, held to the model they start from.

    L = -E log sigmoid( kappa [ (r_w - e_w) - (r_l - e_l) ] ),   kappa = beta / 2

with e and r the errors of the policy and of the reference on the same noise, w the preferred side. `--objective` puts
another loss on the same margin (docs/objectives.md). Everything but the objective is what training on pairs shares
(`t2ialign.trainers.task`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

Facts = Mapping[str, Tensor]


def _no_facts(config: DPOConfig, pairs: PairDataset) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Entry:
    """How an objective is made.

    Attributes:
        build: From kappa, the options and the facts to the objective.
        facts: What it needs to know of each pair, by the names of `BatchInfo`.
        ties: Whether ties teach it something.
    """

    build: Callable[[float, Any, Facts], Objective]
    facts: Callable[[Any, PairDataset], dict[str, Tensor]] = _no_facts
    ties: bool = False


def _shares(known: Facts) -> list[float]:
    counts = torch.bincount(known["group"])
    return (counts / counts.sum()).tolist()


def _directions(config: DPOConfig, pairs: PairDataset) -> dict[str, Tensor]:
    weights = config.directional.weights
    gap = facts.score_gaps(pairs, list(weights)) @ torch.tensor(list(weights.values()))
    return {"preference_prob": torch.sigmoid(gap / config.directional.temperature)}


ENTRIES: dict[str, Entry] = {
    "dpo": Entry(lambda kappa, c, _: family.dpo(kappa, PLAIN)),
    "ipo": Entry(lambda kappa, c, _: family.ipo(kappa)),
    "hinge": Entry(lambda kappa, c, _: family.hinge(kappa)),
    "orpo": Entry(lambda kappa, c, _: family.orpo(c.orpo.weight, c.orpo.kappa)),
    "cdpo": Entry(lambda kappa, c, _: family.cdpo(kappa, c.cdpo.flip_rate)),
    "rdpo": Entry(lambda kappa, c, _: family.rdpo(kappa, c.rdpo.flip_rate)),
    "soft": Entry(
        lambda kappa, c, _: family.soft(kappa, c.soft.form),
        lambda c, pairs: {"preference_prob": facts.preference_probs(pairs, c.soft.temperature)},
        ties=True,
    ),
    "offset": Entry(
        lambda kappa, c, _: family.offset(kappa, c.offset.scale, c.offset.shape),
        lambda c, pairs: {"gap": facts.margins(pairs)},
    ),
    "fdpo": Entry(lambda kappa, c, _: family.fdpo(kappa, c.fdpo.divergence, c.fdpo.alpha, c.fdpo.strength)),
    "alpha_dpo": Entry(
        lambda kappa, c, _: family.alpha_dpo(kappa, c.alpha_dpo.mu, c.alpha_dpo.dynamic, c.alpha_dpo.alpha)
    ),
    "modpo": Entry(
        lambda kappa, c, _: family.modpo(kappa, list(c.modpo.weights.values())),
        lambda c, pairs: {"score_gaps": facts.score_gaps(pairs, list(c.modpo.weights))},
    ),
    "directional": Entry(lambda kappa, c, _: family.directional(kappa), _directions, ties=True),
    "dr_dpo": Entry(lambda kappa, c, _: family.dr_dpo(kappa, c.dr_dpo.temperature)),
    "kl_dro": Entry(lambda kappa, c, _: family.kl_dro(kappa, c.kl_dro.temperature)),
    "group_robust": Entry(
        lambda kappa, c, known: family.group_robust(kappa, _shares(known), c.group_robust.rate),
        lambda c, pairs: {"group": facts.groups(pairs, c.group_robust.by)[0]},
    ),
    "maxmin": Entry(
        lambda kappa, c, known: family.maxmin(kappa, len(_shares(known))),
        lambda c, pairs: {"group": facts.groups(pairs, c.maxmin.by)[0]},
    ),
}
"""Every objective of `--objective`, by name."""


def make_objective(config: DPOConfig, pairs: PairDataset) -> tuple[Objective, dict[str, Tensor]]:
    """Return the objective that the options name, and what it needs to know of each pair.

    Raises:
        DataError: if the pair set lacks what it needs; the pair and the mend are named.
    """
    entry = ENTRIES[config.objective]
    known_facts = entry.facts(config, pairs)
    kappa = kappa_from_beta(known(config.beta, "beta"), beta_convention(config.compat))
    return entry.build(kappa, config, known_facts), known_facts


class PairTrainer(Trainer[C, PairDataset]):
    """Trains on preference pairs with an objective of the family; DPO, DCPO and PPD are such."""

    task_class: type[PreferenceTask] = PreferenceTask

    def load_data(self) -> PairDataset:
        """Open the pairs; ties stay for objectives that can use them."""
        ties: Ties = "keep" if ENTRIES[self.config.objective].ties else "drop"
        return load_pairs(self.config.pairs, ties=ties, **self.config.opening)

    def check_data(self, data: PairDataset) -> None:
        """Refuse pairs that lack what the objective or the curriculum needs."""
        ENTRIES[self.config.objective].facts(self.config, data)
        facts.curriculum(data, self.config.curriculum_stages)

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
