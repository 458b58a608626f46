"""Scores a set in a process of its own, or in one of a launch: `score_tiny.py SET OUTPUT LOG SECONDS WORKERS`.

Two scorers: a small network on prepared pictures, and one of whole pictures that takes SECONDS for each batch and
notes in LOG what it scored.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Shrunk:
    """8 x 8 pixels, uint8 [3, 8, 8]."""

    def __call__(self, image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image.convert("RGB").resize((8, 8)))).permute(2, 0, 1).contiguous()

    def info(self) -> dict[str, Any]:
        return {"size": 8}


class Scorer:
    """What the two share."""

    version, higher_is_better = "v1", True
    name: str

    def info(self) -> dict[str, Any]:
        return {"scorer": self.name}

    def count_truncated(self, prompts: Sequence[str]) -> int:
        return 0

    def aggregate(self, scores: Sequence[float]) -> float:
        return float(np.mean(scores))


class Network(Scorer):
    """A network with weights from a seed; its matrix products are of the batch's size."""

    name = "network"
    preparation = Shrunk()

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weights = [torch.randn(a, b, generator=generator) / a**0.5 for a, b in ((192, 300), (300, 300), (300, 1))]

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        return self.score_prepared(prompts, [self.preparation(image) for image in images])

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        x = torch.stack(list(prepared)).flatten(1).float() / 255
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return x[:, 0] + torch.tensor([float(len(prompt)) for prompt in prompts])


class Slow(Scorer):
    """Mean brightness, slowly, with a line in a file for every picture."""

    name = "slow"

    def __init__(self, log: Path, seconds: float) -> None:
        self.log, self.seconds = log, seconds

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        time.sleep(self.seconds)
        with self.log.open("a") as lines:
            lines.writelines(f"{prompt}\n" for prompt in prompts)
        return torch.tensor([float(np.asarray(image).mean()) for image in images])


def main() -> None:
    from t2ialign.reward_models.scoring import score_set

    folder, output, log, seconds, workers = sys.argv[1:]
    torch.set_num_threads(1)
    scorers: list[Any] = [Network(), Slow(Path(log), float(seconds))]
    summary = score_set(folder, scorers, output, batch_size=4, workers=int(workers), device="cpu", progress=False)
    sys.stdout.write(f"{[(each.scored, each.kept) for each in summary.scorers]} {len(summary.gaps)}\n")


if __name__ == "__main__":
    main()
