"""Intervals of Vendi scores: they cover, where a plain bootstrap does not; levels; differences on the same prompts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from t2ialign.eval.vendi import (
    Gaussian,
    Labels,
    RandomFeatures,
    vendi_difference,
    vendi_interval,
    vendi_levels,
    vendi_score,
)


def clustered(prompts: int, each: int, d: int = 6, seed: int = 0, spread: float = 0.6) -> tuple[np.ndarray, list[str]]:
    """Features of pictures that lie around their prompt's own, and their prompt ids."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((prompts, d)).repeat(each, 0)
    return centres + spread * generator.standard_normal((prompts * each, d)), [
        f"p{i}" for i in np.arange(prompts).repeat(each)
    ]


def unequal(prompts: int, seed: int) -> np.ndarray:
    """Features in groups of very different size: a diversity that a sample may well miss."""
    generator = np.random.default_rng(seed)
    group = generator.choice(12, prompts, p=np.r_[0.4, 0.2, np.full(10, 0.04)])
    return 3 * np.eye(12)[group] + 0.4 * generator.standard_normal((prompts, 12))


def test_the_intervals_cover_the_expected_score_of_a_set_of_this_size() -> None:
    truth = vendi_mean(range(1000, 2000))
    held = dict.fromkeys(truth, 0)
    for seed in range(200):
        for q, interval in vendi_interval(unequal(24, seed), q=(1, 2), resamples=60).intervals.items():
            assert interval is not None
            held[q] += int(interval.low <= truth[q] <= interval.high)
    for count in held.values():
        assert 0.90 <= count / 200 <= 0.99


def vendi_mean(seeds: range) -> dict[float, float]:
    """The expected score of such a set, by order."""
    scores = [vendi_score(unequal(24, seed), (1, 2)).scores for seed in seeds]
    return {q: float(np.mean([score[q] for score in scores])) for q in (1.0, 2.0)}


def test_a_plain_bootstrap_lies_below_the_score_which_is_why_none_is_used() -> None:
    x, _ = clustered(60, 1, d=40)
    generator = np.random.default_rng(0)
    draws = [vendi_score(x[generator.integers(0, 60, 60)]).value for _ in range(200)]
    score = vendi_score(x).value
    assert np.quantile(draws, 0.975) < score
    found = vendi_interval(x)
    interval = found.intervals[1.0]
    assert interval is not None
    assert interval.low < score < interval.high


def test_pictures_of_a_prompt_are_not_counted_as_prompts() -> None:
    x, prompts = clustered(20, 8, spread=0.05)
    errors = [vendi_interval(x, ids, 2).standard_errors[2.0] for ids in (prompts, None)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0] > 1.8 * errors[1]


def test_a_score_at_a_smaller_size_is_the_mean_over_subsamples() -> None:
    x, prompts = clustered(6, 2)
    rows = [np.flatnonzero(np.array(prompts) == f"p{i}") for i in range(6)]
    pairs = [np.r_[rows[i], rows[j]] for i in range(6) for j in range(i)]
    expected = np.mean([vendi_score(x[pair]).value for pair in pairs])
    found = vendi_interval(x, prompts, size=2, resamples=3000)
    assert found.scores[1.0] == pytest.approx(expected, abs=0.02)
    assert (found.size, found.prompts, found.n) == (2, 6, 12)
    big, _ = clustered(60, 1, d=20)
    assert vendi_interval(big, size=20).scores[1.0] == pytest.approx(
        vendi_interval(big[:30], size=20).scores[1.0], rel=0.06
    )
    assert vendi_interval(big, size=45).scores[1.0] < vendi_score(big).value


