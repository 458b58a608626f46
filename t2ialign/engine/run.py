"""The state of a run and what one optimizer step does to it.

A step: if the loss looks at the whole step, a survey of its batches without gradient and an exchange of what was
found; forward and backward of each batch, the norm of the gradient, one exchange of figures between processes, then
the optimizer, unless the loss or the gradient is not finite. A skipped step still counts as a step, so that the data
move on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from t2ialign.engine.checkpoints import Checkpoint
from t2ialign.engine.config import TrainConfig, known
from t2ialign.engine.ema import Average
from t2ialign.engine.metrics import StepFigures
from t2ialign.engine.optimizers import build_optimizer, rate_factor, set_rate
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import seed_modules
from t2ialign.engine.task import StopRequested, Task
from t2ialign.errors import DataError, ModelError

logger = logging.getLogger(__name__)


class Run:
    """A task made ready for training.

    Args:
        task: What is trained.
        config: Options with every value known.
        schedule: Order of the examples.
        accelerator: Device and processes.

    Attributes:
        step: Optimizer steps done.
        skipped: Steps whose update was left out because something was not finite.
        skipped_in_a_row: Of these, how many came last without a good one between.
    """

    def __init__(self, task: Task, config: TrainConfig, schedule: Schedule, accelerator: Accelerator) -> None:
        self.task = task
        self.config = config
        self.schedule = schedule
        self.accelerator = accelerator
        named = {name: value for name, value in task.module.named_parameters() if value.requires_grad}
        if not named:
            raise ModelError("the model has no parameter to train")
        self.trainable: dict[str, nn.Parameter] = named
        self.module, self.optimizer = accelerator.prepare(
            task.module, build_optimizer(config, list(named.values())), device_placement=[True, True]
        )
        self.average = Average(list(named.values()), config.ema_decay) if config.ema else None
        self._rate = known(config.learning_rate, "learning_rate")
        self._factor = rate_factor(config)
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0

    def advance(self, batches: Iterator[Any], stop: StopRequested) -> tuple[dict[str, Any], bool]:
        """Do one optimizer step.

        Args:
            batches: Gives the batches; as many are taken as the step adds up.
            stop: Whether this process was asked to stop.

        Returns:
            The figures of the step, and whether any process was asked to stop.
        """
        rate = self._rate * self._factor(self.step)
        set_rate(self.optimizer, rate)
        self.task.begin_step(self.step)
        seed_modules(self.config.seed, self.step, self.schedule.rank)
        collected = self._accumulate(batches)
        limit = self.config.max_grad_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(list(self.trainable.values()), limit)
        if norm is None:
            raise ModelError("the gradient has no norm on this backend")
        figures, stopped = collected.gather(self.accelerator, norm, stop())
        taken = self._update(math.isfinite(figures["loss"]), math.isfinite(figures["grad_norm"]))
        self.step += 1
        return {**figures, "learning_rate": rate, "skipped": not taken}, stopped

    def _accumulate(self, batches: Iterator[Any]) -> StepFigures:
        collected = StepFigures()
        count = self.schedule.accumulation
        figures: Tensor | None = None
        if self.task.surveys:
            figures, batches = self._survey(batches)
        for micro in range(count):
            parts = self.task.parts(next(batches))
            for number, part in enumerate(parts, 1):
                last = micro == count - 1 and number == len(parts)
                with nullcontext() if last else self.accelerator.no_sync(self.module):
                    output = self.task.loss(self.module, part, figures)
                    self.accelerator.backward(output.loss / (count * len(parts)))
                collected.add(output)
        return collected

    def _survey(self, batches: Iterator[Any]) -> tuple[Tensor | None, Iterator[Any]]:
        """Look at every batch of the step before the first gradient, unless one batch is the whole step."""
        if self.schedule.per_step == self.schedule.batch_size:
            return None, batches
        with torch.no_grad():
            surveyed = [self.task.survey(self.module, next(batches)) for _ in range(self.schedule.accumulation)]
        rows = torch.cat([figures for figures, _ in surveyed], dim=1)
        # Gathered along the first dimension; examples come second.
        everyone = self.accelerator.gather(rows.T.contiguous()).T
        return everyone, iter([batch for _, batch in surveyed])

    def _update(self, finite_loss: bool, finite_gradient: bool) -> bool:
        """Let the optimizer act if all is finite; with fp16 its scaler must see every step."""
        scaler = self.accelerator.scaler
        finite = finite_loss and finite_gradient
        if finite or scaler is not None:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        calibrating = scaler is not None and finite_loss and scaler.get_scale() >= 1
        if finite:
            self.skipped_in_a_row = 0
            self.task.end_step()
            if self.average is not None:
                self.average.update()
        else:
            self.skipped += 1
            self.skipped_in_a_row += 0 if calibrating else 1
            logger.warning("step %d is not finite; its update is skipped", self.step)
        return finite

    def checkpoint(self, options: dict[str, Any]) -> Checkpoint:
        """Return what must be kept to go on from here; `options` are compared on resume."""
        scaler = self.accelerator.scaler
        return Checkpoint(
            step=self.step,
            trainable=self.trainable,
            optimizer=self.optimizer.state_dict(),
            average=None if self.average is None else self.average.tensors(),
            task=self.task.state(),
            state={
                "skipped": self.skipped,
                "skipped_in_a_row": self.skipped_in_a_row,
                "average_updates": 0 if self.average is None else self.average.updates,
                "scaler": None if scaler is None else scaler.state_dict(),
            },
            config=options,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            DataError: if it belongs to another model.
        """
        if checkpoint.trainable.keys() != self.trainable.keys():
            raise DataError("the checkpoint holds other trained parameters than this model has")
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                _copy(checkpoint.trainable[name], parameter, name)
        self.optimizer.load_state_dict(dict(checkpoint.optimizer))
        self.task.load_state(checkpoint.task)
        if self.average is not None and checkpoint.average is not None:
            self.average.load(checkpoint.average, checkpoint.state["average_updates"])
        if self.accelerator.scaler is not None and checkpoint.state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step = checkpoint.step
        self.skipped = checkpoint.state["skipped"]
        self.skipped_in_a_row = checkpoint.state["skipped_in_a_row"]


def _copy(value: Tensor, parameter: nn.Parameter, name: str) -> None:
    if value.shape != parameter.shape:
        raise DataError(f"the checkpoint's {name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
    parameter.copy_(value)
