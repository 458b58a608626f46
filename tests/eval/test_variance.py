"""The split of variance: against the balanced formulas, unbiased in simulation, refused where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from t2ialign.eval.variance import split_variance


def drawn(prompts: int, seeds: int, between: float, within: float, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, between, (prompts, 1)) + rng.normal(0, within, (prompts, seeds))


def names(prompts: int, seeds: int) -> list[str]:
    return [f"p{i}" for i in range(prompts) for _ in range(seeds)]


def test_balanced_formulas() -> None:
    scores = drawn(12, 3, 2.0, 1.0, np.random.default_rng(0))
    found = split_variance(scores.ravel(), names(12, 3), resamples=10)
    within = scores.var(axis=1, ddof=1).mean()
    between = scores.mean(1).var(ddof=1) - within / 3
    assert found.seeds == pytest.approx(within)
    assert found.prompts == pytest.approx(between)
    assert found.share == pytest.approx(between / (between + within))
    assert (found.n_prompts, found.n_pictures) == (12, 36)


def test_unbalanced_by_hand() -> None:
    # Prompts of 1 and 5 pictures: within 4 over 4 degrees; between 1 (5 - 25/6)^2 + 5 (4 - 25/6)^2 = 5/6, over 1;
    # n0 = (6 - 26/6) / 1 = 5/3, so the component is (5/6 - 1) / (5/3) = -1/10, clipped.
    found = split_variance([5.0, 3.0, 3.0, 4.0, 5.0, 5.0], ["a", *"bbbbb"], resamples=10)
    assert found.seeds == pytest.approx(1.0)
    assert found.clipped
    # 8 in place of 5: between 1 (8 - 28/6)^2 + 5 (4 - 28/6)^2 = 40/3, and (40/3 - 1) / (5/3) = 7.4.
    found = split_variance([8.0, 3.0, 3.0, 4.0, 5.0, 5.0], ["a", *"bbbbb"], resamples=10)
    assert found.prompts == pytest.approx(7.4)


def test_unbalanced_is_unbiased_and_covers() -> None:
    rng, sizes = np.random.default_rng(1), [1, 2, 2, 5] * 15
    prompts = [f"p{i}" for i, size in enumerate(sizes) for _ in range(size)]
    between, within, inside = [], [], 0
    for seed in range(300):
        scores = np.concatenate([rng.normal(0, 1.5) + rng.normal(0, 1.0, size) for size in sizes])
        found = split_variance(scores, prompts, resamples=300, seed=seed)
        between.append(found.prompts)
        within.append(found.seeds)
        low, high = found.share_ci95
        inside += low <= 2.25 / 3.25 <= high
    assert np.mean(between) == pytest.approx(2.25, abs=4 * np.std(between) / np.sqrt(300))
    assert np.mean(within) == pytest.approx(1.0, abs=4 * np.std(within) / np.sqrt(300))
    assert inside / 300 > 0.88


def test_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(2)
    found = split_variance(drawn(4000, 4, 1.0, 2.0, rng).ravel(), names(4000, 4), resamples=10)
    means = [drawn(20, 3, 1.0, 2.0, rng).mean() for _ in range(4000)]
    assert found.standard_error(20, 3) == pytest.approx(np.std(means), rel=0.06)


def test_no_spread_between_prompts_is_said() -> None:
    scores = np.tile([0.0, 1.0], 10)
    found = split_variance(scores, names(10, 2), resamples=10)
    assert found.clipped
    assert (found.prompts, found.share) == (0.0, 0.0)


@pytest.mark.parametrize("prompts", [["x", "y", "z"], ["x", "x", "x"]])
def test_nothing_to_split(prompts: list[str]) -> None:
    with pytest.raises(ValueError, match="can not be split"):
        split_variance([1.0, 2.0, 3.0], prompts)


def test_resamples_without_a_second_picture_are_left_out() -> None:
    prompts = [*"abcdefghij", "a"]
    scores = np.random.default_rng(0).normal(0, 1, 11) + np.array([3.0 * ord(each) for each in prompts])
    assert split_variance(scores, prompts).share_ci95[0] > 0.5
