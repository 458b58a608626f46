"""The order of an epoch of a streamed set (blocks) and of a set in buckets: what it promises, for any set."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ialign.engine.order import WINDOW, Schedule
from t2ialign.errors import ConfigError

small = st.integers(1, 4)
bucket_lists = st.lists(st.integers(0, 4), min_size=1, max_size=40)
block_sizes = st.lists(st.integers(1, 6), min_size=1, max_size=14)


def blocks_of(sizes: list[int]) -> list[np.ndarray]:
    return [part.astype(np.int64) for part in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])]


def schedule_of(length: int, batch: int = 1, **more: Any) -> Schedule:
    return Schedule(seed=5, length=length, steps=10_000, batch_size=batch, **more)


def epoch_of(schedule: Schedule, epoch: int) -> list[int]:
    size = schedule.epoch_length
    return [schedule.index(n) for n in range(epoch * size, (epoch + 1) * size)]


@given(bucket_lists, small, small, st.integers(0, 2), st.booleans())
def test_an_epoch_in_buckets(buckets: list[int], batch: int, times: int, epoch: int, streamed: bool) -> None:
    size = batch * times
    blocks = blocks_of([3] * (len(buckets) // 3) + [len(buckets) % 3] * (len(buckets) % 3 > 0)) if streamed else None
    schedule = schedule_of(len(buckets), batch, buckets=np.array(buckets), group=size, blocks=blocks)
    counts = Counter(buckets)
    assert schedule.epoch_length == sum(-(-count // size) * size for count in counts.values())
    seen = epoch_of(schedule, epoch)
    for start in range(0, len(seen), size):
        assert len({buckets[entry] for entry in seen[start : start + size]}) == 1
    visits = Counter(seen)
    assert set(visits) == set(range(len(buckets)))
    for entry, count in visits.items():
        full, rest = divmod(-counts[buckets[entry]] % size, counts[buckets[entry]])
        assert 1 + full <= count <= 1 + full + (rest > 0)


@given(bucket_lists, small, small, small, small, st.integers(0, 8))
def test_the_split_of_a_step_does_not_change_its_examples(
    buckets: list[int], batch: int, accumulation: int, processes: int, times: int, step: int
) -> None:
    """What counts is G and the group; every batch of every process is of one bucket."""
    group = batch * accumulation * processes * times
    whole = Schedule(1, len(buckets), 9, batch * accumulation * processes, buckets=np.array(buckets), group=group)
    found: list[tuple[int, int]] = []
    for rank in range(processes):
        split = replace(whole, batch_size=batch, accumulation=accumulation, processes=processes, rank=rank)
        for micro in range(accumulation):
            some = split.batch(step, micro)
            assert len({buckets[index] for _, index in some}) == 1
            found += some
    assert sorted(found) == whole.batch(step, 0)
    assert split.layout() == whole.layout()


@given(block_sizes, st.integers(0, 2))
def test_blocks_are_read_window_by_window_and_each_once_an_epoch(sizes: list[int], epoch: int) -> None:
    blocks = blocks_of(sizes)
    seen = epoch_of(schedule_of(sum(sizes), blocks=blocks), epoch)
    assert sorted(seen) == list(range(sum(sizes)))
    block_of = {int(entry): number for number, block in enumerate(blocks) for entry in block}
    order = [block_of[entry] for entry in seen]
    opened: list[int] = list(dict.fromkeys(order))
    for block in opened:
        first, last = order.index(block), len(order) - 1 - order[::-1].index(block)
        assert len(set(order[first : last + 1])) <= WINDOW
    open_at_once = [set(order[: place + 1]) & set(order[place:]) for place in range(len(order))]
    assert max(len(held) for held in open_at_once) <= WINDOW


@given(block_sizes, st.lists(st.integers(0, 3), min_size=84, max_size=84), small, st.integers(0, 1))
def test_with_buckets_few_entries_of_earlier_windows_are_read_late(
    sizes: list[int], every_bucket: list[int], group: int, epoch: int
) -> None:
    """Of each bucket fewer than a group wait, so at most that many reads of an open place lie in earlier windows."""
    blocks, total = blocks_of(sizes), sum(sizes)
    buckets = np.array(every_bucket[:total])
    bare = epoch_of(schedule_of(total, blocks=blocks), epoch)
    place_of = {entry: place for place, entry in enumerate(bare)}
    seen = epoch_of(schedule_of(total, group, blocks=blocks, buckets=buckets, group=group), epoch)
    met = -1
    waiting: set[int] = set()
    for start in range(0, len(seen), group):
        places = {place_of[entry] for entry in seen[start : start + group]}
        waiting |= set(range(met + 1, max(places) + 1))
        met = max(met, *places)
        waiting -= places
        assert len(waiting) <= (group - 1) * len(set(buckets.tolist())) + group
    assert not waiting


def test_the_orders_are_those_that_a_seed_has_meant() -> None:
    """Golden: a change here would let every old checkpoint go on with other examples."""
    buckets = np.array([0, 1, 0, 1, 0, 2, 0, 1])
    assert epoch_of(schedule_of(8), 1) == [1, 4, 7, 6, 3, 0, 2, 5]
    assert epoch_of(schedule_of(8, 2, buckets=buckets), 1) == [1, 7, 0, 2, 5, 5, 4, 6, 3, 1]
    assert epoch_of(schedule_of(12, blocks=blocks_of([2] * 6)), 1) == [6, 8, 3, 9, 1, 2, 7, 0, 4, 5, 11, 10]
    assert schedule_of(8, 2, buckets=buckets).layout() == {
        "blocks": None,
        "buckets": "df17f0b3fba9482e",
        "examples in a row of one bucket": 2,
    }


@pytest.mark.parametrize("streamed", [False, True])
def test_no_entry_of_a_bucket_is_preferred_and_no_bucket_comes_last(streamed: bool) -> None:
    """Over many epochs the completion falls on all entries of a bucket alike, and the groups lie anywhere."""
    buckets = np.array([0] * 10 + [1] * 3 + [2])
    blocks = blocks_of([1] * 14) if streamed else None
    schedule = schedule_of(14, 4, buckets=buckets, blocks=blocks)
    epochs = 3000
    seen = np.array([epoch_of(schedule, epoch) for epoch in range(epochs)])
    visits = np.bincount(seen.ravel(), minlength=14) / epochs
    # 10 entries have 12 places, 3 have 4, 1 has 4. Over a choice of k among n the deviation of a mean is below
    # sqrt(1/4 / 3000) = 0.009; five of these.
    assert visits[:10] == pytest.approx(np.full(10, 1.2), abs=0.046)
    assert visits[10:13] == pytest.approx(np.full(3, 4 / 3), abs=0.046)
    assert visits[13] == 4
    if not streamed:  # five groups, each at each of the five places alike: deviation sqrt(0.16 / 3000) = 0.0073
        places = (buckets[seen][:, ::4] == 2).mean(axis=0)
        assert places == pytest.approx(np.full(5, 0.2), abs=0.037)


@settings(max_examples=50)
@given(st.integers(1, 12), small, st.booleans(), st.booleans())
def test_stages_go_with_buckets_and_blocks(steps: int, batch: int, bucketed: bool, streamed: bool) -> None:
    stages = [np.array([4, 5, 6, 9]), np.array([0, 1, 10]), np.array([2, 3, 7, 8, 11])]
    buckets = np.array([0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0, 1])
    schedule = Schedule(
        2, 12, steps, batch, 2, 2, 1, stages, blocks_of([3] * 4) if streamed else None, buckets if bucketed else None
    )
    seen = [schedule.index(n) for n in range(schedule.visits)]
    stage_of = {int(entry): number for number, stage in enumerate(stages) for entry in stage}
    order = [stage_of[entry] for entry in seen]
    assert order == sorted(order)
    counts = [order.count(number) for number in range(3)]
    assert max(counts) - min(counts) <= (2 * batch if bucketed else 1)
    if bucketed:
        for start in range(0, len(seen), batch):
            assert len(set(buckets[seen[start : start + batch]])) == 1
    whole = len(stages[0]) + 2 * batch
    if counts[0] >= whole:
        assert set(seen[:whole]) == set(stages[0].tolist())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="no multiple of the batch size 4"):
        schedule_of(8, 4, buckets=np.zeros(8, int), group=6)
    with pytest.raises(ValueError, match="blocks do not hold"):
        schedule_of(8, blocks=blocks_of([3, 4]))
    with pytest.raises(ValueError, match="7 entries"):
        schedule_of(8, buckets=np.zeros(7, int))


def test_another_layout_is_another_run() -> None:
    plain = schedule_of(6)
    assert set(plain.layout().values()) == {None}
    bucketed = schedule_of(6, buckets=np.array([0, 0, 1, 1, 2, 2]))
    other = schedule_of(6, buckets=np.array([0, 0, 1, 1, 2, 1]))
    assert bucketed.layout() != other.layout()
    assert bucketed.layout() != replace(bucketed, group=2).layout()
    assert schedule_of(6, blocks=blocks_of([3, 3])).layout() != schedule_of(6, blocks=blocks_of([2, 4])).layout()


def test_a_large_epoch_is_ordered_quickly() -> None:
    """A million entries in fifty buckets: the order is made once, and an index is then one look."""
    rng = np.random.default_rng(0)
    schedule = schedule_of(1_000_000, 8, buckets=rng.integers(0, 50, 1_000_000))
    seen = {schedule.index(n) for n in range(200_000)}
    assert len(seen) >= 200_000 - 50 * 7  # less what completes the last group of a bucket
    assert len(schedule._orders) == 1
