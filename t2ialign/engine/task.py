"""What an algorithm hands to the loop.

The loop calls `setup` once, `examples.read` for each training example (possibly in a worker process),
`examples.collate` for each batch, `loss` for each batch, and the two writers at their times. It looks into none
of what they exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset

from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
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

    def __len__(self) -> int:
        """Number of examples in the set."""

    def read(self, index: int, draws: Draws) -> Any:
        """Return entry `index` with its random draws, on the CPU."""

    def collate(self, examples: list[Any]) -> Any:
        """Put examples together into a batch, on the CPU."""


class Task(Protocol):
    """A model, its examples and its loss, as one."""

    @property
    def module(self) -> nn.Module:
        """What is trained: its parameters that require a gradient. `accelerate` prepares it."""

    @property
    def examples(self) -> Examples:
        """What it is trained on."""

    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        """Fill caches before the first step; return early once `stop()` is true."""

    def loss(self, module: nn.Module, batch: Any) -> LossOutput:
        """Return the loss of a batch; the forward with gradient goes through `module`, the prepared one."""

    def write_samples(self, file: Path, stop: StopRequested) -> None:
        """Draw sample pictures into one PNG; return early once `stop()` is true."""

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
