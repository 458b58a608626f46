"""Objectives on single pictures: supervised learning, and Diffusion-KTO on pictures that are labelled good or bad.

They are called as `Objective` is, on the errors `[B]` of B examples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from t2ialign.objectives.objective import BatchInfo, LossOutput, Step, positive_share
from t2ialign.objectives.scores import log_ratio

VALUES = ("sigmoid", "loss_averse", "risk_seeking")


@dataclass(frozen=True)
class ErrorOf:
    """Mean squared errors of B pictures.

    Attributes:
        policy: e, `[B]` float32.
        reference: r, `[B]` without gradient, or None.
        label: 1 for a picture that is wanted, 0 for one that is not, `[B]` bool.
    """

    policy: Tensor
    reference: Tensor | None
    label: Tensor


@dataclass(frozen=True)
class Supervised:
    """Supervised fine-tuning: `mean(e)` over pictures that are wanted; a diffusion model's own training loss."""

    needs_reference = False
    surveys = False

    def __call__(self, errors: ErrorOf, batch: BatchInfo | None = None) -> LossOutput:
        """Return the mean error."""
        error = errors.policy.detach()
        return LossOutput(errors.policy.mean(), error[:0], {"error_chosen": error})


@dataclass(frozen=True)
class KTO:
    """Diffusion-KTO (arXiv 2404.04465; train_kto_sd_v1.5.py:1395-1519), for pictures without partners.

    With h = kappa (r - e) and the baseline h0 = max(0, mean of h over the whole step), not differentiated:

        v = h - h0 for a wanted picture, h0 - h for another,     loss = mean of w_y * (1 - U(v))

    where U is the value function. "sigmoid" is Kahneman and Tversky's, the paper's choice; "loss_averse" is
    log sigmoid(v), "risk_seeking" is -log sigmoid(-v); for these two the loss is -w_y U(v).

    Attributes:
        kappa: Multiplier of the difference of mean errors; the published `beta_dpo`, 1000, without a half.
        desirable_weight: w of a wanted picture, lambda_d.
        undesirable_weight: w of another, lambda_u.
        value: One of `VALUES`.
    """

    kappa: float
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    value: str = "sigmoid"

    needs_reference = True
    surveys = True

    def __post_init__(self) -> None:
        """Refuse a value function that is none of the three (ValueError)."""
        if self.value not in VALUES:
            raise ValueError(f"value is {self.value!r}; choose from {', '.join(VALUES)}")

    def survey(self, errors: ErrorOf, batch: BatchInfo) -> Step:
        """Return h of these B pictures, for the baseline of the step."""
        with torch.no_grad():
            h = log_ratio(errors.policy, errors.reference, self.kappa)
            return Step(h, h)

    def __call__(self, errors: ErrorOf, batch: BatchInfo | None = None) -> LossOutput:
        """Return the loss of a batch and its figures.

        Raises:
            ValueError: without a reference.
        """
        batch = batch if batch is not None else BatchInfo()
        if batch.step is None:
            batch = replace(batch, step=self.survey(errors, batch))
        h = log_ratio(errors.policy, errors.reference, self.kappa)
        baseline = batch.whole_step().margin.mean().clamp(min=0)
        wanted = errors.label.to(h)
        v = (2 * wanted - 1) * (h - baseline)
        weight = wanted * self.desirable_weight + (1 - wanted) * self.undesirable_weight
        figures = self._figures(errors, h, v, baseline)
        sides = {"_chosen": wanted, "_rejected": 1 - wanted}
        masks = {name: mask for name in figures for end, mask in sides.items() if name.endswith(end)}
        return LossOutput((weight * self._loss(v)).mean(), v.detach(), figures, masks)

    def _loss(self, v: Tensor) -> Tensor:
        if self.value == "loss_averse":
            return -functional.logsigmoid(v)
        if self.value == "risk_seeking":
            return functional.logsigmoid(-v)
        return torch.sigmoid(-v)

    def _figures(self, errors: ErrorOf, h: Tensor, v: Tensor, baseline: Tensor) -> dict[str, Tensor]:
        assert errors.reference is not None
        figures = {
            "implicit_accuracy": positive_share(v),
            "baseline": baseline.expand_as(h),
            "desirable": errors.label.to(h),
        }
        for side in ("chosen", "rejected"):
            figures[f"error_{side}"] = errors.policy
            figures[f"reference_error_{side}"] = errors.reference
            figures[f"reward_{side}"] = h
        return {name: figure.detach() for name, figure in figures.items()}
