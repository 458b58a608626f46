"""Tables by group: the worst group's bound holds, groups that do not differ are not said to."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from t2ialign.eval.groups import group_table


def test_means_counts_and_order() -> None:
    found = group_table([1.0, 3.0, 10.0, 12.0, 5.0], ["b", "b", "a", "a", "c"], resamples=50)
    assert [(each.name, each.n, each.value) for each in found.groups] == [("b", 2, 2.0), ("c", 1, 5.0), ("a", 2, 11.0)]
    assert found.groups[0].rest == 9.0
    assert found.groups[1].ci95 is None
    assert (found.worst, found.worst_value, found.worst_ci95, found.overall) == ("b", 2.0, None, 6.2)


def test_rates_carry_wilsons_interval() -> None:
    found = group_table([1.0] * 10 + [0.0] * 5 + [1.0] * 5, ["a"] * 10 + ["b"] * 10, kind="rate", resamples=50)
    # Wilson's interval of 5 in 10 is 0.2366 to 0.7634.
    assert found.groups[0].ci95 == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_worst_of_equal_groups_is_covered_and_not_told_apart() -> None:
    rng, groups = np.random.default_rng(0), [f"g{i}" for i in range(6) for _ in range(25)]
    inside = differ = single = 0
    for seed in range(200):
        found = group_table(rng.normal(0, 1, 150), groups, resamples=199, seed=seed)
        assert found.worst_ci95 is not None
        inside += found.worst_ci95[0] <= 0 <= found.worst_ci95[1]
        differ += found.p_differ < 0.05
        single += min(each.p_holm for each in found.groups) < 0.05
    assert inside / 200 >= 0.9
    assert differ / 200 <= 0.10  # 5 %, three standard errors of 200 repeats
    assert single / 200 <= 0.10


def test_a_group_that_is_worse_is_found() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 100), rng.normal(-1.5, 1, 30), rng.normal(0, 1, 100)])
    found = group_table(values, ["a"] * 100 + ["b"] * 30 + ["c"] * 100, resamples=500)
    assert found.worst == "b"
    assert found.worst_share > 0.99
    assert found.p_differ < 0.01
    assert found.groups[0].p_holm < 0.01


@pytest.mark.parametrize(
    ("values", "groups", "kind"),
    [([1.0, 2.0], ["a", "a"], "mean"), ([1.0, np.nan], ["a", "b"], "mean"), ([1.0, 2.0], ["a", "b"], "rate")],
)
def test_refusals(values: list[float], groups: list[str], kind: Literal["mean", "rate"]) -> None:
    with pytest.raises(ValueError, match=r"groups|finite|rates"):
        group_table(values, groups, kind=kind)


def test_intervals_of_small_groups_cover() -> None:
    rng, inside = np.random.default_rng(5), 0
    for seed in range(300):
        values = np.concatenate([rng.normal(0, 1, 5), rng.normal(0, 1, 40)])
        found = group_table(values, ["few"] * 5 + ["many"] * 40, resamples=199, seed=seed)
        interval = next(each.ci95 for each in found.groups if each.name == "few")
        assert interval is not None
        inside += interval[0] <= 0 <= interval[1]
    assert inside / 300 >= 0.92  # the bootstrap alone covers 83 %


def test_intervals_of_win_rates_stay_between_nothing_and_all() -> None:
    values, groups = [0.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 0.5], ["a"] * 4 + ["b"] * 4
    free = group_table(values, groups, resamples=200)
    cut = group_table(values, groups, bounds=(0.0, 1.0), resamples=200)
    assert free.worst_ci95 is not None
    assert free.worst_ci95[0] < 0  # Student's t knows no bounds
    for wide, narrow in (
        (free.worst_ci95, cut.worst_ci95),
        *((a.ci95, b.ci95) for a, b in zip(free.groups, cut.groups, strict=True)),
    ):
        assert wide is not None
        assert narrow == (max(wide[0], 0.0), min(wide[1], 1.0))
