"""What a scorer learns from: pairs of pictures with a label, as differences of scores.

    loss of a pair     KL(y || softmax(s_1, s_2)) = CE(y, sigmoid(s_1 - s_2)) - H(y)
    loss of an example mean over its pairs
    loss of a step     weighted mean over all examples of the step

With y = 1 a pair's loss is Bradley-Terry's -log sigmoid(s_1 - s_2); with y = 1/2 it is PickScore's for a tie, the
cross entropy plus log 1/2 (`clip_criterion.py:100-106`), zero at equal scores. An example is one pair, or a ranking
with all its untied pairs; weighing a ranking by its number of pairs gives ImageReward's mean over pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def pair_loss(margin: Tensor, target: Tensor) -> Tensor:
    """Return the loss of each pair, `[P]`, at least 0.

    Args:
        margin: s_1 - s_2, `[P]` float32.
        target: Probability that the first is preferred, `[P]` in [0, 1].
    """
    cross = functional.binary_cross_entropy_with_logits(margin, target, reduction="none")
    entropy = torch.special.entr(target) + torch.special.entr(1 - target)
    loss: Tensor = cross - entropy
    return loss


def example_means(values: Tensor, example: Tensor, count: int) -> Tensor:
    """Average values over the pairs of each example, `[B]`.

    Args:
        values: `[P]`.
        example: Number of the example that each pair belongs to, `[P]` int64; every example has a pair.
        count: B.
    """
    sums = values.new_zeros(count).index_add(0, example, values)
    sizes = values.new_zeros(count).index_add(0, example, torch.ones_like(values))
    return sums / sizes


def weighted_mean(values: Tensor, weights: Tensor, step: Tensor | None) -> Tensor:
    """Return this batch's share of the weighted mean over the step.

    The loop averages the batches of a step alike, so the share is scaled by their number: the mean over batches is
    `sum(w x) / sum(w)` over all examples, however they are split.

    Args:
        values: `[B]`.
        weights: `[B]`, above 0.
        step: Weights of all examples of the step, `[N]`, or None where the batch is the whole step.
    """
    every = weights if step is None else step
    batches = len(every) / len(weights)
    return (weights * values).sum() * batches / every.sum()
