"""Prompts as training examples, for algorithms that draw their own pictures.

Law of this file: picture number p of a run, its prompt and its noise are a function of (seed, p) alone. Where the
pictures of a round are gone through several times, the same p comes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.randomness import Draws, epoch_order
from t2ialign.trainers.examples import Batch, Example, ExampleOptions, SingleExamples

MINI_PROMPTS = "mini-prompts"
"""Name of the packaged list, which the mini-world's rules write out."""
_COUNT = 256
_APART = 1 << 40
"""Added to p for the draws of a picture that is trained on beside the drawn one."""


def read_prompt_list(name: str) -> list[str]:
    """Return different prompts of a file, or the packaged list.

    Raises:
        DataError: if there is no such file, or it can not be read.
    """
    if name == MINI_PROMPTS:
        return mini_prompts("train", _COUNT)
    from t2ialign.data.prompts import read_prompts

    return list(dict.fromkeys(prompt.prompt for prompt in read_prompts(name)))


def mini_prompts(split: str, count: int, seed: int = 0) -> list[str]:
    """Return different prompts of one split of the mini-world, about four in five of two objects, the others of one.

    Args:
        split: "train", "validation" or "test", a function of a prompt's words.
        count: How many.
        seed: Another one gives others.
    """
    from t2ialign.mini.world import SAMPLERS, describe, split_of

    rng = np.random.default_rng((seed, 505))
    found: dict[str, None] = {}
    tries = 0
    while len(found) < count:
        tries += 1
        # Prompts of one object are few: where they run out, those of two take their places.
        single = len(found) % 5 == 4 and tries < 20 * count
        text = describe(SAMPLERS["single" if single else "double"](rng))
        if split_of(text) == split:
            found[text] = None
    return list(found)


@dataclass(frozen=True)
class PromptBatch:
    """B pictures to be drawn.

    Attributes:
        numbers: Of the pictures in the run, `[B]` int64.
        entries: Of their prompts in the list, `[B]` int64.
        prompts: B of them.
        pictures: Others that are trained on beside, or None.
    """

    numbers: Tensor
    entries: Tensor
    prompts: list[str]
    pictures: Batch | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def to(self, device: torch.device) -> PromptBatch:
        """Return the batch with its pictures on a device."""
        return self if self.pictures is None else replace(self, pictures=self.pictures.to(device))

    def pin_memory(self) -> PromptBatch:
        """Return the batch with its pictures in page-locked memory, as torch's data loader asks."""
        return self if self.pictures is None else replace(self, pictures=self.pictures.pin_memory())


class PromptExamples:
    """Prompts as the examples of a run; which one a picture gets follows from its number, not from the engine's index.

    Args:
        prompts: Different ones.
        group: Pictures of a prompt that follow each other.
        pictures: Others to train on beside.
        options: How those become examples.
    """

    name = "pictures"
    stages: Sequence[NDArray[np.int64]] | None = None
    blocks: Sequence[NDArray[np.int64]] | None = None
    buckets: NDArray[np.int64] | None = None
    bucket_group: int | None = None

    def __init__(
        self,
        prompts: Sequence[str],
        group: int = 1,
        pictures: UnpairedDataset | None = None,
        options: ExampleOptions | None = None,
    ) -> None:
        self.prompts = list(prompts)
        self.group = group
        self._block, self._visits = 1, 1
        self.singles: SingleExamples | None = None
        if pictures is not None and options is not None:
            self.singles = SingleExamples(pictures, options)

    def revisit(self, block: int, visits: int) -> None:
        """Have every `block` pictures come `visits` times before the next ones."""
        self._block, self._visits = block, visits

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits of the prompts in order, and of the pictures beside."""
        digest = hashlib.sha256("\x1f".join(self.prompts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return digest + ("" if self.singles is None else self.singles.fingerprint)

    def __len__(self) -> int:
        return len(self.prompts) * self.group * self._visits

    def number(self, n: int) -> int:
        """Return the number of the picture that example n of the run is."""
        rounds, rest = divmod(n, self._block * self._visits)
        return rounds * self._block + rest % self._block

    def entry(self, seed: int, number: int) -> int:
        """Return the number of the prompt of a picture."""
        epoch, place = divmod(number // self.group, len(self.prompts))
        return int(epoch_order(seed, epoch, len(self.prompts))[place])

    def read(self, index: int, draws: Draws) -> tuple[int, int, Example | None]:
        """Return number and prompt of a picture, and one to train on beside."""
        number = self.number(draws.n)
        entry = self.entry(draws.seed, number)
        if self.singles is None:
            return number, entry, None
        epoch, place = divmod(number, len(self.singles))
        row = int(epoch_order(draws.seed, epoch, len(self.singles), 1)[place])
        return number, entry, self.singles.read(row, Draws(draws.seed, _APART + number))

    def collate(self, examples: list[tuple[int, int, Example | None]]) -> PromptBatch:
        """Put pictures together."""
        beside = [example for _, _, example in examples if example is not None]
        return PromptBatch(
            numbers=torch.tensor([number for number, _, _ in examples]),
            entries=torch.tensor([entry for _, entry, _ in examples]),
            prompts=[self.prompts[entry] for _, entry, _ in examples],
            pictures=self.singles.collate(beside) if self.singles is not None else None,
        )
