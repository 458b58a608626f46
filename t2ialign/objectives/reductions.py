"""Reductions: one number from the losses of the pairs, and the anchor, a number from the errors themselves.

The losses of a step come in parts (batches that are added up, processes). Where the weight of a pair depends on the
other pairs of the step, a reduction is given the losses of all of them (`BatchInfo.whole_step`) and returns, for its
part, a number whose gradient is the part's share of the whole step's and whose value is the whole step's. So the mean
over parts of equal size is right, however a step is split.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from t2ialign.objectives.objective import BatchInfo, Errors


def mean(losses: Tensor, batch: BatchInfo) -> Tensor:
    """Return the plain mean of the losses `[B]`."""
    return losses.mean()


def _valued(weighted: Tensor, value: Tensor) -> Tensor:
    """Return a scalar with the gradient of `weighted` and the value of `value`."""
    return weighted + (value - weighted).detach()


@dataclass(frozen=True)
class LogMeanExp:
    """A soft extreme of the losses over the step: `t * log mean exp(loss / t)`.

    t = -temperature is Dr.DPO (arXiv 2407.07880), `-b log mean exp(-loss / b)`, which weighs pairs that the
    model finds unlikely less: robust to wrong labels. t = +temperature is the worst case in a KL ball, which weighs
    them more.

    Attributes:
        temperature: b or tau, above 0; large values tend to the plain mean.
        pessimistic: Whether hard pairs count more (the KL ball) or less (Dr.DPO).
    """

    temperature: float = 1.0
    pessimistic: bool = False

    surveys = True

    def __call__(self, losses: Tensor, batch: BatchInfo) -> Tensor:
        """Return a scalar: this part's gradient, the whole step's value."""
        t = self.temperature if self.pessimistic else -self.temperature
        everyone = batch.whole_step().loss
        total = torch.logsumexp(everyone / t, dim=0)
        value = t * (total - math.log(len(everyone)))
        weights = torch.exp(losses.detach() / t - total) * len(everyone)
        return _valued((weights * losses).mean(), value)


@dataclass(frozen=True)
class GroupRobust:
    """Group-robust preference optimization (arXiv 2405.20304): the worst group's loss, by exponentiated gradient.

    `sum_g a_g L_g` with `L_g = sum_{i in g} loss_i / (N p_g)`, where N is the pairs of the step and p_g the group's
    share of the whole set: in the mean over steps the mean loss of the group, however rare it is. Before each step
    `a_g <- a_g exp(rate * L_g) / Z`. a is the state of the objective: it comes with the batch, and `update` returns
    the next one.

    Attributes:
        shares: p_g of each group, above 0, together 1.
        rate: Step of the ascent, above 0; 0.01 to 0.1 is usual.
    """

    shares: tuple[float, ...]
    rate: float = 0.05

    needs = ("group",)
    surveys = True

    def start(self) -> Tensor:
        """Return the state at the beginning: equal weights `[G]`."""
        return torch.full((len(self.shares),), 1.0 / len(self.shares))

    def update(self, batch: BatchInfo) -> Tensor:
        """Return the weights `[G]` after the ascent on this step's group losses."""
        sums, _ = _group_sums(batch, len(self.shares))
        before = self.start() if batch.state is None else batch.state
        return torch.softmax(torch.log(before.to(sums)) + self.rate * sums * self._importance(batch, sums), dim=0)

    def __call__(self, losses: Tensor, batch: BatchInfo) -> Tensor:
        """Return a scalar: this part's gradient, the whole step's value."""
        sums, _ = _group_sums(batch, len(self.shares))
        return _weighted_groups(losses, batch, sums, self.update(batch) * self._importance(batch, sums))

    def _importance(self, batch: BatchInfo, like: Tensor) -> Tensor:
        """Return 1 / (N p_g) of each group."""
        return 1 / (len(batch.whole_step().loss) * torch.tensor(self.shares).to(like))


@dataclass(frozen=True)
class WorstGroup:
    """MaxMin-RLHF (arXiv 2402.08925): the mean loss of the group that is worst off in the step.

    Attributes:
        count: Number of groups. A step should hold several pairs of each, or the worst is the unluckiest.
    """

    count: int

    needs = ("group",)
    surveys = True

    def __call__(self, losses: Tensor, batch: BatchInfo) -> Tensor:
        """Return a scalar: this part's gradient, the whole step's value."""
        sums, sizes = _group_sums(batch, self.count)
        means = torch.where(sizes > 0, sums / sizes.clamp(min=1), torch.full_like(sums, -math.inf))
        worst = means.argmax()
        weights = torch.zeros_like(sums)
        weights[worst] = 1 / sizes[worst]
        return _weighted_groups(losses, batch, sums, weights)


def _group_sums(batch: BatchInfo, count: int) -> tuple[Tensor, Tensor]:
    step = batch.whole_step()
    if step.group is None:
        raise ValueError("this objective needs the group of each pair; the pair set has no such column")
    zeros = torch.zeros(count, dtype=step.loss.dtype, device=step.loss.device)
    sizes = zeros.index_add(0, step.group, torch.ones_like(step.loss))
    return zeros.index_add(0, step.group, step.loss), sizes


def _weighted_groups(losses: Tensor, batch: BatchInfo, sums: Tensor, weights: Tensor) -> Tensor:
    """Return `sum_g weight_g * sum_{i in g} loss_i` over the step, with this part's gradient."""
    count = len(batch.whole_step().loss)
    return _valued((weights[batch.known("group")] * losses).mean() * count, (weights * sums).sum())


def no_anchor(errors: Errors) -> float:
    """Add nothing."""
    return 0.0


@dataclass(frozen=True)
class ChosenError:
    """`weight * mean(e_w)`: supervised learning of the preferred pictures.

    Attributes:
        weight: Multiplier.
    """

    weight: float = 1.0

    def __call__(self, errors: Errors) -> Tensor:
        """Return a scalar."""
        return self.weight * errors.chosen.mean()
