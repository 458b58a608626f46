"""The law of randomness: every draw of the n-th training example is a function of (seed, n) alone.

So resuming needs only the step number, the number of workers and processes does not change a run, the split of
a step into batches does not either, and two algorithms can be compared on the same noise. It is kept by
counter-based generators (Philox 4x64: the seed is the key; the example and the kind of draw are the counter),
made afresh for each draw, so that no draw can depend on how many came before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Stream(IntEnum):
    """Kinds of draw; the numbers are part of what a seed means and are never given to another kind."""

    TIMESTEP = 0
    NOISE = 1
    POSTERIOR_CHOSEN = 2
    POSTERIOR_REJECTED = 3
    CROP = 4
    FLIP_CHOSEN = 5
    FLIP_REJECTED = 6
    CAPTION = 7
    USER = 8
    USER_EMBEDDING = 9
    CHAIN = 10
    STOP = 11


_ORDER = 1 << 32
_MODULE = (1 << 32) + 1


@lru_cache(maxsize=16)
def _key(seed: int) -> int:
    digest = hashlib.sha256(f"t2ialign/{seed}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_key(seed), counter=[0, 0, stream, number]))


@dataclass(frozen=True)
class Draws:
    """The random draws of one training example.

    Attributes:
        seed: Of the run.
        n: Number of the example in the run, from 0; it counts on through the epochs.
    """

    seed: int
    n: int

    def uniform(self, stream: Stream, count: int = 1) -> tuple[float, ...]:
        """Return `count` numbers in [0, 1)."""
        return tuple(_generator(self.seed, stream, self.n).random(count).tolist())

    def integer(self, stream: Stream, high: int) -> int:
        """Return a whole number in [0, high)."""
        return int(_generator(self.seed, stream, self.n).integers(high))

    def normal(self, stream: Stream, shape: Sequence[int]) -> Tensor:
        """Return standard normal numbers of the given shape, float32 on the CPU."""
        return torch.from_numpy(_generator(self.seed, stream, self.n).standard_normal(tuple(shape), dtype=np.float32))

    def chance(self, stream: Stream, probability: float) -> bool:
        """Return True with the given probability."""
        return probability > 0 and self.uniform(stream)[0] < probability


def epoch_generator(seed: int, epoch: int, stage: int = 0) -> np.random.Generator:
    """Return the generator, at its beginning, that the order of one epoch of a stage is drawn from."""
    return _generator(seed, _ORDER, epoch | stage << 32)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, length: int, stage: int = 0) -> NDArray[np.int64]:
    """Return the order of the examples in one epoch of a stage, a permutation of `range(length)`."""
    return epoch_generator(seed, epoch, stage).permutation(length)


def seed_modules(seed: int, step: int, rank: int) -> None:
    """Seed torch's global generators for one optimizer step, for what draws inside modules (dropout).

    Args:
        seed: Of the run.
        step: Number of the optimizer step.
        rank: Number of the process; dropout differs between processes.
    """
    torch.manual_seed(int(_generator(seed, _MODULE + rank, step).integers(1 << 62)))
