from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


class Refusing:
    """A file whose disk is full while `full`: it takes half of what it is given, then none."""

    def __init__(self, file: Any) -> None:
        self.file, self.full = file, True

    def write(self, content: bytes) -> int:
        return int(self.file.write(content[: len(content) // 2] if self.full else content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_lines_that_the_disk_refuses_are_written_later_without_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, make_accelerator(toy_config(tmp_path)))
    log.write(1, {"loss": 1.0})
    disk: Any = Refusing(log._file)
    log._file = disk
    for step in (2, 3):
        log.write(step, {"loss": float(step)})
        assert [line["step"] for line in read_metrics(path)] == [1]
        assert path.read_text().endswith("}\n")
    assert caplog.text.count("can not be written") == 1
    with pytest.raises(OSError, match="No space"):
        log.sync()
    disk.full = False
    log.sync()
    log.write(4, {"loss": 4.0})
    log.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_figures_that_come_late_are_added_to_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n{"step": 3, "loss": 0.1}\n')
    log = MetricsLog(path, make_accelerator(toy_config(tmp_path)), start=2)
    log.amend({"watch": 7.0})
    log.write(3, {"loss": 0.1})
    log.close()
    assert read_metrics(path) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.25, "watch": 7.0},
        {"step": 3, "loss": 0.1},
    ]


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        name = "failing"
        calls = 0

        def log(self, values: Any, step: int | None = None, **more: Any) -> None:
            self.calls += 1
            raise RuntimeError("no network")

    accelerator, failing = make_accelerator(toy_config(tmp_path)), Failing()
    accelerator.trackers = [failing]
    log = MetricsLog(tmp_path / "metrics.jsonl", accelerator)
    for step in (1, 2):
        log.write(step, {"loss": 1.0})
    log.close()
    assert failing.calls == 1
    assert "the tracker failed at step 1" in caplog.text
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
