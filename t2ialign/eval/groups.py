"""Figures by group (category, country, users), and the group that fares worst.

Law of this file: a small group is shown with its count and its wide interval, never left out; the worst of many noisy
figures is worse than the truth, so it carries an interval that allows for having been picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Array, clustered_bootstrap, holm, wilson

SHIFTS = 2000
"""Permutations of the test on whether groups differ at all."""
FEW = 30
"""Prompts below which the bootstrap is too narrow, and Student's t interval counts too: the wider of both."""


@dataclass(frozen=True)
class Group:
    """A group's figure.

    Attributes:
        name: Its label.
        n: Prompts.
        value: Mean over its prompts.
        ci95: BCa bootstrap over prompts (below `FEW` the wider of it and Student's t), or Wilson's for rates;
            `None` for a single prompt that is no rate.
        rest: Mean over the prompts of all other groups.
        p: Two-sided permutation test of the group against the rest.
        p_holm: The same, adjusted for the number of groups.
    """

    name: str
    n: int
    value: float
    ci95: tuple[float, float] | None
    rest: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class GroupTable:
    """A figure by group.

    Attributes:
        groups: Worst first.
        overall: Mean over all prompts.
        n: Prompts.
        worst: Name of the group with the lowest value.
        worst_value: Its value; on average too low, because it was picked for being low.
        worst_ci95: Of the lowest true group mean, see `group_table`; `None` where a group has one prompt.
        worst_share: Share of bootstrap resamples in which the same group is the worst.
        p_differ: Permutation test of whether any groups differ.
    """

    groups: tuple[Group, ...]
    overall: float
    n: int
    worst: str
    worst_value: float
    worst_ci95: tuple[float, float] | None
    worst_share: float
    p_differ: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def group_table(
    values: npt.ArrayLike,
    groups: Sequence[str],
    *,
    kind: Literal["mean", "rate"] = "mean",
    bounds: tuple[float, float] = (-np.inf, np.inf),
    resamples: int = 2000,
    seed: int = 0,
) -> GroupTable:
    """Return a figure by group.

    The interval of the worst group holds for the lowest of all G true means: its ends are the lowest lower and the
    lowest upper end of the G intervals at level 1 - 0.05 / G (Bonferroni: then all G hold together, and so does this).

    Args:
        values: One number a prompt, [P], finite; in [0, 1] for rates.
        groups: Group of each prompt, [P]; at least 2 different ones.
        kind: `rate` takes Wilson's intervals, `mean` the BCa bootstrap (and Student's t where prompts are few).
        bounds: What a mean can be, such as (0, 1) for win rates with ties; intervals are cut there.
        resamples: Bootstrap resamples and permutations.
        seed: Of both.

    Raises:
        ValueError: If lengths differ, a value is not finite or no rate, or there is one group only.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(groups),) or not np.isfinite(array).all():
        raise ValueError(f"give a finite number for each of the {len(groups)} prompts")
    if kind not in ("mean", "rate"):
        raise ValueError(f"unknown kind {kind!r}; take 'mean' or 'rate'")
    if kind == "rate" and len(array) and not ((array >= 0) & (array <= 1)).all():
        raise ValueError("rates lie between 0 and 1; take kind='mean'")
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError(f"there are {len(names)} groups; a table by group needs at least 2")
    index = np.array([names.index(name) for name in groups])
    parts = [array[index == i] for i in range(len(names))]
    p_values, p_differ = _permutations(array, index, len(names), resamples, seed)
    adjusted = holm(p_values)
    made = []
    for i, (name, part) in enumerate(zip(names, parts, strict=True)):
        rest = float(array[index != i].mean())
        interval = _cut(_interval(part, kind, 0.95, resamples, seed), bounds)
        made.append(Group(name, len(part), float(part.mean()), interval, rest, p_values[i], adjusted[i]))
    made.sort(key=lambda group: (group.value, group.name))
    return GroupTable(
        groups=tuple(made),
        overall=float(array.mean()),
        n=len(array),
        worst=made[0].name,
        worst_value=made[0].value,
        worst_ci95=_cut(_worst(parts, kind, resamples, seed), bounds),
        worst_share=_share(parts, names.index(made[0].name), resamples, seed),
        p_differ=p_differ,
    )


def _interval(part: Array, kind: str, confidence: float, resamples: int, seed: int) -> tuple[float, float] | None:
    if kind == "rate":
        low, high = wilson(float(part.sum()), len(part), confidence)
        return low, high
    if len(part) < 2:
        return None
    low, high = clustered_bootstrap(part, resamples=resamples, seed=seed, confidence=confidence)
    if len(part) >= FEW:
        return low, high
    from scipy import stats

    reach = float(stats.t.ppf(0.5 + confidence / 2, len(part) - 1) * part.std(ddof=1) / len(part) ** 0.5)
    return min(low, float(part.mean()) - reach), max(high, float(part.mean()) + reach)


def _cut(interval: tuple[float, float] | None, bounds: tuple[float, float]) -> tuple[float, float] | None:
    """Cut an interval at the ends of what there can be."""
    return None if interval is None else (max(interval[0], bounds[0]), min(interval[1], bounds[1]))


def _worst(parts: Sequence[Array], kind: str, resamples: int, seed: int) -> tuple[float, float] | None:
    intervals = [_interval(part, kind, 1 - 0.05 / len(parts), resamples, seed) for part in parts]
    known = [each for each in intervals if each is not None]
    if len(known) < len(parts):
        return None
    return min(low for low, _ in known), min(high for _, high in known)


def _share(parts: Sequence[Array], worst: int, resamples: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    means = [part[generator.integers(0, len(part), (resamples, len(part)))].mean(1) for part in parts]
    return float((np.argmin(np.stack(means), 0) == worst).mean())


def _permutations(
    array: Array, index: npt.NDArray[Any], count: int, draws: int, seed: int
) -> tuple[list[float], float]:
    """Return a p value a group, by its distance from the rest, and one for all, by the variance between groups."""
    sizes = np.bincount(index, minlength=count).astype(float)
    generator = np.random.default_rng(seed)
    observed, spread = _distances(array[None], index, sizes)
    further, wider = np.ones(count), 1.0
    for _ in range(draws):
        gaps, variance = _distances(generator.permutation(array)[None], index, sizes)
        further += gaps >= observed - 1e-12
        wider += float(variance >= spread - 1e-12)
    return [float(each) for each in further / (draws + 1)], wider / (draws + 1)


def _distances(rows: Array, index: npt.NDArray[Any], sizes: Array) -> tuple[Array, float]:
    sums = np.bincount(index, weights=rows[0], minlength=len(sizes))
    total, n = rows[0].sum(), sizes.sum()
    means = sums / sizes
    gaps = np.abs(means - (total - sums) / (n - sizes))
    return gaps, float((sizes * (means - total / n) ** 2).sum())
