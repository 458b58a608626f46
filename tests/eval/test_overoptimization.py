"""Over-optimisation: found where it is planted, seldom where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from t2ialign.eval.overoptimization import watch

STEPS = [0, 100, 200, 300, 400]


def scores(means: list[int], rng: np.random.Generator, prompts: int = 60) -> np.ndarray:
    """A prompt's own level, and noise at each checkpoint."""
    return np.asarray(
        np.asarray(means)[:, None] + rng.normal(0, 2, prompts) + rng.normal(0, 0.5, (len(means), prompts))
    )


def test_planted_fall_is_found_at_its_peak() -> None:
    rng = np.random.default_rng(0)
    found = watch(STEPS, scores([0, 1, 2, 3, 4], rng), scores([0, 1, 2, 1, 0], rng), [0, 1, 2, 4, 8])
    assert (found.verdict, found.peak) == ("over-optimised", 200)
    assert found.fall_ci95[1] < 0 < found.rise_ci95[0]
    assert "after step 200" in found.sentence()
    assert [point.divergence for point in found.points] == [0, 1, 2, 4, 8]


def test_both_falling_is_no_over_optimisation() -> None:
    rng = np.random.default_rng(1)
    assert watch(STEPS, scores([0, 3, 4, 3, 1], rng), scores([0, 1, 2, 1, 0], rng)).verdict == "not shown"


def test_a_reward_that_does_not_rise() -> None:
    rng = np.random.default_rng(2)
    found = watch(STEPS, scores([4, 3, 2, 1, 0], rng), scores([0, 1, 2, 1, 0], rng))
    assert found.verdict == "reward did not rise"


def test_false_alarms_are_few() -> None:
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(200):
        found = watch(STEPS, scores([0, 1, 2, 3, 4], rng), scores([1] * 5, rng), resamples=50)
        alarms += found.verdict == "over-optimised"
    assert alarms / 200 <= 0.10  # 5 %, three standard errors of 200 repeats


def test_refusals() -> None:
    with pytest.raises(ValueError, match="do not rise"):
        watch([0, 0], np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="checkpoints"):
        watch([0, 1, 2], np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="not finite"):
        watch([0, 1], np.zeros((2, 3)), np.full((2, 3), np.nan))


def test_a_few_deep_falls_among_many_rises_are_not_a_shown_fall() -> None:
    start, noise = np.zeros(100), np.random.default_rng(0).normal(0, 0.01, 100)
    end = np.where(np.arange(100) < 80, 1.0, -10.0) + noise
    found = watch([0, 10], np.stack([start, start + 1]), np.stack([start, end]))
    assert found.p < 0.05
    assert found.fall < 0
    assert found.verdict == "not shown"
