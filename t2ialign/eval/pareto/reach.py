"""How far the settings of each model reach: the hypervolume of a model's own points, and the difference from the base.

A model that is better at every setting moves the limit; one that only trades one axis for another moves along it, and
its hypervolume stays. All models are held against one reference, and the prompts that are drawn anew are the same ones
for all, so that a difference is less uncertain than either of its parts.

Law of this file: a volume is a function of the points, the reference and the seed, in no order of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from t2ialign.eval.pareto.dominance import hypervolume
from t2ialign.eval.pareto.front import Axis, Point, resampled, signs_of
from t2ialign.eval.statistics import Interval


@dataclass(frozen=True)
class Reach:
    """What the points of one model dominate.

    Attributes:
        group: The model.
        points: How many points it has.
        volume: Hypervolume above the reference, in the product of the axes' units.
        interval: 95 % over prompts; `None` without values by prompt.
        difference: From the base; `None` for the base itself.
        difference_interval: 95 % over prompts, drawn together; `None` as above.
    """

    group: str
    points: int
    volume: float
    interval: Interval | None
    difference: float | None
    difference_interval: Interval | None


def reaches(
    points: Sequence[Point],
    groups: Sequence[str],
    axes: Sequence[Axis],
    reference: Mapping[str, float],
    *,
    base: str,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Reach]:
    """Measure each model's reach.

    Args:
        points: All points.
        groups: Of each, its model.
        axes: What is wanted.
        reference: Axis to the worst value that counts, such as `Front.reference` of all points together.
        base: The model that the others are held against.
        resamples: Of the bootstrap over prompts.
        seed: Of its draws.

    Raises:
        ValueError: If the base has no point, or numbers do not go together.
    """
    if len(groups) != len(points) or base not in groups:
        raise ValueError(
            f"{len(points)} points have {len(groups)} groups, among them the base {base!r}; give each one"
        )
    signs = signs_of(axes)
    corner = np.array([reference[axis.name] for axis in axes]) * signs
    values = np.array([[point.value(axis) for axis in axes] for point in points])
    draws, _ = resampled(points, axes, values, resamples, seed)
    names = [base, *(name for name in dict.fromkeys(groups) if name != base)]
    places = {name: [i for i, group in enumerate(groups) if group == name] for name in names}
    volumes = {name: hypervolume(values[places[name]] * signs, corner) for name in names}
    spread = None
    if draws is not None:
        spread = {
            name: np.array([hypervolume(draw[places[name]] * signs, corner) for draw in draws]) for name in names
        }
    return [
        Reach(
            name,
            len(places[name]),
            volumes[name],
            None if spread is None else _interval(spread[name]),
            None if name == base else volumes[name] - volumes[base],
            None if name == base or spread is None else _interval(spread[name] - spread[base]),
        )
        for name in names
    ]


def _interval(draws: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high))
