from __future__ import annotations

from collections import Counter

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
