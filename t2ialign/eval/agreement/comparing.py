"""How far an annotator's ratings and verdicts agree with others', by aspect, with intervals over prompts.

Law of this file: every figure carries its counts and its interval; a verdict on two pictures does not know which of
them came first, so tables of verdicts are made the same both ways round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from t2ialign.eval.accuracy import POLICIES, preference_accuracy
from t2ialign.eval.agreement.coefficients import (
    alpha_of,
    coincidence,
    interval_alpha,
    interval_moments,
    kappa_of,
)
from t2ialign.eval.agreement.resampling import estimate, estimates
from t2ialign.eval.agreement.sides import Key, Ratings, Verdict, codes, sign_label, verdict_code
from t2ialign.eval.statistics import Array, sign_test, wilson

SCALE = 5
"""Categories of ratings."""
Found = dict[str, Any]


def compare_ratings(mine: dict[Key, float], theirs: dict[Key, float], resamples: int, seed: int) -> Found | None:
    """Compare two raters' ratings of the same pictures.

    Args:
        mine: The annotator's ratings, 1 to 5.
        theirs: The reference's.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        `n_pictures`, `n_prompts`, `rounded`, `exact`, `mean_difference`, `kappa`, `kappa_linear`, `kappa_quadratic`,
        `alpha_nominal`, `alpha_ordinal`, `alpha_interval` (each `value` and `ci95`), and `table`; `None` where they
        share no picture.
    """
    shared = [key for key in mine if key in theirs]
    if not shared:
        return None
    pairs = np.array([[mine[key], theirs[key]] for key in shared])
    coded = np.stack([codes(side) for side in pairs.T], axis=1)
    rows = np.zeros((len(shared), SCALE * SCALE + 6))
    rows[np.arange(len(shared)), SCALE * coded[:, 0] + coded[:, 1]] = 1
    rows[:, -6:-2] = [interval_moments(pair) for pair in pairs]
    rows[:, -2], rows[:, -1] = pairs[:, 0] - pairs[:, 1], 1
    sums = by_prompt(rows, [key.prompt for key in shared])

    def table(total: Array) -> Array:
        return total[..., : SCALE * SCALE].reshape(*total.shape[:-1], SCALE, SCALE)

    figures: dict[str, Callable[[Array], Any]] = {
        "exact": lambda total: np.trace(table(total), axis1=-2, axis2=-1) / total[..., -1],
        "mean_difference": lambda total: total[..., -2] / total[..., -1],
        "kappa": lambda total: kappa_of(table(total)),
        "kappa_linear": lambda total: kappa_of(table(total), "linear"),
        "kappa_quadratic": lambda total: kappa_of(table(total), "quadratic"),
        "alpha_nominal": lambda total: alpha_of(symmetric(table(total)), "nominal"),
        "alpha_ordinal": lambda total: alpha_of(symmetric(table(total)), "ordinal"),
        "alpha_interval": lambda total: interval_alpha(total[..., -6:-2]),
    }
    found: Found = {"n_pictures": len(shared), "n_prompts": len(sums)}
    found["rounded"] = int((np.abs(pairs - np.round(pairs)) > 1e-9).any(axis=1).sum())
    found |= estimates(sums, figures, resamples, seed)
    return found | {"table": table(sums.sum(axis=0)).astype(int).tolist()}


def symmetric(table: Array) -> Array:
    """Return the coincidences of two raters' table of counts: both orders of each pair of values."""
    return np.asarray(table + np.swapaxes(table, -1, -2))


def by_prompt(rows: Array, prompts: Sequence[str]) -> Array:
    """Add up rows by prompt: [N, F] to [P, F], prompts in the order in which they first come."""
    numbers: dict[str, int] = {}
    index = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts], dtype=np.int64)
    sums = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(sums, index, rows)
    return sums


