"""Training on preference pairs: an `Objective` on the errors of both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from t2ialign.data.pairs import PairDataset
from t2ialign.errors import DataError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import BatchInfo, Errors, LossOutput, Objective, Step
from t2ialign.trainers.examples import Batch, PairExamples
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.task import Autocast, DiffusionTask, SideErrors, example_options

_OBJECTIVE = "objective"
"""Name of the objective's state in the task's."""


class PreferenceTask(DiffusionTask):
    """A model and preference pairs as a task of the engine.

    Args:
        model: As loaded; its UNet gets the LoRA, or is trained whole.
        pairs: What to train on.
        objective: The loss on the errors of a pair.
        config: Options with every value known.
        autocast: Context in which the reference is computed, that of the policy; none by default.
        facts: What the objective needs to know of each pair, `[N, ...]` by the names of `BatchInfo`.
        stages: Entries of each stage of a curriculum, or None.
    """

    def __init__(
        self,
        model: DiffusionModel,
        pairs: PairDataset,
        objective: Objective,
        config: PreferenceConfig,
        autocast: Autocast = nullcontext,
        facts: Mapping[str, Tensor] | None = None,
        stages: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        self.objective = objective
        examples = PairExamples(
            pairs, example_options(model, config), self.captions(pairs), facts=facts, stages=stages
        )
        super().__init__(model, examples, objective.needs_reference, config, autocast)
        self._state = objective.start()
        self._next: Tensor | None = None

    def captions(self, pairs: PairDataset) -> Sequence[tuple[str, str]] | None:
        """Return the captions of both sides of each pair; None for the prompt on both."""
        return None

    @property
    def surveys(self) -> bool:
        """Whether the loss of a pair depends on the other pairs of the step."""
        return self.objective.surveys

    @torch.no_grad()
    def survey(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        """Return margins, losses and groups of a batch, and the batch encoded, with its reference's errors."""
        batch = self.encoded(batch)
        errors = self.errors(module, batch)
        rows = self.objective.survey(_pairwise(errors), self._info(batch)).rows()
        return rows, replace(batch, reference=errors.reference)

    def loss(self, module: nn.Module, batch: Batch, step: Tensor | None = None) -> LossOutput:
        """Return the loss of B pairs; the policy's forward goes through `module`."""
        batch = self.encoded(batch)
        info = self._info(batch, None if step is None else Step.of_rows(step))
        output = self.objective(_pairwise(self.errors(module, batch)), info)
        self._next = output.state
        return output

    def _info(self, batch: Batch, step: Step | None = None) -> BatchInfo:
        state = None if self._state is None else self._state.to(self.model.device)
        return BatchInfo(**batch.facts, state=state, step=step)

    def end_step(self) -> None:
        """Take over the objective's state of the step that was just done."""
        self._state = self._next if self._next is not None else self._state

    def state(self) -> dict[str, Tensor]:
        """Return the objective's state, beside what every task has."""
        return super().state() | ({} if self._state is None else {_OBJECTIVE: self._state})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            DataError: if it is that of another objective.
        """
        kept = state.get(_OBJECTIVE)
        shapes = [None if each is None else tuple(each.shape) for each in (kept, self._state)]
        if shapes[0] != shapes[1]:
            raise DataError("the checkpoint's state of the objective does not fit; resume with the pairs it began on")
        super().load_state(state)
        self._state = kept


def _pairwise(errors: SideErrors) -> Errors:
    chosen, rejected = errors.policy.chunk(2)
    if errors.reference is None:
        return Errors(chosen, rejected)
    return Errors(chosen, rejected, *errors.reference.chunk(2))
