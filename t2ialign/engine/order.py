"""Which examples a step sees, and which process computes which of them.

Example n of a run is entry `n % length` of epoch `n // length`, whose order is a function of (seed, epoch).
With a curriculum the run is divided into as many equal parts as there are stages; a part takes its examples from its
own stage alone, again epoch by epoch. Optimizer step s covers the examples from `s * G` to `(s + 1) * G - 1`, where
G = batch size x accumulation x processes. So the examples and the noise of a step depend on G alone, not on how it
is split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from t2ialign.engine.randomness import epoch_order


@dataclass(frozen=True)
class Schedule:
    """The order of a run.

    Attributes:
        seed: Of the run.
        length: Number of examples in the set.
        steps: Optimizer steps of the run.
        batch_size: Examples a process computes at once.
        accumulation: Batches a process adds up in a step.
        processes: Number of processes.
        rank: Which of them this is.
        stages: Entries of each stage of a curriculum, or None.
    """

    seed: int
    length: int
    steps: int
    batch_size: int
    accumulation: int = 1
    processes: int = 1
    rank: int = 0
    stages: Sequence[NDArray[np.int64]] | None = None

    @property
    def per_step(self) -> int:
        """Examples of one optimizer step over all processes, G."""
        return self.batch_size * self.accumulation * self.processes

    def index(self, n: int) -> int:
        """Return which entry of the set example n of the run is."""
        if self.stages is None:
            epoch, position = divmod(n, self.length)
            return int(epoch_order(self.seed, epoch, self.length)[position])
        stage = min(n * len(self.stages) // self.visits, len(self.stages) - 1)
        start = -(-stage * self.visits // len(self.stages))
        entries = self.stages[stage]
        epoch, position = divmod(n - start, len(entries))
        return int(entries[epoch_order(self.seed, epoch, len(entries), stage)[position]])

    def batch(self, step: int, micro: int) -> list[tuple[int, int]]:
        """Return `(n, index)` of the examples in this process's batch number `micro` of a step."""
        start = step * self.per_step + (micro * self.processes + self.rank) * self.batch_size
        return [(n, self.index(n)) for n in range(start, start + self.batch_size)]

    @property
    def visits(self) -> int:
        """Examples of the whole run over all processes, repetitions counted."""
        return self.steps * self.per_step


class ScheduleSampler(Sampler[list[tuple[int, int]]]):
    """Yields the batches of `(n, index)` of one process, from a given step on.

    Args:
        schedule: Of the run.
        start: First optimizer step.
    """

    def __init__(self, schedule: Schedule, start: int = 0) -> None:
        self.schedule = schedule
        self.start = start

    def __len__(self) -> int:
        return (self.schedule.steps - self.start) * self.schedule.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.schedule.steps):
            for micro in range(self.schedule.accumulation):
                yield self.schedule.batch(step, micro)
