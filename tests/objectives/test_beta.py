from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.objectives.beta import convert_beta, kappa_from_beta


def test_the_published_conventions() -> None:
    assert kappa_from_beta(5000) == 2500
    assert kappa_from_beta(2500, "hf_sd") == 2500
    assert convert_beta(2500, "hf_sd", "official") == 5000
    assert convert_beta(5000, "official", "hf_sd") == 2500


@given(st.floats(1e-3, 1e6))
def test_a_conversion_keeps_kappa(beta: float) -> None:
    assert kappa_from_beta(convert_beta(beta, "official", "hf_sd"), "hf_sd") == pytest.approx(kappa_from_beta(beta))


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_a_beta_out_of_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        kappa_from_beta(beta)


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="choose from official, hf_sd"):
        kappa_from_beta(1.0, "theirs")
