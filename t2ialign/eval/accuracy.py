"""Preference accuracy: how often a scorer prefers the picture that people prefer, by each published policy.

Law of this file: what a tie is worth and what is averaged is a policy with a name; two numbers under two policies are
not comparable, so the policy stands in the result, with the number of pairs, ties and prompts. Higher is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from t2ialign.errors import DataError
from t2ialign.eval.statistics import Array, Interval

if TYPE_CHECKING:
    from t2ialign.data.rankings import Ranking

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""What PickScore's evaluation chooses from (`eval_preference_predictor.py`)."""
RESAMPLES = 10_000
"""Bootstrap resamples of the interval."""
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Policy:
    """What ties are worth, and what is averaged. Without ties a pair counts 1 if score and label agree, else 0.

    Attributes:
        predicted_tie: Credit where the scores tie and the label does not.
        label_tie: Credit where the label ties and the scores do not; `None` leaves pairs with tied labels out.
        both_tie: Credit where both tie; `None` as above.
        per_prompt: Mean over prompts of the mean over a prompt's pairs; else mean over all pairs.
        threshold: Whether scores tie up to a difference in preference probability, rather than if they are equal.
        source: Where the policy is from.
    """

    predicted_tie: float
    label_tie: float | None
    both_tie: float | None
    per_prompt: bool
    threshold: bool
    source: str


POLICIES = {
    "pickscore": Policy(0.5, 0.5, 1.0, False, True, "PickScore, trainer/scripts/eval_preference_predictor.py"),
    "pickscore_trainer": Policy(0.0, 0.5, 0.0, False, False, "PickScore, trainer/tasks/clip_task.py"),
    "imagereward": Policy(0.0, None, None, False, False, "ImageReward, test.py"),
    "hpsv2": Policy(1.0, 1.0, 1.0, True, False, "HPSv2, evaluate_rank with inversion_score"),
    "hpsv2_imagereward": Policy(0.0, None, None, True, False, "HPSv2, evaluate_IR with calc_ImageReward"),
}
"""The published policies.

HPSv2's `evaluate_rank` breaks tied scores by their place in the batch before it counts inversions; here, as its
`inversion_score` itself has it, a tie on either side is no inversion. Its `evaluate_IR` cannot divide by zero pairs;
here a prompt without an untied pair is left out.
"""


class Pairs(NamedTuple):
    """Pairs of pictures, all [N].

    Attributes:
        first: Scores of the first pictures.
        second: Scores of the second ones.
        labels: 1 where people prefer the first, 0 the second, 0.5 neither.
        prompts: Id of each pair's prompt.
    """

    first: Array
    second: Array
    labels: Array
    prompts: list[str]


@dataclass(frozen=True)
class PreferenceAccuracy:
    """A preference accuracy and what it stands on.

    Attributes:
        value: In [0, 1].
        policy: A key of `POLICIES`.
        threshold: Of the policy `pickscore`, else `None`.
        n_pairs: Pairs that were counted.
        n_skipped: Pairs that the policy leaves out, their label being a tie.
        n_label_ties: Pairs whose label is a tie, those left out among them.
        n_predicted_ties: Counted pairs whose scores tie.
        n_prompts: Prompts with at least one counted pair.
        ci95: Percentile bootstrap over prompts; `None` with fewer than 2 prompts.
    """

    value: float
    policy: str
    threshold: float | None
    n_pairs: int
    n_skipped: int
    n_label_ties: int
    n_predicted_ties: int
    n_prompts: int
    ci95: Interval | None


