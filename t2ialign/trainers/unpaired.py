"""Training on single pictures: an objective on the error of each, with its label."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from t2ialign.data.pairs import PairDataset
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import KTO, BatchInfo, ErrorOf, LossOutput, Step, Supervised
from t2ialign.trainers.examples import Batch, SingleExamples
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.rising import PICTURES, Side, pair_sides
from t2ialign.trainers.task import Autocast, DiffusionTask, example_options
from t2ialign.trainers.trainer import Trainer

C = TypeVar("C", bound=PreferenceConfig)


class UnpairedTrainer(Trainer[C, UnpairedDataset]):
    """Trains on single pictures; pairs that a caller hands in are taken as two pictures each."""

    def __init__(
        self, config: C, model: DiffusionModel | None = None, pairs: UnpairedDataset | PairDataset | None = None
    ) -> None:
        pictures = UnpairedDataset.from_pairs(pairs) if isinstance(pairs, PairDataset) else pairs
        super().__init__(config, model, pictures)


class UnpairedTask(DiffusionTask):
    """A model and labelled pictures as a task of the engine.

    Args:
        model: As loaded; its UNet gets the LoRA, or is trained whole.
        pictures: What to train on.
        objective: The loss on the error of a picture.
        config: Options with every value known.
        autocast: Context in which the reference is computed, that of the policy; none by default.
    """

    def __init__(
        self,
        model: DiffusionModel,
        pictures: UnpairedDataset,
        objective: KTO | Supervised,
        config: PreferenceConfig,
        autocast: Autocast = nullcontext,
    ) -> None:
        self.objective = objective
        examples = SingleExamples(pictures, example_options(model, config))
        super().__init__(model, examples, objective.needs_reference, config, autocast)

    def watched_errors(self, reference: bool) -> Sequence[Side]:
        """Return the errors of good and bad pictures, or where all are wanted their error."""
        return pair_sides(reference) if isinstance(self.objective, KTO) else PICTURES

    @property
    def surveys(self) -> bool:
        """Whether the loss of a picture depends on the other pictures of the step."""
        return self.objective.surveys

    @torch.no_grad()
    def survey(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        """Return the log-ratios of a batch, and the batch encoded, with its reference's errors."""
        assert isinstance(self.objective, KTO)
        batch = self.encoded(batch)
        errors = self._errors(module, batch)
        return self.objective.survey(errors, BatchInfo()).rows(), replace(batch, reference=errors.reference)

    def loss(self, module: nn.Module, batch: Batch, step: Tensor | None = None) -> LossOutput:
        """Return the loss of B pictures; the policy's forward goes through `module`."""
        errors = self._errors(module, self.encoded(batch))
        return self.objective(errors, BatchInfo(step=None if step is None else Step.of_rows(step)))

    def _errors(self, module: nn.Module, batch: Batch) -> ErrorOf:
        errors = self.errors(module, batch)
        return ErrorOf(errors.policy, errors.reference, batch.facts["label"])
