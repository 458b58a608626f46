"""An objective as a composition, and what it takes and gives.

Everything an algorithm learns from reduces to the errors of the policy and of the reference on both sides of a
pair, `[B]` float32 each:

    e = mean over channels and pixels of (prediction - target)^2
    z = S(e_w, r_w) - S(e_l, r_l) - offset,   loss = R(phi(z)) + anchor(e)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from t2ialign.objectives.beta import HALVED, kappa_from_beta
from t2ialign.objectives.components import LogRatio, LogSigmoid, mean, no_anchor, no_offset


@dataclass(frozen=True)
class Errors:
    """Mean squared errors of a batch of B pairs.

    Attributes:
        chosen: The policy's on the preferred side, e_w, `[B]` float32.
        rejected: The policy's on the other side, e_l, `[B]`.
        reference_chosen: The reference's, r_w, `[B]` without gradient, or None where there is no reference.
        reference_rejected: The reference's, r_l, `[B]` or None.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None

    def swapped(self) -> Errors:
        """Return the errors with the two sides exchanged."""
        return Errors(self.rejected, self.chosen, self.reference_rejected, self.reference_chosen)


@dataclass(frozen=True)
class BatchInfo:
    """What is known of the pairs beside their errors; each `[B]` or None where the pair set has no such column.

    Attributes:
        preference_prob: Share of voters who prefer the chosen side, in [0.5, 1].
        gap: Difference of the two sides' scores, chosen minus rejected.
        group: Number of the group (user, source) that a pair belongs to, int64.
    """

    preference_prob: Tensor | None = None
    gap: Tensor | None = None
    group: Tensor | None = None


@dataclass(frozen=True)
class LossOutput:
    """What one batch gives.

    Attributes:
        loss: Scalar with gradient.
        margin: z of each pair, `[B]`, detached.
        metrics: Further figures of each pair, `[B]` each, detached; the loop logs their means.
    """

    loss: Tensor
    margin: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Score(Protocol):
    """Scores one side from its error and, if it needs one, the reference's."""

    @property
    def needs_reference(self) -> bool:
        """Whether the reference's errors must be given."""

    def __call__(self, error: Tensor, reference_error: Tensor | None) -> Tensor:
        """Return the score `[B]`; higher is better."""


@dataclass(frozen=True)
class Objective:
    """A preference objective put together from its parts; call it on errors.

    Attributes:
        score: S, applied to both sides.
        link: phi, from margins `[B]` to losses `[B]`.
        offset: Subtracted from the margin, `[B]` or a number.
        reduce: R, from losses `[B]` to a scalar.
        anchor: A term on the errors themselves, a scalar.
    """

    score: Score
    link: Callable[[Tensor, BatchInfo], Tensor]
    offset: Callable[[BatchInfo], Tensor | float] = no_offset
    reduce: Callable[[Tensor, BatchInfo], Tensor] = mean
    anchor: Callable[[Errors], Tensor | float] = no_anchor

    @property
    def needs_reference(self) -> bool:
        """Whether the errors must hold the reference's."""
        return self.score.needs_reference

    def __call__(self, errors: Errors, batch: BatchInfo | None = None) -> LossOutput:
        """Return the loss of a batch, its margins and the figures worth watching.

        Args:
            errors: Of B pairs.
            batch: What else is known of them; nothing by default.

        Raises:
            ValueError: if the score needs a reference and the errors have none.
        """
        batch = batch if batch is not None else BatchInfo()
        score_chosen = self.score(errors.chosen, errors.reference_chosen)
        score_rejected = self.score(errors.rejected, errors.reference_rejected)
        margin = score_chosen - score_rejected - self.offset(batch)
        losses = self.link(margin, batch)
        loss = self.reduce(losses, batch) + self.anchor(errors)
        return LossOutput(loss, margin.detach(), _metrics(errors, margin, score_chosen, score_rejected))


def dpo(beta: float, convention: str = HALVED) -> Objective:
    """Return the objective of Diffusion-DPO: `-log sigmoid(kappa [(r_w - e_w) - (r_l - e_l)])`, mean over pairs.

    Args:
        beta: Hold on the reference; 5000 in the official launchers, 2000 to 5000 for SD1.5 in the paper.
        convention: What beta means: `"official"` (kappa = beta / 2) or `"hf_sd"` (kappa = beta).

    Raises:
        ValueError: for a beta that is not above 0, or an unknown convention.
    """
    return Objective(score=LogRatio(kappa_from_beta(beta, convention)), link=LogSigmoid())


def per_sample_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each sample, in float32 whatever the precision of the inputs.

    Args:
        prediction: `[N, ...]`.
        target: The same shape.

    Returns:
        `[N]` float32.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def _metrics(errors: Errors, margin: Tensor, chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        figures = {
            "implicit_accuracy": (margin > 0).float() + 0.5 * (margin == 0).float(),
            "error_chosen": errors.chosen,
            "error_rejected": errors.rejected,
            "reward_chosen": chosen,
            "reward_rejected": rejected,
            "gradient_factor": torch.sigmoid(-margin),
        }
        if errors.reference_chosen is not None and errors.reference_rejected is not None:
            figures["reference_error_chosen"] = errors.reference_chosen
            figures["reference_error_rejected"] = errors.reference_rejected
        return {name: figure.detach() for name, figure in figures.items()}
