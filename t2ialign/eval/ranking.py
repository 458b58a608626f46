"""Ranking several models: Bradley-Terry strengths with ties, and their intervals over prompts.

Law of this file: every prompt has the same say however many pictures it has, the anchor's strength is 0, and the order
in which models or prompts are given changes nothing. (Elo ratings depend on it, so there are none.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Array

_STEPS = 200
_SAME = 1e-9
"""Strengths that differ by no more share their places."""
_LOWEST_TIE = -25.0
"""Logarithm of the tie parameter below which it is 0 for all that can be seen."""


@dataclass(frozen=True)
class Strength:
    """A model's place in a ranking.

    Attributes:
        model: Its label.
        value: Log of its strength over the anchor's; the odds of beating it, ties aside, are `exp(value)`.
        ci95: Percentile bootstrap over prompts; both ends 0 for the anchor.
        rank: Place from 1, by `value`.
        rank_ci95: 2.5 % and 97.5 % quantiles of its rank over the resamples; equals have the better place in the first
            and the worse in the second.
    """

    model: str
    value: float
    ci95: tuple[float, float]
    rank: int
    rank_ci95: tuple[int, int]


@dataclass(frozen=True)
class Ranking:
    """Models by strength, the strongest first.

    Attributes:
        strengths: One a model.
        anchor: The model whose strength is 0.
        tie: Davidson's tie parameter; equal models tie with probability `tie / (2 + tie)`.
        tie_ci95: Its interval.
        n: Prompts.
        prior: Pseudo-comparisons a pair of models, see `bradley_terry`.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """

    strengths: tuple[Strength, ...]
    anchor: str
    tie: float
    tie_ci95: tuple[float, float]
    n: int
    prior: float
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def bradley_terry(
    scores: Mapping[str, npt.ArrayLike],
    prompts: Sequence[str],
    *,
    anchor: str | None = None,
    margin: float = 0.0,
    prior: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> Ranking:
    r"""Rank models by the scores of their pictures, compared prompt by prompt and sample by sample.

    Davidson's model of paired comparisons with ties (R. R. Davidson, JASA 65, 1970), with strengths :math:`\pi`:

    .. math:: P(i \succ j) = \frac{\pi_i}{\pi_i + \pi_j + \nu\sqrt{\pi_i\pi_j}}, \qquad
              P(i \sim j) = \frac{\nu\sqrt{\pi_i\pi_j}}{\pi_i + \pi_j + \nu\sqrt{\pi_i\pi_j}}

    It is fitted by maximum likelihood. With `prior` above 0 each pair of models has that many comparisons more, half
    of them won by each side: a model that always wins has a finite strength, drawn slightly towards the others.

    Args:
        scores: For each model [N], higher is better; entry n of all models is the same prompt and sample.
        prompts: Prompt of each entry, [N].
        anchor: The model that the others are measured by; by default the first.
        margin: Scores that differ by no more tie.
        prior: Pseudo-comparisons, at least 0.
        resamples: Bootstrap resamples over prompts.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there are fewer than two models or prompts, lengths differ, a score is not finite, or without
            a prior some models never lose against the rest or all comparisons tie, so that no finite fit exists.
    """
    names, anchor = _models(scores, anchor)
    if margin < 0 or prior < 0 or resamples < 1:
        raise ValueError(f"margin {margin} and prior {prior} must be at least 0, and resamples {resamples} at least 1")
    wins, ties = _counts(np.stack([_checked(name, scores[name], len(prompts)) for name in names]), prompts, margin)
    if len(wins) < 2:
        raise ValueError("a ranking with intervals needs at least 2 prompts")
    if prior == 0:
        _check_finite(wins.sum(0), ties.sum(0))
    place = names.index(anchor)
    point = _fit(wins.sum(0)[None], ties.sum(0)[None], prior)
    weights = np.random.default_rng(seed).multinomial(len(wins), np.full(len(wins), 1 / len(wins)), size=resamples)
    many_wins, many_ties = (np.einsum("rp,pij->rij", weights, each, optimize=True) for each in (wins, ties))
    drawn = _fit(many_wins, many_ties, prior or 1e-3)
    values, spread = (each[:, :-1] - each[:, [place]] for each in (point, drawn))
    return Ranking(
        strengths=tuple(_strengths(names, values[0], spread)),
        anchor=anchor,
        tie=float(np.exp(point[0, -1])) if point[0, -1] > _LOWEST_TIE else 0.0,
        tie_ci95=_interval(np.where(drawn[:, -1] > _LOWEST_TIE, np.exp(drawn[:, -1]), 0.0)),
        n=len(wins),
        prior=prior,
        resamples=resamples,
        seed=seed,
    )


def _models(scores: Mapping[str, npt.ArrayLike], anchor: str | None) -> tuple[list[str], str]:
    """Return the models' names and the anchor, by default the first of them."""
    names = list(scores)
    if len(names) < 2:
        raise ValueError(f"{len(names)} models can not be ranked; give at least 2")
    anchor = names[0] if anchor is None else anchor
    if anchor not in names:
        raise ValueError(f"the anchor {anchor!r} is none of the models {', '.join(names)}")
    return names, anchor


