"""DCPO (arXiv 2502.06023): Diffusion-DPO in which each picture of a pair is trained on its own caption.

    z = kappa [ (r_w(z^w) - e_w(z^w)) - (r_l(z^l) - e_l(z^l)) ]

with z^w and z^l the captions of the preferred and of the other picture, for policy and reference alike. The loss is
that of DPO, so with equal captions the run is a DPO run, bit for bit. `t2ialign data captions` writes the captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from t2ialign.data.pairs import PairDataset
from t2ialign.errors import DataError
from t2ialign.trainers.dcpo_config import DCPOConfig
from t2ialign.trainers.dpo import PairTrainer
from t2ialign.trainers.preference import PreferenceTask

SIDES = ("chosen_prompt", "rejected_prompt")


class DCPOTask(PreferenceTask):
    """Pairs with a caption a side as a task of the engine."""

    def captions(self, pairs: PairDataset) -> Sequence[tuple[str, str]]:
        """Return the captions of both sides of each pair."""
        return dual_captions(pairs)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the UNet regresses on: by its prediction type, or as published always epsilon.

        DCPO-T2I's dcpo_trainer.py:996-1002 overwrites the scheduler's prediction type with epsilon, so that the
        v-outputs of stable-diffusion-2-1 are held against the noise.
        """
        if self.config.official == "dcpo_official":
            return noise
        return super().target(latents, noise, timesteps)


class DCPOTrainer(PairTrainer[DCPOConfig]):
    """Trains with DCPO; `DCPOTrainer(DCPOConfig(model=..., pairs=..., output_dir=...)).train()`."""

    algorithm = "dcpo"
    task_class = DCPOTask

    def check_data(self, data: PairDataset) -> None:
        """Refuse pairs without a caption a side, and what any objective refuses."""
        dual_captions(data)
        super().check_data(data)


def dual_captions(pairs: PairDataset) -> list[tuple[str, str]]:
    """Return the captions of the chosen and of the rejected picture of each pair.

    Raises:
        DataError: naming the first pair that lacks one.
    """
    found = [pairs.column(name) for name in SIDES]
    for name, column in zip(SIDES, found, strict=True):
        for index, caption in enumerate(column):
            if not (caption or "").strip():
                raise DataError(
                    f"{pairs.name} row {pairs.row(index)} has no {name}; DCPO needs a caption of each picture: write "
                    "them with `t2ialign data captions`"
                )
    return [(str(chosen), str(rejected)) for chosen, rejected in zip(*found, strict=True)]


def train(config: DCPOConfig) -> dict[str, Any]:
    """Run `t2ialign train dcpo` and return what `report.json` holds."""
    return DCPOTrainer(config).train()
