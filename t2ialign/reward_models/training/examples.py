"""Training examples of a scorer: a prompt, its pictures, and which of them are preferred.

Law of this file: a picture is read when its example is; a tie is a pair with the label one half, never a winner; what
is held out is a function of the prompt's words, so that no prompt stands on both sides.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from t2ialign.data.files import inside
from t2ialign.data.images import open_image
from t2ialign.data.pairs import PairDataset
from t2ialign.data.rankings import Ranking
from t2ialign.engine.randomness import Draws
from t2ialign.errors import DataError
from t2ialign.reward_models.training.net import Batch

NOBODY = -1
"""Number of the group of an example that belongs to none that is known."""


@dataclass(frozen=True)
class Example:
    """One example, read.

    Attributes:
        ids: Token numbers of the prompt.
        pictures: Prepared, `[n, 3, S, S]`.
        pairs: Numbers of first and second picture, and the probability that the first is preferred.
        weight: Of the example in the loss.
        group: Number of its aspect or user, or -1.
        text: Features of the prompt, `[D]`, where the towers have been run; `pictures` are then features, `[n, D]`.
    """

    ids: list[int]
    pictures: Tensor
    pairs: Sequence[tuple[int, int, float]]
    weight: float
    group: int
    text: Tensor | None = None


class RewardExamples:
    """Examples of pairs or rankings; subclasses say where the pictures are.

    Attributes:
        prompts: Of each example.
        owners: Name of the aspect or user of each example, or None.
        features: Of the pictures `[n, D]` and of the prompt `[D]` of each example, once the towers have been run.
    """

    features: list[tuple[Tensor, Tensor]] | None = None
    stages: Sequence[NDArray[np.int64]] | None = None
    blocks: Sequence[NDArray[np.int64]] | None = None
    buckets: NDArray[np.int64] | None = None
    bucket_group: int | None = None

    def __init__(
        self,
        prompts: Sequence[str],
        labels: Sequence[Sequence[tuple[int, int, float]]],
        owners: Sequence[str | None],
        tokenizer: Any,
        limit: int,
        preparation: Any,
        groups: Sequence[str],
        prompt_weights: bool,
    ) -> None:
        """Tokenize the prompts and weigh the examples."""
        self.prompts, self.owners, self._labels = list(prompts), list(owners), labels
        distinct = list(dict.fromkeys(prompts))
        encoded = tokenizer(distinct, truncation=True, max_length=limit)["input_ids"] if distinct else []
        self._ids = dict(zip(distinct, encoded, strict=True))
        self._pad = int(tokenizer.pad_token_id or 0)
        self._preparation = preparation
        number = {name: position for position, name in enumerate(groups)}
        self._groups = [number.get(owner, NOBODY) if owner is not None else NOBODY for owner in owners]
        counts = Counter(self.prompts)
        # A ranking counts as many times as it has pairs, unless each prompt counts once.
        self._weights = [
            1 / counts[prompt] if prompt_weights else float(len(pairs))
            for prompt, pairs in zip(self.prompts, labels, strict=True)
        ]

    @property
    def name(self) -> str:
        """See `engine.task.Examples`."""
        return "pairs"

    @property
    def fingerprint(self) -> str:
        """See `engine.task.Examples`."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.prompts)

    def pictures(self, index: int) -> list[Image.Image]:
        """Read the pictures of one example."""
        raise NotImplementedError

    def read(self, index: int, draws: Draws | None = None) -> Example:
        """Read and prepare one example; nothing in it is random."""
        text = None
        if self.features is not None:
            pictures, text = self.features[index]
        else:
            pictures = torch.stack([self._preparation(picture) for picture in self.pictures(index)])
        ids = self._ids[self.prompts[index]]
        return Example(ids, pictures, self._labels[index], self._weights[index], self._groups[index], text)

    def collate(self, examples: list[Example]) -> Batch:
        """Put examples together; prompts are padded to the longest."""
        longest = max(len(each.ids) for each in examples)
        ids = torch.full((len(examples), longest), self._pad)
        mask = torch.zeros_like(ids)
        for row, each in enumerate(examples):
            ids[row, : len(each.ids)] = torch.tensor(each.ids)
            mask[row, : len(each.ids)] = 1
        sizes = [len(each.pictures) for each in examples]
        starts = [0, *itertools.accumulate(sizes)]
        texts = [each.text for each in examples if each.text is not None]
        pairs = [(starts[n] + i, starts[n] + j, p) for n, each in enumerate(examples) for i, j, p in each.pairs]
        return Batch(
            pictures=torch.cat([each.pictures for each in examples]),
            ids=ids,
            mask=mask,
            owner=torch.arange(len(examples)).repeat_interleave(torch.tensor(sizes)),
            first=torch.tensor([i for i, _, _ in pairs]),
            second=torch.tensor([j for _, j, _ in pairs]),
            target=torch.tensor([p for _, _, p in pairs], dtype=torch.float32),
            weight=torch.tensor([each.weight for each in examples], dtype=torch.float32),
            group=torch.tensor([each.group for each in examples]),
            texts=torch.stack(texts) if texts else None,
        )


