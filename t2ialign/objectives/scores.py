"""Scores: how well one side of a pair is predicted, from its error; higher is better.

Each is a frozen dataclass that is called with the errors `[B]` of the policy and of the reference (None where there is
none) and returns `[B]`. The margin of a pair is the difference of its two scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

DIVERGENCES = ("reverse_kl", "forward_kl", "jensen_shannon", "alpha")
_LARGEST_EXPONENT = 80.0
"""exp of more overflows float32."""
_STEEPEST = 11.0
"""Beyond this log-ratio exponential scores go on as straight lines: exp(11) is the largest that float16 holds. TRL
clamps there, which would leave a pair that is far gone without a gradient."""


def log_ratio(error: Tensor, reference_error: Tensor | None, kappa: float) -> Tensor:
    """Return `h = kappa * (r - e)`, the stand-in for the log-ratio of policy and reference.

    Raises:
        ValueError: without the reference's errors.
    """
    if reference_error is None:
        raise ValueError("this objective compares with a reference; pass the reference's errors")
    return kappa * (reference_error - error)


@dataclass(frozen=True)
class LogRatio:
    """Implicit reward of Diffusion-DPO (arXiv 2311.12908, eq. 14): `kappa * (r - e)`.

    The published code folds the constants of equation 14 (T, the weight of the noise level, the number of
    latent entries) into kappa, because its errors are means.

    Attributes:
        kappa: Multiplier of the difference of mean errors; `t2ialign.objectives.beta.kappa_from_beta` has it
        for a beta.
    """

    kappa: float

    needs_reference = True

    def __call__(self, error: Tensor, reference_error: Tensor | None) -> Tensor:
        """Return the score `[B]`; ValueError without a reference."""
        return log_ratio(error, reference_error, self.kappa)


@dataclass(frozen=True)
class Divergence:
    """Score of f-DPO (arXiv 2309.16240): `f'` of the ratio that h is the logarithm of.

    reverse_kl is `h` (plain DPO), forward_kl `-exp(-h)`, jensen_shannon `log sigmoid(h)` (a constant dropped, as in
    TRL), alpha `(exp((a - 1) h) - 1) / (a - 1)`, which is `h` at a = 1. Where an exponent exceeds 11 the exponential
    is continued by its tangent.

    Attributes:
        name: One of `DIVERGENCES`.
        kappa: Makes the log-ratio of mean errors: `h = kappa * (r - e)`. Unlike in DPO it can not be folded into beta.
        alpha: a, for `alpha` alone.
        strength: Multiplier of the score, the beta of f-DPO; 1 makes reverse_kl the DPO of this kappa.
    """

    name: str
    kappa: float
    alpha: float = 0.5
    strength: float = 1.0

    needs_reference = True

    def __post_init__(self) -> None:
        """Refuse a name that is none of the four (ValueError)."""
        if self.name not in DIVERGENCES:
            raise ValueError(f"divergence is {self.name!r}; choose from {', '.join(DIVERGENCES)}")

    def __call__(self, error: Tensor, reference_error: Tensor | None) -> Tensor:
        """Return the score `[B]`; ValueError without a reference."""
        return self.strength * self._derivative(log_ratio(error, reference_error, self.kappa))

    def _derivative(self, h: Tensor) -> Tensor:
        if self.name == "forward_kl":
            return -_exponential(-h)
        if self.name == "jensen_shannon":
            return functional.logsigmoid(h)
        if self.name == "alpha" and self.alpha != 1:
            power = self.alpha - 1
            return (_exponential(power * h) - 1) / power
        return h


def _exponential(x: Tensor) -> Tensor:
    """Return exp(x), beyond `_STEEPEST` its tangent there."""
    return torch.exp(x.clamp(max=_STEEPEST)) * (1 + (x - _STEEPEST).clamp(min=0))


@dataclass(frozen=True)
class OddsScore:
    """Score of MaPO (arXiv 2406.06424; mapo utils.py:286-301): `scale * x / (exp(x) - 1)` with `x = strength * e`.

    With p = exp(-x) it is p / (1 - p) * (-log p), which lies in (0, scale]. At x = 0, where the published form is 0/0,
    it is `scale`, with the slope that it tends to, `-scale * strength / 2`.

    Attributes:
        scale: The number of timesteps T in the published code.
        strength: `snr_value` of the published code: one constant, not a signal-to-noise ratio of the timestep.
    """

    scale: float = 1000.0
    strength: float = 0.5

    needs_reference = False

    def __call__(self, error: Tensor, reference_error: Tensor | None = None) -> Tensor:
        """Return the score `[B]`; the reference is not looked at."""
        x = self.strength * error
        small = x.abs() < 1e-3
        safe = torch.where(small, torch.ones_like(x), x).clamp(max=_LARGEST_EXPONENT)
        series = 1 - x / 2 + x.square() / 12
        return self.scale * torch.where(small, series, safe / torch.expm1(safe))


@dataclass(frozen=True)
class NegativeError:
    """Score without a reference: `-kappa * e`, of the sign-corrected ORPO for diffusion.

    Attributes:
        kappa: Multiplier; 1 in diffusers' train_diffusion_orpo_sdxl_lora.py, whose sign is the opposite.
    """

    kappa: float = 1.0

    needs_reference = False

    def __call__(self, error: Tensor, reference_error: Tensor | None = None) -> Tensor:
        """Return the score `[B]`; the reference is not looked at."""
        return -self.kappa * error
