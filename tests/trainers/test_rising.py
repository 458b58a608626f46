"""Whether both errors rise: when it is said, when it is not, and that it goes on behind a resume."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from t2ialign.trainers.rising import ALONE, LIMIT, PICTURES, WINDOW, Rising, pair_sides

KNOWN = pair_sides(reference=True)
UNKNOWN = pair_sides(reference=False)


def step(chosen: float, rejected: float, scale: float = 0.1) -> dict[str, float]:
    """Figures of a step whose errors are these times the reference's."""
    return {
        "error_chosen": chosen * scale,
        "error_rejected": rejected * scale,
        "reference_error_chosen": scale,
        "reference_error_rejected": scale,
    }


def noisy(seed: int, level: float, count: int) -> list[float]:
    """Errors as steps of sixteen pairs of mini-SD have them: about half their mean apart."""
    return list(level * np.random.default_rng(seed).gamma(4.0, 0.25, count))


def test_the_rise_is_the_smaller_side_of_sums_over_the_window() -> None:
    rising = Rising(KNOWN)
    scales = [0.1 + 0.01 * number for number in range(WINDOW + 5)]
    told = [rising.look(number + 1, step(1.05, 1.3, scale)) for number, scale in enumerate(scales)]
    assert told[: WINDOW - 1] == [{}] * (WINDOW - 1)
    assert told[-1]["error_rise"] == pytest.approx(1.05, abs=1e-12)
    uneven = Rising(KNOWN)
    for number, scale in enumerate(scales[:WINDOW]):
        told.append(uneven.look(number, step(2.0 if number else 1.0, 3.0, scale)))
    expected = (sum(scales[:WINDOW]) * 2 - scales[0]) / sum(scales[:WINDOW])
    assert told[-1]["error_rise"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("chosen", "rejected", "warned"), [(1.2, 1.4, True), (1.05, 3.0, False), (3.0, 1.0, False), (0.9, 1.1, False)]
)
def test_it_warns_once_where_both_sides_rise(
    caplog: pytest.LogCaptureFixture, chosen: float, rejected: float, warned: bool
) -> None:
    rising = Rising(KNOWN)
    with caplog.at_level(logging.WARNING):
        for number in range(1, 3 * WINDOW):
            rising.look(number, step(chosen, rejected))
    assert len(caplog.records) == int(warned)
    assert rising.report() == {
        "last": pytest.approx(min(chosen, rejected)),
        "highest": pytest.approx(min(chosen, rejected)),
        "limit": LIMIT,
        "warned_at": WINDOW if warned else None,
    }
    if warned:
        assert f"step {WINDOW}:" in caplog.text
        assert "1.20 times the reference's" in caplog.text
        assert "lower --learning_rate or raise --beta" in caplog.text


def test_steps_that_are_not_finite_or_lack_a_side_are_left_out() -> None:
    rising = Rising(KNOWN)
    for number in range(WINDOW):
        rising.look(number, step(math.nan, 1.0))
        rising.look(number, {})
        rising.look(number, step(math.inf, 9.0))
    assert rising.rise is None
    for number in range(WINDOW):
        rising.look(number, step(1.0, 1.0))
    assert rising.rise == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(40))
def test_without_a_reference_chance_alone_is_no_alarm(seed: int) -> None:
    """Forty healthy runs of 250 steps in which nothing changes."""
    rising = Rising(PICTURES)
    for number, error in enumerate(noisy(seed, 0.03, 250)):
        rising.look(number, {"loss": error})
    assert rising.warned is None
    assert rising.highest is not None
    assert rising.highest > 1.05


def test_without_a_reference_it_warns_where_the_error_has_doubled(caplog: pytest.LogCaptureFixture) -> None:
    rising = Rising(UNKNOWN)
    levels = [*noisy(1, 0.03, 100), *noisy(2, 0.07, 100)]
    with caplog.at_level(logging.WARNING):
        for number, error in enumerate(levels, 1):
            rising.look(number, {"error_chosen": error, "error_rejected": 1.1 * error})
    assert rising.warned is not None
    assert 100 < rising.warned <= 100 + WINDOW
    assert rising.report()["limit"] == ALONE
    assert f"the first {WINDOW} steps'" in caplog.text
    assert "--beta" not in caplog.text


@pytest.mark.parametrize("sides", [KNOWN, UNKNOWN], ids=["reference", "alone"])
@pytest.mark.parametrize("cut", [3, WINDOW + 2, 60])
def test_it_goes_on_as_if_it_had_not_been_stopped(sides: Any, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    errors = [*noisy(3, 1.0, 45), *noisy(4, 2.5, 45)]
    figures = [step(error, 1.2 * error) for error in errors]
    whole, first, second = Rising(sides), Rising(sides), Rising(sides)
    told = [whole.look(number, each) for number, each in enumerate(figures)]
    parts = [first.look(number, each) for number, each in enumerate(figures[:cut])]
    kept = {name: value.clone() for name, value in first.state().items()}
    second.load_state(kept)
    assert second.report() == first.report()
    parts += [second.look(cut + number, each) for number, each in enumerate(figures[cut:])]
    assert parts == told
    assert second.report() == whole.report()
    assert whole.warned is not None


def test_a_state_without_it_leaves_everything_as_it_is() -> None:
    rising = Rising(KNOWN)
    rising.load_state({})
    assert rising.report()["last"] is None
