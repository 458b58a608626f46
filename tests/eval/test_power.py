"""Numbers of prompts: the textbook's, and what simulation says of their power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from t2ialign.eval.power import prompts_for_win_rate, prompts_to_settle


@pytest.mark.parametrize(("rate", "n"), [(0.51, 19621), (0.52, 4904), (0.53, 2178), (0.55, 783), (0.60, 194)])
def test_published_numbers(rate: float, n: int) -> None:
    assert prompts_for_win_rate(rate) == pytest.approx(n, abs=1)
    assert prompts_for_win_rate(1 - rate) == prompts_for_win_rate(rate)


def test_ties_need_fewer_prompts_for_the_same_rate() -> None:
    assert prompts_for_win_rate(0.55, ties=0.5) == pytest.approx(783 / 2, rel=0.02)


def test_power_is_reached() -> None:
    rng, effect, spread = np.random.default_rng(0), 0.3, 1.0
    found = prompts_to_settle(np.array([effect - spread, effect + spread]) / 1.0)
    assert found.deviation == pytest.approx(np.sqrt(2) * spread)
    needed = prompts_to_settle(effect + rng.normal(0, spread, 100_000)).needed
    shown = [stats.ttest_1samp(effect + rng.normal(0, spread, needed), 0).pvalue < 0.05 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


def test_detectable_effect_needs_what_there_is() -> None:
    found = prompts_to_settle(np.random.default_rng(1).normal(0.2, 1.0, 150))
    again = prompts_to_settle(
        np.linspace(-1, 1, 150) * found.deviation / np.linspace(-1, 1, 150).std(ddof=1) + found.detectable
    )
    assert again.needed == 150


def test_no_effect_is_never_settled() -> None:
    assert prompts_to_settle([1.0, -1.0]).needed is None
    with pytest.raises(ValueError, match="no question"):
        prompts_for_win_rate(0.5)
    with pytest.raises(ValueError, match="no question"):
        prompts_for_win_rate(0.9, ties=0.5)