def compare_verdicts(
    mine: dict[Key, float], theirs: Iterable[Verdict], policy: str, resamples: int, seed: int
) -> Found | None:
    """Compare what ratings say of two pictures with somebody's verdicts.

    Args:
        mine: The annotator's ratings; of two pictures the one rated higher is preferred, equal ones tie.
        theirs: The verdicts; those with a picture that was not rated are passed over.
        policy: What a tie is worth, a key of `t2ialign.eval.accuracy.POLICIES`.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        `n_pairs`, `n_prompts`, `accuracy` (under the policy), `decided` (pairs that neither side calls a tie), `kappa`
        and `alpha` of the three verdicts, and `table`: theirs across, mine down, second, tie, first; `None` where
        nothing is shared.
    """
    both = [verdict for verdict in theirs if verdict.first in mine and verdict.second in mine]
    if not both:
        return None
    margins = np.array([mine[v.first] - mine[v.second] for v in both])
    margins[np.abs(margins) < 1e-9] = 0.0
    labels = np.array([v.label for v in both])
    prompts = [v.first.prompt for v in both]
    rows = np.zeros((len(both), 9))
    said = np.array([verdict_code(sign_label(margin)) for margin in margins])
    heard = np.array([verdict_code(label) for label in labels])
    rows[np.arange(len(both)), 3 * said + heard] = 1
    rows = (rows + rows[:, ::-1]) / 2  # the same pair the other way round
    sums = by_prompt(rows, prompts)

    def table(total: Array) -> Array:
        return total.reshape(*total.shape[:-1], 3, 3)

    found: Found = {"n_pairs": len(both), "n_prompts": len(sums)}
    found["accuracy"] = _accuracy(margins, labels, prompts, policy, resamples, seed)
    found["decided"] = _decided(margins, labels, prompts, resamples, seed)
    figures: dict[str, Callable[[Array], Any]] = {
        "kappa": lambda total: kappa_of(table(total)),
        "alpha": lambda total: alpha_of(symmetric(table(total)), "nominal"),
    }
    found |= estimates(sums, figures, resamples, seed)
    return found | {"table": table(sums.sum(axis=0)).tolist()}


def _accuracy(margins: Array, labels: Array, prompts: list[str], policy: str, resamples: int, seed: int) -> Found:
    """Return the accuracy under a policy with its counts."""
    kept = labels != 0.5 if POLICIES[policy].label_tie is None else np.ones(len(labels), dtype=bool)
    nothing: Found = {"value": None, "ci95": None, "policy": policy, "n_pairs": 0, "n_prompts": 0}
    if not kept.any():
        return nothing | {"n_skipped": len(labels), "n_label_ties": len(labels), "n_predicted_ties": 0}
    result = preference_accuracy(
        margins, np.zeros(len(margins)), labels, prompts, policy=policy, resamples=resamples, seed=seed
    )
    return {
        "value": result.value,
        "ci95": None if result.ci95 is None else list(result.ci95),
        "policy": policy,
        "n_pairs": result.n_pairs,
        "n_prompts": result.n_prompts,
        "n_skipped": result.n_skipped,
        "n_label_ties": result.n_label_ties,
        "n_predicted_ties": result.n_predicted_ties,
    }


def _decided(margins: Array, labels: Array, prompts: list[str], resamples: int, seed: int) -> Found:
    """Return the accuracy where neither side ties, with two intervals and the exact sign test over prompts.

    Wilson's interval is at Kish's effective number of prompts, for they have unequal numbers of pairs.
    """
    kept = (labels != 0.5) & (margins != 0)
    found: Found = {"value": None, "ci95": None, "ci95_wilson": None, "n_pairs": int(kept.sum()), "n_prompts": 0}
    found["sign"] = None
    if not kept.any():
        return found
    agree = ((margins > 0) == (labels == 1)).astype(np.float64)
    sums = by_prompt(
        np.stack([agree, np.ones(len(agree))], axis=1)[kept], [p for p, k in zip(prompts, kept, strict=True) if k]
    )
    found |= estimate(sums, lambda total: total[..., 0] / total[..., 1], resamples, seed)
    found["n_prompts"] = len(sums)
    size = float(sums[:, 1].sum() ** 2 / (sums[:, 1] ** 2).sum())
    found["ci95_wilson"] = list(wilson(min(size, found["value"] * size), size))
    test = sign_test(sums[:, 0] / sums[:, 1] - 0.5)
    found["sign"] = {"p": test.p_value, "prompts_above": int(test.statistic), "n": test.n}
    return found


