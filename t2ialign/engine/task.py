"""What an algorithm hands to the loop.

The loop calls `setup` once, `examples.read` for each training example (possibly in a worker process),
`examples.collate` for each batch, `loss` for each batch, and the two writers at their times. It looks into none
of what they exchange.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
from t2ialign.errors import DataError
from t2ialign.objectives import LossOutput

StopRequested = Callable[[], bool]


class GivenUp(Exception):
    """A stop was asked for, and a task has given up what it was at; nothing of it was done."""


class Examples(Protocol):
    """The training examples; it goes to worker processes, so it holds no model."""

    @property
    def name(self) -> str:
        """What an example is, in the plural: `<name>_per_second` is logged."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal contents; a run does not resume on other examples."""

    @property
    def stages(self) -> Sequence[NDArray[np.int64]] | None:
        """Entries in the order of a curriculum, stage after stage; None for all of them in each epoch."""

    @property
    def blocks(self) -> Sequence[NDArray[np.int64]] | None:
        """Entries of each block of a streamed set, as stored; None where any entry is read as fast as any other."""

    @property
    def buckets(self) -> NDArray[np.int64] | None:
        """The bucket of each entry, where only those of one bucket can be put into a batch; else None."""

    @property
    def bucket_group(self) -> int | None:
        """How many examples in a row share a bucket; None for a batch."""

    def __len__(self) -> int:
        """Number of examples in the set."""

    def read(self, index: int, draws: Draws) -> Any:
        """Return entry `index` with its random draws, on the CPU; DataError if that entry can not be read."""

    def collate(self, examples: list[Any]) -> Any:
        """Put examples together into a batch, on the CPU."""


class Task(ABC):
    """A model, its examples and its loss, as one.

    Most losses look at a batch alone. One that depends on all examples of a step (`surveys`) is given them in two
    passes, so that it is the same however a step is split into batches and processes: `survey` of every batch without
    gradient, then `loss` with the figures of the whole step. A task that learns beside its weights (`state`) keeps
    that in the checkpoint, and moves on in `end_step`. One whose batch is too much for one backward pass divides it
    (`parts`); one that makes its own examples from the model does so in `begin_step`; one that looks at how the model
    draws does so in `measure`.
    """

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """What is trained: its parameters that require a gradient. `accelerate` prepares it."""

    @property
    @abstractmethod
    def examples(self) -> Examples:
        """What it is trained on."""

    @property
    def whole_only(self) -> str | None:
        """Why every process must hold the whole module; None if it calls `module` as often as the others do."""
        return "this training may call its model a different number of times on each process"

    @property
    def beside(self) -> Sequence[nn.Module]:
        """Frozen networks of the module's size; where its parameters are spread over the processes, so are theirs."""
        return ()

    def standing_in(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which samples and `final/` are made of `module`, a whole one, instead of the trained."""
        raise NotImplementedError(f"{type(self).__name__} says that it can be sharded, but takes no stand-in")

    @property
    def prepared(self) -> frozenset[str]:
        """Names in the run's folder that the task has written before the first step."""
        return frozenset()

    @abstractmethod
    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Fill caches before the first step; return early once `stop()` is true."""

    def begin_step(self, step: int) -> None:
        """Prepare for optimizer step number `step`, counted from 0; every process is called.

        Raises:
            GivenUp: in all processes, where a stop is asked for; the step can be begun again.
        """
        return None

    def parts(self, batch: Any) -> Sequence[Any]:
        """Return what of a batch is computed one after the other, a backward pass each; its loss is their mean.

        There are as many for every batch of every process.
        """
        return (batch,)

    @property
    def surveys(self) -> bool:
        """Whether the loss needs figures of the whole step."""
        return False

    def survey(self, module: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return figures of a batch's examples, `[K, B]` float32, and the batch with what was computed for them."""
        raise NotImplementedError(f"{type(self).__name__} says that it surveys, but has no survey")

    @abstractmethod
    def loss(self, module: nn.Module, batch: Any, step: Tensor | None = None) -> LossOutput:
        """Return the loss of a batch; the forward with gradient goes through `module`, the prepared one.

        Args:
            module: The prepared module.
            batch: Of this process.
            step: The surveyed figures of all examples of the step, `[K, N]`, or None without a survey.
        """

    def end_step(self) -> None:
        """Move on after an optimizer step that was taken; a step that was skipped leaves no trace."""
        return None

    def observe(self, step: int, figures: Mapping[str, Any]) -> Mapping[str, Any]:
        """Look at the figures of a step, and return further ones for its line of metrics.

        Every process is called, after every step, with the figures of all processes.

        Args:
            step: Optimizer steps done.
            figures: Of the step, as they are logged; what was not finite is so here.
        """
        return {}

    def trace(self, n: int, index: int) -> Mapping[str, Any]:
        """Return what example n of the run, entry `index` of the set, is drawn as: for looking into a bad step."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return what the task has learned beside the module's weights; the tensors are not changed in place later."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; DataError if it is another task's."""
        if state:
            raise DataError(f"the checkpoint holds {', '.join(state)}, which this task does not know")

    @property
    def measure_every(self) -> int:
        """Optimizer steps between two calls of `measure`; 0 for none at all."""
        return 0

    def measure(self, step: int) -> Mapping[str, float]:
        """Look at the model as it is shown after `step` steps, and return figures for that step's line of metrics.

        The first process is called before the first step (0, which has no line), every `measure_every` steps, and
        after the last one.

        Raises:
            GivenUp: where a stop is asked for.
        """
        return {}

    @abstractmethod
    def write_samples(self, file: Path, stop: StopRequested) -> None:
        """Draw sample pictures into one PNG; return early once `stop()` is true."""

    @abstractmethod
    def write_final(self, directory: Path, facts: Mapping[str, Any]) -> None:
        """Write the trained model into an empty folder; `facts` is what is known of the run."""
