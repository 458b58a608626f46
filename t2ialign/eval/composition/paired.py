"""Two judged sets, held against each other prompt by prompt, task by task.

Law of this file: only pictures that both sets have are compared, those of one prompt and sample; the overall
difference is the unweighted mean over tasks, as the overall figure is, and draws prompts anew inside each task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t2ialign.errors import DataError
from t2ialign.eval.composition.evaluate import PictureResult
from t2ialign.eval.composition.summary import RESAMPLES, stratified
from t2ialign.eval.composition.tasks import TAGS
from t2ialign.eval.statistics import Interval, clustered_bootstrap, sign_test

OVERALL = "overall"
"""Name of the mean over tasks among the changes."""


@dataclass(frozen=True)
class TaskChange:
    """By how much a set is better than another in a task.

    Attributes:
        tag: Task, or `OVERALL`.
        value: Difference of the shares of right pictures, in [-1, 1].
        interval: 95 %: BCa bootstrap over prompts; of `OVERALL` percentiles of a bootstrap inside tasks. `None` where
            prompts show no spread.
        p: Exact sign test over prompts, two-sided; of `OVERALL` over the prompts of all tasks.
        n_prompts: Prompts that both sets have.
    """

    tag: str
    value: float
    interval: Interval | None
    p: float
    n_prompts: int


def compare_tasks(
    base: Iterable[PictureResult], other: Iterable[PictureResult], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[TaskChange]:
    """Compare, `OVERALL` first, then task by task.

    Args:
        base: Judged pictures.
        other: Of the other set; a positive change says that it is better.
        resamples: Of the bootstraps.
        seed: Of the bootstraps.

    Raises:
        DataError: If the sets share no picture.
    """
    changes = _changes(base, other)
    if not changes:
        raise DataError("the two sets share no picture of one prompt and sample; judge sets of the same prompts")
    tags = [tag for tag in TAGS if tag in changes] + sorted(changes.keys() - set(TAGS))
    by_task = [changes[tag] for tag in tags]
    spread = any(len(each) > 1 and np.ptp(each) > 0 for each in by_task)
    whole = np.concatenate(by_task)
    overall = TaskChange(
        OVERALL,
        float(np.mean([each.mean() for each in by_task])),
        stratified(by_task, resamples, seed) if spread else None,
        sign_test(_rounded(whole)).p_value,
        len(whole),
    )
    return [overall, *(_one(tag, each, resamples, seed) for tag, each in zip(tags, by_task, strict=True))]


def _one(tag: str, change: npt.NDArray[np.float64], resamples: int, seed: int) -> TaskChange:
    spread = len(change) > 1 and float(np.ptp(change)) > 0
    interval = clustered_bootstrap(change, resamples=resamples, seed=seed) if spread else None
    return TaskChange(tag, float(change.mean()), interval, sign_test(_rounded(change)).p_value, len(change))


def _rounded(change: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means of shares that are equal may differ in the last bit; a sign test must not see that."""
    return np.where(np.abs(change) < 1e-9, 0.0, change)


def _changes(base: Iterable[PictureResult], other: Iterable[PictureResult]) -> Mapping[str, npt.NDArray[np.float64]]:
    """Return, by task, the difference of each prompt."""
    there = {(row.prompt_id, row.sample): row for row in base}
    prompts: dict[str, dict[str, list[float]]] = {}
    for row in other:
        if (first := there.get((row.prompt_id, row.sample))) is not None and first.tag == row.tag:
            change = float(row.correct) - float(first.correct)
            prompts.setdefault(row.tag, {}).setdefault(row.prompt_id, []).append(change)
    return {tag: np.array([float(np.mean(each)) for each in of.values()]) for tag, of in prompts.items()}
