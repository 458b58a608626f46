"""Partial pooling under simulation: nearer to the truth than raw figures, with intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from t2ialign.eval.culture.pooling import pool_means, pool_shares

CELLS = 24


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_pooled_means_are_nearer_and_cover(tau: float) -> None:
    rng = np.random.default_rng(int(10 * tau))
    raw, pooled, covered, total = 0.0, 0.0, 0, 0
    for _ in range(60):
        truth = rng.normal(3, tau, CELLS)
        cells = [rng.normal(mean, 1.0, rng.integers(2, 9)) for mean in truth]
        found = pool_means([cell.tolist() for cell in cells])
        assert found is not None
        for mean, cell, each in zip(truth, cells, found, strict=True):
            raw += (cell.mean() - mean) ** 2
            pooled += (each.value - mean) ** 2
            covered += each.interval.low <= mean <= each.interval.high
            total += 1
    assert pooled < (0.4 if tau < 0.5 else 0.95) * raw
    assert covered / total >= 0.93
    if tau:  # where cells do not differ at all, the flat prior on tau makes intervals too wide
        assert covered / total <= 0.98


@pytest.mark.parametrize(("a", "b"), [(8.0, 4.0), (1.0, 3.0), (80.0, 80.0)])
def test_pooled_shares_are_nearer_and_cover(a: float, b: float) -> None:
    rng = np.random.default_rng(int(a))
    raw, pooled, covered, total = 0.0, 0.0, 0, 0
    for _ in range(60):
        truth = rng.beta(a, b, CELLS)
        n = rng.integers(2, 12, CELLS)
        x = rng.binomial(n, truth)
        found = pool_shares(x.tolist(), n.tolist())
        assert found is not None
        for share, hits, prompts, each in zip(truth, x, n, found, strict=True):
            raw += (hits / prompts - share) ** 2
            pooled += (each.value - share) ** 2
            covered += each.interval.low <= share <= each.interval.high
            total += 1
    assert pooled < 0.75 * raw
    assert 0.93 <= covered / total <= 0.99


def test_a_share_against_its_formula_where_the_prior_is_known() -> None:
    """With thousands of cells the prior is known, and a cell is (x + k m) / (n + k)."""
    rng = np.random.default_rng(0)
    a, b, n = 6.0, 2.0, 10
    x = rng.binomial(n, rng.beta(a, b, 3000))
    found = pool_shares(x.tolist(), [n] * 3000)
    assert found is not None
    for i in (0, 1, 2):
        assert found[i].value == pytest.approx((x[i] + a) / (n + a + b), abs=0.02)
        assert found[i].own_weight == pytest.approx(n / (n + a + b), abs=0.06)
        low, high = stats.beta.ppf([0.025, 0.975], a + x[i], b + n - x[i])
        assert tuple(found[i].interval) == pytest.approx((low, high), abs=0.03)


def test_a_mean_against_its_formula_where_the_spread_is_known() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(2.0, 0.5, 600)
    cells = [rng.normal(mean, 1.0, 4) for mean in truth]
    found = pool_means([cell.tolist() for cell in cells])
    assert found is not None
    drawn = (1 / 4) / (1 / 4 + 0.25)
    for i in (0, 1, 2):
        assert found[i].value == pytest.approx((1 - drawn) * cells[i].mean() + drawn * 2.0, abs=0.06)
        half = 1.96 * np.sqrt((1 - drawn) / 4)
        assert np.ptp(found[i].interval) / 2 == pytest.approx(half, rel=0.08)


def test_small_cells_are_drawn_further_than_large_ones() -> None:
    rng = np.random.default_rng(2)
    cells = [rng.normal(3, 1, 40).tolist() for _ in range(8)] + [[5.0], [5.0] * 40]
    cells[-1] = (np.array(cells[-1]) + rng.normal(0, 1, 40)).tolist()
    found = pool_means(cells)
    assert found is not None
    assert found[-2].own_weight < found[-1].own_weight
    assert found[-2].value < 5.0
    shares = pool_shares([20, 21, 19, 1, 40], [40, 40, 40, 1, 40])
    assert shares is not None
    assert shares[3].own_weight < shares[4].own_weight
    assert 0.5 < shares[3].value < shares[4].value < 1


def test_values_lie_between_the_cell_and_the_rest() -> None:
    found = pool_shares([0, 5, 10], [10, 10, 10])
    assert found is not None
    assert 0 < found[0].value < found[1].value < found[2].value < 1
    assert all(each.interval.low < each.value < each.interval.high for each in found)


def test_where_pooling_says_nothing_there_is_none() -> None:
    assert pool_means([[1.0, 2.0], [2.0, 3.0]]) is None
    assert pool_means([[1.0], [2.0], [3.0]]) is None
    assert pool_means([[1.0, 1.0], [2.0, 2.0], [3.0]]) is None
    assert pool_shares([1, 2], [2, 2]) is None
    for x, n in (([3, 1, 1], [2, 2, 2]), ([0, 0, 0], [0, 1, 1]), ([-1, 0, 0], [1, 1, 1])):
        with pytest.raises(ValueError, match="successes"):
            pool_shares(x, n)
