"""What the order of showing does: whether verdicts survive a swap, and whether ratings depend on the place.

Law of this file: it needs the annotator's own answers alone; prompts in which a rating is missing are left out of a
test and counted, and an order that was always the same tests nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from t2ialign.annotation.annotations import Annotation
from t2ialign.eval.agreement.comparing import by_prompt
from t2ialign.eval.agreement.resampling import Block, Figure, estimates, place_test
from t2ialign.eval.agreement.sides import AGGREGATE, fold
from t2ialign.eval.statistics import Array

Found = dict[str, Any]


def marks_of(line: Annotation, aspect: str, aspects: Sequence[str]) -> Array | None:
    """Return the ratings of a line's pictures, [k]; `None` where one is missing.

    Args:
        line: The line.
        aspect: The aspect, or the aggregate.
        aspects: All aspects, whose mean the aggregate is.
    """
    wanted = aspects if aspect == AGGREGATE else [aspect]
    given = [line.ratings.get(name) for name in wanted]
    if any(marks is None or None in marks for marks in given):
        return None
    return np.asarray(np.array(given, dtype=np.float64).mean(axis=0))


def _passes(lines: Sequence[Annotation]) -> list[list[Annotation]]:
    """Gather the passes over the same pictures by the same annotator."""
    found: dict[tuple[str, str, tuple[str, ...]], dict[int, Annotation]] = defaultdict(dict)
    for line in lines:
        found[line.annotator, line.prompt_id, tuple(line.images)][line.order] = line
    return [[passes[order] for order in sorted(passes)] for passes in found.values()]


def swap_consistency(
    lines: Sequence[Annotation], aspect: str, aspects: Sequence[str], resamples: int, seed: int
) -> Found | None:
    """Return how often the verdict on two pictures is the same when they are shown the other way round.

    Args:
        lines: All lines of an annotator or of several.
        aspect: An aspect or the aggregate.
        aspects: All aspects.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Returns:
        `n_pairs`, `n_prompts`, `consistent` (the same verdict, ties included), `flipped` (the opposite one),
        `to_first` (flips in which the picture shown first won both times) and `to_last`, each a count, and
        `consistency` and `flip_rate` with intervals; `None` where no two pictures were shown in both orders.
    """
    rows: list[list[float]] = []
    prompts: list[str] = []
    for passes in _passes(lines):
        rated = [(np.argsort(p.permutation), marks_of(p, aspect, aspects)) for p in passes[:2]]
        if len(rated) < 2 or rated[0][1] is None or rated[1][1] is None:
            continue
        (places, marks), (places_again, marks_again) = rated
        assert marks is not None
        assert marks_again is not None
        for i, j in combinations(range(len(places)), 2):
            if (places[i] < places[j]) == (places_again[i] < places_again[j]):
                continue
            one, two = _sign(marks[i] - marks[j]), _sign(marks_again[i] - marks_again[j])
            flipped = one * two < 0
            first_won = flipped and (one > 0) == (places[i] < places[j])
            rows.append([1, one == two, flipped, first_won, flipped and not first_won])
            prompts.append(fold(passes[0].prompt))
    if not rows:
        return None
    sums = by_prompt(np.array(rows, dtype=np.float64), prompts)
    total = sums.sum(axis=0).astype(int).tolist()
    found: Found = {"n_pairs": total[0], "n_prompts": len(sums)}
    found |= dict(zip(("consistent", "flipped", "to_first", "to_last"), total[1:], strict=True))
    rates: dict[str, Figure] = {
        "consistency": lambda t: t[..., 1] / t[..., 0],
        "flip_rate": lambda t: t[..., 2] / t[..., 0],
    }
    return found | estimates(sums, rates, resamples, seed)


def _sign(margin: float) -> int:
    return 0 if abs(margin) < 1e-9 else (1 if margin > 0 else -1)


def position_bias(
    lines: Sequence[Annotation], aspect: str, aspects: Sequence[str], resamples: int, seed: int
) -> Found | None:
    """Return what the place in which a picture was shown does to its rating.

    Args:
        lines: All lines of an annotator or of several.
        aspect: An aspect or the aggregate.
        aspects: All aspects.
        resamples: Of the bootstrap and of the test.
        seed: Of both.

    Returns:
        `n_prompts`, `n_pictures`, `n_incomplete` (passes with a missing rating, left out), `slope` (rating points a
        place, within prompts), `by_place` (mean rating less the mean of its prompt and pass, by place shown), `p` (see
        `resampling.place_test`; `None` where it can not be tested) and `reason` why not. `None` where nothing is left.
    """
    blocks: list[Block] = []
    prompts: list[str] = []
    incomplete = 0
    for passes in _passes(lines):
        rated = [(line.permutation, marks_of(line, aspect, aspects)) for line in passes if len(line.images) > 1]
        whole = [(shown, marks) for shown, marks in rated if marks is not None]
        incomplete += len(rated) - len(whole)
        if whole:
            blocks.append((np.array([m for _, m in whole]), np.array([s for s, _ in whole], dtype=np.int64)))
            prompts.append(fold(passes[0].prompt))
    if not blocks:
        return None
    width = max(ratings.shape[1] for ratings, _ in blocks)
    sums = by_prompt(np.array([_place_sums(*block, width) for block in blocks]), prompts)
    reason = _untestable(blocks)
    figures: dict[str, Figure] = {"slope": partial(_ratio, above=0, below=1)}
    figures |= {str(j): partial(_ratio, above=2 + j, below=2 + width + j) for j in range(width)}
    found = estimates(sums, figures, resamples, seed)
    return {
        "n_prompts": len(sums),
        "n_pictures": sum(ratings.shape[1] for ratings, _ in blocks),
        "n_incomplete": incomplete,
        "slope": found["slope"],
        "by_place": [{"place": j + 1, "n": int(sums[:, 2 + width + j].sum())} | found[str(j)] for j in range(width)],
        "p": None if reason else place_test(blocks, resamples, seed),
        "reason": reason,
    }


def _place_sums(ratings: Array, shown: np.ndarray[Any, np.dtype[np.int64]], width: int) -> Array:
    """Return [2 + 2 width]: products and squares for the slope, then sums and counts of centred ratings by place."""
    k = ratings.shape[1]
    centred = np.take_along_axis(ratings - ratings.mean(axis=1, keepdims=True), shown, axis=1)
    place = np.arange(k) - (k - 1) / 2
    row = np.zeros(2 + 2 * width)
    row[0], row[1] = (centred * place).sum(), len(ratings) * (place**2).sum()
    row[2 : 2 + k], row[2 + width : 2 + width + k] = centred.sum(axis=0), len(ratings)
    return row


def _ratio(totals: Array, above: int, below: int) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(totals[..., below] > 0, totals[..., above] / totals[..., below], np.nan)


def _untestable(blocks: Sequence[Block]) -> str:
    """Say why place and picture can not be told apart, or nothing."""
    if len(blocks) < 2:
        return "a single prompt"
    if len({(shown.shape, shown.tobytes()) for _, shown in blocks}) == len({b[1].shape for b in blocks}):
        return "the pictures of every prompt were shown in the same order"
    if not any(np.ptp(ratings, axis=1).any() for ratings, _ in blocks):
        return "all pictures of a prompt have the same rating"
    return ""
