"""The state of a run and what one optimizer step does to it.

A step: if the loss looks at the whole step, a survey of its batches without gradient and an exchange of what was
found; forward and backward of each batch, the norm of the gradient, one exchange of figures between processes, then
the optimizer, unless the loss or the gradient is not finite. A skipped step still counts as a step, so that the data
move on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from t2ialign.engine.checkpoints import Checkpoint
from t2ialign.engine.config import TrainConfig, known
from t2ialign.engine.ema import Average
from t2ialign.engine.metrics import StepFigures
from t2ialign.engine.optimizers import build_optimizer, keep_layout, rate_factor, set_rate
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import seed_modules
from t2ialign.engine.sharding import (
    Twin,
    check_run,
    gather,
    is_sharded,
    optimizer_parts,
    part_of,
    shard_frozen,
    whole_norm,
)
from t2ialign.engine.task import StopRequested, Task
from t2ialign.errors import DataError, ModelError

logger = logging.getLogger(__name__)


class _Footing(NamedTuple):
    """What is kept beside weights, optimizer and average, as it was after a number of steps."""

    step: int
    counters: dict[str, Any]
    task: Mapping[str, Tensor]


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
        self._twin: Twin | None = None
        self._parts: dict[str, nn.Parameter] = {}
        self._prepare()
        self.average = Average(list(self.trainable.values()), config.ema_decay) if config.ema else None
        self._rate = known(config.learning_rate, "learning_rate")
        self._factor = rate_factor(config)
        self.step = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self._moved = True
        self._footing = _Footing(0, {}, {})

    def _prepare(self) -> None:
        """Let accelerate wrap module and optimizer; where it spreads the parameters, take the parts for them."""
        task, accelerator = self.task, self.accelerator
        optimizer = build_optimizer(self.config, list(self.trainable.values()))
        if is_sharded(accelerator):
            check_run(task, self.config)
            self._twin = Twin(task.module)
        self.module, self.optimizer = accelerator.prepare(task.module, optimizer, device_placement=[True, True])
        if self._twin is not None:
            for other in task.beside:
                shard_frozen(accelerator, other)
            self._parts = dict(task.module.named_parameters())
            self.trainable = {name: self._parts[name] for name in self.trainable}

    def advance(self, batches: Iterator[Any], stop: StopRequested) -> tuple[dict[str, Any], bool]:
        """Do one optimizer step.

        Args:
            batches: Gives the batches; as many are taken as the step adds up.
            stop: Whether this process was asked to stop.

        Returns:
            The figures of the step, and whether any process was asked to stop.
        """
        if self._moved:
            self._footing, self._moved = _Footing(self.step, self._counters(), self.task.state()), False
        rate = self._rate * self._factor(self.step)
        set_rate(self.optimizer, rate)
        self.task.begin_step(self.step)
        seed_modules(self.config.seed, self.step, self.schedule.rank)
        collected = self._accumulate(batches)
        limit = self.config.max_grad_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(list(self.trainable.values()), limit)
        if norm is None:
            raise ModelError("the gradient has no norm on this backend")
        figures, stopped = collected.gather(self.accelerator, whole_norm(norm), stop())
        taken = self._update(math.isfinite(figures["loss"]), math.isfinite(figures["grad_norm"]))
        self.step += 1
        seen = self.task.observe(self.step, figures)
        return {**figures, **seen, "learning_rate": rate, "skipped": not taken}, stopped

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
        if finite:
            self.optimizer.step()
        elif scaler is not None:
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        calibrating = scaler is not None and finite_loss and scaler.get_scale() >= 1
        if finite:
            self.skipped_in_a_row, self._moved = 0, True
            self.task.end_step()
            if self.average is not None:
                self.average.update()
        else:
            self.skipped += 1
            self.skipped_in_a_row += 0 if calibrating else 1
            logger.warning("step %d is not finite; its update is skipped", self.step)
        return finite

    @contextmanager
    def shown(self, device: torch.device) -> Iterator[None]:
        """Let the first process draw and write inside the block; every process enters.

        The averaged weights are in place, and whole ones where the processes hold parts.

        Args:
            device: Where whole weights go.
        """
        first = self.accelerator.is_main_process
        with ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.applied())
            if self._twin is not None:
                stack.enter_context(self._twin.filled(self._parts, device, keep=first))
                if first:
                    stack.enter_context(self.task.standing_in(self._twin.module))
                    stack.enter_context(self.accelerator.autocast())
            yield

    def checkpoint(self, options: dict[str, Any], footing: bool = False) -> Checkpoint:
        """Return what must be kept to go on from here.

        Every process is called, at the same step, so that one whose tensors are spread over processes can gather
        them; what is returned counts on the first process alone, which writes it.

        Args:
            options: Of the run, compared on resume.
            footing: Return what must be kept to go on from before the steps without an update that came last. The
                weights have not moved since; a run that goes on from there meets the same numbers again.
        """
        keep = self.accelerator.is_main_process
        now = self._footing if footing else _Footing(self.step, self._counters(), self.task.state())
        return Checkpoint(
            step=now.step,
            trainable=gather(self.trainable, keep),
            optimizer=gather(self.optimizer.state_dict(), keep),
            average=None if self.average is None else gather(self.average.tensors(), keep),
            task=now.task,
            state=now.counters,
            config=options,
        )

    def _counters(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "average_updates": 0 if self.average is None else self.average.updates,
            "scaler": None if scaler is None else scaler.state_dict(),
        }

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
        self.optimizer.load_state_dict(optimizer_parts(checkpoint.optimizer, list(self.trainable.values())))
        keep_layout(self.optimizer)
        self.task.load_state(checkpoint.task)
        if self.average is not None and checkpoint.average is not None:
            self.average.load(checkpoint.average, checkpoint.state["average_updates"])
        if self.accelerator.scaler is not None and checkpoint.state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
        self.step = checkpoint.step
        self.skipped = checkpoint.state["skipped"]
        self.skipped_in_a_row = checkpoint.state["skipped_in_a_row"]
        self._moved = True


def _copy(value: Tensor, parameter: nn.Parameter, name: str) -> None:
    if value.shape != parameter.shape:
        raise DataError(f"the checkpoint's {name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
    parameter.copy_(part_of(value, parameter))