class PairExamples(RewardExamples):
    """Preference pairs; the chosen picture is the first.

    Args:
        data: The pairs.
        owner: Column that tells aspects or users apart, or None.
        turned: Pairs that come a second time, with the caption of the rejected picture as the prompt and that picture
            as the preferred one (`turnable`).
        more: Arguments of `RewardExamples` that do not come from the data.

    Raises:
        DataError: naming the first pair without an aspect or user where one is needed.
    """

    def __init__(self, data: PairDataset, owner: str | None, turned: Sequence[int] = (), **more: Any) -> None:
        """Read the columns."""
        shares = [1.0 if share is None else float(share) for share in data.column("preference_prob")]
        owners: list[Any] = [None] * len(data) if owner is None else data.column(owner)
        for index, value in enumerate(owners):
            if owner is not None and value is None:
                raise DataError(f"{data.name} row {data.row(index)} has no {owner}; give every pair one")
        self.data, self.turned = data, tuple(turned)
        captions = data.column("rejected_prompt") if self.turned else []
        super().__init__(
            [*data.prompts, *(str(captions[index]) for index in self.turned)],
            [[(0, 1, share)] for share in shares] + [[(0, 1, 1.0)]] * len(self.turned),
            owners + [owners[index] for index in self.turned],
            **more,
        )

    @property
    def fingerprint(self) -> str:
        """See `engine.task.Examples`."""
        if not self.turned:
            return self.data.fingerprint
        return hashlib.sha256(f"{self.data.fingerprint} {self.turned}".encode()).hexdigest()[:32]

    def pictures(self, index: int) -> list[Image.Image]:
        """See `RewardExamples`."""
        if index < len(self.data):
            pair = self.data[index]
            return [pair.chosen, pair.rejected]
        pair = self.data[self.turned[index - len(self.data)]]
        return [pair.rejected, pair.chosen]


class RankingExamples(RewardExamples):
    """Rankings, each with all its untied pairs; the better picture is the first.

    Args:
        rankings: At least one untied pair each (`untied`).
        images: Folder of the pictures.
        more: Arguments of `RewardExamples` that do not come from the data.
    """

    def __init__(self, rankings: Sequence[Ranking], images: Path, **more: Any) -> None:
        """Make the pairs."""
        self.rankings, self.images = list(rankings), images
        labels = [ranked_pairs(ranking.ranks) for ranking in rankings]
        super().__init__([each.prompt for each in rankings], labels, [None] * len(labels), **more)

    @property
    def name(self) -> str:
        """See `engine.task.Examples`."""
        return "rankings"

    @property
    def fingerprint(self) -> str:
        """Of the rankings and the sizes of their files."""
        digest = hashlib.sha256()
        for each in self.rankings:
            sizes = [inside(self.images, name).stat().st_size for name in each.file_names]
            digest.update(repr((each.prompt, each.file_names, each.ranks, sizes)).encode())
        return digest.hexdigest()[:32]

    def pictures(self, index: int) -> list[Image.Image]:
        """See `RewardExamples`."""
        ranking = self.rankings[index]
        return [open_image(inside(self.images, name)) for name in ranking.file_names]


def turnable(data: PairDataset, held_out: Sequence[str]) -> list[int]:
    """Return the pairs that can be turned round: the rejected picture has a caption of its own, which is not held out.

    Raises:
        DataError: if there is none.
    """
    own = data.column("chosen_prompt")
    taken = set(held_out)
    found = [
        index
        for index, (caption, prompt) in enumerate(zip(data.column("rejected_prompt"), data.prompts, strict=True))
        if caption is not None and caption not in (prompt, own[index]) and caption not in taken
    ]
    if not found:
        raise DataError(f"{data.name} has no rejected_prompt to turn a pair by; leave --dual_captions out")
    return found


def ranked_pairs(ranks: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return (better, worse, 1) of every untied pair of a ranking; lower ranks are better."""
    return [(i, j, 1.0) for i, j in itertools.permutations(range(len(ranks)), 2) if ranks[i] < ranks[j]]


def is_held_out(prompt: str, share: float) -> bool:
    """Tell whether a prompt belongs to the held-out share, by its words alone."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") < share * 2**64
