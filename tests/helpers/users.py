"""Sets of pairs that users judged, and an extractor that is plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.pair_sets import pair
from t2ialign.data.pairs import PairDataset, PreferencePair, Ties, load_pairs, write_pairs

COLUMNS = ("prompt", "chosen", "rejected", "user_id", "preference_prob")


def judged(folder: Path, users: Sequence[str | None], *, ties: Ties = "drop", **columns: Sequence[Any]) -> PairDataset:
    """Writes and opens a pair for each entry of `users`; pictures and prompts differ from pair to pair."""
    rows: list[Mapping[str, Any]] = [
        pair(number, user_id=user, preference_prob=1.0) | {name: values[number] for name, values in columns.items()}
        for number, user in enumerate(users)
    ]
    return load_pairs(write_pairs(rows, folder, columns=COLUMNS), ties=ties)


class Colours:
    """Two tokens: the mean colours of the chosen and of the rejected pictures, at a root mean square of 1."""

    name = "colours:plain@00000000"

    def __init__(self, name: str = name, fail_after: int | None = None) -> None:
        self.name = name
        self.calls = 0
        self.fail_after = fail_after

    def extract(self, shots: Sequence[PreferencePair]) -> torch.Tensor:
        if self.calls == self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        sides = [[np.asarray(picture).mean((0, 1)) for picture in side] for side in pictures(shots)]
        tokens = torch.tensor(np.array(sides).mean(1), dtype=torch.float32) + 1.0
        return tokens / tokens.square().mean(-1, keepdim=True).sqrt()


def pictures(shots: Sequence[PreferencePair]) -> tuple[list[Any], list[Any]]:
    return [shot.chosen for shot in shots], [shot.rejected for shot in shots]
