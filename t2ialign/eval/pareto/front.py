"""A sweep over settings, its Pareto front, and how sure it is that a point lies on it.

The bootstrap resamples prompts, the same ones for all points, because the points share them: what matters is how
points differ, and they differ less than each of them is uncertain. In every resample the front is found again; the
share of resamples in which a point is on it is its membership.

Law of this file: an axis is a mean over prompts, or a figure of a whole set that has no values by prompt and is then
held fixed, which is noted; the resamples are a function of the seed alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.pareto.dominance import Array, hypervolume, non_dominated
from t2ialign.eval.statistics import Interval


@dataclass(frozen=True)
class Axis:
    """What is wanted.

    Attributes:
        name: Key of the points' values, for instance "diversity".
        higher: Whether more is better; false for a distance such as FID.
        label: For plots; the name if empty.
    """

    name: str
    higher: bool = True
    label: str = ""

    @property
    def shown(self) -> str:
        """For plots."""
        return self.label or self.name


@dataclass(frozen=True)
class Point:
    """One setting of one model.

    Attributes:
        label: For instance "tuned, guidance 5".
        values: Axis to its figure; the means of `per_prompt` fill in what is missing.
        per_prompt: Axis to its value for each prompt, [P], in one order of prompts for all points.
        settings: What was set: guidance_scale, num_inference_steps, checkpoint, weight; for tables.
    """

    label: str
    values: Mapping[str, float] = field(default_factory=dict)
    per_prompt: Mapping[str, npt.ArrayLike] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def value(self, axis: Axis) -> float:
        """The figure on an axis.

        Raises:
            ValueError: If the point has none, or it is not finite.
        """
        if axis.name in self.per_prompt:
            found = float(np.mean(np.asarray(self.per_prompt[axis.name], dtype=np.float64)))
        elif axis.name in self.values:
            found = float(self.values[axis.name])
        else:
            there = ", ".join({**self.values, **self.per_prompt}) or "nothing"
            raise ValueError(f"point {self.label!r} has no {axis.name!r}; it has {there}")
        if not np.isfinite(found):
            raise ValueError(f"point {self.label!r} has the {axis.name} {found}, which is no number to compare")
        return found


@dataclass(frozen=True)
class FrontPoint:
    """A point of a sweep and what was found of it.

    Attributes:
        label: As given.
        settings: As given.
        values: Axis to figure.
        intervals: Axis to its 95 % interval over prompts; `None` on axes that are held fixed.
        on_front: Whether no other point dominates it.
        membership: Share of resamples in which it is on the front; `None` without values by prompt.
        contribution: What the hypervolume would lose without it.
    """

    label: str
    settings: Mapping[str, Any]
    values: Mapping[str, float]
    intervals: Mapping[str, Interval | None]
    on_front: bool
    membership: float | None
    contribution: float


@dataclass(frozen=True)
class Front:
    """A Pareto front.

    Attributes:
        axes: What was wanted.
        points: All points, in the order given.
        hypervolume: Volume that the front dominates above `reference`, in the product of the axes' units.
        hypervolume_interval: 95 % over prompts, at that reference; `None` without values by prompt.
        reference: Axis to the worst value that counts.
        prompts: Number of prompts P; 0 without values by prompt.
        resamples: Of the bootstrap.
        seed: Of its draws.
        notes: What a reader has to know.
    """

    axes: tuple[Axis, ...]
    points: tuple[FrontPoint, ...]
    hypervolume: float
    hypervolume_interval: Interval | None
    reference: Mapping[str, float]
    prompts: int
    resamples: int
    seed: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        interval = self.hypervolume_interval
        return {
            "axes": [{"name": axis.name, "label": axis.shown, "higher_is_better": axis.higher} for axis in self.axes],
            "points": [_point_dict(point) for point in self.points],
            "hypervolume": self.hypervolume,
            "hypervolume_interval": None if interval is None else list(interval),
            "reference": dict(self.reference),
            "prompts": self.prompts,
            "resamples": self.resamples,
            "seed": self.seed,
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        """One line a point: label, settings, each axis with its interval, on_front, membership, contribution."""
        settings = list(dict.fromkeys(name for point in self.points for name in point.settings))
        axes = [part for axis in self.axes for part in (axis.name, f"{axis.name}_low", f"{axis.name}_high")]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["label", *settings, *axes, "on_front", "membership", "contribution", "prompts"])
        for point in self.points:
            figures: list[Any] = []
            for axis in self.axes:
                interval = point.intervals[axis.name]
                figures += [point.values[axis.name], *(("", "") if interval is None else interval)]
            rest = [int(point.on_front), "" if point.membership is None else point.membership, point.contribution]
            table.writerow(
                [point.label, *(point.settings.get(name, "") for name in settings), *figures, *rest, self.prompts]
            )
        return text.getvalue()

    def write(self, directory: Path | str) -> Path:
        """Write `pareto.json`, `pareto.csv` and `pareto.svg` into a folder; each appears whole or not at all."""
        from t2ialign.data.files import write_json, write_text
        from t2ialign.eval.pareto.plot import front_svg

        folder = Path(directory)
        write_text(folder / "pareto.csv", self.to_csv())
        write_text(folder / "pareto.svg", front_svg(self))
        write_json(folder / "pareto.json", self.to_dict())
        return folder


def pareto_front(
    points: Sequence[Point],
    axes: Sequence[Axis],
    *,
    reference: Mapping[str, float] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Front:
    """Find the front of a sweep.

    Args:
        points: At least one, of different labels.
        axes: Two or three, usually; any number is right.
        reference: Axis to the worst value that counts for the hypervolume; where missing, the worst of all points,
            which is fit to rank points of this sweep and to nothing else.
        resamples: Of the bootstrap over prompts.
        seed: Of its draws.

    Raises:
        ValueError: If a point lacks an axis, labels repeat, or points have other numbers of prompts.
    """
    _check(points, axes, resamples)
    values = np.array([[point.value(axis) for axis in axes] for point in points])
    signs = signs_of(axes)
    corner = _corner(values, signs, axes, reference)
    draws, prompts = resampled(points, axes, values, resamples, seed)
    whole = hypervolume(values * signs, corner * signs)
    found = _found(points, axes, values, corner, draws)
    interval = None
    if draws is not None:
        interval = _interval(np.array([hypervolume(draw * signs, corner * signs) for draw in draws]))
    return Front(
        axes=tuple(axes),
        points=tuple(found),
        hypervolume=whole,
        hypervolume_interval=interval,
        reference={axis.name: float(corner[j]) for j, axis in enumerate(axes)},
        prompts=prompts,
        resamples=resamples if draws is not None else 0,
        seed=seed,
        notes=_notes(points, axes, reference, prompts),
    )


def _found(
    points: Sequence[Point], axes: Sequence[Axis], values: Array, corner: Array, draws: Array | None
) -> list[FrontPoint]:
    """Every point with its place, its membership and what it adds to the volume."""
    signs = signs_of(axes)
    front, whole = non_dominated(values * signs), hypervolume(values * signs, corner * signs)
    membership: list[float | None] = [None] * len(points)
    if draws is not None:
        membership = [float(share) for share in np.mean([non_dominated(draw * signs) for draw in draws], axis=0)]
    found = []
    for i, point in enumerate(points):
        others = np.delete(values, i, axis=0) * signs
        without = hypervolume(others, corner * signs) if len(others) else 0.0
        found.append(
            FrontPoint(
                label=point.label,
                settings=dict(point.settings),
                values={axis.name: float(values[i, j]) for j, axis in enumerate(axes)},
                intervals={
                    axis.name: _interval(draws[:, i, j])
                    if draws is not None and axis.name in point.per_prompt
                    else None
                    for j, axis in enumerate(axes)
                },
                on_front=bool(front[i]),
                membership=membership[i],
                contribution=max(0.0, whole - without),
            )
        )
    return found


def signs_of(axes: Sequence[Axis]) -> Array:
    """Return 1 for an axis of which more is better, else -1."""
    return np.array([1.0 if axis.higher else -1.0 for axis in axes])


def _check(points: Sequence[Point], axes: Sequence[Axis], resamples: int) -> None:
    if not points or not axes:
        raise ValueError("a front needs at least one point and one axis")
    labels = [point.label for point in points]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"two points are called {twice[0]!r}; give each a label of its own")
    if len({axis.name for axis in axes}) < len(axes):
        raise ValueError("an axis is named twice")
    if resamples < 100:
        raise ValueError(f"{resamples} resamples are too few; take 2000")
    counts = {
        len(np.asarray(each)) for point in points for name, each in point.per_prompt.items() if name in _names(axes)
    }
    if len(counts) > 1:
        raise ValueError(f"points have values of {sorted(counts)} prompts; compare them on the same prompts")


def _names(axes: Sequence[Axis]) -> set[str]:
    return {axis.name for axis in axes}


def _corner(values: Array, signs: Array, axes: Sequence[Axis], reference: Mapping[str, float] | None) -> Array:
    given = dict(reference or {})
    unknown = sorted(set(given) - _names(axes))
    if unknown:
        raise ValueError(
            f"the reference names {unknown[0]!r}, which is no axis; axes are {', '.join(sorted(_names(axes)))}"
        )
    worst = (values * signs).min(axis=0) * signs
    return np.array([given.get(axis.name, worst[j]) for j, axis in enumerate(axes)])


def resampled(
    points: Sequence[Point], axes: Sequence[Axis], values: Array, resamples: int, seed: int
) -> tuple[Array | None, int]:
    """Return figures of every point in every resample, [resamples, points, axes], and the number of prompts."""
    sizes = [len(np.asarray(p.per_prompt[a.name])) for p in points for a in axes if a.name in p.per_prompt]
    prompts = sizes[0] if sizes else 0
    if prompts < 2:
        return None, prompts
    counts = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts
    draws = np.broadcast_to(values, (resamples, *values.shape)).copy()
    for i, point in enumerate(points):
        for j, axis in enumerate(axes):
            if axis.name in point.per_prompt:
                draws[:, i, j] = counts @ np.asarray(point.per_prompt[axis.name], dtype=np.float64)
    return draws, prompts


def _interval(draws: Array) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high))


def _notes(
    points: Sequence[Point], axes: Sequence[Axis], reference: Mapping[str, float] | None, prompts: int
) -> tuple[str, ...]:
    notes = []
    fixed = [axis.name for axis in axes if not all(axis.name in point.per_prompt for point in points)]
    if prompts and fixed:
        notes.append(
            f"no values by prompt of {', '.join(fixed)}: held fixed, so that memberships look surer than they are"
        )
    if prompts == 1:
        notes.append("one prompt: no intervals, and no probability that a point is on the front")
    if not prompts:
        notes.append("no values by prompt: no intervals, and no probability that a point is on the front")
    if set(reference or {}) < _names(axes):
        notes.append("the hypervolume's reference is the worst of these points: it compares with no other sweep")
    return tuple(notes)


def _point_dict(point: FrontPoint) -> dict[str, Any]:
    intervals = {name: None if each is None else list(each) for name, each in point.intervals.items()}
    return {
        "label": point.label,
        "settings": dict(point.settings),
        "values": dict(point.values),
        "intervals": intervals,
        "on_front": point.on_front,
        "membership": point.membership,
        "contribution": point.contribution,
    }
