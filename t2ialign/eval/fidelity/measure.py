"""`fidelity`: all six figures of a set of pictures against real ones, with their numbers and intervals.

Intervals are by subsampling without replacement, as those of Vendi scores and for the same reason: a picture drawn
twice is its own nearest neighbour, and adds nothing to a covariance. Real pictures are drawn one by one, generated
ones by prompt, nine tenths of each; the spread of the subsamples, times the root of m / (n - m), is the standard error
(`t2ialign.eval.vendi.intervals`). They are intervals for the expected figure at these numbers of pictures, and hold
none of the bias that a Frechet distance has because of them.

Law of this file: a draw is a function of (seed, number of the draw); numbers of pictures stand in every result.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.fidelity.distances import Array, as_cloud, frechet_distance, kernel_distance
from t2ialign.eval.fidelity.inception import INCEPTION
from t2ialign.eval.fidelity.manifolds import SquaredDistances
from t2ialign.eval.statistics import Interval
from t2ialign.eval.vendi.intervals import rows_by

METRICS = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")
HIGHER_IS_BETTER = {name: not name.endswith("distance") for name in METRICS}
HELD = 25_000_000
"""Entries that a matrix of distances may have for intervals of precision, recall, density and coverage (200 MB)."""
_SHARE = 0.9
_FEWEST = 10
Rows = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Estimate:
    """A figure.

    Attributes:
        value: The figure, or the difference of two.
        interval: 95 %, or as asked for; `None` where none was made (see the notes beside it).
        standard_error: Likewise.
    """

    value: float
    interval: Interval | None
    standard_error: float | None


@dataclass(frozen=True)
class Fidelity:
    """Fidelity of generated pictures to real ones.

    Attributes:
        estimates: Name in `METRICS` to figure.
        features: What the features are of, for instance "mini-clip".
        n_real: Real pictures.
        n_generated: Generated ones (of each set, where two are compared).
        prompts: Units in which generated pictures were drawn.
        dimension: Width of the features.
        k: Neighbours for precision and recall, and for density and coverage.
        resamples: Subsamples; 0 where no intervals were asked for.
        seed: Of the draws.
        confidence: Of the intervals.
        notes: What a reader has to know.
    """

    estimates: dict[str, Estimate]
    features: str
    n_real: int
    n_generated: int
    prompts: int
    dimension: int
    k: tuple[int, int]
    resamples: int
    seed: int
    confidence: float
    notes: tuple[str, ...]

    def title(self, metric: str) -> str:
        """What to call a figure: FID and KID only of Inception's features."""
        inception = self.features == INCEPTION
        names = {
            "frechet_distance": "FID" if inception else f"Fréchet distance of {self.features} features (not FID)",
            "kernel_distance": "KID" if inception else f"kernel distance of {self.features} features (not KID)",
        }
        return names.get(metric, metric if inception else f"{metric} ({self.features} features)")

    def lines(self) -> list[str]:
        """One line a figure, each with its numbers of pictures."""
        counts = f"n = {self.n_generated} generated, {self.n_real} real"
        found = []
        for metric, estimate in self.estimates.items():
            interval = ""
            if estimate.interval is not None:
                low, high = estimate.interval
                interval = f", {100 * self.confidence:g} % interval {low:.4g} to {high:.4g}"
            found.append(f"{self.title(metric)}: {estimate.value:.4g}{interval}; {counts}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        estimates = {
            metric: {
                "title": self.title(metric),
                "value": each.value,
                "interval": None if each.interval is None else list(each.interval),
                "standard_error": each.standard_error,
                "higher_is_better": HIGHER_IS_BETTER[metric],
            }
            for metric, each in self.estimates.items()
        }
        shared = ("features", "n_real", "n_generated", "prompts", "dimension", "resamples", "seed", "confidence")
        rest = {name: getattr(self, name) for name in shared}
        return {"estimates": estimates, **rest, "k": list(self.k), "notes": list(self.notes)}


