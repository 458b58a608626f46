"""Kappa and alpha: golden values from the literature, and plain twins that import nothing of ours."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from t2ialign.eval.agreement.coefficients import (
    Metric,
    Weights,
    alpha_of,
    cohen_kappa,
    coincidence,
    confusion,
    interval_alpha,
    interval_moments,
    kappa_of,
    krippendorff_alpha,
)

NAN = math.nan
WORKED_EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]
"""Four observers, twelve units: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section D."""


@pytest.mark.parametrize(("metric", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_s_worked_example(metric: Metric, value: float) -> None:
    assert krippendorff_alpha(WORKED_EXAMPLE, metric) == pytest.approx(value, abs=5e-4)


def test_two_observers_with_binary_data() -> None:
    """The same paper, section A: ten units, alpha 0.095."""
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha([first, second], "nominal") == pytest.approx(0.095, abs=5e-4)


def test_two_observers_with_letters() -> None:
    """The same paper, section B: twelve articles, values a to e, alpha 0.692."""
    first = [1, 1, 2, 2, 4, 3, 3, 3, 5, 4, 4, 1]
    second = [2, 1, 2, 2, 2, 3, 3, 3, 5, 4, 4, 4]
    assert krippendorff_alpha([first, second], "nominal") == pytest.approx(0.692, abs=5e-4)


def plain_alpha(table: list[list[float]], metric: str) -> float:
    """Alpha pair by pair, from its definition."""
    units = [[v for v in column if not math.isnan(v)] for column in zip(*table, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    pooled = sorted(v for unit in units for v in unit)

    def distance(a: float, b: float) -> float:
        if metric == "nominal":
            return float(a != b)
        if metric == "interval":
            return float((a - b) * (a - b))
        low, high = min(a, b), max(a, b)
        steps = sum(low <= v <= high for v in pooled) - (pooled.count(low) + pooled.count(high)) / 2
        return float(steps * steps)

    n = len(pooled)
    observed = sum(distance(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)) / n
    expected = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (n * (n - 1))
    return 1 - observed / expected


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(4))
def test_alpha_equals_its_definition(metric: Metric, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 6, size=(4, 15)) / 2
    table = np.where(rng.random(table.shape) < 0.3, np.nan, table)
    assert krippendorff_alpha(table, metric) == pytest.approx(plain_alpha(table.tolist(), metric), abs=1e-12)


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
def test_alpha_where_there_is_none_or_all(metric: Metric) -> None:
    assert krippendorff_alpha([[1, 2, 3, 5], [1, 2, 3, 5]], metric) == pytest.approx(1.0)
    assert math.isnan(krippendorff_alpha([[4, 4, 4], [4, 4, 4]], metric))
    assert math.isnan(krippendorff_alpha([[1, NAN, 3], [NAN, 2, NAN]], metric))
    with pytest.raises(ValueError, match="raters, units"):
        krippendorff_alpha([1, 2, 3], metric)


@pytest.mark.parametrize("metric", ["nominal", "ordinal"])
def test_tables_add_up_and_have_leading_axes(metric: Any) -> None:
    codes = [np.array(each) for each in ([0, 0, 1], [2, 2], [1, 2, 2, 0], [1])]
    tables = np.array([coincidence(each, 3) for each in codes])
    stacked = np.stack([tables.sum(axis=0), tables[:2].sum(axis=0)])
    assert alpha_of(stacked, metric)[0] == pytest.approx(float(alpha_of(tables.sum(axis=0), metric)))
    ragged = [[float(c[i]) if i < len(c) else NAN for c in codes] for i in range(4)]
    assert float(alpha_of(tables.sum(axis=0), metric)) == pytest.approx(plain_alpha(ragged, metric))


def test_interval_alpha_does_not_mind_where_the_scale_begins() -> None:
    values = np.random.default_rng(0).normal(0, 1, size=(2, 40))
    plain = krippendorff_alpha(values, "interval")
    assert krippendorff_alpha(values + 100, "interval") == pytest.approx(plain, abs=1e-7)
    moments = np.array([interval_moments(pair) for pair in values.T])
    assert float(interval_alpha(moments.sum(axis=0))) == pytest.approx(plain)


def test_kappa_of_a_textbook() -> None:
    """Two readers of 50 proposals: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no; observed 0.7, by chance 0.5."""
    table = np.array([[20.0, 5.0], [10.0, 15.0]])
    assert float(kappa_of(table)) == pytest.approx(0.4)
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def plain_kappa(first: list[int], second: list[int], weights: str) -> float:
    """Weighted kappa from its definition, over all pairs of marks."""

    def cost(a: int, b: int) -> float:
        costs: dict[str, float] = {"none": a != b, "linear": abs(a - b), "quadratic": (a - b) * (a - b)}
        return costs[weights]

    observed = sum(cost(a, b) for a, b in zip(first, second, strict=True)) / len(first)
    expected = sum(cost(a, b) for a in first for b in second) / len(first) ** 2
    return 1 - observed / expected


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
@pytest.mark.parametrize("seed", range(3))
def test_kappa_equals_its_definition(weights: Weights, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 5, 60)
    second = np.where(rng.random(60) < 0.5, first, rng.integers(0, 5, 60))
    expected = plain_kappa(first.tolist(), second.tolist(), weights)
    assert cohen_kappa(first, second, weights) == pytest.approx(expected, abs=1e-12)
    assert float(kappa_of(confusion(first, second, 5), weights)) == pytest.approx(expected, abs=1e-12)


def test_kappa_where_there_is_none() -> None:
    assert math.isnan(cohen_kappa([3, 3, 3], [3, 3, 3]))
    assert cohen_kappa([1, 2, 3], [1, 2, 3], "quadratic") == pytest.approx(1.0)
    with pytest.raises(ValueError, match="give \\[N\\]"):
        cohen_kappa([1, 2], [1])
    with pytest.raises(ValueError, match="give \\[N\\]"):
        cohen_kappa([], [])
