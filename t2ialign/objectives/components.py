"""The parts an objective is put together from, each a pure function on `[B]` float tensors.

    score   S(e, r)        how well a side is predicted; higher is better
    offset  o(batch)       subtracted from the margin z = S_w - S_l - o
    link    phi(z, batch)  loss of each pair, [B]
    reduce  R(l, batch)    one number from the losses of the pairs
    anchor  A(errors)      one number added to it, on the errors themselves

A part with a parameter is a frozen dataclass that is called like a function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from t2ialign.objectives.objective import BatchInfo, Errors


@dataclass(frozen=True)
class LogRatio:
    """Score of a side: `kappa * (r - e)`, the implicit reward of Diffusion-DPO (arXiv 2311.12908, eq. 14).

    The published code folds the constants of equation 14 (T, the weight of the noise level, the number of
    latent entries) into kappa, because its errors are means.

    Attributes:
        kappa: Multiplier of the difference of mean errors; `t2ialign.objectives.beta.kappa_from_beta` has it
        for a beta.
    """

    kappa: float

    needs_reference = True

    def __call__(self, error: Tensor, reference_error: Tensor | None) -> Tensor:
        """Return the score `[B]` of one side from its errors `[B]`.

        Raises:
            ValueError: without the reference's errors.
        """
        if reference_error is None:
            raise ValueError("LogRatio compares with a reference; pass the reference's errors")
        return self.kappa * (reference_error - error)


@dataclass(frozen=True)
class LogSigmoid:
    """Link of Bradley and Terry: `-weight * log sigmoid(z)`, per pair, before any mean.

    Attributes:
        weight: Multiplier of the loss.
    """

    weight: float = 1.0

    def __call__(self, margin: Tensor, batch: BatchInfo) -> Tensor:
        """Return the loss `[B]` of each pair from its margin `[B]`."""
        return -self.weight * functional.logsigmoid(margin)


def no_offset(batch: BatchInfo) -> float:
    """Shift no margin."""
    return 0.0


def mean(losses: Tensor, batch: BatchInfo) -> Tensor:
    """Return the plain mean of the losses `[B]`."""
    return losses.mean()


def no_anchor(errors: Errors) -> float:
    """Add nothing."""
    return 0.0