def fidelity(
    real: npt.ArrayLike,
    generated: npt.ArrayLike,
    prompts: Sequence[Hashable] | None = None,
    *,
    features: str,
    k: tuple[int, int] = (3, 5),
    metrics: Sequence[str] = METRICS,
    resamples: int = 100,
    seed: int = 0,
    confidence: float = 0.95,
) -> Fidelity:
    """Measure generated pictures against real ones.

    Args:
        real: Features of real pictures, [n, d].
        generated: Features of generated ones by the same network, [m, d].
        prompts: Prompt id of each generated picture; `None` if each is a unit of its own.
        features: Name of the network, for the titles: `INCEPTION` (or `InceptionFeatures.name`), else such as
            "mini-clip".
        k: Neighbours for precision and recall, and for density and coverage.
        metrics: Which of `METRICS`.
        resamples: Subsamples for the intervals; 0 for none. Each costs as much as the figures themselves.
        seed: Of the draws.
        confidence: In (0, 1).

    Raises:
        ValueError: If the features do not fit, there are too few of them, or an argument is out of range.
    """
    return _measure(real, [generated], [prompts], features, k, metrics, resamples, seed, confidence)


def fidelity_difference(
    real: npt.ArrayLike,
    base: npt.ArrayLike,
    other: npt.ArrayLike,
    prompts: Sequence[Hashable],
    other_prompts: Sequence[Hashable] | None = None,
    *,
    features: str,
    k: tuple[int, int] = (3, 5),
    metrics: Sequence[str] = METRICS,
    resamples: int = 100,
    seed: int = 0,
    confidence: float = 0.95,
) -> Fidelity:
    """Measure by how much each figure of `other` exceeds that of `base`, on the same prompts and real pictures.

    Args:
        real: As for `fidelity`.
        base: Features of the pictures of one model.
        other: Features of those of the other.
        prompts: Prompt id of each picture of `base`.
        other_prompts: Of `other`; as `prompts` if `None`.
        features: As for `fidelity`, like the rest.
        k: Likewise.
        metrics: Likewise.
        resamples: Likewise.
        seed: Likewise.
        confidence: Likewise.

    Raises:
        ValueError: As for `fidelity`, and if the two differ in a prompt or in its number of pictures: figures at
            different numbers are not comparable.
    """
    units = [prompts, prompts if other_prompts is None else other_prompts]
    return _measure(real, [base, other], units, features, k, metrics, resamples, seed, confidence)


def _measure(
    real: npt.ArrayLike,
    sides: Sequence[npt.ArrayLike],
    prompts: Sequence[Sequence[Hashable] | None],
    features: str,
    k: tuple[int, int],
    metrics: Sequence[str],
    resamples: int,
    seed: int,
    confidence: float,
) -> Fidelity:
    _check(metrics, resamples, confidence, features)
    clouds = [_Cloud(as_cloud(real, "real"), as_cloud(side, "generated"), k, metrics) for side in sides]
    rows = [_units(each, len(cloud.generated)) for each, cloud in zip(prompts, clouds, strict=True)]
    _check_alike(rows)
    point = _difference([cloud.figures(metrics) for cloud in clouds])
    n_real, n_generated, units = len(clouds[0].real), len(clouds[0].generated), len(rows[0])
    notes = _notes(clouds[0], n_real, n_generated, units, resamples)
    errors: dict[str, float] = {}
    if resamples and min(units, n_real) >= _FEWEST:
        errors = _errors(clouds, rows, metrics, resamples, seed)
    factor = _quantile(min(units, n_real) - 1, confidence)
    estimates = {name: _estimate(point[name], errors.get(name), factor, name, len(sides) > 1) for name in metrics}
    return Fidelity(
        estimates=estimates,
        features=features,
        n_real=n_real,
        n_generated=n_generated,
        prompts=units,
        dimension=clouds[0].real.shape[1],
        k=k,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        notes=notes,
    )


class _Cloud:
    """Real and generated features, and their distances if these may be held."""

    def __init__(self, real: Array, generated: Array, k: tuple[int, int], metrics: Sequence[str]) -> None:
        self.real, self.generated, self.k = real, generated, k
        self.wants_distances = bool(set(metrics) & set(METRICS[2:]))
        self.held = max(len(real), len(generated)) ** 2 <= HELD
        self._distances = SquaredDistances(real, generated) if self.wants_distances else None

    def forget(self) -> None:
        """Let the distances go where they are too many to draw from."""
        if not self.held:
            self._distances = None

    def figures(
        self, metrics: Sequence[str], real: Rows | None = None, generated: Rows | None = None
    ) -> dict[str, float]:
        """The figures of some rows, those that can be had."""
        one = self.real if real is None else self.real[real]
        two = self.generated if generated is None else self.generated[generated]
        found: dict[str, float] = {}
        if "frechet_distance" in metrics:
            found["frechet_distance"] = frechet_distance(one, two)
        if "kernel_distance" in metrics:
            found["kernel_distance"] = kernel_distance(one, two)
        if self._distances is not None:
            balls = self._distances.figures(self.k, real, generated)
            found |= {name: getattr(balls, name) for name in METRICS[2:] if name in metrics}
        return found


