"""What a round of drawing keeps of its pictures, and what of them is trained on at once.

Law of this file: plain tensors; a rollout is on the CPU, a part on the model's device.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from t2ialign.models.conditioning import Conditioning
from t2ialign.trainers.prompts import PromptBatch


@dataclass(frozen=True)
class Rollout:
    """B chains of one batch, on the CPU.

    Attributes:
        batch: Their prompts.
        states: `[T + 1, B, C, h, w]`.
        probabilities: Log-probability of each step when it was drawn, `[T, B]`.
        chosen: Steps that are trained on, `[B, K]`.
        told: What the UNet was told.
        scores: `[B]`, NaN where there is none.
        advantages: `[B]`, once the round is complete.
    """

    batch: PromptBatch
    states: Tensor
    probabilities: Tensor
    chosen: Tensor
    told: Conditioning
    scores: Tensor
    advantages: Tensor


@dataclass(frozen=True)
class Part:
    """One step of each of B chains, on the model's device.

    Attributes:
        steps: Number of the step in its chain, `[B]`.
        before, after: States, `[B, C, h, w]`.
        probabilities: Log-probability when it was drawn, `[B]`.
        told: What the UNet was told.
        scores: `[B]`.
        advantages: `[B]`.
    """

    steps: Tensor
    before: Tensor
    after: Tensor
    probabilities: Tensor
    told: Conditioning
    scores: Tensor
    advantages: Tensor
