"""Cultural diversity of a set of tagged pictures, by kernel, with intervals, coverage and counts.

Law of this file: pictures without a label are left out of what needs it and counted; a prompt with fewer labelled
pictures than a chunk has no figure, and is named; quality and diversity are also reported apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from t2ialign.errors import DataError
from t2ialign.eval.culture.chunks import SIZE
from t2ialign.eval.culture.estimates import RESAMPLES, Estimate, estimate
from t2ialign.eval.culture.geotag import TaggedPicture, by_prompt, problem_counts
from t2ialign.eval.culture.kernels import KERNELS, LEVELS, CultureKernel, kernel_of
from t2ialign.eval.culture.orders import REPEATS, PromptDiversity, Short, prompt_diversity
from t2ialign.eval.statistics import Interval, clustered_bootstrap


@dataclass(frozen=True)
class Coverage:
    """How many pictures have a label.

    Attributes:
        labelled: Pictures with one.
        n: Pictures.
        share: Mean over prompts of the labelled share.
        interval: Its 95 % interval over prompts; `None` with one prompt.
    """

    labelled: int
    n: int
    share: float
    interval: Interval | None


@dataclass(frozen=True)
class KernelDiversity:
    """Diversity under one kernel.

    Attributes:
        kernel: The kernel.
        diversity: Mean over prompts of VS / n, in (0, 1]; `None` if no prompt has a full chunk.
        quality: Mean quality of the same pictures; `None` without one.
        quality_weighted: Mean over prompts of quality times diversity, chunk by chunk: CUBE's qVS.
        by_category: Diversity by category of prompts.
        prompts: The prompts' figures.
        left_out: Prompts without a figure, and how many labelled pictures they have.
    """

    kernel: CultureKernel
    diversity: Estimate | None
    quality: Estimate | None
    quality_weighted: Estimate | None
    by_category: dict[str, Estimate]
    prompts: dict[str, PromptDiversity] = field(repr=False)
    left_out: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        named = ("diversity", "quality", "quality_weighted")
        found: dict[str, Estimate | None] = {name: getattr(self, name) for name in named}
        return {
            "kernel": self.kernel.name,
            "weights": list(self.kernel.weights),
            "nested": self.kernel.nested,
            **{name: None if each is None else each.to_dict() for name, each in found.items()},
            "by_category": {name: each.to_dict() for name, each in self.by_category.items()},
            "prompts": {name: _prompt_dict(each, self.quality is not None) for name, each in self.prompts.items()},
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class DiversityReport:
    """Cultural diversity of a set of pictures.

    Attributes:
        kernels: By name of the kernel.
        coverage: By label, `continent`, `country` and `artifact`.
        problems: Why labels are missing, with counts.
        contradictions: Pictures whose tagger said a continent in which its country does not lie.
        continents, countries: Pictures from each, the commonest first.
        country_continents: The continent of each of `countries`.
        texts: Text of each prompt, by id.
        settings: Chunk size, order, repeats, seed, short chunks, taggers.
    """

    kernels: dict[str, KernelDiversity]
    coverage: dict[str, Coverage]
    problems: dict[str, int]
    contradictions: int
    continents: dict[str, int]
    countries: dict[str, int]
    country_continents: dict[str, str]
    texts: dict[str, str] = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        coverage = {
            name: asdict(each) | {"interval": None if each.interval is None else list(each.interval)}
            for name, each in self.coverage.items()
        }
        return {
            "kernels": {name: each.to_dict() for name, each in self.kernels.items()},
            "coverage": coverage,
            "problems": self.problems,
            "contradictions": self.contradictions,
            "continents": self.continents,
            "countries": self.countries,
            "country_continents": self.country_continents,
            "settings": self.settings,
        }


def measure_diversity(
    tagged: Iterable[TaggedPicture],
    kernels: Sequence[str | CultureKernel] = tuple(KERNELS),
    *,
    quality: Mapping[str, float] | None = None,
    size: int = SIZE,
    q: float | str = 1.0,
    repeats: int = REPEATS,
    seed: int = 0,
    short: Short = "leave_out",
    resamples: int = RESAMPLES,
) -> DiversityReport:
    """Measure the cultural diversity of pictures of under-specified prompts.

    Args:
        tagged: The pictures; those of a prompt are compared with each other, prompts are averaged.
        kernels: Names of `KERNELS`, or kernels.
        quality: Quality of each picture by file name, at least 0, such as HPSv2's score; for `quality_weighted`.
        size: Pictures in a chunk.
        q: Order of the Vendi score.
        repeats: Random orders that are averaged.
        seed: Of orders and bootstrap.
        short: See `prompt_diversity`.
        resamples: Of the bootstrap.

    Raises:
        DataError: If there are no pictures, or one has no quality though qualities were given.
        ValueError: If an argument is out of range.
    """
    groups = list(by_prompt(tagged))
    pictures = [row for _, rows in groups for row in rows]
    if not pictures:
        raise DataError("there are no tagged pictures")
    _check_quality(pictures, quality)
    settings: dict[str, Any] = {"size": size, "q": q, "repeats": repeats, "seed": seed, "short": short}
    measured = {}
    for kernel in map(kernel_of, kernels):
        made = {name: _of_prompt(name, rows, kernel, quality, settings) for name, rows in groups}
        categories = {name: rows[0].category or "" for name, rows in groups}
        measured[kernel.name] = _of_kernel(kernel, made, categories, quality is not None, (size, resamples, seed))
    continents = Counter(row.continent for row in pictures if row.continent)
    countries = Counter((row.country, row.continent or "") for row in pictures if row.country)
    return DiversityReport(
        measured,
        {level: _coverage(groups, level, resamples, seed) for level in LEVELS},
        problem_counts(pictures),
        sum(row.contradiction for row in pictures),
        dict(continents.most_common()),
        {country: count for (country, _), count in countries.most_common()},
        {country: continent for (country, continent), _ in countries.most_common()},
        {name: rows[0].prompt for name, rows in groups},
        settings | {"source": sorted({row.source for row in pictures})},
    )


def _check_quality(pictures: Sequence[TaggedPicture], quality: Mapping[str, float] | None) -> None:
    if quality is None:
        return
    for row in pictures:
        score = quality.get(row.file_name)
        if score is None:
            raise DataError(f"{row.file_name} has no quality; score it too, or leave the quality out")
        if not 0 <= score < float("inf"):
            raise DataError(
                f"the quality of {row.file_name} is {score:g}; it must be 0 or more: take HPSv2's score, or map others"
            )


def _of_prompt(
    name: str,
    rows: Sequence[TaggedPicture],
    kernel: CultureKernel,
    quality: Mapping[str, float] | None,
    settings: Mapping[str, Any],
) -> PromptDiversity:
    there = [row for row in rows if all(getattr(row, level) is not None for level in kernel.levels)]
    return prompt_diversity(
        name,
        _keys(there),
        [row.labels for row in there],
        kernel,
        None if quality is None else [quality[row.file_name] for row in there],
        **settings,
    )


def _keys(rows: Sequence[TaggedPicture]) -> list[tuple[int | str, int | None]]:
    """Return what pairs a picture with another set's: sample and seed, if known and its own, else nothing."""
    counts = Counter((row.sample, row.seed) for row in rows)
    return [
        (row.file_name, None) if row.seed is None or counts[row.sample, row.seed] > 1 else (row.sample, row.seed)
        for row in rows
    ]


