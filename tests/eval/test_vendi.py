"""Vendi scores: golden values, every order and route, a plain twin, what the published package gets wrong."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t2ialign
from t2ialign.eval.vendi import (
    Cosine,
    Gaussian,
    Labels,
    RandomFeatures,
    cosine_kernel,
    gaussian_kernel,
    label_kernel,
    median_sigma,
    vendi_score,
)
from t2ialign.eval.vendi.compat import (
    published_quality_score,
    published_score_dual,
    published_score_k,
    published_score_x,
)

ORDERS = (0.0, 0.1, 0.5, 1.0, 1.7, 2.0, 5.0, math.inf)


def features(n: int, d: int, seed: int = 0, width: int | None = None) -> np.ndarray:
    """Normal features of rank d, in a space of `width` dimensions."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)) @ generator.standard_normal((d, width or d))


def plain(kernel: np.ndarray, q: float, p: np.ndarray | None = None) -> float:
    """The definition, through singular values of a square root where q is 0."""
    n = len(kernel)
    p = np.full(n, 1 / n) if p is None else p / p.sum()
    values = np.linalg.svd(np.diag(np.sqrt(p)) @ kernel @ np.diag(np.sqrt(p)), compute_uv=False)
    values = values[values > 1e-12]
    if q == 1:
        return float(np.prod(values**-values))
    return float(1 / values.max()) if math.isinf(q) else float(np.sum(values**q) ** (1 / (1 - q)))


def test_the_golden_value_of_the_quality_weighted_score() -> None:
    items = np.array([0.0, 0.0, 2.0])
    kernel = np.exp(-np.abs(items[:, None] - items[None, :]))
    found = vendi_score(kernel, kernel="precomputed", quality=np.exp(-np.abs(items - 2)))
    assert found.value == pytest.approx(0.793705659274703, abs=1e-14)
    assert found.quality_weighted == {1.0: found.value}


def test_the_quality_is_averaged_by_the_weights_which_the_published_one_forgets() -> None:
    kernel, quality, p = np.eye(3), np.array([1.0, 2.0, 6.0]), np.array([0.5, 0.25, 0.25])
    found = vendi_score(kernel, 2, kernel="precomputed", weights=p, quality=quality)
    assert found.quality == pytest.approx(2.5)
    assert found.value == pytest.approx(2.5 / 0.375)
    assert published_quality_score(kernel, quality, 2, p) == pytest.approx(3 / 0.375)


def test_a_negative_quality_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quality 1 is -0\.5.*at least 0"):
        vendi_score(np.eye(2), quality=[1.0, -0.5])


def test_order_0_is_the_rank_where_the_published_package_counts_round_off() -> None:
    x = features(60, 16)
    kernel = cosine_kernel(x)
    assert vendi_score(kernel, 0, kernel="precomputed").value == 16
    assert published_score_k(kernel, 0) > 30
    assert published_score_k(kernel, 0.1) > vendi_score(kernel, 0.1, kernel="precomputed").value + 0.3
    for q in (1.0, 2.0, 5.0):
        assert published_score_k(kernel, q) == pytest.approx(vendi_score(x, q).value, rel=1e-10)
    assert published_score_k(kernel, "inf") == pytest.approx(vendi_score(x, "inf").value, rel=1e-10)


