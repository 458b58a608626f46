"""Batches of drawings and captions for the build, made on the fly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from t2ialign.mini.world import INVERSE, Spec, describe, forget, render, sample, turn_around


def to_tensor(pictures: np.ndarray) -> Tensor:
    """Turn uint8 pictures [B, H, W, 3] into float tensors [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def draw(rng: np.random.Generator, count: int) -> tuple[list[Spec], np.ndarray]:
    """Draw `count` pictures of the world: their specifications and uint8 [B, 64, 64, 3]."""
    specs = [sample(rng) for _ in range(count)]
    return specs, np.stack([np.asarray(render(s)) for s in specs])


def garble(spec: Spec, rng: np.random.Generator, share: float) -> Spec:
    """Tell a scene of two objects wrongly in a share of the cases, as captions from the web do.

    Half of the errors turn the relation round, the other half exchange the two colours.
    """
    if len(spec.things) != 2 or spec.relation is None or rng.random() >= share:
        return spec
    first, second = spec.things
    if rng.random() < 0.5:
        return replace(spec, relation=INVERSE[spec.relation])
    return replace(spec, things=(replace(first, color=second.color), replace(second, color=first.color)))


def caption(spec: Spec, rng: np.random.Generator) -> tuple[str, Spec]:
    """Tell a picture in words that leave some of it out, and return what they still say."""
    told = forget(spec, rng)
    if rng.random() < 0.5:
        told = turn_around(told)
    return describe(told), told


def crop(pictures: Tensor, rng: np.random.Generator, side: int, multiple: int = 8) -> Tensor:
    """Cut a square of `side` from each picture, its corner on a multiple of `multiple` pixels."""
    places = (pictures.shape[-1] - side) // multiple + 1
    corners = rng.integers(places, size=(len(pictures), 2)) * multiple
    return torch.stack([p[:, y : y + side, x : x + side] for p, (y, x) in zip(pictures, corners, strict=True)])