def preference_accuracy(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    labels: npt.ArrayLike,
    prompts: Sequence[Any] | None = None,
    *,
    policy: str = "imagereward",
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PreferenceAccuracy:
    """Return how often scores and people agree.

    Args:
        first: Scores of the first pictures, [N], higher is better. `pickscore` takes them on the scale of logits, as
            PickScore's are: its ties are differences in `softmax(first, second)`.
        second: Scores of the second pictures, [N].
        labels: 1 where people prefer the first, 0 the second, 0.5 neither, [N].
        prompts: Prompt of each pair, [N]; by default each pair has its own.
        policy: A key of `POLICIES`.
        threshold: For `pickscore` alone, in [0, 1]: scores tie if their preference probabilities differ by no more.
            0 by default; published numbers choose it on a validation set (`choose_threshold`).
        resamples: Bootstrap resamples of the interval; 0 for none.
        seed: Of the bootstrap.

    Raises:
        ValueError: If shapes differ, a value is out of range, or no pair is left to count.
    """
    rule = _rule(policy, threshold)
    one, two, truth = _checked(first, second, labels)
    ids = list(range(len(truth))) if prompts is None else list(prompts)
    if len(ids) != len(truth):
        raise ValueError(f"{len(ids)} prompts for {len(truth)} pairs; give one for each pair")
    tied = _ties(one, two, threshold or 0.0) if rule.threshold else one == two
    credit = _credits(rule, one - two, truth, tied)
    counted = ~np.isnan(credit)
    if not counted.any():
        raise ValueError(f"no pair is left to count: under {policy!r} pairs with tied labels are left out")
    numbers: dict[Any, int] = {}
    index = np.array([numbers.setdefault(i, len(numbers)) for i, kept in zip(ids, counted, strict=True) if kept])
    sums, sizes = np.bincount(index, weights=credit[counted]).astype(np.float64), np.bincount(index)
    value = _value(sums, sizes, rule.per_prompt)
    interval = _interval(sums, sizes, rule.per_prompt, resamples, seed) if resamples and len(sizes) > 1 else None
    return PreferenceAccuracy(
        value=float(value),
        policy=policy,
        threshold=(threshold or 0.0) if rule.threshold else None,
        n_pairs=int(counted.sum()),
        n_skipped=int((~counted).sum()),
        n_label_ties=int((truth == 0.5).sum()),
        n_predicted_ties=int(tied[counted].sum()),
        n_prompts=len(sizes),
        ci95=interval,
    )


def choose_threshold(first: npt.ArrayLike, second: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the threshold of `THRESHOLDS` with the best accuracy under `pickscore`, the lowest of equals.

    To be called on validation pairs; arguments as for `preference_accuracy`.
    """
    values = [
        preference_accuracy(first, second, labels, policy="pickscore", threshold=each, resamples=0).value
        for each in THRESHOLDS
    ]
    return THRESHOLDS[int(np.argmax(values))]


def ranking_pairs(
    scores: Sequence[Sequence[float]], ranks: Sequence[Sequence[float]], prompt_ids: Sequence[str] | None = None
) -> Pairs:
    """Make all pairs within each prompt.

    Args:
        scores: Scores of the pictures of each prompt, higher is better.
        ranks: Their ranks by people, lower is better; equal ranks are ties.
        prompt_ids: Ids of the prompts; by default their number.

    Raises:
        ValueError: If the numbers of scores, ranks and prompts do not fit.
    """
    first: list[float] = []
    second: list[float] = []
    labels: list[float] = []
    prompts: list[str] = []
    names = [str(number) for number in range(len(scores))] if prompt_ids is None else list(prompt_ids)
    for name, values, order in zip(names, scores, ranks, strict=True):
        if len(values) != len(order):
            raise ValueError(f"prompt {name} has {len(values)} scores and {len(order)} ranks; give each picture both")
        for i in range(len(order)):
            for j in range(i + 1, len(order)):
                first.append(values[i])
                second.append(values[j])
                labels.append(0.5 if order[i] == order[j] else float(order[i] < order[j]))
                prompts.append(name)
    return Pairs(np.array(first, float), np.array(second, float), np.array(labels, float), prompts)


def scored_pairs(rankings: Sequence[Ranking], scores: str | Path, scorer: str, version: str | None = None) -> Pairs:
    """Make the pairs of rankings whose pictures were scored (`t2ialign score FOLDER --prompts RANKINGS`).

    Args:
        rankings: See `t2ialign.data.rankings.read_rankings`.
        scores: The score file.
        scorer: Name of the scorer.
        version: Its version, where the file holds several.

    Returns:
        All pairs within each ranking, scores turned so that higher is better.

    Raises:
        DataError: If a picture has no score, or the version must be said.
    """
    from t2ialign.reward_models.score_files import ScoreTable, read_infos

    path = Path(scores)
    table = ScoreTable.read(path)
    versions = sorted({key.version for key in table.rows if key.scorer == scorer})
    if version is None and len(versions) > 1:
        raise DataError(f"{path} holds {len(versions)} versions of {scorer} ({', '.join(versions)}); name one")
    chosen = version or (versions[0] if versions else "")
    mine = [row for key, row in table.rows.items() if key[1:] == (scorer, chosen)]
    kept = {(row.prompt_id, row.sample): row.score for row in mine}
    if len(kept) < len(mine):
        raise DataError(
            f"{path} holds several sets with the same prompts; score the ranked pictures into a file alone"
        )
    sign = 1.0 if read_infos(path, scorer).get(chosen, {}).get("higher_is_better", True) else -1.0
    values = []
    for ranking in rankings:
        keys = [(ranking.prompt_id, number) for number in range(len(ranking.ranks))]
        missing = [number for _, number in keys if (ranking.prompt_id, number) not in kept]
        if missing:
            raise DataError(
                f"{path} has no {scorer} score of {ranking.file_names[missing[0]]} (prompt {ranking.prompt_id}); "
                f"run t2ialign score on the folder with --layout rankings and --with {scorer}"
            )
        values.append([sign * kept[key] for key in keys])
    return ranking_pairs(values, [r.ranks for r in rankings], [r.prompt_id for r in rankings])


def _rule(policy: str, threshold: float | None) -> Policy:
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}; choose one of {', '.join(POLICIES)}")
    rule = POLICIES[policy]
    if threshold is not None and not (rule.threshold and 0 <= threshold <= 1):
        raise ValueError(f"threshold is {threshold}; the policy pickscore alone takes one, in [0, 1]")
    return rule


def _checked(first: npt.ArrayLike, second: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array, Array]:
    one, two, truth = (np.asarray(each, dtype=np.float64) for each in (first, second, labels))
    if one.ndim != 1 or not one.shape == two.shape == truth.shape:
        raise ValueError(f"scores and labels of the shapes {one.shape}, {two.shape}, {truth.shape}; give [N] of each")
    if not len(truth):
        raise ValueError("there are no pairs")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError("a score is not finite; scores must be numbers")
    if not np.isin(truth, (0.0, 0.5, 1.0)).all():
        raise ValueError("labels are 1 (the first is better), 0 (the second) and 0.5 (a tie)")
    return one, two, truth


def _ties(first: Array, second: Array, threshold: float) -> npt.NDArray[np.bool_]:
    """Tell where `|softmax_0 - softmax_1| <= threshold`; the difference of the two is `tanh((first - second) / 2)`."""
    return np.asarray(np.abs(np.tanh((first - second) / 2)) <= threshold)


def _credits(rule: Policy, margin: Array, labels: Array, tied: npt.NDArray[np.bool_]) -> Array:
    """Return each pair's credit, NaN where it is left out."""
    nothing = np.nan
    label_tie = nothing if rule.label_tie is None else rule.label_tie
    both_tie = nothing if rule.both_tie is None else rule.both_tie
    agree = np.where((margin > 0) == (labels == 1.0), 1.0, 0.0)
    untied = np.where(tied, rule.predicted_tie, agree)
    return np.where(labels == 0.5, np.where(tied, both_tie, label_tie), untied)


def _value(sums: Array, sizes: npt.NDArray[Any], per_prompt: bool) -> Any:
    """Average along the last axis: means of prompts, or all pairs alike."""
    if per_prompt:
        return (sums / sizes).mean(axis=-1)
    return sums.sum(axis=-1) / sizes.sum(axis=-1)


def _interval(sums: Array, sizes: npt.NDArray[Any], per_prompt: bool, resamples: int, seed: int) -> Interval:
    """Draw prompts with replacement, with all their pairs."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(sizes))
    draws = []
    for start in range(0, resamples, rows):
        picked = generator.integers(0, len(sizes), size=(min(rows, resamples - start), len(sizes)), dtype=np.int32)
        draws.append(_value(sums[picked], sizes[picked], per_prompt))
    low, high = np.quantile(np.concatenate(draws), (0.025, 0.975))
    return Interval(float(low), float(high))
