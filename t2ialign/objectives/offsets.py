"""Offsets: what is taken off the margin of each pair, `[B]`, from what else is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from t2ialign.objectives.objective import BatchInfo

SHAPES = ("linear", "log")


def no_offset(batch: BatchInfo) -> float:
    """Shift no margin."""
    return 0.0


@dataclass(frozen=True)
class Strength:
    """ODPO (arXiv 2402.10571): a pair preferred by more must have a larger margin: `scale * f(gap)`.

    Attributes:
        scale: a; its unit is that of the margin over that of the gap.
        shape: f: "linear", or "log" for log(1 + gap) (gaps below 0 count as 0).
    """

    scale: float = 1.0
    shape: str = "linear"

    needs = ("gap",)

    def __post_init__(self) -> None:
        """Refuse a shape that is none of the two (ValueError)."""
        if self.shape not in SHAPES:
            raise ValueError(f"shape is {self.shape!r}; choose from {', '.join(SHAPES)}")

    def __call__(self, batch: BatchInfo) -> Tensor:
        """Return the offset `[B]`; ValueError without `gap`."""
        gap = batch.known("gap")
        return self.scale * (torch.log1p(gap.clamp(min=0)) if self.shape == "log" else gap)


@dataclass(frozen=True)
class RewardGap:
    """MODPO (arXiv 2310.03708): the gap in the other objectives' rewards, over the trained one's weight.

    Attributes:
        weights: w of each other objective, in the order of the columns of `score_gaps`.
        own: w_k of the objective that the labels stand for.
    """

    weights: tuple[float, ...]
    own: float

    needs = ("score_gaps",)

    def __call__(self, batch: BatchInfo) -> Tensor:
        """Return the offset `[B]`; ValueError without `score_gaps` `[B, K]`."""
        gaps = batch.known("score_gaps")
        weights = torch.tensor(self.weights, dtype=gaps.dtype, device=gaps.device)
        return gaps @ weights / self.own