def _of_kernel(
    kernel: CultureKernel,
    made: dict[str, PromptDiversity],
    categories: Mapping[str, str],
    with_quality: bool,
    numbers: tuple[int, int, int],
) -> KernelDiversity:
    size, resamples, seed = numbers
    prompts = {name: each for name, each in made.items() if each.value is not None}
    left_out = {name: each.n for name, each in made.items() if each.value is None}

    def mean(names: Iterable[str], measure: int) -> Estimate | None:
        chosen = [prompts[name] for name in names]
        if not chosen:
            return None
        values = [each.value[measure] for each in chosen if each.value is not None]
        parts = [[part[measure] for part in each.parts.values()] for each in chosen]
        bounds = (1 / size, 1.0) if measure == 0 else (0.0, float("inf"))
        return estimate(values, [each.n for each in chosen], parts, bounds, resamples=resamples, seed=seed)

    groups: dict[str, list[str]] = {}
    for name in prompts:
        groups.setdefault(categories[name], []).append(name)
    by_category = {category: found for category, names in groups.items() if category and (found := mean(names, 0))}
    quality, weighted = (mean(prompts, 1), mean(prompts, 2)) if with_quality else (None, None)
    return KernelDiversity(kernel, mean(prompts, 0), quality, weighted, by_category, prompts, left_out)


def _coverage(groups: Sequence[tuple[str, list[TaggedPicture]]], level: str, resamples: int, seed: int) -> Coverage:
    shares = [sum(getattr(row, level) is not None for row in rows) / len(rows) for _, rows in groups]
    labelled = sum(getattr(row, level) is not None for _, rows in groups for row in rows)
    interval = clustered_bootstrap(shares, resamples=resamples, seed=seed) if len(shares) > 1 else None
    return Coverage(labelled, sum(len(rows) for _, rows in groups), sum(shares) / len(shares), interval)


def _prompt_dict(found: PromptDiversity, with_quality: bool) -> dict[str, Any]:
    assert found.value is not None
    variance = found.variance()
    shown: dict[str, Any] = {"n": found.n, "diversity": found.value.diversity}
    shown["standard_error"] = None if variance is None else variance**0.5
    if with_quality:
        shown |= {"quality": found.value.quality, "quality_weighted": found.value.quality_weighted}
    return shown
