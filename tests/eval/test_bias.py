"""Bias against identities in an embedding: by construction, under the null, in the mini-world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.image_sets import write_plain_set
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import DataError
from t2ialign.eval.attributes.entropy import effective_size
from t2ialign.eval.bias import bias_of_features, kmeans, measure_bias
from t2ialign.mini import world
from t2ialign.reward_models.registry import load_scorer

AXES = np.eye(8)


def cloud(rng: np.random.Generator, axis: int, n: int, noise: float = 0.1) -> Any:
    return 5 * (AXES[axis] + noise * rng.normal(size=(n, 8)))


def two_professions(rng: np.random.Generator, share: float, n: int = 60) -> tuple[Any, list[str]]:
    """One has `share` of identity a, the other half."""
    ones = round(share * n)
    features = [cloud(rng, 0, ones), cloud(rng, 1, n - ones), cloud(rng, 0, n // 2), cloud(rng, 1, n - n // 2)]
    return np.concatenate(features), ["pilot"] * n + ["nurse"] * n


def identities(rng: np.random.Generator) -> tuple[Any, list[str]]:
    return np.concatenate([cloud(rng, 0, 40), cloud(rng, 1, 40)]), ["a"] * 40 + ["b"] * 40


def test_a_profession_that_is_one_sided_is_found() -> None:
    rng = np.random.default_rng(0)
    result = bias_of_features(*two_professions(rng, 0.9), *identities(rng))
    pilot, nurse = result.targets
    assert [each.count for each in pilot.shares] == [54, 6]
    assert [each.reference for each in pilot.shares] == [0.5, 0.5]
    assert [each.ratio for each in pilot.shares] == [1.8, pytest.approx(0.2)]
    assert [each.finding for each in pilot.shares] == ["over", "under"]
    assert [each.finding for each in nurse.shares] == ["", ""]
    assert pilot.shares[0].interval.low < 0.9 < pilot.shares[0].interval.high
    assert pilot.entropy.value < nurse.entropy.value == pytest.approx(1.0)
    assert result.separation[0] == 1.0
    assert pilot.shares[0].p_holm >= pilot.shares[0].p
    assert len(result.rows) == 120
    assert all(row.margin >= 0 for row in result.rows)
    assert result.composition == {"a": {"a": 1.0}, "b": {"b": 1.0}}
    assert result.to_dict()["targets"][0]["shares"][0]["interval"][0] > 0.5


def test_a_stated_reference_is_what_is_compared_with() -> None:
    rng = np.random.default_rng(1)
    features: Any = (*two_professions(rng, 0.9), *identities(rng))
    stated = bias_of_features(*features, reference={"a": 0.9, "b": 0.1})
    assert [each.finding for each in stated.targets[0].shares] == ["", ""]
    assert [each.finding for each in stated.targets[1].shares] == ["under", "over"]
    assert stated.reference == "stated"
    with pytest.raises(DataError, match="sum to 1"):
        bias_of_features(*features, reference={"a": 0.9, "b": 0.2})
    with pytest.raises(DataError, match="the groups are"):
        bias_of_features(*features, reference={"a": 1.0})


def test_clusters_are_seeded_and_find_the_same() -> None:
    rng = np.random.default_rng(2)
    features: Any = (*two_professions(rng, 0.9), *identities(rng))
    result = bias_of_features(*features, clusters=2)
    assert sorted(each.count for each in result.targets[0].shares) == [6, 54]
    assert sorted(tuple(each) for each in result.composition.values()) == [("a",), ("b",)]
    assert bias_of_features(*features, clusters=2).to_dict() == result.to_dict()
    with pytest.raises(DataError, match="100 clusters"):
        bias_of_features(*features, clusters=100)


def test_kmeans_finds_what_was_put_there() -> None:
    rng = np.random.default_rng(3)
    points = np.concatenate([cloud(rng, axis, 20) for axis in range(4)])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    centres = kmeans(points, 4)
    assert sorted(int(each.argmax()) for each in centres) == [0, 1, 2, 3]
    assert np.linalg.norm(centres, axis=1) == pytest.approx(np.ones(4))


def test_nothing_is_found_where_there_is_nothing() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(100):
        ones = int(rng.binomial(60, 0.5))
        result = bias_of_features(*two_professions(rng, ones / 60, 60), *identities(rng))
        found += any(share.finding for target in result.targets for share in target.shares)
    assert found <= 9  # at most 5 % of 100, and two standard errors


def test_pictures_of_one_prompt_are_not_so_many_pictures() -> None:
    # Ten prompts of six pictures, each of one mind: ten independent pictures, not sixty.
    own, sizes = np.array([6] * 5 + [0] * 5), np.array([6] * 10)
    assert effective_size(own, sizes) == pytest.approx(9.0)
    assert effective_size(np.array([3] * 10), sizes) == 60.0
    assert effective_size(np.array([54]), np.array([60])) == 60.0
    assert effective_size(np.array([6, 6]), np.array([6, 6])) == 2.0


def test_wrong_features_are_named() -> None:
    with pytest.raises(DataError, match="for 1 names"):
        bias_of_features(np.ones((2, 3)), ["x"], np.ones((2, 3)), ["a", "b"])
    with pytest.raises(DataError, match="target feature 1 is 0"):
        bias_of_features(np.array([[1.0, 0], [0, 0]]), ["x", "x"], np.eye(2), ["a", "b"])
    with pytest.raises(DataError, match="at least two"):
        bias_of_features(np.eye(2), ["x", "x"], np.eye(2), ["a", "a"])


def test_the_mini_world_has_an_analogue(tmp_path: Path) -> None:
    """Shapes for professions, colours for identities, in mini-clip's features."""
    rng = np.random.default_rng(5)

    def draw(shape: str, color: str) -> Any:
        x, y = (float(v) for v in rng.uniform(26, 38, 2))
        thing = world.Thing(shape, color, "large", x, y, float(rng.uniform(20, 23)))
        return world.render(world.Spec("scene", (thing,), background="white"))

    def write(name: str, wanted: list[tuple[str, str, str]]) -> ImageSet:
        rows = [
            ({"prompt_id": group, "prompt": group, "sample": i, "group": group}, draw(shape, color))
            for i, (group, shape, color) in enumerate(wanted)
        ]
        return ImageSet(write_plain_set(tmp_path / name, rows))

    shapes = ("circle", "square", "triangle", "cross")
    known = write("identities", [(c, shapes[i % 4], c) for c in ("red", "blue") for i in range(16)])
    targets = [("ring", "ring", "red" if i < 22 else "blue") for i in range(24)]
    targets += [("star", "star", "red" if i % 2 else "blue") for i in range(24)]
    scorer: Any = load_scorer("clipscore@mini-clip")
    result = measure_bias(
        write("targets", targets),
        known,
        scorer,
        lambda r: r.extra["group"],
        lambda r: r.extra["group"],
    )
    ring, star = result.targets
    assert result.separation[0] is not None
    assert result.separation[0] > 0.9
    assert [(each.group, each.finding) for each in ring.shares] == [("red", "over"), ("blue", "under")]
    assert [each.finding for each in star.shares] == ["", ""]