def test_the_published_package_drops_q_and_ours_passes_it_on() -> None:
    x = features(40, 8)
    assert published_score_x(x, 2) == published_score_x(x, 1)
    assert vendi_score(x, 2).value < vendi_score(x, 1).value - 0.1
    assert published_score_dual(x, 2) == pytest.approx(vendi_score(x, 2).value, rel=1e-12)


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize(("n", "d", "width"), [(50, 7, 7), (50, 7, 30), (20, 30, 30)])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_route_agrees_with_the_definition(q: float, n: int, d: int, width: int, weighted: bool) -> None:
    x = features(n, d, width=width)
    p = np.random.default_rng(1).uniform(0.1, 1, n) if weighted else None
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    expected = plain(unit @ unit.T, q, p)
    blocks = iter([x[:1], x[1:11], x[11:]])
    assert vendi_score(x, q, weights=p).value == pytest.approx(expected, rel=1e-9)
    assert vendi_score(blocks, q, weights=p).value == pytest.approx(expected, rel=1e-9)
    assert vendi_score(unit @ unit.T, q, kernel="precomputed", weights=p).value == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 30),
    d=st.integers(1, 8),
    seed=st.integers(0, 10**6),
    q=st.one_of(st.just(0.0), st.just(1.0), st.just(math.inf), st.floats(0.05, 40)),
)
def test_a_score_lies_between_1_and_n_and_d_and_falls_with_q(n: int, d: int, seed: int, q: float) -> None:
    x = features(n, d, seed)
    score = vendi_score(x, q).value
    assert 1 - 1e-9 <= score <= min(n, d) + 1e-9
    assert vendi_score(x, q + 1).value <= score + 1e-9


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 20), seed=st.integers(0, 10**6), q=st.sampled_from(ORDERS))
def test_copying_the_whole_set_or_scaling_or_turning_it_changes_nothing(n: int, seed: int, q: float) -> None:
    x = features(n, 5, seed)
    turn = np.linalg.qr(features(5, 5, seed + 1))[0]
    score = vendi_score(x, q).value
    assert vendi_score(np.vstack([x, x]), q).value == pytest.approx(score, rel=1e-9)
    assert vendi_score(x @ turn * 7, q).value == pytest.approx(score, rel=1e-8)
    weights = np.r_[np.full(n, 2.0), 0.0]
    assert vendi_score(np.vstack([x, x[0]]), q, weights=weights).value == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize("q", ORDERS)
def test_equal_items_are_one_and_orthogonal_ones_are_n(q: float) -> None:
    assert vendi_score(np.ones((9, 4)), q).value == pytest.approx(1)
    assert vendi_score(np.eye(9), q).value == pytest.approx(9)


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9, 1e-13])
def test_orders_near_1_lose_no_digits(step: float) -> None:
    x = features(30, 6)
    at = vendi_score(x, 1).value
    for q in (1 - step, 1 + step):
        assert abs(vendi_score(x, q).value - at) < 3 * step * at


def test_a_very_large_order_does_not_underflow() -> None:
    x = features(500, 100)
    score = vendi_score(x, (2000, "inf"))
    assert score["inf"] < score[2000] < 1.01 * score["inf"]


def test_order_2_needs_no_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("eigenvalues were asked for")

    x = features(30, 6)
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    expected = 1 / np.mean((unit @ unit.T) ** 2)
    monkeypatch.setattr(np.linalg, "eigvalsh", never)
    found = vendi_score(x, 2)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert (found.rank, found.route) == (None, "sum of squares")
    assert vendi_score(x, 2, kernel=Gaussian(2.0, limit=3)).value == pytest.approx(
        1 / np.mean(gaussian_kernel(x, 2.0) ** 2), rel=1e-10
    )
    with pytest.raises(AssertionError, match="eigenvalues"):
        vendi_score(x, (1, 2))


