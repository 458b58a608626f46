"""Encoded pictures that a test makes up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t2ialign.trainers.caches.latents import LatentCache
from t2ialign.trainers.caches.store import Store

CENTRE = ((0.5, 0.5), False)


def latents_of(mean: Tensor, std: Tensor) -> LatentCache:
    """A cache in memory of N entries of S sides, `[N, S, C, h, w]`, neither scaled nor shifted."""
    store, keys = Store(), []
    for number, (one, other) in enumerate(zip(mean.flatten(0, 1), std.flatten(0, 1), strict=True)):
        keys.append(number.to_bytes(16, "big"))
        store.add({keys[-1]: {"mean": one, "std": other}})
    count, sides, _, height, width = mean.shape
    sizes = np.broadcast_to(np.array([8 * height, 8 * width], dtype=np.int32), (count, sides, 2))
    return LatentCache(store.rows, store.places(keys).reshape(count, sides, 1), sizes, {CENTRE: 0}, 0.0, 1.0)


def of_value(count: int, sides: int, mean: float, std: float) -> LatentCache:
    """A cache of equal latents of 4 x 8 x 8."""
    shape = (count, sides, 4, 8, 8)
    return latents_of(torch.full(shape, mean), torch.full(shape, std))
