"""Cultural awareness in tables: by country and domain, by country, by domain, and over all, raw and pooled.

Law of this file: the unit is the prompt; every figure has its n; where a cell is small the pooled figure stands beside
the raw one, never in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from t2ialign.data.files import written_aside
from t2ialign.eval.culture.estimates import MIN_PROMPTS, RESAMPLES
from t2ialign.eval.culture.pooling import Pooled, pool_means, pool_shares
from t2ialign.eval.culture.targets import MEASURES, Measure, Observation
from t2ialign.eval.statistics import Interval, clustered_bootstrap, wilson

TABLES: dict[str, Callable[[Observation], tuple[str | None, str | None]]] = {
    "country_domain": lambda seen: (seen.country, seen.domain),
    "country": lambda seen: (seen.country, None),
    "domain": lambda seen: (None, seen.domain),
    "all": lambda seen: (None, None),
}
"""Tables, and what a cell of each is: (country, domain)."""
SHRINKAGE = {
    "mean": "(1 - B) y + B mu, B = (sigma^2 / n) / (sigma^2 / n + tau^2), averaged over the posterior of tau and mu",
    "share": "(x + k m) / (n + k), averaged over the posterior of m and k",
}
"""How figures are pooled, by kind of measure (`pooling`)."""


@dataclass(frozen=True)
class Cell:
    """A figure of a table.

    Attributes:
        country: Of the cell; `None` where it is of all countries.
        domain: Likewise.
        value: The raw figure: mean of prompt means, or median of prompt medians; `None` without any observation.
        interval: Its 95 % interval over prompts. From `MIN_PROMPTS` prompts on BCa bootstrap; below, Wilson's for a
            share and Student's t for a mean; order statistics for a median. `None` where the prompts are too few.
        n_prompts: Prompts with a value.
        n_pictures: Pictures with a value.
        missing: Pictures without.
        pooled: The pooled figure; `None` where there is none (a median, or too few cells).
    """

    country: str | None
    domain: str | None
    value: float | None
    interval: Interval | None
    n_prompts: int
    n_pictures: int
    missing: int
    pooled: Pooled | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        pooled = None
        if self.pooled is not None:
            pooled = asdict(self.pooled) | {"interval": list(self.pooled.interval)}
        interval = None if self.interval is None else list(self.interval)
        return {**vars(self), "interval": interval, "pooled": pooled}


@dataclass(frozen=True)
class AwarenessReport:
    """Cultural awareness.

    Attributes:
        measures: By measure, by table (`TABLES`), the cells, sorted by country and domain.
        sources: Who measured, by measure.
    """

    measures: dict[str, dict[str, list[Cell]]]
    sources: dict[str, list[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, with what each measure means and how it is pooled."""
        return {
            name: {
                "meaning": MEASURES[name].meaning,
                "kind": MEASURES[name].kind,
                "pooling": SHRINKAGE.get(MEASURES[name].kind),
                "sources": self.sources[name],
                "tables": {table: [cell.to_dict() for cell in cells] for table, cells in tables.items()},
            }
            for name, tables in self.measures.items()
        }


def awareness_report(
    observations: Iterable[Observation], *, resamples: int = RESAMPLES, seed: int = 0
) -> AwarenessReport:
    """Sum observations up.

    Args:
        observations: Of any measures of `MEASURES`.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: If a measure is unknown.
    """
    by_measure: dict[str, list[Observation]] = {}
    for seen in observations:
        if seen.measure not in MEASURES:
            raise ValueError(f"unknown measure {seen.measure!r}; there are {', '.join(MEASURES)}")
        by_measure.setdefault(seen.measure, []).append(seen)
    found = {
        measure: {table: _table(rows, MEASURES[measure], table, resamples, seed) for table in TABLES}
        for measure, rows in by_measure.items()
    }
    return AwarenessReport(
        found, {measure: sorted({row.source for row in rows}) for measure, rows in by_measure.items()}
    )


def _table(rows: Sequence[Observation], measure: Measure, table: str, resamples: int, seed: int) -> list[Cell]:
    groups: dict[tuple[str | None, str | None], list[Observation]] = {}
    for row in rows:
        groups.setdefault(TABLES[table](row), []).append(row)
    keys = sorted(groups, key=lambda key: (key[0] or "", key[1] or ""))
    units = [_units(groups[key], measure) for key in keys]
    pooled = _pooled([unit for unit in units if len(unit)], measure)
    cells = []
    for key, unit in zip(keys, units, strict=True):
        there = [row for row in groups[key] if row.value is not None]
        summed = np.median if measure.kind == "median" else np.mean
        cells.append(
            Cell(
                *key,
                float(summed(unit)) if len(unit) else None,
                _interval(unit, measure, resamples, seed) if len(unit) else None,
                len(unit),
                len(there),
                len(groups[key]) - len(there),
                pooled.pop(0) if pooled and len(unit) else None,
            )
        )
    return cells


def _units(rows: Iterable[Observation], measure: Measure) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return one number a prompt."""
    prompts: dict[str, list[float]] = {}
    for row in rows:
        if row.value is not None:
            prompts.setdefault(row.prompt_id, []).append(row.value)
    summed = np.median if measure.kind == "median" else np.mean
    return np.array([float(summed(values)) for values in prompts.values()])


def _pooled(units: Sequence[np.ndarray[Any, np.dtype[np.float64]]], measure: Measure) -> list[Pooled] | None:
    if measure.kind == "median":
        return None
    if measure.kind == "share":
        return pool_shares([float(unit.sum()) for unit in units], [len(unit) for unit in units])
    return pool_means([unit.tolist() for unit in units])


def _interval(
    unit: np.ndarray[Any, np.dtype[np.float64]], measure: Measure, resamples: int, seed: int
) -> Interval | None:
    n = len(unit)
    if measure.kind == "median":
        return median_interval(unit)
    if measure.kind == "share" and (n < MIN_PROMPTS or np.ptp(unit) == 0):
        return wilson(min(float(unit.sum()), n), n)
    if n < 2:
        return None
    if n >= MIN_PROMPTS:
        return clustered_bootstrap(unit, resamples=resamples, seed=seed)
    from scipy import stats

    reach = float(stats.t.ppf(0.975, n - 1)) * float(unit.std(ddof=1)) / n**0.5
    return Interval(max(float(unit.mean()) - reach, measure.low), min(float(unit.mean()) + reach, measure.high))


def median_interval(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> Interval | None:
    """Return the 95 % interval of a median from order statistics: exact, at least 95 % for any distribution.

    The r-th smallest and r-th largest value, with the largest r for which P(Bin(n, 1/2) < r) is at most 2.5 %; `None`
    with fewer than six values, which have no such r.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    r = int(stats.binom.ppf(0.025, len(ordered), 0.5))
    if r < 1:
        return None
    return Interval(float(ordered[r - 1]), float(ordered[len(ordered) - r]))


def write_observations(path: str | Path, observations: Iterable[Observation]) -> None:
    """Write a row an observation to a parquet file."""
    import pyarrow
    from pyarrow import parquet

    rows = [seen.to_dict() for seen in observations]
    names = list(Observation.__dataclass_fields__)
    types = {name: pyarrow.float64() if name == "value" else pyarrow.string() for name in names}
    table = pyarrow.table({name: pyarrow.array([row[name] for row in rows], types[name]) for name in names})
    with written_aside(Path(path)) as aside:
        parquet.write_table(table, aside)
