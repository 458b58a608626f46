"""Intervals and tests over prompts for figures that are functions of sums over prompts.

Law of this file: a prompt is drawn, flipped or moved whole; every draw has a seed; a resample in which the figure does
not exist is left out, and an interval of which more than half is so does not exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Array

Figure = Callable[[Array], Any]
"""From sums, [..., F], to the figure, [...]; NaN where it does not exist."""

_CHUNK = 4_000_000
_ALL_ORDERS = 6
"""Up to so many pictures a prompt all their orders are drawn from; beyond, their rotations, which are a group too."""


def estimate(sums: Array, figure: Figure, resamples: int, seed: int) -> dict[str, Any]:
    """Return one figure with its interval; see `estimates`."""
    return estimates(sums, {"": figure}, resamples, seed)[""]


def estimates(sums: Array, figures: Mapping[str, Figure], resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return figures with their percentile bootstrap intervals over prompts, all from the same draws.

    Args:
        sums: A row for each prompt, [P, F].
        figures: Functions of the sum of rows.
        resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        For each `value` and `ci95` (a list of two); `None` where they do not exist, as the interval with fewer than 2
        prompts.
    """
    draws: dict[str, list[Array]] = {name: [] for name in figures}
    for weights in _weights(len(sums), resamples, seed) if len(sums) > 1 else ():
        totals = weights @ sums
        for name, figure in figures.items():
            draws[name].append(np.asarray(figure(totals)))
    return {name: _described(float(figure(sums.sum(axis=0))), draws[name]) for name, figure in figures.items()}


def _described(value: float, draws: list[Array]) -> dict[str, Any]:
    if np.isnan(value) or not draws:
        return {"value": None if np.isnan(value) else value, "ci95": None}
    drawn = np.concatenate(draws)
    known = drawn[~np.isnan(drawn)]
    if 2 * len(known) < len(drawn):
        return {"value": value, "ci95": None}
    low, high = np.quantile(known, (0.025, 0.975))
    return {"value": value, "ci95": [float(low), float(high)]}


def _weights(prompts: int, resamples: int, seed: int) -> Iterator[Array]:
    """Draw how often each prompt comes in each resample, [rows, P], in chunks."""
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK // prompts)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        picked = generator.integers(0, prompts, size=(rows, prompts), dtype=np.int64)
        picked += np.arange(rows)[:, None] * prompts
        yield np.bincount(picked.ravel(), minlength=rows * prompts).reshape(rows, prompts).astype(np.float64)


def sign_flip_test(parts: Array, resamples: int, seed: int) -> float:
    """Test whether the sum of prompts' parts is 0, by turning the sign of each prompt's part at random; two-sided.

    Args:
        parts: One number for each prompt, [P], symmetric about 0 if there is nothing to find.
        resamples: Draws; the p value is at least 1 / (1 + resamples).
        seed: Of the draws.
    """
    parts = parts[parts != 0]
    if not len(parts):
        return 1.0
    generator = np.random.default_rng(seed)
    seen, least = 0, abs(parts.sum()) * (1 - 1e-12)
    size = max(1, _CHUNK // len(parts))
    for start in range(0, resamples, size):
        signs = generator.integers(0, 2, size=(min(size, resamples - start), len(parts)), dtype=np.int8) * 2.0 - 1
        seen += int((np.abs(signs @ parts) >= least).sum())
    return (1 + seen) / (1 + resamples)


def shuffle_test(x: Array, y: Array, resamples: int, seed: int) -> float:
    """Test whether two numbers of each prompt are correlated, by dealing the first out anew; two-sided.

    Args:
        x: [P].
        y: [P].
        resamples: Draws.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    x, y = x - x.mean(), y - y.mean()
    seen, least = 0, abs(float(x @ y)) * (1 - 1e-12)
    size = max(1, _CHUNK // len(x))
    for start in range(0, resamples, size):
        dealt = generator.permuted(np.broadcast_to(x, (min(size, resamples - start), len(x))), axis=1)
        seen += int((np.abs(dealt @ y) >= least).sum())
    return (1 + seen) / (1 + resamples)


Block = tuple[Array, npt.NDArray[np.int64]]
"""A prompt: ratings [passes, k] by picture, and which picture was shown at each place, [passes, k]."""


def place_test(blocks: Sequence[Block], resamples: int, seed: int) -> float:
    """Test whether ratings depend on the place in which a picture was shown.

    Where the order was random and place means nothing, any other order of a prompt's pictures was as likely. The
    pictures of each prompt are dealt out anew, the same way in all of its passes, and the statistic is the spread of
    the places' mean ratings, each prompt and pass centred: `sum over places n_j m_j^2`.

    Args:
        blocks: See `Block`.
        resamples: Draws.
        seed: Of the draws.

    Returns:
        The p value; it is exact as a Monte Carlo test.
    """
    width = max(ratings.shape[1] for ratings, _ in blocks)
    counts, groups = np.zeros(width), []
    for k in sorted({ratings.shape[1] for ratings, _ in blocks}):
        mine = [block for block in blocks if block[0].shape[1] == k]
        groups.append(np.stack([_by_order(*block) for block in mine]))
        counts[:k] += sum(len(ratings) for ratings, _ in mine)
    observed = _spread(sum((_padded(group[:, 0].sum(axis=0), width) for group in groups), np.zeros(width)), counts)
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK // (len(blocks) * width))
    seen = 0
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        sums = np.zeros((rows, width))
        for group in groups:
            picked = generator.integers(0, group.shape[1], size=(rows, len(group)))
            sums += _padded(group[np.arange(len(group)), picked].sum(axis=1), width)
        seen += int((_spread(sums, counts) >= observed * (1 - 1e-12)).sum())
    return (1 + seen) / (1 + resamples)


def _by_order(ratings: Array, shown: npt.NDArray[np.int64]) -> Array:
    """Return the sum over passes of the centred rating at each place, for each order of the pictures; [orders, k].

    The first order is the one that was.
    """
    k = ratings.shape[1]
    if k <= _ALL_ORDERS:
        orders = np.array(list(itertools.permutations(range(k))))
    else:
        orders = (np.arange(k)[:, None] + np.arange(k)) % k
    centred = ratings - ratings.mean(axis=1, keepdims=True)
    total = np.zeros(orders.shape)
    for marks, places in zip(centred, shown, strict=True):
        total += marks[orders[:, places]]
    return total


def _padded(values: Array, width: int) -> Array:
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])])


def _spread(sums: Array, counts: Array) -> Any:
    return (sums**2 / np.maximum(counts, 1)).sum(axis=-1)
