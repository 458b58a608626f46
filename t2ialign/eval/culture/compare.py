"""Is one model's range of cultures smaller than another's? Differences of diversity, prompt by prompt, with intervals.

Law of this file: only prompts that both sets have a figure for are compared, the others are counted; pictures of the
same prompt, sample and seed are pairs. A change is called one only if the difference's 95 % interval excludes zero.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from t2ialign.errors import DataError
from t2ialign.eval.culture.diversity import DiversityReport, KernelDiversity
from t2ialign.eval.culture.estimates import RESAMPLES, Estimate, estimate
from t2ialign.eval.culture.orders import Measures, PromptDiversity

_MEASURES = Measures._fields
_WORDS = dict(zip(_MEASURES, ("cultural diversity", "quality", "quality-weighted diversity"), strict=True))
_COMPARABLE = ("size", "q", "short")


@dataclass(frozen=True)
class DiversityDifference:
    """The difference of one figure under one kernel, `other - base`.

    Attributes:
        kernel: Name of the kernel.
        measure: `"diversity"`, `"quality"` or `"quality_weighted"`.
        base: The first set's mean over the common prompts.
        other: The second set's.
        difference: Mean of the differences, with both intervals; `n_pictures` counts both sets.
        paired: Pairs of pictures with the same prompt, sample and seed.
        n_base: Labelled pictures of the base.
        n_other: Of the other.
        left_out: Prompts that only one of the sets has a figure for.
    """

    kernel: str
    measure: str
    base: float
    other: float
    difference: Estimate
    paired: int
    n_base: int
    n_other: int
    left_out: int

    @property
    def verdict(self) -> str:
        """`"falls"`, `"rises"`, or `"no difference shown"`; the last also where there is no interval."""
        interval = self.difference.interval
        if interval is None or interval.low <= 0 <= interval.high:
            return "no difference shown"
        return "falls" if interval.high < 0 else "rises"

    def sentence(self, name: str = "the other model") -> str:
        """Say it in words.

        Args:
            name: What the other set is called.
        """
        what = _WORDS[self.measure]
        interval, over = self.difference.interval, self.difference.over
        bounds = "no interval" if interval is None else f"95 % interval {interval.low:+.3f} to {interval.high:+.3f}"
        prompts = f"{self.difference.n_prompts} prompt{'s' if self.difference.n_prompts > 1 else ''}"
        basis = f"over {prompts}" if over == "prompts" else f"over seeds of {prompts}"
        figures = f"{self.base:.3f} to {self.other:.3f}"
        change = (
            f"difference {self.difference.value:+.3f}, {bounds}, {basis}, {self.n_base} and {self.n_other} pictures"
        )
        if self.verdict == "no difference shown":
            return f"{what} ({self.kernel}) of {name}: no difference shown ({figures}; {change})"
        return f"{what} ({self.kernel}) {self.verdict} with {name}, from {figures} ({change})"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**vars(self), "difference": self.difference.to_dict(), "verdict": self.verdict}


@dataclass(frozen=True)
class DiversityComparison:
    """One set of pictures against another.

    Attributes:
        kernels: The difference of diversity by kernel.
        quality: That of the mean quality by kernel (each leaves out its own pictures); empty without qualities.
        quality_weighted: That of quality times diversity, likewise.
        coverage: By label: the difference of the labelled share over common prompts' sets, `other - base`, as shares.
    """

    kernels: dict[str, DiversityDifference]
    quality: dict[str, DiversityDifference]
    quality_weighted: dict[str, DiversityDifference]
    coverage: dict[str, float]

    def sentences(self, name: str = "the other model") -> list[str]:
        """Say it in words, a sentence a kernel; then of labels, if their coverage differs by 5 points or more."""
        said = [each.sentence(name) for each in (*self.kernels.values(), *self.quality_weighted.values())]
        for level, change in self.coverage.items():
            if abs(change) >= 0.05:
                said.append(
                    f"the share of pictures whose {level} is known differs by {100 * change:+.0f} points with {name}; "
                    "what could not be labelled is in no figure"
                )
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        groups = {name: getattr(self, name) for name in ("kernels", "quality", "quality_weighted")}
        return {
            **{name: {key: each.to_dict() for key, each in group.items()} for name, group in groups.items()},
            "coverage": self.coverage,
            "sentences": self.sentences(),
        }


def compare_diversity(
    base: DiversityReport, other: DiversityReport, *, resamples: int = RESAMPLES, seed: int = 0
) -> DiversityComparison:
    """Compare the cultural diversity of two sets of pictures of the same prompts.

    Args:
        base: Of the model to begin with, by `measure_diversity`.
        other: Of the other.
        resamples: Of the bootstrap over prompts.
        seed: Of the bootstrap.

    Raises:
        DataError: If the figures were made otherwise, a prompt id stands for two texts, or no prompt is common.
    """
    for key in _COMPARABLE:
        if base.settings[key] != other.settings[key]:
            raise DataError(
                f"the two diversities do not compare: {key} is {base.settings[key]} in one and "
                f"{other.settings[key]} in the other; measure both alike"
            )
    for name in base.texts.keys() & other.texts.keys():
        if base.texts[name] != other.texts[name]:
            raise DataError(
                f"prompt id {name!r} is {base.texts[name]!r} in one set and {other.texts[name]!r} in the other; "
                "compare sets of the same prompts"
            )
    common = [name for name in base.kernels if name in other.kernels]
    found: dict[str, dict[str, DiversityDifference]] = {measure: {} for measure in _MEASURES}
    for name in common:
        one, two = base.kernels[name], other.kernels[name]
        if (one.kernel.weights, one.kernel.nested) != (two.kernel.weights, two.kernel.nested):
            raise DataError(f"the kernel {name!r} has other weights in one set than in the other; measure both alike")
        for place, measure in enumerate(_MEASURES):
            if measure == "diversity" or (one.quality is not None and two.quality is not None):
                difference = _difference(one, two, place, resamples, seed)
                if difference is not None:
                    found[measure][name] = difference
    if not found["diversity"]:
        raise DataError(
            "no prompt has a diversity in both sets; both need enough labelled pictures of the same prompts"
        )
    coverage = {level: other.coverage[level].share - base.coverage[level].share for level in base.coverage}
    return DiversityComparison(found["diversity"], found["quality"], found["quality_weighted"], coverage)


def _difference(
    base: KernelDiversity, other: KernelDiversity, place: int, resamples: int, seed: int
) -> DiversityDifference | None:
    names = [name for name in base.prompts if name in other.prompts]
    if not names:
        return None
    pairs = [(base.prompts[name], other.prompts[name]) for name in names]
    values = [(one.value[place], two.value[place]) for one, two in pairs if one.value and two.value]
    joined = [_parts_of_difference(one, two, place) for one, two in pairs]
    n_base, n_other = (sum(pair[side].n for pair in pairs) for side in (0, 1))
    bounds = (-1.0, 1.0) if place == 0 else (-float("inf"), float("inf"))
    difference = estimate(
        [two - one for one, two in values],
        [one.n + two.n for one, two in pairs],
        [parts for parts, _ in joined],
        bounds,
        resamples=resamples,
        seed=seed,
    )
    return DiversityDifference(
        base.kernel.name,
        _MEASURES[place],
        sum(one for one, _ in values) / len(values),
        sum(two for _, two in values) / len(values),
        difference,
        sum(paired for _, paired in joined),
        n_base,
        n_other,
        len(base.prompts.keys() ^ other.prompts.keys()),
    )


def _parts_of_difference(base: PromptDiversity, other: PromptDiversity, place: int) -> tuple[list[float], int]:
    """Return what pictures contribute to the difference's error, those of a pair together, and the number of pairs."""
    if not base.parts or not other.parts:
        return [], 0
    one, two = _column(base.parts, place), _column(other.parts, place)
    pairs = {key for key in one.keys() & two.keys() if isinstance(key, tuple) and key[1] is not None}
    parts = [two[key] - one[key] for key in pairs]
    for side in (one, two):
        parts += [part for key, part in side.items() if key not in pairs]
    return parts, len(pairs)


def _column(parts: Mapping[Hashable, Measures], place: int) -> dict[Hashable, float]:
    return {key: part[place] for key, part in parts.items()}