def test_a_long_stream_needs_one_block_of_memory() -> None:
    block = features(2000, 64).astype(np.float32)

    def stream() -> Iterator[np.ndarray]:
        for turn in range(50):
            yield np.roll(block, turn, axis=0)

    tracemalloc.start()
    found = vendi_score(stream(), (0, 1, 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.n == 100_000
    assert found.route == "dual"
    assert peak < 8 * 2**20, "100,000 x 64 features in float64 are 49 MB"
    once = vendi_score(block, (0, 1, 2))
    assert list(found.scores.values()) == pytest.approx(list(once.scores.values()), rel=1e-10)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_low_precision_features_are_summed_in_double(kind: str) -> None:
    x = torch.tensor(features(3000, 24)).to(getattr(torch, kind))
    exact = x.to(torch.float64).numpy()
    for q in (0.1, 0.5, 1, 2):
        assert vendi_score(x, q).value == pytest.approx(vendi_score(exact, q).value, rel=1e-9)


def test_features_rounded_to_half_precision_show_no_more_dimensions_than_they_had() -> None:
    low = features(400, 5, width=40)
    assert vendi_score(low, 0).value == 5
    assert vendi_score(low.astype(np.float16), 0).value == 5
    assert vendi_score(low.astype(np.float32), 0).value == 5


def test_centring_takes_the_mean_off_and_says_so() -> None:
    x = features(80, 6) + 20
    assert vendi_score(x).value < 1.5
    found = vendi_score(x, kernel=Cosine(center=True))
    assert found.value == pytest.approx(vendi_score(x - x.mean(axis=0)).value, rel=1e-9)
    assert found.kernel == "cosine, centred"


def test_the_gaussian_kernel_is_the_formula() -> None:
    x = features(12, 3) + 1000
    expected = [[math.exp(-sum((a - b) ** 2) / (2 * 1.3**2)) for b in x] for a in x]
    np.testing.assert_allclose(gaussian_kernel(x, 1.3), expected, atol=1e-9)
    assert vendi_score(x, 1, kernel=Gaussian(1.3)).value == pytest.approx(plain(np.array(expected), 1), rel=1e-9)
    with pytest.raises(ValueError, match=r"12 items are more than 3.*RandomFeatures"):
        vendi_score(x, 1, kernel=Gaussian(1.3, limit=3))


def test_the_median_distance() -> None:
    assert median_sigma([[0.0], [3.0]]) == 3
    with pytest.raises(ValueError, match="positive bandwidth"):
        median_sigma(np.ones((5, 2)))


def test_random_features_reach_order_2_and_say_how_far_they_got() -> None:
    x = features(1500, 6)
    exact = vendi_score(x, (1, 2), kernel=Gaussian(2.0))
    near = vendi_score(x, (1, 2), kernel=RandomFeatures(2.0, 1000))
    far = vendi_score(x, (1, 2), kernel=RandomFeatures(2.0, 50))
    assert near[2] == pytest.approx(exact[2], rel=0.1)
    assert far[1] < near[1] < exact[1]
    assert near.approximation is not None
    assert near.approximation.order_2 == pytest.approx(exact[2], rel=0.03)
    assert near.approximation.features == 2000
    assert near.approximation.trace == pytest.approx(1, abs=1e-12)
    half = vendi_score(x, (1, 2), kernel=RandomFeatures(2.0, 500))
    assert near.approximation.scores_at_half == pytest.approx(half.scores, rel=1e-9)
    assert exact.approximation is None


def test_the_error_of_a_random_kernel_entry_is_what_its_notes_bound() -> None:
    x = features(30, 4)
    kernel = gaussian_kernel(x, 1.5)
    found = vendi_score(x, kernel=RandomFeatures(1.5, 100)).approximation
    assert found is not None
    errors = []
    for seed in range(400):
        turns = x @ np.random.default_rng(seed).standard_normal((100, 4)).T / 1.5
        errors.append((np.cos(turns) @ np.cos(turns).T + np.sin(turns) @ np.sin(turns).T) / 100 - kernel)
    spread = np.sqrt(np.mean(np.square(errors)))
    expected = np.sqrt(np.mean((1 - kernel**2) ** 2))
    assert spread == pytest.approx(expected * found.kernel_error, rel=0.05)


def test_order_2_of_random_features_is_unbiased() -> None:
    x = features(40, 3)
    exact = 1 / vendi_score(x, 2, kernel=Gaussian(1.0)).value
    notes = [vendi_score(x, 2, kernel=RandomFeatures(1.0, 20, seed)).approximation for seed in range(300)]
    found = np.array([1 / note.order_2 for note in notes if note is not None and note.order_2 is not None])
    assert len(found) == 300
    assert abs(found.mean() - exact) < 3 * found.std() / 300**0.5
    biased = 1 / vendi_score(x, 2, kernel=RandomFeatures(1.0, 20)).value
    assert biased > exact + 3 * found.std() / 300**0.5


def test_random_features_of_a_stream_are_those_of_the_array() -> None:
    x = features(300, 5)
    kernel = RandomFeatures(1.0, 40, seed=3)
    assert vendi_score(iter([x[:7], x[7:]]), 1, kernel=kernel).value == pytest.approx(
        vendi_score(x, 1, kernel=kernel).value, rel=1e-12
    )
    assert vendi_score(x, 1, kernel=RandomFeatures(1.0, 40, seed=4)).value != vendi_score(x, 1, kernel=kernel).value


def test_label_kernels_by_hand() -> None:
    labels = [
        ("Asia", "Japan", "kimono"),
        ("Asia", "Japan", "sushi"),
        ("Asia", "India", "sari"),
        ("Europe", "Japan", "x"),
    ]
    flat: list[list[float]] = [[1, 0.75, 0.25, 0.5], [0.75, 1, 0.25, 0.5], [0.25, 0.25, 1, 0], [0.5, 0.5, 0, 1]]
    nested: list[list[float]] = [[1, 0.75, 0.25, 0], [0.75, 1, 0.25, 0], [0.25, 0.25, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(label_kernel(labels, (0.25, 0.5, 0.25)), flat)
    np.testing.assert_allclose(label_kernel(labels, (0.25, 0.5, 0.25), nested=True), nested)
    for q in ORDERS:
        p = np.array([1.0, 2.0, 3.0, 4.0])
        found = vendi_score(labels, q, kernel=Labels((0.25, 0.5, 0.25)), weights=p)
        assert found.value == pytest.approx(plain(np.array(flat), q, p), rel=1e-9)


def test_one_level_of_labels_gives_the_shares() -> None:
    found = vendi_score(["a"] * 500_000 + ["b"] * 250_000 + ["c"] * 250_000, (0, 1, 2, "inf"), kernel=Labels())
    assert found.n == 1_000_000
    assert list(found.scores.values()) == pytest.approx([3, 2**1.5, 1 / 0.375, 2])


@pytest.mark.parametrize(("groups", "expected"), [(1, 0.125), (2, 0.25), (8, 1.0)])
def test_eight_labels_in_equal_groups(groups: int, expected: float) -> None:
    labels = [f"country {i % groups}" for i in range(8)]
    assert vendi_score(labels, kernel=Labels()).over_n[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vendi_score(np.zeros((3, 2))), "feature vector 0 is zero"),
        (
            lambda: vendi_score(iter([np.ones((1500, 2)), np.array([[1.0, math.nan]])])),
            "feature vector 1500 is not fin",
        ),
        (lambda: vendi_score(iter([np.ones((2, 2)), np.ones((2, 3))])), "width 3, those before 2"),
        (lambda: vendi_score(iter([])), "is empty"),
        (lambda: vendi_score(np.ones(4)), r"must be \[n, d\]"),
        (lambda: vendi_score(np.ones((4, 2)), -1), "order -1 is out of range"),
        (lambda: vendi_score(np.ones((4, 2)), "many"), "'many' is no order"),
        (lambda: vendi_score(np.ones((4, 2)), []), "no order"),
        (lambda: vendi_score(np.ones((4, 2)), weights=[1, 1]), "for 4 items"),
        (lambda: vendi_score(iter([np.ones((4, 2))]), weights=np.ones(5)), "5 weights for 4 items"),
        (lambda: vendi_score(iter([np.ones((4, 2))]), weights=np.ones(3)), "more than 3 items"),
        (lambda: vendi_score(np.ones((2, 2)), weights=[1, -1]), "weight 1 is -1"),
        (lambda: vendi_score(np.ones((2, 2)), weights=[0, 0]), "all weights are 0"),
        (lambda: vendi_score([[1, 2], [2, 1]], kernel="precomputed"), "not positive semi-definite"),
        (lambda: vendi_score([[1, 0.1], [0.2, 1]], kernel="precomputed"), "not symmetric"),
        (lambda: vendi_score([[2, 0], [0, 2]], kernel="precomputed"), "as similar as 1 to itself"),
        (lambda: vendi_score(np.ones((2, 3)), kernel="precomputed"), "not square"),
        (
            lambda: vendi_score([("a", "b")], kernel=Labels()).value and vendi_score(["a"], kernel=Labels((0.5, 0.5))),
            "1 labels",
        ),
        (lambda: Labels((0.5, 0.6)), "sum to 1.1"),
        (lambda: Gaussian(0.0), "positive bandwidth"),
    ],
)
def test_what_has_no_score_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_the_result_names_what_it_is_of() -> None:
    found = t2ialign.vendi_score(features(20, 4), (0.5, "inf"), weights=np.arange(20) + 1.0)
    content = found.to_dict()
    assert set(content["scores"]) == {"0.5", "inf"}
    assert (content["n"], content["kernel"], content["route"], content["rank"]) == (20, "cosine", "dual", 4)
    assert content["weighted"]
    assert content["effective_n"] == pytest.approx(210**2 / 2870)
    assert float(found) == found.value == found[0.5]
