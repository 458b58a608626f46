"""What an algorithm hands to the loop.

The loop calls `setup` once, `examples.read` for each training example (possibly in a worker process),
`examples.collate` for each batch, `loss` for each batch, and the two writers at their times. It looks into none
of what they exchange.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
from t2ialign.errors import DataError
from t2ialign.objectives import LossOutput

StopRequested = Callable[[], bool]


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

    def __len__(self) -> int:
        """Number of examples in the set."""

    def read(self, index: int, draws: Draws) -> Any:
        """Return entry `index` with its random draws, on the CPU."""

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
    def prepared(self) -> frozenset[str]:
        """Names in the run's folder that the task has written before the first step."""
        return frozenset()

    @abstractmethod
    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Fill caches before the first step; return early once `stop()` is true."""

    def begin_step(self, step: int) -> None:
        """Prepare for optimizer step number `step`, counted from 0; every process is called."""
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

    def state(self) -> dict[str, Tensor]:
        """Return what the task has learned beside the module's weights."""
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
        """
        return {}

    @abstractmethod
    def write_samples(self, file: Path, stop: StopRequested) -> None:
        """Draw sample pictures into one PNG; return early once `stop()` is true."""

    @abstractmethod
    def write_final(self, directory: Path, facts: Mapping[str, Any]) -> None:
        """Write the trained model into an empty folder; `facts` is what is known of the run."""


class DrawnExamples(Dataset[Any]):
    """Examples by `(n, index)`, as a data loader asks for them.

    Args:
        examples: Of the task.
        seed: Of the run.
    """

    def __init__(self, examples: Examples, seed: int) -> None:
        self._examples = examples
        self._seed = seed

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        n, index = key
        return self._examples.read(index, Draws(self._seed, n))
