"""Intervals and tests over prompts: against full enumeration, the normal theory, and for false alarms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from t2ialign.eval.agreement.resampling import Block, estimate, place_test, shuffle_test, sign_flip_test


def share(total: Any) -> Any:
    return total[..., 0] / total[..., 1]


def test_an_interval_is_that_of_the_clusters() -> None:
    """Ten pictures of each prompt that are all alike: the interval is that of prompts, not of pictures."""
    right = np.random.default_rng(0).random(100) < 0.7
    sums = np.stack([10.0 * right, np.full(100, 10.0)], axis=1)
    found = estimate(sums, share, 4000, 0)
    spread = math.sqrt(right.mean() * (1 - right.mean()) / 100)
    assert found["value"] == pytest.approx(right.mean())
    assert found["ci95"][0] == pytest.approx(right.mean() - 1.96 * spread, abs=0.015)
    assert found["ci95"][1] == pytest.approx(right.mean() + 1.96 * spread, abs=0.015)
    assert estimate(sums, share, 4000, 0) == found
    assert estimate(sums, share, 4000, 1) != found


def test_no_interval_of_a_single_prompt_or_of_nothing() -> None:
    assert estimate(np.array([[1.0, 2.0]]), share, 100, 0) == {"value": 0.5, "ci95": None}
    hopeless = estimate(np.zeros((5, 2)), lambda t: np.full(t.shape[:-1], np.nan), 100, 0)
    assert hopeless == {"value": None, "ci95": None}


def test_a_figure_that_mostly_does_not_exist_has_no_interval() -> None:
    assert estimate(np.eye(3), lambda t: np.where(t.min(axis=-1) > 0, 1.0, np.nan), 2000, 0)["ci95"] is None


def test_sign_flips_against_all_of_them() -> None:
    parts = np.array([0.5, 1.2, -0.3, 2.0, 0.9, 0.0])
    kept = parts[parts != 0]
    sums = [abs(np.dot(signs, kept)) for signs in itertools.product((1, -1), repeat=len(kept))]
    exact = np.mean([each >= abs(kept.sum()) - 1e-12 for each in sums])
    assert sign_flip_test(parts, 20_000, 0) == pytest.approx(exact, abs=0.01)
    assert sign_flip_test(np.zeros(4), 100, 0) == 1.0


def test_shuffles_against_all_of_them() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 5.0, 8.0]), np.array([1.0, 1.5, 2.5, 2.0, 4.0])
    covariances = [abs(np.dot(np.array(p) - x.mean(), y - y.mean())) for p in itertools.permutations(x)]
    observed = abs(np.dot(x - x.mean(), y - y.mean()))
    exact = np.mean([each >= observed - 1e-12 for each in covariances])
    assert shuffle_test(x, y, 20_000, 0) == pytest.approx(exact, abs=0.01)


def plain_place_test(blocks: list[Block]) -> float:
    """The exact test: all orders of all prompts, ratings looked up one by one."""

    def statistic(orders: tuple[tuple[int, ...], ...]) -> float:
        sums, counts = [0.0] * 3, [0] * 3
        for (ratings, shown), order in zip(blocks, orders, strict=True):
            for marks, places in zip(ratings.tolist(), shown.tolist(), strict=True):
                for j, picture in enumerate(places):
                    sums[j] += marks[order[picture]] - sum(marks) / len(marks)
                    counts[j] += 1
        return sum(s * s / c for s, c in zip(sums, counts, strict=True))

    every = list(itertools.product(itertools.permutations(range(3)), repeat=len(blocks)))
    observed = statistic(tuple((0, 1, 2) for _ in blocks))
    return float(np.mean([statistic(each) >= observed - 1e-12 for each in every]))


def test_places_against_all_orders() -> None:
    rng = np.random.default_rng(4)
    blocks: list[Block] = []
    for _ in range(4):
        shown = rng.permutation(3)
        blocks.append((rng.normal(size=(2, 3)), np.stack([shown, shown[::-1]])))
    assert place_test(blocks, 20_000, 0) == pytest.approx(plain_place_test(blocks), abs=0.012)


def made_blocks(seed: int, prompts: int, k: int, bias: float) -> list[Block]:
    rng = np.random.default_rng(seed)
    blocks: list[Block] = []
    for _ in range(prompts):
        shown = rng.permutation(k)
        marks = rng.normal(size=k)
        marks[shown[0]] += bias
        blocks.append((marks[None], shown[None]))
    return blocks


@pytest.mark.parametrize("k", [2, 4, 8])
def test_places_raise_no_false_alarms_and_find_what_is_there(k: int) -> None:
    null = np.array([place_test(made_blocks(seed, 25, k, 0.0), 199, seed) for seed in range(200)])
    assert (null <= 0.05).mean() < 0.10  # 5 % expected; 10 % of 200 has a probability of 0.002
    assert (null <= 0.5).mean() == pytest.approx(0.5, abs=0.13)
    assert place_test(made_blocks(1, 60, k, 1.5), 999, 0) <= 0.002


def test_prompts_with_different_numbers_of_pictures_are_one_test() -> None:
    blocks = made_blocks(0, 20, 2, 2.0) + made_blocks(1, 20, 4, 2.0)
    assert place_test(blocks, 999, 0) <= 0.002