def among_raters(by_rater: dict[str, Ratings], aspects: Iterable[str], resamples: int, seed: int) -> Found:
    """Return Krippendorff's alpha among the annotators of one folder, by aspect; missing ratings are missing.

    Returns:
        By aspect: `n_raters`, `n_pictures` that at least two rated, `n_prompts`, `alpha_nominal`, `alpha_ordinal`,
        `alpha_interval`. Aspects that no picture has from two are left out.
    """
    found: Found = {}
    for aspect in aspects:
        marks: dict[Key, list[float]] = defaultdict(list)
        for ratings in by_rater.values():
            for key, mark in ratings.get(aspect, {}).items():
                marks[key].append(mark)
        several = {key: values for key, values in marks.items() if len(values) > 1}
        if not several:
            continue
        rows = np.array(
            [
                np.concatenate([coincidence(codes(values), SCALE).ravel(), interval_moments(np.array(values))])
                for values in several.values()
            ]
        )
        sums = by_prompt(rows, [key.prompt for key in several])
        raters = sum(aspect in ratings for ratings in by_rater.values())
        found[aspect] = {"n_raters": raters, "n_pictures": len(several), "n_prompts": len(sums)}
        found[aspect] |= _alphas(sums, resamples, seed)
    return found


def _alphas(sums: Array, resamples: int, seed: int) -> Found:
    def table(total: Array) -> Array:
        return total[..., :-4].reshape(*total.shape[:-1], SCALE, SCALE)

    figures: dict[str, Callable[[Array], Any]] = {
        "alpha_nominal": lambda total: alpha_of(table(total), "nominal"),
        "alpha_ordinal": lambda total: alpha_of(table(total), "ordinal"),
        "alpha_interval": lambda total: interval_alpha(total[..., -4:]),
    }
    return estimates(sums, figures, resamples, seed)


def among_users(verdicts: Iterable[Verdict], resamples: int, seed: int) -> Found:
    """Return how far users who judged the same two pictures agree, by aspect.

    Returns:
        By aspect: `n_pairs` of pictures with at least two verdicts, `n_prompts`, `same` (the share of pairs of
        verdicts that are equal, a picture pair counting once), `decided` (that share where neither is a tie) and
        `alpha`.
    """
    several: dict[tuple[str, Key, Key], list[int]] = defaultdict(list)
    for verdict in verdicts:
        several[verdict.aspect, verdict.first, verdict.second].append(verdict_code(verdict.label))
    found: Found = {}
    for aspect in dict.fromkeys(aspect for aspect, _, _ in several):
        units = {key: said for key, said in several.items() if key[0] == aspect and len(said) > 1}
        if not units:
            continue
        tables = np.array([coincidence(np.array(said), 3) for said in units.values()])
        tables = (tables + tables[:, ::-1, ::-1]) / 2
        sizes = np.array([len(said) for said in units.values()])
        same = np.trace(tables, axis1=1, axis2=2) / sizes
        rows = np.concatenate([tables.reshape(-1, 9), same[:, None], np.ones((len(units), 1))], axis=1)
        sums = by_prompt(rows, [key.prompt for _, key, _ in units])
        figures: dict[str, Callable[[Array], Any]] = {
            "same": lambda total: total[..., 9] / total[..., 10],
            "decided": _same_where_decided,
            "alpha": lambda total: alpha_of(total[..., :9].reshape(*total.shape[:-1], 3, 3), "nominal"),
        }
        found[aspect] = {"n_pairs": len(units), "n_prompts": len(sums)}
        found[aspect] |= estimates(sums, figures, resamples, seed)
    return found


def _same_where_decided(total: Array) -> Any:
    """Return the share of equal verdicts among coincidences of two that are no ties."""
    same, other = total[..., 0] + total[..., 8], total[..., 2] + total[..., 6]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(same + other > 0, same / (same + other), np.nan)
