"""Diversity at three levels: within a prompt, of the whole set, and of prompt means.

Within a prompt it is the diversity of seeds, what a user sees who asks for several pictures. Of the set, prompts and
seeds together. Of the means of prompts, what prompts alone bring about. A model whose set is diverse because its
prompts are may still draw one picture a prompt.

Law of this file: within a prompt every prompt has the same number of pictures, since 8 pictures can not score above 8.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t2ialign.eval.statistics import Interval, clustered_bootstrap
from t2ialign.eval.vendi.intervals import VendiEstimate, rows_by, vendi_interval
from t2ialign.eval.vendi.items import Data, Items, Rows, items_of
from t2ialign.eval.vendi.kernels import Cosine, Gaussian, Kernel, RandomFeatures, as_features, unit_rows
from t2ialign.eval.vendi.spectrum import Array, Order, order_name, orders_of, score_of


@dataclass(frozen=True)
class WithinPrompts:
    """The mean over prompts of a Vendi score of each prompt's pictures.

    Attributes:
        scores: Order q to the mean, between 1 and `pictures`.
        intervals: Order q to a bootstrap interval over prompts (BCa); `None` for a single prompt.
        per_prompt: Order q to the score of each prompt, [P].
        prompts: Prompt ids in that order.
        pictures: Pictures of each prompt that were used.
    """

    scores: dict[float, float]
    intervals: dict[float, Interval | None]
    per_prompt: dict[float, Array]
    prompts: tuple[Hashable, ...]
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, like that of `VendiEstimate`; the prompts' own scores under "per_prompt"."""
        rows = []
        for order, score in self.scores.items():
            interval = self.intervals[order]
            entry = {"q": order_name(order), "value": score, "interval": None if interval is None else list(interval)}
            rows.append(entry)
        per_prompt = [
            {"prompt": prompt, **{order_name(order): float(each[i]) for order, each in self.per_prompt.items()}}
            for i, prompt in enumerate(self.prompts)
        ]
        return {"scores": rows, "prompts": len(self.prompts), "pictures": self.pictures, "per_prompt": per_prompt}


@dataclass(frozen=True)
class VendiLevels:
    """Diversity at three levels.

    Attributes:
        within: Of the pictures of a prompt.
        whole: Of the set.
        means: Of the mean features of prompts; `None` under kernels of labels and given matrices, which have no mean.
    """

    within: WithinPrompts
    whole: VendiEstimate
    means: VendiEstimate | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: "within", "set" and "means"."""
        means = None if self.means is None else self.means.to_dict()
        return {"within": self.within.to_dict(), "set": self.whole.to_dict(), "means": means}


def vendi_levels(
    data: Data,
    prompts: Sequence[Hashable],
    q: Order | Sequence[Order] = (1.0, 2.0),
    *,
    kernel: Kernel = "cosine",
    pictures: int | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> VendiLevels:
    """Return the diversity within prompts, of the set and of prompt means, with 95 % intervals over prompts.

    Args:
        data: As for `vendi_interval`.
        prompts: Prompt id of each item, [n].
        q: Order or orders.
        kernel: As for `vendi_score`.
        pictures: Pictures of each prompt to use, the first ones; all if `None`, and then every prompt needs as many.
        resamples: Number of subsamples of the intervals of set and means.
        seed: Of all draws.

    Raises:
        ValueError: If prompts have different numbers of pictures, or fewer than `pictures`.
    """
    items, orders = items_of(data, kernel), orders_of(q)
    n = items.n
    if n is None or len(prompts) != n:
        raise ValueError(
            f"{len(prompts)} prompts for {n or 'a stream of'} items; give one array and each item's prompt"
        )
    rows = equal_counts(rows_by(prompts, n), pictures)
    kept = np.concatenate(list(rows.values()))
    within = _within(items, rows, orders, seed)
    names = [prompts[i] for i in kept]
    chosen = _rows_of(data, kept, kernel)
    whole = vendi_interval(chosen, names, orders, kernel=kernel, resamples=resamples, seed=seed)
    means = None
    if isinstance(kernel, Cosine | Gaussian | RandomFeatures) or kernel == "cosine":
        features = as_features(data)  # type: ignore[arg-type]
        prepared = unit_rows(features) if isinstance(kernel, Cosine) or kernel == "cosine" else features
        averages = np.stack([np.asarray(prepared[part], np.float64).mean(axis=0) for part in rows.values()])
        means = vendi_interval(averages, None, orders, kernel=kernel, resamples=resamples, seed=seed)
    return VendiLevels(within, whole, means)


def vendi_within(
    data: Data,
    prompts: Sequence[Hashable],
    q: Order | Sequence[Order] = (1.0, 2.0),
    *,
    kernel: Kernel = "cosine",
    pictures: int | None = None,
    seed: int = 0,
) -> WithinPrompts:
    """Return the first level alone, the diversity within prompts; arguments as of `vendi_levels`."""
    items = items_of(data, kernel)
    if items.n is None or len(prompts) != items.n:
        raise ValueError(f"{len(prompts)} prompts for {items.n or 'a stream of'} items; give each item's prompt")
    return _within(items, equal_counts(rows_by(prompts, items.n), pictures), orders_of(q), seed)


def equal_counts(rows: dict[Hashable, Rows], pictures: int | None) -> dict[Hashable, Rows]:
    """Cut every prompt to the same number of pictures.

    Raises:
        ValueError: If a prompt has too few, or numbers differ where none was asked for.
    """
    counts = {name: len(part) for name, part in rows.items()}
    fewest = min(counts, key=lambda name: counts[name])
    if pictures is None:
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"prompts have from {counts[fewest]} to {max(counts.values())} pictures, and Vendi scores of "
                f"different numbers are not comparable: ask for pictures={counts[fewest]}, the first of each prompt"
            )
        pictures = counts[fewest]
    if pictures < 1 or counts[fewest] < pictures:
        raise ValueError(f"{pictures} pictures a prompt were asked for; prompt {fewest!r} has {counts[fewest]}")
    return {name: part[:pictures] for name, part in rows.items()}


def _within(items: Items, rows: dict[Hashable, Rows], orders: Sequence[float], seed: int) -> WithinPrompts:
    found = np.empty((len(rows), len(orders)))
    for number, part in enumerate(rows.values()):
        values = items.spectrum(None, part).values
        found[number] = [score_of(values, order) for order in orders]
    per_prompt = {order: found[:, column] for column, order in enumerate(orders)}
    intervals: dict[float, Interval | None] = dict.fromkeys(orders)
    if len(rows) > 1:
        intervals = {order: clustered_bootstrap(each, seed=seed) for order, each in per_prompt.items()}
    return WithinPrompts(
        scores={order: float(each.mean()) for order, each in per_prompt.items()},
        intervals=intervals,
        per_prompt=per_prompt,
        prompts=tuple(rows),
        pictures=len(next(iter(rows.values()))),
    )


def _rows_of(data: Any, rows: Rows, kernel: Kernel) -> Any:
    """Some rows of data, whatever they are."""
    if kernel == "precomputed":
        return np.asarray(data)[np.ix_(rows, rows)]
    if hasattr(data, "shape"):
        return data[rows]
    return [data[i] for i in rows]
