"""The loop on a task without pictures: order, resume, guard, signals, files."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.toy_task import ToyTask, toy_config
from t2ialign.engine.checkpoints import list_checkpoints, read_checkpoint
from t2ialign.engine.config import TrainConfig
from t2ialign.engine.loop import FitResult, fit
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.processes import make_accelerator
from t2ialign.errors import ConfigError, DataError, T2IAlignError

TIMINGS = {"pairs_per_second"}


def run(task: ToyTask, config: TrainConfig) -> FitResult:
    return fit(task, config, make_accelerator(config))


def weights(task: ToyTask) -> torch.Tensor:
    return torch.cat([part.detach().flatten() for part in task.network.parameters()])


def figures(output: Path) -> list[dict[str, Any]]:
    lines = read_metrics(output / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def test_a_run_leaves_what_it_promises(tmp_path: Path) -> None:
    output = tmp_path / "run"
    result = run(ToyTask(), toy_config(output, sample_every=3))
    assert (result.status, result.steps, result.signal, result.skipped_steps) == ("done", 6, None, 0)
    lines = read_metrics(output / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "margin", "margin_p05", "margin_p95", "grad_norm", "learning_rate", "implicit_accuracy"} <= set(
        lines[0]
    )
    assert lines[0]["pairs_per_second"] > 0
    assert [path.name for path in list_checkpoints(output / "checkpoints")] == [
        "step-000002",
        "step-000004",
        "step-000006",
    ]
    assert sorted(path.name for path in (output / "samples").iterdir()) == ["step-000003.png", "step-000006.png"]
    assert (output / "final" / "weights.pt").is_file()
    assert (output / "config.yaml").is_file()
    assert not list(output.rglob("*aside*"))


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    run(ToyTask(), toy_config(tmp_path / "run", steps=40))
    losses = [line["loss"] for line in figures(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("split", [(1, 4), (2, 2)])
def test_the_split_into_batches_does_not_change_the_run(tmp_path: Path, split: tuple[int, int]) -> None:
    whole, parts = ToyTask(), ToyTask()
    run(whole, toy_config(tmp_path / "whole"))
    run(parts, toy_config(tmp_path / "parts", batch_size=split[0], gradient_accumulation_steps=split[1]))
    assert whole.examples.seen == parts.examples.seen
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-5, atol=1e-6)


def test_workers_do_not_change_the_run(tmp_path: Path) -> None:
    alone, helped = ToyTask(), ToyTask()
    run(alone, toy_config(tmp_path / "alone"))
    run(helped, toy_config(tmp_path / "helped", workers=2))
    assert torch.equal(weights(alone), weights(helped))


@pytest.mark.parametrize(
    "changes", [{}, {"ema": True}, {"optimizer": "adafactor"}, {"gradient_accumulation_steps": 3}]
)
@pytest.mark.parametrize("stop_at", [2, 4])
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, changes: dict[str, Any], stop_at: int
) -> None:
    straight, broken, resumed = ToyTask(dropout=0.3), ToyTask(dropout=0.3), ToyTask(dropout=0.3)
    run(straight, toy_config(tmp_path / "straight", **changes))
    output = tmp_path / "broken"
    run(broken, toy_config(output, **changes))
    for path in list_checkpoints(output / "checkpoints"):
        if int(path.name[-6:]) > stop_at:
            (path / "manifest.json").unlink()
    result = run(resumed, toy_config(output, resume="latest", **changes))
    assert result.resumed_from == stop_at
    assert torch.equal(weights(resumed), weights(straight))
    assert figures(output) == figures(tmp_path / "straight")
    last, other = (
        read_checkpoint(list_checkpoints(folder / "checkpoints")[-1]) for folder in (output, tmp_path / "straight")
    )
    assert repr(last.optimizer) == repr(other.optimizer)
    assert last.state == other.state
    if changes.get("ema"):
        assert last.average is not None
        assert other.average is not None
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(last.average, other.average, strict=True))


def test_going_on_from_an_earlier_checkpoint_forgets_the_later_ones(tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(ToyTask(), toy_config(output))
    result = run(ToyTask(), toy_config(output, resume=str(output / "checkpoints" / "step-000002"), checkpoint_every=3))
    assert result.resumed_from == 2
    names = [path.name for path in list_checkpoints(output / "checkpoints")]
    assert names == ["step-000002", "step-000003", "step-000006"]
    assert [line["step"] for line in figures(output)] == [1, 2, 3, 4, 5, 6]


def test_a_run_can_be_made_longer_where_the_rate_does_not_depend_on_its_length(tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(ToyTask(), toy_config(output, lr_scheduler="constant"))
    longer = run(ToyTask(), toy_config(output, lr_scheduler="constant", steps=8, resume="latest"))
    assert (longer.resumed_from, longer.steps) == (6, 8)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        run(ToyTask(), toy_config(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no checkpoint"):
        run(ToyTask(), toy_config(tmp_path / "run", resume="latest"))


def test_resuming_under_other_options_is_refused_and_shows_them(tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(ToyTask(), toy_config(output))
    with pytest.raises(ConfigError, match=r"learning_rate: 0\.05 then, 0\.1 now"):
        run(ToyTask(), toy_config(output, resume="latest", learning_rate=0.1))
    with pytest.raises(ConfigError, match="examples per step: 4 then, 8 now"):
        run(ToyTask(), toy_config(output, resume="latest", gradient_accumulation_steps=2))
    with pytest.raises(ConfigError, match="examples: 'toy-10' then, 'toy-11' now"):
        run(ToyTask(11), toy_config(output, resume="latest"))


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    task = ToyTask(poison=(2,))
    result = run(task, toy_config(tmp_path / "run", ema=True))
    assert result.skipped_steps == 1
    assert torch.isfinite(weights(task)).all()
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["skipped"] for line in lines] == [False, False, True, False, False, False]
    assert lines[2]["loss"] is None
    assert lines[5]["skipped_steps"] == 1
    last = read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert last.state["average_updates"] == 5


def test_too_many_such_steps_in_a_row_stop_the_run_with_a_dump_that_repeats_it(tmp_path: Path) -> None:
    output, options = tmp_path / "run", {"max_bad_steps": 2, "ema": True, "checkpoint_every": 0}
    task = ToyTask(poison=(1, 3, 4))
    with pytest.raises(T2IAlignError, match="2 steps in a row"):
        run(task, toy_config(output, **options))
    dump = output / "not-finite-step-000004"
    told = json.loads((dump / "examples.json").read_text())
    assert [step["step"] for step in told["steps"]] == [4, 5]
    assert [entry["n"] for entry in told["steps"][1]["examples"]] == [16, 17, 18, 19]
    seen = dict(task.examples.seen)
    assert all(seen[entry["n"]] == entry["index"] for step in told["steps"] for entry in step["examples"])
    assert torch.isfinite(weights(task)).all()
    kept = read_checkpoint(dump)
    assert (kept.step, kept.state["skipped"], kept.state["skipped_in_a_row"]) == (3, 1, 0)

    before = figures(output)
    again = ToyTask(poison=(0, 1))
    with pytest.raises(T2IAlignError, match="2 steps in a row"):
        run(again, toy_config(output, resume=str(dump), **options))
    assert figures(output) == before
    assert [n for n, _ in again.examples.seen] == list(range(12, 20))
    assert torch.equal(weights(again), weights(task))

    straight, mended = ToyTask(poison=(1,)), ToyTask()
    run(straight, toy_config(tmp_path / "straight", **options))
    run(mended, toy_config(output, resume=str(dump), **options))
    assert torch.equal(weights(mended), weights(straight))
    assert figures(output) == figures(tmp_path / "straight")


class Signalled(ToyTask):
    """Sends this process a signal in the middle of its third step."""

    def loss(self, module: Any, batch: Any, step: Any = None) -> Any:
        if self.calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(module, batch)


def test_a_signal_ends_in_a_checkpoint_from_which_the_run_goes_on(tmp_path: Path) -> None:
    straight, resumed = ToyTask(), ToyTask()
    before = signal.getsignal(signal.SIGTERM)
    run(straight, toy_config(tmp_path / "straight"))
    stopped = run(Signalled(), toy_config(tmp_path / "run", checkpoint_every=0))
    assert (stopped.status, stopped.signal, stopped.steps) == ("stopped", "SIGTERM", 3)
    assert not (tmp_path / "run" / "final").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    run(resumed, toy_config(tmp_path / "run", checkpoint_every=0, resume="latest"))
    assert torch.equal(weights(resumed), weights(straight))


def test_no_examples_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(T2IAlignError, match="no examples"):
        run(ToyTask(0), toy_config(tmp_path / "run"))


def test_the_average_is_what_final_holds(tmp_path: Path) -> None:
    task = ToyTask()
    run(task, toy_config(tmp_path / "run", ema=True, ema_decay=0.9))
    final = torch.load(tmp_path / "run" / "final" / "weights.pt", weights_only=True)
    last = read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert last.average is not None
    assert torch.equal(torch.cat([part.flatten() for part in final.values()]), flat(last.average))
    assert not torch.equal(weights(task), flat(last.average))


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


class Counting(ToyTask):
    """Learns beside its weights how many steps were taken, from a survey of the whole step."""

    taken = torch.zeros(1)
    surveyed: list[tuple[int, ...]]

    @property
    def surveys(self) -> bool:
        return True

    def survey(self, module: Any, batch: Any) -> tuple[torch.Tensor, Any]:
        assert not torch.is_grad_enabled()
        return batch.sum(dim=1)[None], batch

    def loss(self, module: Any, batch: Any, step: Any = None) -> Any:
        self.surveyed = [*getattr(self, "surveyed", []), () if step is None else tuple(step.shape)]
        return super().loss(module, batch)

    def end_step(self) -> None:
        self.taken = self.taken + 1

    def state(self) -> dict[str, torch.Tensor]:
        return {"taken": self.taken}

    def load_state(self, state: Any) -> None:
        self.taken = state["taken"]


def test_a_step_that_is_skipped_leaves_no_trace_in_a_tasks_state(tmp_path: Path) -> None:
    task = Counting(poison=(1, 2))
    report = run(task, toy_config(tmp_path / "run"))
    assert (report.steps, report.skipped_steps) == (6, 2)
    assert task.taken.item() == 4
    kept = load_file(tmp_path / "run" / "checkpoints" / "step-000006" / "task.safetensors")
    assert kept["taken"].item() == 4
    again = Counting()
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000004"
    run(again, toy_config(tmp_path / "run", resume=str(checkpoint)))
    assert again.taken.item() == 4


def test_a_survey_covers_the_whole_step_and_is_left_out_where_one_batch_is_all(tmp_path: Path) -> None:
    whole, parts = Counting(), Counting()
    run(whole, toy_config(tmp_path / "whole"))
    run(parts, toy_config(tmp_path / "parts", batch_size=2, gradient_accumulation_steps=2))
    assert set(whole.surveyed) == {()}
    assert set(parts.surveyed) == {(1, 4)}


def test_names_that_a_task_has_prepared_do_not_make_a_folder_used(tmp_path: Path) -> None:
    class Prepared(ToyTask):
        @property
        def prepared(self) -> frozenset[str]:
            return frozenset({"users"})

    (tmp_path / "run" / "users").mkdir(parents=True)
    assert run(Prepared(), toy_config(tmp_path / "run")).status == "done"
    (tmp_path / "other" / "users").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not empty"):
        run(ToyTask(), toy_config(tmp_path / "other"))
