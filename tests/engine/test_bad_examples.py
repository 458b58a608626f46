"""Entries that can not be read: refused, or left out whole, counted, in the same way however a run is split."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from helpers.toy_task import ToyExamples, ToyTask, toy_config
from t2ialign.engine.bad_examples import BadExamples, DrawnExamples, stand_ins
from t2ialign.engine.config import TrainConfig
from t2ialign.engine.loop import FitResult, fit
from t2ialign.engine.order import Schedule
from t2ialign.engine.processes import make_accelerator
from t2ialign.engine.randomness import Draws
from t2ialign.errors import ConfigError, DataError


class BrokenExamples(ToyExamples):
    """Some entries can not be read."""

    def __init__(self, count: int, bad: tuple[int, ...]) -> None:
        super().__init__(count)
        self.bad = bad

    def read(self, index: int, draws: Draws) -> torch.Tensor:
        if index in self.bad:
            raise DataError(f"set[train] row {index}: damaged")
        return super().read(index, draws)


class BrokenTask(ToyTask):
    """Learns from a set with bad entries."""

    def __init__(self, bad: tuple[int, ...], count: int = 10, dropout: float = 0.3) -> None:
        super().__init__(count, dropout=dropout)
        self._examples = BrokenExamples(count, bad)


def run(task: ToyTask, config: TrainConfig) -> FitResult:
    return fit(task, config, make_accelerator(config))


def weights(task: ToyTask) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in task.network.parameters()])


def dropping(folder: Path, **changes: Any) -> TrainConfig:
    return toy_config(folder, **{"on_bad_pair": "drop", "max_bad_share": 0.5, **changes})


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_one_ends_the_run_and_the_mend_is_told(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError) as caught:
        run(BrokenTask((3,)), toy_config(tmp_path / "run", workers=workers))
    message = str(caught.value)
    assert message.startswith("set[train] row 3: damaged; ")
    assert "t2ialign data check" in message
    assert "--on_bad_pair drop" in message
    assert "Traceback" not in message


def test_the_next_good_entry_stands_in(tmp_path: Path) -> None:
    """A plain twin: the order of the run, each bad entry replaced by the next good one, the draws left as they are."""
    bad = (3, 4, 9)
    task = BrokenTask(bad)
    config = dropping(tmp_path / "run")
    result = run(task, config)
    whole = ToyTask(10)
    run(whole, toy_config(tmp_path / "whole"))
    next_good = {3: 5, 4: 5, 9: 0}
    assert task.examples.seen == [(n, next_good.get(index, index)) for n, index in whole.examples.seen]
    assert result.bad_pairs == {
        "count": 3,
        "share": 0.3,
        "which": [f"set[train] row {entry}: damaged" for entry in bad],
    }


def test_workers_and_a_resume_change_nothing(tmp_path: Path) -> None:
    bad = (0, 5)
    straight, helped, resumed = BrokenTask(bad), BrokenTask(bad), BrokenTask(bad)
    told = run(straight, dropping(tmp_path / "straight"))
    assert run(helped, dropping(tmp_path / "helped", workers=2)).bad_pairs == told.bad_pairs
    assert torch.equal(weights(helped), weights(straight))
    output = tmp_path / "broken"
    run(BrokenTask(bad), dropping(output))
    for step in (4, 6):
        (output / f"checkpoints/step-{step:06d}/manifest.json").unlink()
    state = json.loads((output / "checkpoints/step-000002/state.json").read_text())
    met = {index for n, index in ToyOrder().first(8) if index in bad}
    assert {int(entry) for entry in state["bad"]} == met
    assert run(resumed, dropping(output, resume="latest")).bad_pairs == told.bad_pairs
    assert torch.equal(weights(resumed), weights(straight))


def test_what_was_met_before_a_stop_still_counts(tmp_path: Path) -> None:
    """One bad entry comes in the first step alone, another in the last one alone."""
    schedule = Schedule(seed=0, length=30, steps=6, batch_size=4)
    bad = (schedule.index(1), schedule.index(22))
    output = tmp_path / "run"
    assert run(BrokenTask(bad, 30), dropping(output)).bad_pairs["count"] == 2
    for step in (4, 6):
        (output / f"checkpoints/step-{step:06d}/manifest.json").unlink()
    result = run(BrokenTask(bad, 30), dropping(output, resume="latest"))
    assert result.resumed_from == 2
    assert result.bad_pairs["count"] == 2
    (output / "checkpoints/step-000006/manifest.json").unlink()
    with pytest.raises(DataError, match=r"2 pairs can not be read, where max_bad_share 0\.05 allows 1"):
        run(BrokenTask(bad, 30), dropping(output, resume="latest", max_bad_share=0.05))


class ToyOrder:
    """The order that `toy_config` gives to ten entries."""

    def first(self, count: int) -> list[tuple[int, int]]:
        schedule = Schedule(seed=0, length=10, steps=6, batch_size=4)
        return [(n, schedule.index(n)) for n in range(count)]


def test_a_run_that_met_a_bad_entry_may_go_on_and_drop_it(tmp_path: Path) -> None:
    order = [index for _, index in ToyOrder().first(24)]
    late = next(index for index in order[8:] if index not in order[:8])
    with pytest.raises(DataError):
        run(BrokenTask((late,)), toy_config(tmp_path / "run"))
    straight, resumed = BrokenTask((late,)), BrokenTask((late,))
    run(straight, dropping(tmp_path / "straight"))
    assert run(resumed, dropping(tmp_path / "run", resume="latest")).resumed_from
    assert torch.equal(weights(resumed), weights(straight))


@pytest.mark.parametrize(("bad", "share"), [((1, 4, 7), 0.2), ((1, 2, 3), 0.2), (tuple(range(10)), 0.3)])
def test_above_the_share_the_run_is_refused(tmp_path: Path, bad: tuple[int, ...], share: float) -> None:
    allowed = int(share * 10)
    with pytest.raises(DataError, match=rf"max_bad_share {share:g} allows {allowed}: ") as caught:
        run(BrokenTask(bad), dropping(tmp_path / "run", max_bad_share=share))
    assert int(str(caught.value).split(" pairs can not be read")[0]) > allowed
    assert str(caught.value).count("set[train] row") == 3


def test_where_every_entry_is_bad_the_run_ends_though_all_may_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="10 pairs can not be read"):
        run(BrokenTask(tuple(range(10))), dropping(tmp_path / "run", max_bad_share=1.0))


def test_the_share_is_of_what_the_run_can_look_at(tmp_path: Path) -> None:
    """100 entries, but the run has 24 examples: one in ten of these may be bad, not ten."""
    schedule = Schedule(seed=0, length=100, steps=6, batch_size=4)
    met = tuple(schedule.index(n) for n in (0, 5, 10))
    with pytest.raises(DataError, match=r"3 pairs can not be read, where max_bad_share 0\.1 allows 2"):
        run(BrokenTask(met, 100), dropping(tmp_path / "run", max_bad_share=0.1))
    assert run(BrokenTask(met[:2], 100), dropping(tmp_path / "other", max_bad_share=0.1)).bad_pairs["share"] == 2 / 24


def test_each_is_warned_of_and_many_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run(BrokenTask(tuple(range(9)), 30), dropping(tmp_path / "run", steps=30))
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert len(told) == 5
    assert any("counted without a word" in record.message for record in caplog.records)


def test_a_mistake_in_the_program_is_no_bad_entry(tmp_path: Path) -> None:
    def mistaken(index: int, draws: Draws) -> torch.Tensor:
        raise ZeroDivisionError

    task = BrokenTask(())
    task.examples.read = mistaken  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        run(task, dropping(tmp_path / "run"))


@pytest.mark.parametrize("changes", [{"on_bad_pair": "skip"}, {"max_bad_share": 1.1}, {"max_bad_share": float("nan")}])
def test_the_options_are_checked(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        toy_config(tmp_path, **changes)


@given(data=st.data())
def test_a_stand_in_is_of_the_same_stage_and_bucket(data: st.DataObject) -> None:
    """Against a plain search, for any stages and buckets."""
    length = data.draw(st.integers(4, 20))
    buckets = np.array(data.draw(st.lists(st.integers(0, 2), min_size=length, max_size=length)))
    order = np.array(data.draw(st.permutations(range(length))))
    cut = data.draw(st.integers(1, length - 1))
    stages = data.draw(st.sampled_from([None, [order[:cut], order[cut:]]]))
    schedule = Schedule(seed=1, length=length, steps=9, batch_size=2, stages=stages, buckets=buckets)
    n = data.draw(st.integers(0, schedule.visits - 1))
    index = schedule.index(n)
    stage = set(range(length)) if stages is None else next({*s.tolist()} for s in stages if index in s)
    circle = [*range(index + 1, length), *range(index)]
    assert list(stand_ins(schedule, n, index)) == [e for e in circle if e in stage and buckets[e] == buckets[index]]


def test_no_stand_in_of_another_bucket_is_taken() -> None:
    buckets = np.array([0, 1, 0, 1])
    schedule = Schedule(seed=0, length=4, steps=2, batch_size=2, buckets=buckets)
    drawn = DrawnExamples(BrokenExamples(4, (0, 2)), schedule, allowed=4)
    assert drawn[(0, 0)].example is None
    assert drawn[(0, 0)].bad.keys() == {0, 2}
    assert drawn[(0, 1)].example is not None


def test_what_is_noted_for_a_cache_is_held_to_the_share_of_the_set(tmp_path: Path) -> None:
    bad = BadExamples(dropping(tmp_path, max_bad_share=0.2), 10, "pairs")
    for entry in (1, 2, 1):
        bad.note(entry, DataError(f"row {entry}"))
    with pytest.raises(DataError, match="3 pairs can not be read"):
        bad.note(3, DataError("row 3"))
    with pytest.raises(DataError, match="row 1; `t2ialign data check`"):
        BadExamples(toy_config(tmp_path), 10, "pairs").note(1, DataError("row 1"))


SCRIPT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from engine.test_bad_examples import BAD, BrokenTask, dropping, run, weights
import torch
from accelerate.state import AcceleratorState
torch.set_num_threads(1)
folder, rank = Path(sys.argv[2]), os.environ["RANK"]
task = BrokenTask(BAD, 60, dropout=0.0)
result = run(task, dropping(folder / "two", batch_size=2))
said = {"bad": result.bad_pairs, "weights": weights(task).tolist()}
AcceleratorState._reset_state(reset_partial_state=True)  # the first run has ended the group
os.environ["MASTER_PORT"] = sys.argv[3]
try:
    run(BrokenTask(BAD, 60), dropping(folder / "refused", batch_size=2, max_bad_share=0.1))
except Exception as error:
    said["error"] = str(error)
(folder / f"{rank}.json").write_text(json.dumps(said))
"""
BAD = tuple(Schedule(seed=0, length=60, steps=6, batch_size=4).index(n) for n in (1, 3, 10, 12))
"""Of 60 entries; of two processes the first meets two of them and the second the other two."""


