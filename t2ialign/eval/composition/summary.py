"""Figures of a set, from pictures that were judged; and GenEval's file of results.

Law of this file: GenEval's own figures, over pictures, stand beside means over prompts, which carry the intervals,
since the prompt is the unit. Both are equal where all prompts have equally many pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from t2ialign.data.files import write_text
from t2ialign.errors import DataError
from t2ialign.eval.composition.tasks import TAGS
from t2ialign.eval.statistics import Interval, cluster_means, clustered_bootstrap, wilson, wilson_of_rates

RESAMPLES = 10_000


class Judged(Protocol):
    """A picture that was judged; a row of our results or of GenEval's file."""

    @property
    def tag(self) -> str:
        """Task."""
        ...

    @property
    def unit(self) -> str:
        """What makes its prompt one of its kind."""
        ...

    @property
    def correct(self) -> bool:
        """Verdict."""
        ...


@dataclass(frozen=True)
class TaskScore:
    """One task.

    Attributes:
        tag: Its name.
        images: Share of pictures that are right: GenEval's figure.
        value: Mean over prompts of the share of their pictures that are right.
        n_images: Pictures.
        n_prompts: Prompts.
        wilson: 95 % interval of `value`: Wilson's, at the effective number of prompts.
        bootstrap: 95 % interval of `value`: BCa bootstrap over prompts; `None` with one prompt or no spread at all.
        any_correct: Share of prompts with a right picture: GenEval's "% correct prompts". It grows with the number
            of pictures a prompt has.
        any_wilson: Its 95 % interval.
    """

    tag: str
    images: float
    value: float
    n_images: int
    n_prompts: int
    wilson: Interval
    bootstrap: Interval | None
    any_correct: float
    any_wilson: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return all values; intervals are lists of two."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class CompositionSummary:
    """A set.

    Attributes:
        overall: Unweighted mean over tasks of `TaskScore.images`: GenEval's overall figure.
        overall_value: The same of `TaskScore.value`.
        overall_interval: 95 % interval of `overall_value`: percentiles of a bootstrap that draws prompts anew inside
            each task; `None` where every task has one prompt.
        tasks: By task, those of `TAGS` first.
        missing: Tasks of `TAGS` without a picture; `overall` is then none that can be compared with published ones.
        every: All pictures alike, whatever their task.
        resamples: Of the bootstraps.
        seed: Likewise.
    """

    overall: float
    overall_value: float
    overall_interval: Interval | None
    tasks: dict[str, TaskScore]
    missing: tuple[str, ...]
    every: TaskScore
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        return {
            "overall": self.overall,
            "overall_value": self.overall_value,
            "overall_interval": None if self.overall_interval is None else list(self.overall_interval),
            "n_tasks": len(self.tasks),
            "n_prompts": self.every.n_prompts,
            "n_images": self.every.n_images,
            "missing": list(self.missing),
            "tasks": {tag: score.to_dict() for tag, score in self.tasks.items()},
            "every": self.every.to_dict(),
            "resamples": self.resamples,
            "seed": self.seed,
        }


def summarize(rows: Iterable[Judged], *, resamples: int = RESAMPLES, seed: int = 0) -> CompositionSummary:
    """Bring judged pictures to figures.

    Raises:
        DataError: If there are none.
    """
    groups: dict[str, list[Judged]] = {}
    for row in rows:
        groups.setdefault(row.tag, []).append(row)
    if not groups:
        raise DataError("no picture was judged; the set has no prompt with a task, see docs/composition.md")
    order = [tag for tag in TAGS if tag in groups] + sorted(groups.keys() - set(TAGS))
    tasks = {tag: _score(tag, groups[tag], resamples, seed) for tag in order}
    rates = [_rates(groups[tag]) for tag in order]
    return CompositionSummary(
        float(np.mean([score.images for score in tasks.values()])),
        float(np.mean([score.value for score in tasks.values()])),
        stratified(rates, resamples, seed),
        tasks,
        tuple(tag for tag in TAGS if tag not in groups),
        _score("every", [row for tag in order for row in groups[tag]], resamples, seed),
        resamples,
        seed,
    )


def _rates(rows: Sequence[Judged]) -> npt.NDArray[np.float64]:
    return cluster_means([float(row.correct) for row in rows], [(row.tag, row.unit) for row in rows])


def _score(tag: str, rows: Sequence[Judged], resamples: int, seed: int) -> TaskScore:
    rates = _rates(rows)
    spread = len(rates) > 1 and float(np.ptp(rates)) > 0
    hits = int(np.sum(rates > 0))
    return TaskScore(
        tag,
        float(np.mean([row.correct for row in rows])),
        float(rates.mean()),
        len(rows),
        len(rates),
        wilson_of_rates(rates, len(rows)) if spread else wilson(float(round(rates.sum(), 9)), len(rates)),
        clustered_bootstrap(rates, resamples=resamples, seed=seed) if spread else None,
        hits / len(rates),
        wilson(hits, len(rates)),
    )


def stratified(rates: Sequence[npt.NDArray[np.float64]], resamples: int, seed: int) -> Interval | None:
    """Return the 95 % interval of the mean over tasks, prompts drawn anew inside each; `None` with one prompt each."""
    if all(len(each) < 2 for each in rates):
        return None
    generator = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for each in rates:
        total += each[generator.integers(0, len(each), (resamples, len(each)))].mean(axis=1)
    low, high = np.quantile(total / len(rates), (0.025, 0.975))
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class ResultLine:
    """A line of GenEval's results file.

    Attributes:
        filename: Of the picture.
        tag: Task.
        prompt: Words.
        correct: Verdict.
        reason: What is wrong, a line each.
        metadata: What was asked for, as JSON text; it tells prompts apart, as in GenEval's summary.
        details: Boxes that count, by class, as JSON text.
    """

    filename: str
    tag: str
    prompt: str
    correct: bool
    reason: str
    metadata: str
    details: str

    @property
    def unit(self) -> str:
        """What makes its prompt one of its kind."""
        return self.metadata

    def to_dict(self) -> dict[str, Any]:
        """Return the line."""
        return asdict(self)


def write_results(path: str | Path, lines: Iterable[ResultLine]) -> None:
    """Write a file that GenEval's `summary_scores.py` reads."""
    text = "".join(json.dumps(line.to_dict(), ensure_ascii=False) + "\n" for line in lines)
    write_text(Path(path), text)


def read_results(path: str | Path) -> list[ResultLine]:
    """Read GenEval's file of results, whoever wrote it, for `summarize`.

    Raises:
        DataError: If it can not be read.
    """
    path = Path(path)
    lines = []
    try:
        for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if text.strip():
                lines.append(_line(json.loads(text), f"{path}, line {number}"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can not be read ({error}); a results file of GenEval is needed") from error
    return lines


def _line(value: Any, where: str) -> ResultLine:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: a JSON object is needed")
    if not isinstance(value.get("tag"), str) or not isinstance(value.get("correct"), bool):
        raise DataError(f"{where}: tag is {value.get('tag')!r} and correct {value.get('correct')!r}")
    texts = {key: str(value.get(key, "")) for key in ("filename", "prompt", "reason", "details")}
    metadata = str(value.get("metadata") or value.get("prompt"))
    return ResultLine(tag=value["tag"], correct=value["correct"], metadata=metadata, **texts)
