"""Statistics against scipy, known values, and simulation."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from t2ialign.eval.statistics import (
    cluster_means,
    clustered_bootstrap,
    effect_size,
    holm,
    paired_test,
    sign_test,
    wilcoxon,
    wilson,
    wilson_of_rates,
    win_rate,
)


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (500, 1000), (816, 1632)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(wins: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(wins, n).proportion_ci(confidence, method="wilson")
    found = wilson(wins, n, confidence)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_golden_value() -> None:
    """Agresti and Coull (1998): 0 of 10 gives 0 to z^2 / (n + z^2)."""
    z = 1.959963984540054
    assert wilson(0, 10) == pytest.approx((0.0, z * z / (10 + z * z)))
    assert wilson(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)


def test_wilson_of_rates_is_wilson_for_single_wins_and_has_one_rate_for_every_prompt_else() -> None:
    assert wilson_of_rates([1.0] * 5 + [0.0] * 5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    # Ten prompts of four pictures: rates 1/4 and 3/4 have a quarter of the variance of 0 and 1, so n is 40, less what
    # Student's quantiles at 39 and 9 degrees of freedom (2.022691, 2.262157) take.
    n = 40 * (2.022691 / 2.262157) ** 2
    assert tuple(wilson_of_rates([0.25] * 5 + [0.75] * 5, 40)) == pytest.approx(tuple(wilson(n / 2, n)), abs=1e-5)
    # Rates that vary even less than independent pictures would are no licence for more.
    assert wilson_of_rates([0.5, 0.5, 0.5, 0.75], 16) == pytest.approx(wilson(9, 16))
    assert wilson_of_rates([1.0] * 8, 32) == pytest.approx(wilson(8, 8))
    with pytest.raises(ValueError, match="rates lie in"):
        wilson_of_rates([0.5, 1.5], 2)


def test_wilson_of_rates_covers_with_several_pictures_a_prompt() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(1000):
        rates = rng.binomial(4, rng.beta(3, 3, 80)) / 4
        low, high = wilson_of_rates(rates, 320)
        inside += low <= 0.5 <= high
    assert 0.93 <= inside / 1000 <= 0.97


def test_wilson_with_half_wins_and_nonsense() -> None:
    low, high = wilson(10.5, 20)
    assert wilson(10, 20).low < low < 0.525 < high < wilson(11, 20).high
    for wins, n, confidence in [(1, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 0.0), (1, 2, 1.0)]:
        with pytest.raises(ValueError, match=r"n must|impossible|not between"):
            wilson(wins, n, confidence)


def test_win_rate_by_hand() -> None:
    base = [1.0, 1.0, 1.0, 2.0, 2.0, 5.0]
    other = [2.0, 1.0, 0.0, 3.0, 2.0, 6.0]
    prompts = ["a", "a", "a", "b", "b", "c"]
    rate = win_rate(base, other, prompts)
    # a: win, tie, loss = 1/2; b: win, tie = 3/4; c: win = 1
    assert rate.per_prompt.tolist() == [0.5, 0.75, 1.0]
    assert rate.value == pytest.approx(0.75)
    assert (rate.wins, rate.ties, rate.losses) == (3, 2, 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40))
def test_win_rates_of_the_two_sides_add_to_one(rows: list[tuple[int, int, int]]) -> None:
    base, other, prompts = zip(*rows, strict=True)
    there, back = win_rate(base, other, prompts), win_rate(other, base, prompts)
    assert there.value + back.value == pytest.approx(1.0)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.wins + there.ties + there.losses == len(rows)


def test_cluster_means_keep_the_order_of_first_appearance() -> None:
    assert cluster_means([1, 10, 3, 20, 5], ["b", "a", "b", "a", "b"]).tolist() == [3.0, 15.0]
    cases: list[tuple[Any, list[str]]] = [
        ([], []),
        ([1.0], ["a", "b"]),
        ([math.nan, 1.0], ["a", "b"]),
        ([[1.0]], ["a"]),
    ]
    for values, clusters in cases:
        with pytest.raises(ValueError, match=r"no values|labels for values|not finite"):
            cluster_means(values, clusters)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("name", ["mean", "median", "std"])
def test_bootstrap_agrees_with_scipy(method: str, name: str) -> None:
    statistic = {"mean": np.mean, "median": np.median, "std": np.std}[name]
    sample = np.random.default_rng(1).lognormal(size=120)
    reference = stats.bootstrap(
        (sample,), statistic, n_resamples=20_000, method=method.replace("bca", "BCa"), rng=np.random.default_rng(2)
    ).confidence_interval
    found = clustered_bootstrap(sample, statistic=statistic, method=method, resamples=20_000, seed=3)  # type: ignore[arg-type]
    width = reference.high - reference.low
    assert found == pytest.approx((reference.low, reference.high), abs=0.05 * width)


def test_bca_corrects_what_percentile_does_not() -> None:
    sample = np.random.default_rng(0).exponential(size=60) ** 2
    plain, corrected = (clustered_bootstrap(sample, method=m) for m in ("percentile", "bca"))
    assert corrected.low > plain.low
    assert corrected.high > plain.high


def test_bootstrap_depends_on_its_seed_alone_and_on_clusters() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=300)
    np.random.seed(1)
    first = clustered_bootstrap(values)
    np.random.seed(2)
    assert clustered_bootstrap(values) == first
    assert clustered_bootstrap(values, seed=1) != first
    # Ten copies of thirty prompts say no more than the thirty prompts.
    few = values[:30]
    prompts = list(range(30))
    assert clustered_bootstrap(np.tile(few, 10), prompts * 10) == pytest.approx(clustered_bootstrap(few))
    naive = clustered_bootstrap(np.tile(few, 10))
    assert (naive.high - naive.low) < 0.5 * (first.high - first.low) * math.sqrt(300 / 30)


def test_bootstrap_in_chunks_equals_bootstrap_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from t2ialign.eval import statistics

    values = np.random.default_rng(0).normal(size=50)
    whole = clustered_bootstrap(values, statistic=np.median, resamples=1000)
    monkeypatch.setattr(statistics, "_CHUNK", 170)
    assert clustered_bootstrap(values, statistic=np.median, resamples=1000) == whole


def test_bootstrap_limits() -> None:
    assert clustered_bootstrap([0.5, 0.5, 0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least 2 prompts"):
        clustered_bootstrap([1.0, 2.0], ["a", "a"])
    with pytest.raises(ValueError, match="unknown method 'normal'"):
        clustered_bootstrap([1.0, 2.0], method="normal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="resamples"):
        clustered_bootstrap([1.0, 2.0], resamples=0)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_covers_as_often_as_it_says(method: str) -> None:
    """400 comparisons of 80 prompts with 3 dependent pictures each, a fifth of them ties."""
    generator = np.random.default_rng(7)
    prompts = np.repeat(np.arange(80), 3)
    hits = 0
    for trial in range(400):
        lean = generator.beta(3, 2, size=80)  # a prompt's own chance to win, 0.6 in the mean
        outcome = (generator.random((80, 3)) < lean[:, None]).astype(float)
        tied = generator.random((80, 3)) < 0.2
        values = np.where(tied, 0.5, outcome).ravel()
        low, high = clustered_bootstrap(values, prompts, method=method, resamples=500, seed=trial)  # type: ignore[arg-type]
        hits += low <= 0.8 * 0.6 + 0.2 * 0.5 <= high
    # Binomial: 0.95 * 400 = 380, standard deviation 4.4; bootstrap at n = 80 is a little short.
    assert 362 <= hits <= 394


def test_bootstrap_of_a_whole_benchmark_is_quick() -> None:
    values = np.random.default_rng(0).random(1632)
    clustered_bootstrap(values[:10])
    started = time.perf_counter()
    low, high = clustered_bootstrap(values)
    assert time.perf_counter() - started < 10
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(1632), rel=0.05)


@given(st.lists(st.integers(-3, 3), min_size=0, max_size=60))
def test_sign_test_is_exact(values: list[int]) -> None:
    wins, losses = sum(v > 0 for v in values), sum(v < 0 for v in values)
    found = sign_test(np.array(values, dtype=float))
    assert found.n == wins + losses
    if not found.n:
        assert found.p_value == 1.0
        return
    tail = sum(math.comb(found.n, k) for k in range(min(wins, losses) + 1)) / 2**found.n
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


def test_sign_test_golden_value() -> None:
    """9 of 10: 2 * (1 + 10) / 1024; ties change nothing."""
    assert sign_test([1.0] * 9 + [-1.0] + [0.0] * 30).p_value == pytest.approx(22 / 1024)


def test_wilcoxon_equals_scipy_and_a_count_by_hand() -> None:
    assert wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0]).p_value == pytest.approx(2 / 32)
    assert wilcoxon([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]) == wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0])
    generator = np.random.default_rng(0)
    for n in (30, 400):
        values = generator.normal(0.2, 1, n)
        expected = stats.wilcoxon(values, method="exact" if n == 30 else "approx")
        assert wilcoxon(values).p_value == pytest.approx(expected.pvalue)
    tied = generator.integers(-3, 5, 40).astype(float)
    expected = stats.wilcoxon(tied[tied != 0], method="approx")
    assert wilcoxon(tied).p_value == pytest.approx(expected.pvalue)
    assert wilcoxon([0.0, 0.0]) == wilcoxon([])


def test_paired_tests_use_prompts_not_pictures() -> None:
    generator = np.random.default_rng(0)
    base, gain = generator.normal(size=40), generator.normal(0.3, 1, 40)
    prompts = [f"p{i}" for i in range(40)]
    single = paired_test(base, base + gain, prompts)
    copied = paired_test(np.tile(base, 5), np.tile(base + gain, 5), prompts * 5)
    assert single["wilcoxon"].n == copied["wilcoxon"].n == 40
    assert copied["wilcoxon"].p_value == pytest.approx(single["wilcoxon"].p_value, rel=1e-6)
    assert copied["sign"] == single["sign"]


def test_tests_hold_their_level_where_nothing_differs() -> None:
    generator = np.random.default_rng(3)
    p_values = [[t.p_value for t in (sign_test(v), wilcoxon(v))] for v in generator.normal(size=(600, 60))]
    rates = (np.array(p_values) < 0.05).mean(axis=0)
    assert rates[0] <= 0.06  # exact, so at most 5 %
    assert 0.03 <= rates[1] <= 0.07


def test_holm_golden_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="no p value"):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, found in zip(p_values, adjusted, strict=True):
        assert raw <= found <= min(1.0, len(p_values) * raw) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_effect_size() -> None:
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert effect_size([1.0, 1.0]) is None
    assert effect_size([1.0]) is None


def test_wilcoxon_with_tied_sizes_is_exact_over_few_prompts() -> None:
    assert wilcoxon([1.0] * 5).p_value == 2 / 32
    assert wilcoxon([1.0] * 6).p_value == 2 / 64
    assert wilcoxon([1.0, 1.0, -1.0]).p_value == 1.0


def test_effect_size_of_round_off_is_none() -> None:
    base = np.array([0.3, 0.5, 0.9])
    assert effect_size(base + 0.1 - base) is None
