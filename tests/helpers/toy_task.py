"""A task without any picture: a small network learns which of two vectors is preferred. For tests of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2ialign.engine.config import TrainConfig
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.engine.task import StopRequested, Task
from t2ialign.objectives import LossOutput

WIDTH = 6


class ToyExamples:
    """Vectors with a number each; an example adds noise to one."""

    name = "pairs"
    stages = blocks = buckets = bucket_group = None

    def __init__(self, count: int = 10) -> None:
        self.vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(5))
        self.seen: list[tuple[int, int]] = []
        self.fingerprint = f"toy-{count}"

    def __len__(self) -> int:
        return len(self.vectors)

    def read(self, index: int, draws: Draws) -> Tensor:
        self.seen.append((draws.n, index))
        return self.vectors[index] + 0.1 * draws.normal(Stream.NOISE, (WIDTH,))

    def collate(self, examples: list[Tensor]) -> Tensor:
        return torch.stack(examples)


class ToyTask(Task):
    """Minimises softplus(-network(x)); dropout makes it depend on torch's generator too."""

    def __init__(self, count: int = 10, dropout: float = 0.0, poison: tuple[int, ...] = ()) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.network = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        self._examples = ToyExamples(count)
        self.poison = poison
        self.calls = 0

    @property
    def module(self) -> nn.Module:
        return self.network

    @property
    def examples(self) -> ToyExamples:
        return self._examples

    def setup(self, device: torch.device, schedule: Schedule, stop: StopRequested) -> None:
        self.schedule = schedule

    def loss(self, module: nn.Module, batch: Tensor, step: Tensor | None = None) -> LossOutput:
        margin = module(batch).squeeze(1)
        losses = nn.functional.softplus(-margin)
        if self.calls in self.poison:
            losses = losses * float("nan")
        self.calls += 1
        accuracy = (margin > 0).float()
        return LossOutput(losses.mean(), margin.detach(), {"implicit_accuracy": accuracy.detach()})

    def write_samples(self, file: Path, stop: StopRequested) -> None:
        file.write_bytes(b"picture")

    def write_final(self, directory: Path, facts: Mapping[str, Any]) -> None:
        torch.save(self.network.state_dict(), directory / "weights.pt")


def toy_config(output_dir: Path, **changes: Any) -> TrainConfig:
    """Options with every value known."""
    options: dict[str, Any] = {
        "steps": 6,
        "batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.05,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 2,
        "optimizer": "adamw",
        "mixed_precision": "no",
        "checkpoint_every": 2,
        "keep_checkpoints": 0,
    }
    return TrainConfig(output_dir=output_dir, **{**options, **changes})