def test_draws_are_a_function_of_the_seed_alone_and_the_score_is_exact() -> None:
    x, prompts = clustered(12, 2)
    first, again, other = (vendi_interval(x, prompts, (1, 2), seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.standard_errors != other.standard_errors
    assert first.scores == pytest.approx(vendi_score(x, (1, 2)).scores)


def test_weights_and_qualities_travel_with_their_rows() -> None:
    x, prompts = clustered(12, 2)
    quality, weights = np.linspace(1, 2, 24), np.linspace(1, 3, 24)
    found = vendi_interval(x, prompts, 2, weights=weights, quality=quality)
    assert found.scores[2.0] == pytest.approx(vendi_score(x, 2, weights=weights, quality=quality).value)
    assert found.quality_weighted
    order = np.random.default_rng(0).permutation(12)
    shuffled = np.concatenate([[2 * i, 2 * i + 1] for i in order])
    moved = vendi_interval(
        x[shuffled], [prompts[i] for i in shuffled], 2, weights=weights[shuffled], quality=quality[shuffled]
    )
    assert moved.standard_errors[2.0] == pytest.approx(found.standard_errors[2.0], rel=0.2)


def test_a_difference_on_the_same_prompts_is_steadier_than_its_parts() -> None:
    x, prompts = clustered(30, 4)
    other = x + 0.05 * np.random.default_rng(9).standard_normal(x.shape)
    found = vendi_difference(x, other, prompts, q=(1, 2))
    alone = vendi_interval(x, prompts, (1, 2))
    for q in (1.0, 2.0):
        assert found.scores[q] == pytest.approx(vendi_score(other, q).value - vendi_score(x, q).value)
        error, of_one = found.standard_errors[q], alone.standard_errors[q]
        assert error is not None
        assert of_one is not None
        assert error < of_one / 4
    same = vendi_difference(x, x[::-1], prompts, prompts[::-1])
    assert same.scores[1.0] == pytest.approx(0, abs=1e-9)
    assert same.standard_errors[1.0] == pytest.approx(0, abs=1e-9)


def test_sets_of_different_size_have_no_difference() -> None:
    x, prompts = clustered(8, 3)
    with pytest.raises(ValueError, match=r"number of items of 1 prompts \(p7\)"):
        vendi_difference(x, x[:-1], prompts, prompts[:-1])


def test_labels_and_matrices_have_intervals_too() -> None:
    labels = ["a", "b", "a", "c"] * 10
    kernel = np.array([[float(a == b) for a in labels] for b in labels])
    by_label = vendi_interval(labels, kernel=Labels())
    by_matrix = vendi_interval(kernel, kernel="precomputed")
    assert by_label.scores == pytest.approx(by_matrix.scores)
    assert by_label.standard_errors[1.0] == pytest.approx(by_matrix.standard_errors[1.0])


def test_few_prompts_have_a_score_and_no_interval() -> None:
    x, prompts = clustered(3, 4)
    found = vendi_interval(x, prompts)
    assert found.intervals == {1.0: None}
    assert json.loads(json.dumps(found.to_dict()))["scores"][0]["interval"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"size": 13}, "size 13 is not between 1 and the 12"),
        ({"resamples": 5}, "too few"),
        ({"confidence": 1.0}, "not between 0 and 1"),
        ({"prompts": ["a"]}, "1 prompts for 24 items"),
        ({"quality": -np.ones(24)}, "at least 0"),
    ],
)
def test_arguments_out_of_range(more: dict[str, object], message: str) -> None:
    x, prompts = clustered(12, 2)
    with pytest.raises(ValueError, match=message):
        vendi_interval(x, **{"prompts": prompts, **more})  # type: ignore[arg-type]


def test_the_three_levels() -> None:
    x, prompts = clustered(15, 4)
    found = vendi_levels(x, prompts, (1, 2))
    each = [vendi_score(x[4 * i : 4 * i + 4], (1, 2)) for i in range(15)]
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    for q in (1.0, 2.0):
        np.testing.assert_allclose(found.within.per_prompt[q], [score[q] for score in each])
        assert found.within.scores[q] == pytest.approx(np.mean([score[q] for score in each]))
        assert found.whole.scores[q] == pytest.approx(vendi_score(x, q).value)
        assert found.means is not None
        assert found.means.scores[q] == pytest.approx(vendi_score(unit.reshape(15, 4, -1).mean(1), q).value)
        interval = found.within.intervals[q]
        assert interval is not None
        assert interval.low < found.within.scores[q] < interval.high
    content = json.loads(json.dumps(found.to_dict()))
    assert content["within"]["pictures"] == 4
    assert content["within"]["per_prompt"][3]["prompt"] == "p3"
    assert content["set"]["n"] == 60
    assert content["means"]["n"] == 15


def test_one_picture_a_prompt_drawn_again_and_again_is_found_out() -> None:
    x, prompts = clustered(10, 4, spread=0.0)
    found = vendi_levels(x, prompts)
    assert found.within.scores[1.0] == pytest.approx(1)
    assert found.whole.scores[1.0] > 3


def test_levels_need_equal_numbers_of_pictures() -> None:
    x, prompts = clustered(6, 3)
    with pytest.raises(ValueError, match=r"from 2 to 3 pictures.*pictures=2"):
        vendi_levels(x[:-1], prompts[:-1])
    with pytest.raises(ValueError, match="prompt 'p5' has 2"):
        vendi_levels(x[:-1], prompts[:-1], pictures=3)
    cut = vendi_levels(x[:-1], prompts[:-1], pictures=2)
    keep = [i for i in range(18) if i % 3 < 2]
    full = vendi_levels(x[keep], [prompts[i] for i in keep])
    assert cut.within.scores == full.within.scores
    assert cut.whole == full.whole


def test_levels_of_other_kernels() -> None:
    x, prompts = clustered(8, 3)
    for kernel in (Gaussian(1.0), RandomFeatures(1.0, 30)):
        found = vendi_levels(x, prompts, kernel=kernel)
        assert found.means is not None
        assert found.means.kernel == kernel.name
    labels = [f"l{i % 3}" for i in range(24)]
    assert vendi_levels(labels, prompts, kernel=Labels()).means is None
    assert math.isclose(vendi_levels(labels, prompts, kernel=Labels()).within.scores[1.0], 3)