def _checked(name: str, values: npt.ArrayLike, count: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{name}: give a finite score for each of the {count} pictures")
    return array


def _counts(scores: Array, prompts: Sequence[str], margin: float) -> tuple[Array, Array]:
    """Return wins [P, M, M], of the row over the column, and ties [P, M, M]; a prompt's sum to 1 for each pair."""
    order: dict[str, int] = {}
    index = np.array([order.setdefault(prompt, len(order)) for prompt in prompts])
    gaps = scores[:, None, :] - scores[None, :, :]
    sizes = np.bincount(index)
    shape = (len(order), len(scores), len(scores))
    wins, ties = np.zeros(shape), np.zeros(shape)
    np.add.at(wins, index, np.moveaxis(gaps > margin, 2, 0).astype(float))
    np.add.at(ties, index, np.moveaxis(np.abs(gaps) <= margin, 2, 0).astype(float))
    ties[:, range(len(scores)), range(len(scores))] = 0
    return wins / sizes[:, None, None], ties / sizes[:, None, None]


def _check_finite(wins: Array, ties: Array) -> None:
    """Refuse counts whose likelihood has no finite maximum."""
    if not wins.any():
        raise ValueError("every comparison is a tie, so the tie parameter is infinite; give a prior above 0")
    if not _connected(wins + ties):
        raise ValueError(
            "some models beat all the others every time, so their strengths are infinite; give a prior above 0"
        )


def _connected(beaten: Array) -> bool:
    """Whether every model loses or ties somewhere against every part of the rest (L. R. Ford, 1957)."""
    reach = (beaten > 0) | np.eye(len(beaten), dtype=bool)
    for _ in range(len(beaten)):
        reach = (reach.astype(float) @ reach.astype(float)) > 0
    return bool(reach.all())


def _fit(wins: Array, ties: Array, prior: float) -> Array:
    """Fit R sets of counts at once by Newton's method; [R, M + 1]: log-strengths of mean 0, and the log tie parameter.

    The likelihood is concave in these, so damped steps find its only maximum.
    """
    count = wins.shape[1]
    wins = wins + prior / 2 * (1 - np.eye(count))
    found = np.zeros((len(wins), count + 1))
    found[:, -1] = np.where(ties.sum((1, 2)) > 0, 0.0, _LOWEST_TIE)
    fixed = ties.sum((1, 2)) == 0
    total = wins + wins.transpose(0, 2, 1) + ties
    for _ in range(_STEPS):
        gradient, hessian = _derivatives(found, wins, ties, total)
        gradient[fixed, -1], hessian[fixed, -1, :], hessian[fixed, :, -1], hessian[fixed, -1, -1] = 0, 0, 0, 1
        hessian[:, :count, :count] += 1.0 / count
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-300))
        found += step
        if np.abs(step).max() < 1e-10:
            break
    found[:, :count] -= found[:, :count].mean(1, keepdims=True)
    return found


def _derivatives(at: Array, wins: Array, ties: Array, total: Array) -> tuple[Array, Array]:
    """Return the gradient [R, M + 1] of the log-likelihood and minus its Hessian [R, M + 1, M + 1]."""
    count = wins.shape[1]
    half = (at[:, :count, None] - at[:, None, :count]) / 2
    tie = np.exp(at[:, -1])[:, None, None]
    norm = np.exp(half) + np.exp(-half) + tie
    win, lose, even = np.exp(half) / norm, np.exp(-half) / norm, tie / norm
    net = wins - wins.transpose(0, 2, 1)
    # In half-differences d = (a_i - a_j) / 2 the log-likelihood of a pair is net d + ties log nu - total log norm.
    slope = (net - total * (win - lose)) / 2
    curve = total * ((win + lose) - (win - lose) ** 2) / 4
    mixed = -total * (win - lose) * even / 2
    off = ~np.eye(count, dtype=bool)
    gradient, hessian = np.zeros_like(at), np.zeros((len(at), count + 1, count + 1))
    gradient[:, :count] = (slope * off).sum(2)
    gradient[:, -1] = ((ties - total * even) * off).sum((1, 2)) / 2
    hessian[:, :count, :count] = -curve * off
    hessian[:, range(count), range(count)] = (curve * off).sum(2)
    hessian[:, :count, -1] = hessian[:, -1, :count] = (mixed * off).sum(2)
    hessian[:, -1, -1] = (total * even * (1 - even) * off).sum((1, 2)) / 2 + 1e-12
    return gradient, hessian


def _interval(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def _strengths(names: Sequence[str], values: Array, spread: Array) -> list[Strength]:
    best, last = (
        1 + (spread[:, None, :] - spread[:, :, None] > least).sum(2) - own for least, own in ((_SAME, 0), (-_SAME, 1))
    )
    order = sorted(range(len(names)), key=lambda i: (-values[i], names[i]))
    made = []
    for rank, i in enumerate(order, 1):
        low = np.quantile(best[:, i], 0.025, method="nearest")
        high = np.quantile(last[:, i], 0.975, method="nearest")
        made.append(Strength(names[i], float(values[i]), _interval(spread[:, i]), rank, (int(low), int(high))))
    return made
