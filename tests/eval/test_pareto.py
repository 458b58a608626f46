"""Pareto fronts: dominance and volume by hand and by counting, memberships, files, the plot."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from t2ialign.eval.pareto import Axis, Point, front_svg, hypervolume, non_dominated, pareto_front, reaches

CONSISTENCY, DIVERSITY = Axis("consistency"), Axis("diversity")


def test_dominance_by_hand() -> None:
    points = np.array([[1, 4], [2, 3], [2, 2], [4, 1], [4, 1], [0, 0], [4, 0.5]])
    assert non_dominated(points).tolist() == [True, True, False, True, True, False, False]
    assert non_dominated([[1, 1, 2], [1, 2, 1], [1, 1, 1]]).tolist() == [True, True, False]


def test_volumes_by_hand() -> None:
    assert hypervolume([[2, 3]], [0, 0]) == 6
    assert hypervolume([[1, 4], [2, 3], [4, 1]], [0, 0]) == 4 + 3 + 2
    assert hypervolume([[1, 4], [2, 3], [4, 1]], [1, 1]) == 2
    assert hypervolume([[1.0, 1.0], [1.0, 1.0], [0.5, 0.5]], [0, 0]) == 1
    assert hypervolume([[-1, 5]], [0, 0]) == 0
    # two boxes 2 x 2 x 1 and 1 x 1 x 3 that share 1 x 1 x 1
    assert hypervolume([[2, 2, 1], [1, 1, 3]], [0, 0, 0]) == 4 + 3 - 1
    assert hypervolume([[3], [5]], [1]) == 4


@pytest.mark.parametrize("axes", [2, 3, 4])
def test_the_volume_is_the_number_of_cells_that_are_dominated(axes: int) -> None:
    generator = np.random.default_rng(axes)
    for _ in range(20):
        points = generator.integers(0, 7, (6, axes))
        cells = np.stack(np.meshgrid(*[np.arange(7)] * axes), -1).reshape(-1, axes)
        counted = (points[:, None, :] > cells[None]).all(2).any(0).sum()
        assert hypervolume(points, np.zeros(axes)) == pytest.approx(float(counted))


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (6, 3), elements=st.floats(-5, 5, width=16)))
def test_only_the_front_has_volume_and_order_does_not_matter(points: np.ndarray) -> None:
    front = points[non_dominated(points)]
    corner = points.min(0) - 1
    whole = hypervolume(points, corner)
    assert hypervolume(front, corner) == pytest.approx(whole, rel=1e-9)
    assert hypervolume(points[::-1], corner) == pytest.approx(whole, rel=1e-9)
    assert hypervolume(points[:, [2, 0, 1]], corner[[2, 0, 1]]) == pytest.approx(whole, rel=1e-9)
    for point in points:
        assert any((other >= point).all() for other in front)


def sweep(gap: float = 0.5, prompts: int = 40) -> list[Point]:
    """Three points: two that trade, and one that is dominated by `gap` on both axes."""
    generator = np.random.default_rng(0)
    shared = generator.standard_normal(prompts)

    def of(level: float) -> np.ndarray:
        values = shared + 0.5 * generator.standard_normal(prompts)
        return np.asarray(level + values - values.mean())

    places = {"low": (0.0, 2.0), "high": (2.0, 0.0), "worse": (2.0 - gap, -gap)}
    return [
        Point(
            label,
            per_prompt={"consistency": of(x), "diversity": of(y)},
            values={"fid": 10 + x},
            settings={"guidance_scale": x},
        )
        for label, (x, y) in places.items()
    ]


def test_the_front_its_memberships_and_its_volume() -> None:
    front = pareto_front(sweep(), [CONSISTENCY, DIVERSITY], reference={"consistency": -1, "diversity": -1})
    low, high, worse = front.points
    assert [point.on_front for point in front.points] == [True, True, False]
    assert (low.membership, high.membership) == (1.0, 1.0)
    assert worse.membership is not None
    assert worse.membership < 0.02
    assert front.hypervolume == pytest.approx(3 + 3 - 1)
    assert (low.contribution, high.contribution, worse.contribution) == pytest.approx(
        (2, 1.25, 0)
    )  # without "high", "worse" steps in
    assert front.hypervolume_interval is not None
    assert front.hypervolume_interval.low < 5 < front.hypervolume_interval.high
    assert (front.prompts, front.resamples) == (40, 2000)


def test_a_point_that_is_barely_dominated_is_not_surely_off_the_front() -> None:
    worse = pareto_front(sweep(gap=0.02), [CONSISTENCY, DIVERSITY]).points[2]
    assert not worse.on_front
    assert worse.membership is not None
    assert 0.3 < worse.membership < 0.95


def test_points_are_resampled_together() -> None:
    shared = np.random.default_rng(0).standard_normal(30)
    points = [
        Point(label, per_prompt={"consistency": shared + gap, "diversity": shared + gap})
        for label, gap in (("a", 0.0), ("b", 0.001))
    ]
    found = pareto_front(points, [CONSISTENCY, DIVERSITY]).points
    assert [point.membership for point in found] == [0.0, 1.0]
    interval = found[0].intervals["consistency"]
    assert interval is not None
    assert interval.high - interval.low > 0.3


def test_less_is_better_on_a_distance() -> None:
    points = [Point("a", {"fid": 10, "d": 1}), Point("b", {"fid": 20, "d": 1}), Point("c", {"fid": 30, "d": 2})]
    front = pareto_front(points, [Axis("fid", higher=False), Axis("d")], reference={"fid": 40, "d": 0})
    assert [point.on_front for point in front.points] == [True, False, True]
    assert front.hypervolume == 30 + 10
    assert all(point.membership is None for point in front.points)
    assert any("no values by prompt" in note for note in front.notes)


def test_memberships_know_that_less_is_better() -> None:
    points = [
        Point("near", per_prompt={"distance": [1.0, 2.0, 3.0], "d": [1.0, 1.0, 1.0]}),
        Point("far", per_prompt={"distance": [5.0, 6.0, 7.0], "d": [1.0, 1.0, 1.0]}),
    ]
    front = pareto_front(points, [Axis("distance", higher=False), Axis("d")], resamples=200)
    assert [(each.on_front, each.membership) for each in front.points] == [(True, 1.0), (False, 0.0)]


def test_a_fixed_axis_and_a_reference_of_this_sweep_are_noted() -> None:
    front = pareto_front(sweep(), [CONSISTENCY, Axis("fid", higher=False)])
    assert any("fid: held fixed" in note for note in front.notes)
    assert any("compares with no other sweep" in note for note in front.notes)
    assert front.reference["fid"] == 12
    assert front.points[0].intervals["fid"] is None
    full = pareto_front(sweep(), [CONSISTENCY, DIVERSITY], reference={"consistency": -1, "diversity": -1})
    assert not full.notes


def test_the_seed_is_all_that_draws_depend_on() -> None:
    fronts = [pareto_front(sweep(0.02), [CONSISTENCY, DIVERSITY], seed=seed) for seed in (1, 1, 2)]
    assert fronts[0] == fronts[1]
    assert fronts[0].points[2].membership != fronts[2].points[2].membership


def test_the_files(tmp_path: Path) -> None:
    front = pareto_front(sweep(), [CONSISTENCY, DIVERSITY, Axis("fid", higher=False, label="Fréchet <distance>")])
    front.write(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "pareto.json").read_text())
    assert content == json.loads(json.dumps(front.to_dict()))
    assert content["points"][0]["settings"] == {"guidance_scale": 0.0}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "pareto.csv").read_text())))
    assert [row["label"] for row in rows] == ["low", "high", "worse"]
    assert rows[0]["on_front"] == "1"
    assert rows[0]["fid_low"] == ""
    assert float(rows[1]["consistency_low"]) < float(rows[1]["consistency"]) < float(rows[1]["consistency_high"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pareto.csv", "pareto.json", "pareto.svg"]


@pytest.mark.parametrize("axes", [[CONSISTENCY, DIVERSITY], [CONSISTENCY, DIVERSITY, Axis("fid", higher=False)]])
def test_the_plot_is_one_document_that_needs_nothing_else(axes: list[Axis]) -> None:
    front = pareto_front([*sweep(), Point("<b>&", {"consistency": 1, "diversity": 1, "fid": 5})], axes)
    text = front_svg(front)
    root = ElementTree.fromstring(text)
    assert "href" not in text
    assert "url(" not in text
    space = "{http://www.w3.org/2000/svg}"
    panels = 1 if len(axes) == 2 else 3
    circles = list(root.iter(f"{space}circle"))
    assert len(circles) == 4 * panels
    hollow = sum(circle.get("fill") == "#fff" for circle in circles)
    assert hollow == panels * sum(not point.on_front for point in front.points)
    assert any(title.text and title.text.startswith("<b>&;") for title in root.iter(f"{space}title"))


def test_better_is_up_and_right_on_the_plot() -> None:
    points = [Point("good", {"c": 2, "fid": 1}), Point("bad", {"c": 1, "fid": 9})]
    root = ElementTree.fromstring(front_svg(pareto_front(points, [Axis("c"), Axis("fid", higher=False)])))
    space = "{http://www.w3.org/2000/svg}"
    found = {}
    for group in root.iter(f"{space}g"):
        title, circle = group.find(f"{space}title"), group.find(f"{space}circle")
        if title is not None and circle is not None:
            found[str(title.text).split(";")[0]] = (float(circle.get("cx", 0)), float(circle.get("cy", 0)))
    assert found["good"][0] > found["bad"][0]
    assert found["good"][1] < found["bad"][1]


@pytest.mark.parametrize(
    ("points", "axes", "more", "message"),
    [
        ([], [CONSISTENCY], {}, "at least one point"),
        ([Point("a", {"x": 1})], [CONSISTENCY], {}, "'a' has no 'consistency'; it has x"),
        ([Point("a", {"consistency": 1})] * 2, [CONSISTENCY], {}, "two points are called 'a'"),
        ([Point("a", {"consistency": float("nan")})], [CONSISTENCY], {}, "no number to compare"),
        ([Point("a", {"consistency": 1})], [CONSISTENCY] * 2, {}, "named twice"),
        ([Point("a", {"consistency": 1})], [CONSISTENCY], {"resamples": 5}, "too few"),
        ([Point("a", {"consistency": 1})], [CONSISTENCY], {"reference": {"fid": 1}}, "'fid', which is no axis"),
        (
            [Point("a", per_prompt={"consistency": [1, 2]}), Point("b", per_prompt={"consistency": [1, 2, 3]})],
            [CONSISTENCY],
            {},
            r"\[2, 3\] prompts",
        ),
    ],
)
def test_what_is_no_sweep(points: list[Point], axes: list[Axis], more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pareto_front(points, axes, **more)  # type: ignore[arg-type]


def test_values_that_are_no_points() -> None:
    with pytest.raises(ValueError, match="must be"):
        non_dominated([1.0, 2.0])
    with pytest.raises(ValueError, match="point 1 is not finite"):
        hypervolume([[1.0, 2.0], [np.inf, 0.0]], [0, 0])
    with pytest.raises(ValueError, match="for 2 axes"):
        hypervolume([[1, 2]], [0])


def test_one_prompt_is_told() -> None:
    points = [Point("a", per_prompt={"x": [1.0], "y": [2.0]}), Point("b", per_prompt={"x": [2.0], "y": [1.0]})]
    front = pareto_front(points, [Axis("x"), Axis("y")])
    assert front.prompts == 1
    assert any(note.startswith("one prompt: no intervals") for note in front.notes)
    assert [point.membership for point in front.points] == [None, None]


def test_a_model_that_is_better_everywhere_reaches_farther_and_one_that_trades_does_not() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 2)) * 0.3

    def point(label: str, x: float, y: float) -> Point:
        own = base + rng.normal(size=(40, 2)) * 0.02
        return Point(label, per_prompt={"x": own[:, 0] + x, "y": own[:, 1] + y})

    places = {"b1": (1, 2), "b2": (2, 1), "c1": (1.5, 2.5), "c2": (2.5, 1.5), "t1": (1, 2), "t2": (2, 1)}
    points = [point(label, *place) for label, place in places.items()]
    groups = ["base", "base", "better", "better", "same", "same"]
    axes = [Axis("x"), Axis("y")]
    front = pareto_front(points, axes)
    found = {each.group: each for each in reaches(points, groups, axes, {"x": 0.1, "y": 0.2}, base="base")}
    assert found["base"].difference is None
    own = [list(each.values.values()) for each in front.points[:2]]
    assert found["base"].volume == pytest.approx(hypervolume(own, [0.1, 0.2]))
    better, same = found["better"], found["same"]
    assert better.difference_interval is not None
    assert same.difference_interval is not None
    assert better.difference_interval.low > 0
    assert same.difference_interval.low < 0 < same.difference_interval.high
    assert better.interval is not None
    # drawn together, a difference is far less uncertain than its parts
    wide, narrow = (each.high - each.low for each in (better.interval, better.difference_interval))
    assert wide > 4 * narrow
    lower = [Axis("x", higher=False), Axis("y", higher=False)]
    turned = [Point(p.label, per_prompt={k: -np.asarray(v) for k, v in p.per_prompt.items()}) for p in points]
    again = reaches(turned, groups, lower, {"x": -0.1, "y": -0.2}, base="base")
    assert [each.volume for each in again] == pytest.approx([each.volume for each in found.values()])
    with pytest.raises(ValueError, match="base"):
        reaches(points, groups, axes, {"x": 0, "y": 0}, base="nobody")
