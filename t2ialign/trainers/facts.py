"""What an objective needs to know of each pair beside its pictures, from the columns of the pair set.

Law of this file: what is missing is said before a model is loaded, with the row and the mend; nothing is
made up for a pair that has no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2ialign.data.pairs import PairDataset
from t2ialign.errors import DataError


def preference_probs(pairs: PairDataset, temperature: float | None) -> Tensor:
    """Return P(chosen is preferred) of each pair, `[N]` float32.

    Args:
        pairs: With the column `preference_prob`, or with `margin` and a temperature.
        temperature: Makes a probability of a margin where a pair has no other: `sigmoid(margin / temperature)`.

    Raises:
        DataError: naming the first pair that has neither.
    """
    margins = pairs.column("margin") if temperature is not None else [None] * len(pairs)
    found = []
    for index, (share, margin) in enumerate(zip(pairs.column("preference_prob"), margins, strict=True)):
        if share is None and margin is not None:
            share = float(torch.sigmoid(torch.tensor(margin / temperature, dtype=torch.float64)))
        if share is None:
            raise DataError(
                f"{pairs.name} row {pairs.row(index)} has no preference_prob"
                + (" and no margin" if temperature is not None else "")
                + "; give it one (votes, or a score gap), or make it of the margin with --soft.temperature"
            )
        found.append(float(share))
    return torch.tensor(found, dtype=torch.float32)


def margins(pairs: PairDataset) -> Tensor:
    """Return the margin of each pair, `[N]` float32.

    Raises:
        DataError: naming the first pair without one.
    """
    return torch.tensor(_numbers(pairs, "margin"), dtype=torch.float32)


def _numbers(pairs: PairDataset, column: str) -> list[float]:
    values = pairs.column(column)
    for index, value in enumerate(values):
        if value is None:
            raise DataError(
                f"{pairs.name} row {pairs.row(index)} has no {column}; write the column {column!r} for every pair"
            )
    return [float(value) for value in values]


def groups(pairs: PairDataset, column: str) -> tuple[Tensor, list[str]]:
    """Return the number of each pair's group, `[N]` int64, and the names of the groups in order.

    Args:
        pairs: The set.
        column: Where the groups stand, for instance `group` or `user_id`.

    Raises:
        DataError: naming the first pair without a group, or where there is only one group.
    """
    values = pairs.column(column)
    for index, value in enumerate(values):
        if value is None:
            raise DataError(
                f"{pairs.name} row {pairs.row(index)} has no {column}; give every pair one, or name another column"
            )
    names = sorted({str(value) for value in values})
    if len(names) < 2:
        raise DataError(f"{pairs.name} has one {column} alone, {names[0]!r}; group robustness needs at least two")
    number = {name: position for position, name in enumerate(names)}
    return torch.tensor([number[str(value)] for value in values]), names


def score_gaps(pairs: PairDataset, names: Sequence[str]) -> Tensor:
    """Return chosen minus rejected of each named score, in units of that score's deviation over the set, `[N, K]`.

    Args:
        pairs: With the columns `scores_chosen` and `scores_rejected`.
        names: Of the scores.

    Raises:
        DataError: naming the first pair without one of them, or a score that is the same everywhere.
    """
    table = np.empty((len(pairs), 2, len(names)))
    for side, column in enumerate(("scores_chosen", "scores_rejected")):
        for index, scores in enumerate(pairs.column(column)):
            table[index, side] = _named(scores or {}, names, f"{pairs.name} row {pairs.row(index)}, {column}")
    spread = table.reshape(-1, len(names)).std(axis=0)
    for name, deviation in zip(names, spread, strict=True):
        if not deviation > 0:
            raise DataError(f"{pairs.name}: the score {name!r} is the same for every picture; leave it out")
    return torch.from_numpy((table[:, 0] - table[:, 1]) / spread).float()


def _named(scores: Mapping[str, Any], names: Sequence[str], where: str) -> list[float]:
    for name in names:
        if name not in scores:
            known = ", ".join(sorted(scores)) or "none"
            raise DataError(f"{where}: no score {name!r} (there are: {known}); name one that every picture has")
    return [float(scores[name]) for name in names]


def curriculum(pairs: PairDataset, stages: int) -> list[NDArray[np.int64]] | None:
    """Return the pairs in `stages` groups of equal size, those with the largest margins first (Curry-DPO).

    Args:
        pairs: With the column `margin`.
        stages: 1 is no curriculum, None.

    Raises:
        DataError: naming the first pair without a margin, or where there are fewer pairs than stages.
    """
    if stages == 1:
        return None
    if len(pairs) < stages:
        raise DataError(f"{pairs.name} has {len(pairs)} pairs, too few for a curriculum of {stages} stages")
    order = np.argsort(-np.array(_numbers(pairs, "margin")), kind="stable")
    return [np.sort(part) for part in np.array_split(order, stages)]
