from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.toy_task import toy_config
from t2ialign.engine.metrics import MetricsLog, StepFigures, read_metrics
from t2ialign.engine.processes import make_accelerator
from t2ialign.objectives import LossOutput


def test_the_figures_of_a_step_are_those_of_all_its_examples(tmp_path: Path) -> None:
    accelerator = make_accelerator(toy_config(tmp_path))
    figures = StepFigures()
    figures.add(LossOutput(torch.tensor(1.0), torch.tensor([0.0, 1.0]), {"error_chosen": torch.tensor([2.0, 4.0])}))
    figures.add(LossOutput(torch.tensor(3.0), torch.tensor([2.0, 3.0]), {"error_chosen": torch.tensor([6.0, 8.0])}))
    numbers, stopped = figures.gather(accelerator, torch.tensor(0.5), stop=False)
    assert not stopped
    assert numbers["loss"] == 2.0
    assert numbers["error_chosen"] == 5.0
    assert numbers["margin"] == 1.5
    assert numbers["margin_p50"] == pytest.approx(1.5)
    assert numbers["margin_p05"] == pytest.approx(0.15)
    assert numbers["margin_p95"] == pytest.approx(2.85)
    assert numbers["grad_norm"] == 0.5
    assert figures.gather(accelerator, torch.tensor(0.5), stop=True)[1]


def test_every_line_is_valid_json_even_where_a_figure_is_not_finite(tmp_path: Path) -> None:
    accelerator = make_accelerator(toy_config(tmp_path))
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, accelerator)
    log.write(1, {"loss": float("nan"), "grad_norm": float("inf"), "margin": 0.5})
    log.close()
    assert json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name)) == {
        "step": 1,
        "loss": None,
        "grad_norm": None,
        "margin": 0.5,
    }


def test_lines_after_the_checkpoint_and_a_line_cut_by_a_kill_are_removed(tmp_path: Path) -> None:
    accelerator = make_accelerator(toy_config(tmp_path))
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = MetricsLog(path, accelerator, start=2)
    assert log.last == {"step": 2}
    log.write(3, {"loss": 1.0})
    log.close()
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    assert read_metrics(path)[2]["loss"] == 1.0
