from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.engine.order import Schedule, ScheduleSampler

small = st.integers(1, 4)


def examples_of(step: int, batch: int, accumulation: int, processes: int, length: int) -> set[tuple[int, int]]:
    found = []
    for rank in range(processes):
        schedule = Schedule(3, length, 10, batch, accumulation, processes, rank)
        for micro in range(accumulation):
            found += schedule.batch(step, micro)
    assert len(found) == len(set(found)) == batch * accumulation * processes
    return set(found)


@given(small, small, small, st.integers(0, 6), st.integers(1, 30))
def test_the_split_of_a_step_does_not_change_its_examples(
    batch: int, accumulation: int, processes: int, step: int, length: int
) -> None:
    total = batch * accumulation * processes
    whole = examples_of(step, total, 1, 1, length)
    assert examples_of(step, batch, accumulation, processes, length) == whole
    assert {n for n, _ in whole} == set(range(step * total, (step + 1) * total))


@given(st.integers(1, 20), small)
def test_every_epoch_visits_every_example_once(length: int, batch: int) -> None:
    schedule = Schedule(0, length, 3 * length, batch)
    for epoch in range(2):
        visited = Counter(schedule.index(n) for n in range(epoch * length, (epoch + 1) * length))
        assert visited == Counter(range(length))


def test_the_sampler_begins_anywhere() -> None:
    schedule = Schedule(seed=1, length=7, steps=5, batch_size=2, accumulation=3)
    whole = list(ScheduleSampler(schedule))
    assert len(ScheduleSampler(schedule)) == len(whole) == 15
    assert list(ScheduleSampler(schedule, 2)) == whole[6:]
    assert len(ScheduleSampler(schedule, 2)) == 9
    assert schedule.visits == 30


def staged(steps: int, batch: int = 2, **more: Any) -> Schedule:
    stages = [np.array([4, 5, 6]), np.array([0, 1]), np.array([2, 3, 7, 8])]
    return Schedule(1, 9, steps, batch, **more, stages=stages)


@given(st.integers(1, 12), small)
def test_a_curriculum_gives_each_stage_its_share_of_the_run(steps: int, batch: int) -> None:
    schedule = staged(steps, batch)
    assert schedule.stages is not None
    seen = [schedule.index(n) for n in range(schedule.visits)]
    stage_of = {int(entry): number for number, stage in enumerate(schedule.stages) for entry in stage}
    order = [stage_of[index] for index in seen]
    assert order == sorted(order)
    counts = [order.count(number) for number in range(3)]
    assert max(counts) - min(counts) <= 1


def test_each_stage_is_visited_epoch_by_epoch_in_an_order_of_its_own() -> None:
    schedule = staged(steps=18)
    seen = [schedule.index(n) for n in range(36)]
    assert Counter(seen[:3]) == Counter(seen[3:6]) == Counter([4, 5, 6])
    assert Counter(seen[24:28]) == Counter([2, 3, 7, 8])
    assert len({tuple(seen[start : start + 3]) for start in range(0, 12, 3)}) > 1


@pytest.mark.parametrize(("batch", "accumulation", "processes"), [(1, 4, 1), (2, 1, 2), (1, 2, 2)])
def test_the_split_of_a_step_does_not_change_a_curriculum(batch: int, accumulation: int, processes: int) -> None:
    whole = set(staged(steps=6, batch=4).batch(3, 0))
    parts = [
        staged(6, batch, accumulation=accumulation, processes=processes, rank=rank).batch(3, micro)
        for rank in range(processes)
        for micro in range(accumulation)
    ]
    assert set().union(*parts) == whole
