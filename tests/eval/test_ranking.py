"""Bradley-Terry with ties: against a plain maximisation, by its symmetries, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from t2ialign.eval.ranking import bradley_terry


def table(
    strengths: dict[str, float], prompts: int, samples: int, seed: int, rounding: float = 0.0
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Scores with Gumbel noise: then P(a beats b) is the logistic function of the strengths' difference."""
    rng = np.random.default_rng(seed)
    scores = {name: value + rng.gumbel(size=prompts * samples) for name, value in strengths.items()}
    if rounding:
        scores = {name: np.round(each / rounding) * rounding for name, each in scores.items()}
    return scores, [f"p{i}" for i in range(prompts) for _ in range(samples)]


def plain(scores: dict[str, np.ndarray], prompts: list[str], margin: float = 0.0) -> np.ndarray:
    """Davidson's likelihood, maximised pair by pair as it is written; strengths against the first, and log nu."""
    names, weight = list(scores), 1 / prompts.count(prompts[0])

    def loss(at: np.ndarray) -> float:
        strength = np.exp(np.concatenate([[0.0], at[:-1]]))
        nu, total = np.exp(at[-1]), 0.0
        for i in range(len(names)):
            for j in range(i):
                even = nu * np.sqrt(strength[i] * strength[j])
                norm = strength[i] + strength[j] + even
                gap = scores[names[i]] - scores[names[j]]
                total += np.sum(gap > margin) * np.log(strength[i] / norm)
                total += np.sum(gap < -margin) * np.log(strength[j] / norm)
                total += np.sum(np.abs(gap) <= margin) * np.log(even / norm)
        return -weight * total

    return np.asarray(minimize(loss, np.zeros(len(names)), method="BFGS", options={"gtol": 1e-8}).x)


def test_it_maximises_davidsons_likelihood() -> None:
    scores, prompts = table({"a": 0.0, "b": 0.7, "c": -0.4}, 60, 2, 3, rounding=1.0)
    found = bradley_terry(scores, prompts, prior=0, resamples=10)
    value = {each.model: each.value for each in found.strengths}
    wanted = plain(scores, prompts)
    np.testing.assert_allclose([value["b"], value["c"], np.log(found.tie)], wanted, atol=1e-5)
    assert value["a"] == 0.0


def test_margin_makes_ties() -> None:
    scores, prompts = table({"a": 0.0, "b": 0.5}, 80, 1, 5)
    found = bradley_terry(scores, prompts, prior=0, margin=0.3, resamples=10)
    np.testing.assert_allclose([found.strengths[0].value, np.log(found.tie)], plain(scores, prompts, 0.3), atol=1e-5)


def test_two_models_without_ties_have_the_log_odds() -> None:
    scores = {"a": [0.0] * 40, "b": [1.0] * 30 + [-1.0] * 10}
    found = bradley_terry(scores, [str(i) for i in range(40)], prior=0, resamples=10)
    assert found.strengths[0].model == "b"
    assert found.strengths[0].value == pytest.approx(np.log(3), abs=1e-9)
    assert found.tie == 0.0


def test_order_of_models_and_anchor_change_nothing_but_the_zero() -> None:
    scores, prompts = table({"a": 0.0, "b": 0.7, "c": -0.4}, 50, 2, 1, rounding=0.5)
    one = {each.model: each for each in bradley_terry(scores, prompts, resamples=50).strengths}
    turned = dict(reversed(scores.items()))
    two = {each.model: each for each in bradley_terry(turned, prompts, anchor="b", resamples=50).strengths}
    for name in scores:
        assert two[name].value == pytest.approx(one[name].value - one["b"].value, abs=1e-9)
        assert two[name].rank == one[name].rank


def test_a_prompt_with_many_pictures_has_one_say() -> None:
    scores = {"a": [0.0, 0.0, 0.0], "b": [1.0, -1.0, 1.0]}
    many = {"a": [0.0] * 7, "b": [1.0] + [-1.0] * 5 + [1.0]}
    one = bradley_terry(scores, ["x", "y", "z"], resamples=5).strengths[0].value
    assert bradley_terry(many, ["x", *["y"] * 5, "z"], resamples=5).strengths[0].value == pytest.approx(one, abs=1e-9)


def test_always_winning_needs_a_prior() -> None:
    scores = {"a": [0.0] * 5, "b": [1.0] * 5}
    prompts = list("vwxyz")
    with pytest.raises(ValueError, match="prior above 0"):
        bradley_terry(scores, prompts, prior=0)
    # 5 wins and half a pseudo-comparison won by each side: odds (5 + 1/4) to 1/4.
    assert bradley_terry(scores, prompts, resamples=5).strengths[0].value == pytest.approx(np.log(21), abs=1e-8)


def test_intervals_cover_the_truth() -> None:
    inside = 0
    for seed in range(200):
        scores, prompts = table({"a": 0.0, "b": 0.5}, 120, 1, seed)
        found = bradley_terry(scores, prompts, resamples=400, seed=seed)
        low, high = next(each.ci95 for each in found.strengths if each.model == "b")
        inside += low <= 0.5 <= high
    assert 0.90 <= inside / 200 <= 0.99  # 95 %, three standard errors of 200 repeats


@pytest.mark.parametrize(
    ("scores", "prompts", "words"),
    [
        ({"a": [1.0, 2.0]}, ["x", "y"], "at least 2"),
        ({"a": [1.0, 2.0], "b": [1.0]}, ["x", "y"], "finite score for each"),
        ({"a": [1.0, np.nan], "b": [1.0, 2.0]}, ["x", "y"], "finite score for each"),
        ({"a": [1.0, 2.0], "b": [2.0, 1.0]}, ["x", "x"], "at least 2 prompts"),
    ],
)
def test_hopeless_questions_are_refused(scores: dict[str, list[float]], prompts: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bradley_terry(scores, prompts)


def test_equal_models_share_their_places() -> None:
    scores = np.random.default_rng(0).normal(0, 1, 40)
    found = bradley_terry({"b": scores, "a": scores}, [str(i) for i in range(40)], resamples=100)
    assert [each.rank_ci95 for each in found.strengths] == [(1, 2), (1, 2)]
    with pytest.raises(ValueError, match="every comparison is a tie"):
        bradley_terry({"b": scores, "a": scores}, [str(i) for i in range(40)], prior=0)
