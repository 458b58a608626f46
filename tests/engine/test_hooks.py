"""What the loop asks a task for beside its loss: parts of a batch, the beginning of a step, measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.toy_task import ToyTask, toy_config
from t2ialign.engine.loop import fit
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.processes import make_accelerator


class Halved(ToyTask):
    """Computes a batch one example at a time."""

    def parts(self, batch: Tensor) -> Sequence[Tensor]:
        return [batch[row : row + 1] for row in range(len(batch))]


class Watched(ToyTask):
    """Notes when it is asked, and what its first weight is then."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.begun, self.measured = every, [], {}  # type: ignore[var-annotated]

    @property
    def measure_every(self) -> int:
        return self.every

    def begin_step(self, step: int) -> None:
        self.begun.append(step)

    def measure(self, step: int) -> Mapping[str, float]:
        self.measured[step] = float(next(self.network.parameters()).detach().flatten()[0])
        return {"looked": float(step)}


def run(task: Any, output: Path, **changes: Any) -> list[dict[str, Any]]:
    config = toy_config(output, **changes)
    fit(task, config, make_accelerator(config))
    return read_metrics(output / "metrics.jsonl")


def test_a_batch_in_parts_is_the_batch(tmp_path: Path) -> None:
    whole, parts = ToyTask(), Halved()
    lines = [run(task, tmp_path / type(task).__name__, gradient_accumulation_steps=2) for task in (whole, parts)]
    for one, other in zip(*lines, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["margin"] == pytest.approx(other["margin"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], abs=1e-6)
    for mine, theirs in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_it_is_measured_before_every_so_often_and_after(tmp_path: Path) -> None:
    task = Watched(4)
    lines = run(task, tmp_path / "run", steps=6)
    assert list(task.measured) == [0, 4, 6]
    assert [line.get("looked") for line in lines] == [None, None, None, 4.0, None, 6.0]
    assert task.begun == list(range(6))
    never = Watched(0)
    run(never, tmp_path / "never", steps=2)
    assert not never.measured


def test_a_run_that_goes_on_measures_where_it_would_have(tmp_path: Path) -> None:
    run(Watched(4), tmp_path / "run", steps=6)
    task = Watched(4)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000002"
    lines = run(task, tmp_path / "run", steps=6, resume=str(checkpoint))
    assert list(task.measured) == [4, 6]
    assert task.begun == [2, 3, 4, 5]
    assert [line.get("looked") for line in lines] == [None, None, None, 4.0, None, 6.0]


def test_what_is_measured_is_the_average(tmp_path: Path) -> None:
    task = Watched(6)
    run(task, tmp_path / "run", steps=6, ema=True, ema_decay=0.5)
    trained = float(next(task.network.parameters()).detach().flatten()[0])
    assert task.measured[6] != trained