def _errors(
    clouds: Sequence[_Cloud],
    rows: Sequence[dict[Hashable, Rows]],
    metrics: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """The standard error of every figure, or of its difference."""
    names, n_real = list(rows[0]), len(clouds[0].real)
    m, m_real = (min(size - 1, round(_SHARE * size)) for size in (len(names), n_real))
    for cloud in clouds:
        cloud.forget()
    draws = []
    for number in range(resamples):
        generator = np.random.default_rng((seed, number))
        real = np.sort(generator.permutation(n_real)[:m_real])
        chosen = [names[i] for i in np.sort(generator.permutation(len(names))[:m])]
        picked = [np.concatenate([side[name] for name in chosen]) for side in rows]
        draws.append(_difference([c.figures(metrics, real, p) for c, p in zip(clouds, picked, strict=True)]))
    share = (m / len(names) + m_real / n_real) / 2
    factor = float(np.sqrt(share / (1 - share)))
    return {name: factor * float(np.std([draw[name] for draw in draws], ddof=1)) for name in draws[0]}


def _difference(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(figures) == 1:
        return dict(figures[0])
    return {name: figures[1][name] - figures[0][name] for name in figures[0]}


def _estimate(value: float, error: float | None, factor: float, metric: str, difference: bool) -> Estimate:
    if error is None:
        return Estimate(value, None, None)
    low, high = value - factor * error, value + factor * error
    if not difference:
        low = low if metric == "kernel_distance" else max(0.0, low)
        high = min(1.0, high) if metric in ("precision", "recall", "coverage") else high
    return Estimate(value, Interval(low, high), error)


def _quantile(freedom: int, confidence: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, max(1, freedom)))


def _units(prompts: Sequence[Hashable] | None, n: int) -> dict[Hashable, Rows]:
    if prompts is not None and len(prompts) != n:
        raise ValueError(f"{len(prompts)} prompts for {n} generated pictures; give the prompt of each")
    return rows_by(prompts, n)


def _check_alike(rows: Sequence[dict[Hashable, Rows]]) -> None:
    counts = [{name: len(part) for name, part in side.items()} for side in rows]
    if counts[0] != counts[-1]:
        differing = sorted(
            str(name) for name in {*counts[0], *counts[-1]} if counts[0].get(name) != counts[-1].get(name)
        )
        raise ValueError(
            f"the two sets differ in the pictures of {len(differing)} prompts ({', '.join(differing[:3])}): figures "
            "at different numbers are not comparable; cut both to the same prompts and samples"
        )


def _check(metrics: Sequence[str], resamples: int, confidence: float, features: str) -> None:
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise ValueError(f"unknown metrics {unknown}; choose among {', '.join(METRICS)}")
    if resamples and resamples < 20:
        raise ValueError(f"{resamples} resamples are too few for an interval; take 100, or 0 for none")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1; 0.95 is usual")
    if not features.strip():
        raise ValueError("the features need a name, for instance 'mini-clip'")


def _notes(cloud: _Cloud, n_real: int, n_generated: int, units: int, resamples: int) -> tuple[str, ...]:
    notes = []
    width = cloud.real.shape[1]
    if min(n_real, n_generated) <= width:
        notes.append(
            f"{min(n_real, n_generated)} pictures are no more than the {width} dimensions of the features: a "
            "covariance is singular, and the Frechet distance is far above its limit; the kernel distance has no such "
            "bias"
        )
    if n_real != n_generated:
        notes.append("the sets differ in size; precision and recall are not symmetric then")
    if resamples and min(units, n_real) < _FEWEST:
        notes.append(f"no intervals: they need at least {_FEWEST} prompts and real pictures")
    elif resamples and cloud.wants_distances and not cloud.held:
        notes.append(
            "no intervals of precision, recall, density and coverage: the sets are too large to hold distances"
        )
    return tuple(notes)
