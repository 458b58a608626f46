"""Accuracy, log loss and calibration error by hand, intervals over clusters, and the plot."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from t2ialign.reward_models.training.calibration import calibration, cluster_interval, measure, write_plot


def test_by_hand() -> None:
    """Confidences 0.55, 0.55, 0.95, 0.95 of which right: one, both."""
    low, high = math.log(0.55 / 0.45), math.log(0.95 / 0.05)
    found = measure([low, -low, high, high], [1, 1, 1, 1], list("abcd"))
    assert found["accuracy"] == 0.75
    assert found["ece"] == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)
    assert found["mean_confidence"] == pytest.approx(0.75)
    assert found["log_loss"] == pytest.approx(-(math.log(0.55) + math.log(0.45) + 2 * math.log(0.95)) / 4)
    filled = {round(row["low"], 2): (row["pairs"], row["accuracy"]) for row in found["bins"] if row["pairs"]}
    assert filled in (
        {0.55: (2, 0.5), 0.95: (2, 1.0)},
        {0.5: (2, 0.5), 0.9: (2, 1.0)},
        {0.55: (2, 0.5), 0.9: (2, 1.0)},
    )


def test_the_order_of_a_pair_does_not_matter() -> None:
    margins, targets = np.array([0.3, -1.0, 2.0, 0.1]), np.array([1.0, 0.8, 0.0, 1.0])
    one, other = measure(margins, targets, list("aabb")), measure(-margins, 1 - targets, list("aabb"))
    assert one == pytest.approx(other) if not isinstance(one["bins"], list) else one["bins"] == other["bins"]
    for key in ("accuracy", "ece", "log_loss"):
        assert one[key] == pytest.approx(other[key], abs=1e-12)


def test_ties_of_labels_and_of_scores() -> None:
    found = measure([0.0, 5.0, 1.0], [1.0, 0.5, 1.0], list("abc"))
    assert (found["pairs"], found["label_ties"], found["accuracy"]) == (2, 1, 0.75)
    with pytest.raises(ValueError, match="no pair has a winner"):
        measure([1.0], [0.5], ["a"])


def test_an_honest_predictor_has_little_error_and_a_boaster_much() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-np.abs(margins)))
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    assert calibration(confidence, right.astype(float))[0] < 0.015
    boast = 1 / (1 + np.exp(-4 * np.abs(margins)))
    assert calibration(boast, right.astype(float))[0] > 0.1


def test_intervals_draw_clusters() -> None:
    values = np.repeat([0.0, 1.0] * 10, 50)
    by_cluster = cluster_interval(values, np.repeat(np.arange(20), 50).tolist())
    by_pair = cluster_interval(values, list(range(1000)))
    assert by_cluster is not None
    assert by_pair is not None
    assert by_cluster[1] - by_cluster[0] > 4 * (by_pair[1] - by_pair[0])
    # A proportion of one half over 20: 1.96 * sqrt(0.25 / 20) on each side.
    assert by_cluster == pytest.approx([0.5 - 0.219, 0.5 + 0.219], abs=0.04)
    assert cluster_interval([1.0, 0.0], ["a", "a"]) is None


def test_the_plot_is_svg_with_a_bar_for_each_filled_bin(tmp_path: Path) -> None:
    found = measure(np.linspace(-3, 3, 50), np.ones(50), list(range(50)))
    write_plot(tmp_path / "plot.svg", found, "a < b")
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if len(each)]
    assert len(bars) == sum(1 for row in found["bins"] if row["pairs"])
    assert "a < b" in "".join(root.itertext())
    assert [path.name for path in tmp_path.iterdir()] == ["plot.svg"]
