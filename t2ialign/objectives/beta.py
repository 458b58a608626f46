"""Three published meanings of "beta", and the one number that the loss needs.

With errors averaged over channels and pixels, the margin of a pair is `kappa * [(r_w - e_w) - (r_l - e_l)]`.
The scripts of Diffusion-DPO and of diffusers for SDXL take `kappa = beta / 2`, the script of diffusers for SD
takes `kappa = beta`. Ours is the first; the same kappa is `beta = 5000` there and `beta = 2500` here.
"""

from __future__ import annotations

HALVED = "official"
"""Convention of DiffusionDPO's train.py, DCPO and diffusers' train_diffusion_dpo_sdxl.py: kappa = beta / 2."""

PLAIN = "hf_sd"
"""Convention of diffusers' train_diffusion_dpo.py (SD) and of Diffusion-KTO: kappa = beta."""

_FACTORS = {HALVED: 0.5, PLAIN: 1.0}


def kappa_from_beta(beta: float, convention: str = HALVED) -> float:
    """Return what multiplies the mean-reduced difference of errors.

    Args:
        beta: The published script's beta, above 0.
        convention: `"official"` (beta / 2) or `"hf_sd"` (beta itself).

    Raises:
        ValueError: for a beta that is not above 0, or an unknown convention.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}; it must be above 0")
    if convention not in _FACTORS:
        raise ValueError(f"unknown convention {convention!r} of beta; choose from {', '.join(_FACTORS)}")
    return _FACTORS[convention] * beta


def convert_beta(beta: float, source: str, target: str) -> float:
    """Return the beta that means in `target`'s convention what `beta` means in `source`'s.

    `convert_beta(2500, "hf_sd", "official")` is 5000.
    """
    return kappa_from_beta(beta, source) / kappa_from_beta(1.0, target)
