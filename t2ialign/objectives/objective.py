"""An objective as a composition, and what it takes and gives.

Everything an algorithm learns from reduces to the errors of the policy and of the reference on both sides of a
pair, `[B]` float32 each:

    e = mean over channels and pixels of (prediction - target)^2
    z = S(e_w, r_w) - S(e_l, r_l) - offset,   loss = R(phi(z)) + anchor(e)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from t2ialign.objectives.offsets import no_offset
from t2ialign.objectives.reductions import mean, no_anchor


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
class Step:
    """What is known of all N examples of an optimizer step, over batches and processes, without gradient.

    Attributes:
        margin: z of each, `[N]`.
        loss: phi(z) of each, `[N]`.
        group: Number of the group of each, `[N]` int64, or None.
    """

    margin: Tensor
    loss: Tensor
    group: Tensor | None = None

    def rows(self) -> Tensor:
        """Return it as one `[3, N]` float32 tensor, for gathering; no group is -1."""
        group = torch.full_like(self.loss, -1.0) if self.group is None else self.group.to(self.loss)
        return torch.stack([self.margin, self.loss, group]).float()

    @staticmethod
    def of_rows(rows: Tensor) -> Step:
        """Undo `rows`."""
        margin, loss, group = rows
        return Step(margin, loss, None if bool((group < 0).any()) else group.long())


@dataclass(frozen=True)
class BatchInfo:
    """What is known of the pairs beside their errors; None where it is not.

    Attributes:
        preference_prob: Share of voters who prefer the chosen side, `[B]` in [0, 1]; below 1/2 only where the label
            was turned against the pair's order.
        gap: Difference of the two sides' scores, chosen minus rejected, `[B]`.
        group: Number of the group (user, source) that a pair belongs to, `[B]` int64.
        score_gaps: Differences of named scores, `[B, K]`.
        state: State of the objective before this step, where it has one.
        step: All examples of the step; without it a batch is taken for the whole step.
    """

    preference_prob: Tensor | None = None
    gap: Tensor | None = None
    group: Tensor | None = None
    score_gaps: Tensor | None = None
    state: Tensor | None = None
    step: Step | None = None

    def known(self, name: str) -> Tensor:
        """Return a field that must be there (ValueError if it is not)."""
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(f"this objective needs {name} of each pair, which the batch does not have")
        return value

    def whole_step(self) -> Step:
        """Return all examples of the step (ValueError if they were not collected)."""
        if self.step is None:
            raise ValueError("this objective needs all examples of the step")
        return self.step


@dataclass(frozen=True)
class LossOutput:
    """What one batch gives.

    Attributes:
        loss: Scalar with gradient.
        margin: z of each example, `[B]`, detached; `[0]` where the objective has none.
        metrics: Further figures of each example, `[B]` each, detached; the loop logs their means.
        masks: For a figure of some examples alone, 1 at those and 0 elsewhere, `[B]`, by the figure's name.
        state: The objective's state after the step, where it has one.
    """

    loss: Tensor
    margin: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    state: Tensor | None = None


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

    def __post_init__(self) -> None:
        """Refuse a link and a reduction that both look at the whole step: one survey can not serve two."""
        if getattr(self.link, "surveys", False) and getattr(self.reduce, "surveys", False):
            raise ValueError(f"{self.link} and {self.reduce} both look at the whole step; one of them may")

    @property
    def needs_reference(self) -> bool:
        """Whether the errors must hold the reference's."""
        return self.score.needs_reference

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `BatchInfo` that must be known of each pair."""
        parts = (self.link, self.offset, self.reduce)
        return tuple(name for part in parts for name in getattr(part, "needs", ()))

    @property
    def surveys(self) -> bool:
        """Whether the loss of a pair depends on the other pairs of the step."""
        return any(getattr(part, "surveys", False) for part in (self.link, self.reduce))

    def start(self) -> Tensor | None:
        """Return the state before the first step, or None for an objective without one."""
        begin = getattr(self.reduce, "start", None)
        return None if begin is None else begin()

    def survey(self, errors: Errors, batch: BatchInfo) -> Step:
        """Return what the other parts of the step must know of these B pairs, without gradient."""
        with torch.no_grad():
            margin = self._margin(errors, batch)[0]
            alone = replace(batch, step=Step(margin, margin, batch.group))
            return Step(margin, self.link(margin, alone), batch.group)

    def __call__(self, errors: Errors, batch: BatchInfo | None = None) -> LossOutput:
        """Return the loss of a batch, its margins and the figures worth watching.

        Args:
            errors: Of B pairs.
            batch: What else is known of them; nothing by default.

        Raises:
            ValueError: if the score needs a reference and the errors have none, or a part needs a field of the batch
                that is None.
        """
        batch = batch if batch is not None else BatchInfo()
        if self.surveys and batch.step is None:
            batch = replace(batch, step=self.survey(errors, batch))
        margin, chosen, rejected = self._margin(errors, batch)
        loss = self.reduce(self.link(margin, batch), batch) + self.anchor(errors)
        update = getattr(self.reduce, "update", None)
        state = None if update is None else update(batch)
        figures = _metrics(errors, chosen, rejected, batch) | {"gradient_factor": self._slope(margin, batch)}
        return LossOutput(loss, margin.detach(), figures, state=state)

    def _slope(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return |dphi/dz| of each pair, `[B]`: how much it still pulls."""
        with torch.enable_grad():
            z = margin.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.link(z, batch).sum(), z)
        return slope.abs()

    def _margin(self, errors: Errors, batch: BatchInfo) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self.score(errors.chosen, errors.reference_chosen)
        rejected = self.score(errors.rejected, errors.reference_rejected)
        return chosen - rejected - self.offset(batch), chosen, rejected


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


def positive_share(margin: Tensor) -> Tensor:
    """Return 1 where a margin is above zero, 1/2 where it is zero, else 0."""
    return (margin > 0).float() + 0.5 * (margin == 0).float()


def _metrics(errors: Errors, chosen: Tensor, rejected: Tensor, batch: BatchInfo) -> dict[str, Tensor]:
    """Return the figures of each pair; accuracy is before any offset, and against the label where that is turned."""
    with torch.no_grad():
        preferred = chosen - rejected
        if batch.preference_prob is not None:
            preferred = torch.where(batch.preference_prob < 0.5, -preferred, preferred)
        figures = {
            "implicit_accuracy": positive_share(preferred),
            "error_chosen": errors.chosen,
            "error_rejected": errors.rejected,
            "reward_chosen": chosen,
            "reward_rejected": rejected,
        }
        if errors.reference_chosen is not None and errors.reference_rejected is not None:
            figures["reference_error_chosen"] = errors.reference_chosen
            figures["reference_error_rejected"] = errors.reference_rejected
        return {name: figure.detach() for name, figure in figures.items()}
