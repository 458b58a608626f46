"""Which examples a step sees, and which process computes which of them.

Example n of a run is entry `n % E` in the order of epoch `n // E`, and that order is a function of (seed, epoch):

    entries, all of them                    a uniform permutation
    in blocks (a streamed set)              the blocks permuted, then the entries mixed within every few blocks, so
                                            that reading is nearly sequential and few blocks are open at once
    in buckets (pictures of one shape)      the entries of each bucket, as that permutation has them, cut into groups;
                                            the last group of a bucket is completed with the first entries of the
                                            bucket, so that an epoch has E = sum_b ceil(N_b / group) group examples.
                                            The groups are permuted; in blocks each comes when its last entry is met

With a curriculum the run is divided into as many equal parts as there are stages; a part takes its examples from its
own stage alone, again epoch by epoch. Optimizer step s covers the examples from `s * G` to `(s + 1) * G - 1`, where
G = batch size x accumulation x processes. So the examples and the noise of a step depend on G alone (and on the
group), not on how it is split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from t2ialign.engine.randomness import epoch_generator
from t2ialign.errors import ConfigError

WINDOW = 4
"""Blocks whose entries are mixed."""

Entries = NDArray[np.int64]


@dataclass(frozen=True)
class Schedule:
    """The order of a run.

    Attributes:
        seed: Of the run.
        length: Number of entries of the set.
        steps: Optimizer steps of the run.
        batch_size: Examples a process computes at once.
        accumulation: Batches a process adds up in a step.
        processes: Number of processes.
        rank: Which of them this is.
        stages: Entries of each stage of a curriculum, or None.
        blocks: Entries of each block of a streamed set, as they are stored; every entry is in one of them. Or None.
        buckets: The bucket of each entry, `[length]`, or None. A batch lies in one bucket.
        group: How many consecutive examples share a bucket; by default the batch size, else a multiple of it.

    Raises:
        ConfigError: if the group is no multiple of the batch size.
        ValueError: if blocks or buckets are not those of the set.
    """

    seed: int
    length: int
    steps: int
    batch_size: int
    accumulation: int = 1
    processes: int = 1
    rank: int = 0
    stages: Sequence[Entries] | None = None
    blocks: Sequence[Entries] | None = None
    buckets: Entries | None = None
    group: int | None = None
    _orders: dict[tuple[int, int], Entries] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if self.group is not None and (self.group < 1 or self.group % self.batch_size):
            raise ConfigError(
                f"{self.group} examples in a row share a bucket, which is no multiple of the batch size "
                f"{self.batch_size}: a batch would be of pictures of different shapes"
            )
        if self.blocks is not None and sum(len(block) for block in self.blocks) != self.length:
            raise ValueError(f"the blocks do not hold the {self.length} entries of the set")
        if self.buckets is not None and len(self.buckets) != self.length:
            raise ValueError(f"{len(self.buckets)} entries have a bucket, not {self.length}")

    @property
    def per_step(self) -> int:
        """Examples of one optimizer step over all processes, G."""
        return self.batch_size * self.accumulation * self.processes

    @property
    def visits(self) -> int:
        """Examples of the whole run over all processes, repetitions counted."""
        return self.steps * self.per_step

    @property
    def run_of_one_bucket(self) -> int:
        """How many consecutive examples share a bucket; 1 without buckets."""
        return 1 if self.buckets is None else self.group or self.batch_size

    @cached_property
    def epoch_length(self) -> int:
        """Examples of one epoch of the whole set, E; without buckets its number of entries."""
        return self._examples_of(None)

    def layout(self) -> dict[str, str | int | None]:
        """Return what the order depends on beside seed, entries and G, for comparing two runs."""
        bucketed = self.buckets is not None
        return {
            "blocks": None if self.blocks is None else _digest(self.blocks),
            "buckets": None if self.buckets is None else _digest([self.buckets]),
            "examples in a row of one bucket": self.run_of_one_bucket if bucketed else None,
        }

    def index(self, n: int) -> int:
        """Return which entry of the set example n of the run is."""
        if self.stages is None:
            epoch, position = divmod(n, self.epoch_length)
            return int(self._order(0, epoch)[position])
        # A part of the run begins with a group, so that no batch is of two stages' buckets.
        run, count = self.run_of_one_bucket, len(self.stages)
        runs = -(-self.visits // run)
        stage = self._stage(n)
        start = -(-stage * runs // count) * run
        epoch, position = divmod(n - start, self._stage_lengths[stage])
        return int(self._order(stage, epoch)[position])

    def stage(self, n: int) -> Entries | None:
        """Return the entries of the stage of a curriculum that example n belongs to; None without a curriculum."""
        return None if self.stages is None else self.stages[self._stage(n)]

    def _stage(self, n: int) -> int:
        run, count = self.run_of_one_bucket, len(self.stages or ())
        return min(n // run * count // -(-self.visits // run), count - 1)

    def batch(self, step: int, micro: int) -> list[tuple[int, int]]:
        """Return `(n, index)` of the examples in this process's batch number `micro` of a step."""
        start = step * self.per_step + (micro * self.processes + self.rank) * self.batch_size
        return [(n, self.index(n)) for n in range(start, start + self.batch_size)]

    @cached_property
    def _stage_lengths(self) -> list[int]:
        return [self._examples_of(stage) for stage in self.stages or ()]

    def _examples_of(self, entries: Entries | None) -> int:
        if self.buckets is None:
            return self.length if entries is None else len(entries)
        counts = np.bincount(self.buckets if entries is None else self.buckets[entries])
        run = self.run_of_one_bucket
        return int((-(-counts // run) * run).sum())

    def _order(self, stage: int, epoch: int) -> Entries:
        """Return the entries of one epoch in order; the last two orders are kept."""
        key = (stage, epoch)
        if key not in self._orders:
            if len(self._orders) > 1:
                self._orders.pop(next(iter(self._orders)))
            self._orders[key] = self._arranged(stage, epoch)
        return self._orders[key]

    def _arranged(self, stage: int, epoch: int) -> Entries:
        entries = np.arange(self.length) if self.stages is None else self.stages[stage]
        rng = epoch_generator(self.seed, epoch, stage)
        if self.blocks is None:
            mixed = entries[rng.permutation(len(entries))]
        else:
            mixed = _mixed(rng, _only(self.blocks, entries, self.length))
        if self.buckets is None:
            return mixed
        groups, times = _grouped(mixed, self.buckets, self.run_of_one_bucket)
        sequence = rng.permutation(len(groups)) if self.blocks is None else np.argsort(times, kind="stable")
        return groups[sequence].ravel()


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


def _only(blocks: Sequence[Entries], entries: Entries, length: int) -> list[Entries]:
    """Return what of each block is among some entries, without the blocks of which nothing is."""
    wanted = np.zeros(length, dtype=bool)
    wanted[entries] = True
    return [kept for block in blocks if len(kept := block[wanted[block]])]


def _mixed(rng: np.random.Generator, blocks: Sequence[Entries]) -> Entries:
    """Return the entries of all blocks: the blocks permuted, the entries mixed within every `WINDOW` of them."""
    sequence = rng.permutation(len(blocks))
    windows = [sequence[start : start + WINDOW] for start in range(0, len(blocks), WINDOW)]
    return np.concatenate([rng.permutation(np.concatenate([blocks[each] for each in window])) for window in windows])


def _grouped(order: Entries, buckets: Entries, size: int) -> tuple[Entries, Entries]:
    """Cut the entries of each bucket into groups.

    Args:
        order: Entries of an epoch.
        buckets: The bucket of each entry of the set.
        size: Of a group.

    Returns:
        The groups, `[groups, size]`, and the place in the order at which the last entry of each is met, `[groups]`.
    """
    of = buckets[order]
    sorted_places = np.argsort(of, kind="stable")
    groups, times = [], []
    for places in np.split(sorted_places, np.flatnonzero(np.diff(of[sorted_places])) + 1):
        count = -(-len(places) // size)
        groups.append(np.resize(order[places], (count, size)))  # begins anew where the entries end
        times.append(places[np.minimum(np.arange(1, count + 1) * size, len(places)) - 1])
    return np.concatenate(groups), np.concatenate(times)


def _digest(arrays: Sequence[Entries]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"%d\n" % len(array) + np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
