"""Links: from the margin of each pair `[B]` to its loss `[B]`, never a mean.

Each is a frozen dataclass that is called with the margins and the batch. What a link needs of the pairs beside their
margins is named in `needs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from t2ialign.objectives.objective import BatchInfo


DYNAMICS = ("sample", "batch", "fixed")


def _cross_entropy(margin: Tensor, share: Tensor | float) -> Tensor:
    return -share * functional.logsigmoid(margin) - (1 - share) * functional.logsigmoid(-margin)


def _check_rate(flip_rate: float) -> None:
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip_rate is {flip_rate}; the share of wrong labels must be at least 0 and below 0.5")


@dataclass(frozen=True)
class LogSigmoid:
    """Bradley and Terry: `-weight * log sigmoid(z)`.

    Attributes:
        weight: Multiplier of the loss.
    """

    weight: float = 1.0

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]` of each pair from its margin `[B]`."""
        return -self.weight * functional.logsigmoid(margin)


@dataclass(frozen=True)
class Hinge:
    """SLiC (arXiv 2305.10425): `relu(target - z)`."""

    target: float = 1.0

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]`."""
        return functional.relu(self.target - margin)


@dataclass(frozen=True)
class Squared:
    """IPO (arXiv 2310.12036): `(z - target)^2` on a margin that carries kappa.

    On the log-ratio itself the target is 1 / (2 tau); with kappa = tau that is a margin of one half, and this loss is
    kappa^2 times the published one.
    """

    target: float = 0.5

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]`."""
        return (margin - self.target).square()


@dataclass(frozen=True)
class Smoothed:
    """cDPO (Mitchell's note on noisy labels): cross-entropy with the label turned round at `flip_rate`.

    `-(1 - eps) log sigmoid(z) - eps log sigmoid(-z)`.

    Attributes:
        flip_rate: eps, the share of labels that are wrong, in [0, 0.5).
    """

    flip_rate: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a share outside [0, 0.5) (ValueError)."""
        _check_rate(self.flip_rate)

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]`."""
        return _cross_entropy(margin, 1 - self.flip_rate)


@dataclass(frozen=True)
class Debiased:
    """rDPO (arXiv 2403.00409): in the mean over flips, the loss of the clean labels.

    `[-(1 - eps) log sigmoid(z) + eps log sigmoid(-z)] / (1 - 2 eps)`. It has no lower bound: for a large margin it
    falls with slope eps / (1 - 2 eps).

    Attributes:
        flip_rate: eps, in [0, 0.5).
    """

    flip_rate: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a share outside [0, 0.5) (ValueError)."""
        _check_rate(self.flip_rate)

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]`."""
        eps = self.flip_rate
        straight = -(1 - eps) * functional.logsigmoid(margin)
        return (straight + eps * functional.logsigmoid(-margin)) / (1 - 2 * eps)


@dataclass(frozen=True)
class SoftLabel:
    """Cross-entropy with the share of voters p: `-p log sigmoid(z) - (1 - p) log sigmoid(-z)`; a tie is p = 1/2."""

    needs = ("preference_prob",)

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]`; ValueError without `preference_prob`."""
        return _cross_entropy(margin, batch.known("preference_prob"))


@dataclass(frozen=True)
class GeometricLabel:
    """Geometric-averaged DPO (arXiv 2409.06691): `-log sigmoid((2 p - 1) z)`; a tie has no gradient."""

    needs = ("preference_prob",)

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]`; ValueError without `preference_prob`."""
        return -functional.logsigmoid((2 * batch.known("preference_prob") - 1) * margin)


@dataclass(frozen=True)
class AlphaDivergence:
    """alpha-DPO for diffusion (ICLR 2026; main.py:1125-1146): an alpha-divergence between label and model.

    With u = sigmoid(z): `(u^a - (1 - a) - a u) / (a (a - 1))`. As a goes to 0 it is `u - log u - 1`, DPO-like; as a
    goes to 1 it is `u log u - u + 1`, in which pairs that the model finds unlikely, the outliers, pull least. With
    a of the pair itself an outlier has an a near 0, and pulls nearly as in DPO; a of the whole step, or a fixed one,
    is what makes it pull less.

    Attributes:
        mu: a = mu * u, not differentiated.
        dynamic: "sample", u of the pair itself (the paper), "batch", its mean over the whole step (the published code,
            whose mean is over the local batch), or "fixed", a = `alpha`.
        alpha: a, where it is fixed.
    """

    mu: float = 0.9999
    dynamic: str = "sample"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Refuse an unknown way to choose a (ValueError)."""
        if self.dynamic not in DYNAMICS:
            raise ValueError(f"dynamic is {self.dynamic!r}; choose from {', '.join(DYNAMICS)}")

    @property
    def surveys(self) -> bool:
        """Whether the loss of a pair depends on the other pairs of the step."""
        return self.dynamic == "batch"

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]`, computed in float64: near its limits the form cancels."""
        z = margin.double()
        log_u = functional.logsigmoid(z)
        u = log_u.exp()
        a = self._exponent(u.detach(), batch)
        loss = (torch.expm1(a * log_u) + a * (1 - u)) / (a * (a - 1))
        return loss.to(margin.dtype)

    def _exponent(self, u: Tensor, batch: BatchInfo) -> Tensor:
        if self.dynamic == "fixed":
            a = torch.full_like(u, self.alpha)
        elif self.dynamic == "batch":
            a = self.mu * torch.sigmoid(batch.whole_step().margin.double()).mean().expand_as(u)
        else:
            a = self.mu * u
        return a.clamp(1e-6, 1 - 1e-6)