def test_two_processes_count_and_stop_as_one(tmp_path: Path, free_ports: list[str]) -> None:
    """They meet different bad entries; what is counted, and that the run is refused, is the same for both."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_ports[0], "ACCELERATE_USE_CPU": "true"}
    started = []
    for rank in ("0", "1"):
        env = {**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            str(script),
            str(Path(__file__).resolve().parent.parent),
            str(tmp_path),
            free_ports[1],
        ]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
    alone = BrokenTask(BAD, 60, dropout=0.0)
    told = dict(run(alone, dropping(tmp_path / "one")).bad_pairs)
    assert [process.wait(120) for process in started] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert told["count"] == 4
    assert first["bad"] == second["bad"] == told
    torch.testing.assert_close(torch.tensor(first["weights"]), weights(alone), rtol=1e-5, atol=1e-6)
    assert first["weights"] == second["weights"]
    # Both raise it; whichever is first also ends the other one, which then says so.
    assert any(each["error"].startswith("3 pairs can not be read") for each in (first, second))
    assert all(each["error"] for each in (first, second))


@pytest.fixture
def free_ports() -> list[str]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in (one, other)]


def test_nothing_is_exchanged_where_the_first_one_ends_the_run(tmp_path: Path) -> None:
    class Forbidden:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was asked for")

    first_ends_it, dropped = (
        BadExamples(toy_config(tmp_path), 10, "pairs"),
        BadExamples(dropping(tmp_path), 10, "pairs"),
    )
    first_ends_it.settle(cast(Any, Forbidden()))
    dropped.settle(Accelerator(cpu=True))
    assert first_ends_it.found == dropped.found == {}
