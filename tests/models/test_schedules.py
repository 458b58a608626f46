"""The training schedule behind every sampler is the same forward process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.tiny import tiny_scheduler
from t2ialign.errors import ModelError
from t2ialign.models.schedules import training_scheduler

SAMPLERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
)


def alphas() -> torch.Tensor:
    """Stable Diffusion's cumulative products from their definition: betas linear in their roots."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_forward_process_whatever_the_sampler(name: str) -> None:
    found = training_scheduler(tiny_scheduler("v_prediction", name))
    assert type(found).__name__ == "DDPMScheduler"
    assert found.config.prediction_type == "v_prediction"
    assert torch.allclose(found.alphas_cumprod, alphas(), rtol=1e-5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_zero_terminal_snr_is_kept(name: str) -> None:
    """Algorithm 1 of arXiv 2305.08891: the last level is 0, the first is unchanged."""
    found = training_scheduler(tiny_scheduler("v_prediction", name, rescale_betas_zero_snr=True))
    roots = alphas().double().sqrt()
    expected = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    assert found.alphas_cumprod[-1] == 0
    assert torch.allclose(found.alphas_cumprod.double(), expected**2, atol=1e-5)


def test_trained_betas_and_length_are_kept() -> None:
    betas = [0.1, 0.2, 0.4]
    found = training_scheduler(tiny_scheduler(trained_betas=betas))
    assert torch.allclose(found.alphas_cumprod, torch.tensor([0.9, 0.72, 0.432]))


def test_old_configuration_without_prediction_type() -> None:
    config: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    assert training_scheduler(SimpleNamespace(config=config)).config.prediction_type == "epsilon"


def test_refused() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(ModelError, match=r"owner/flow.*no betas"):
        training_scheduler(FlowMatchEulerDiscreteScheduler(), "owner/flow")
    with pytest.raises(ModelError, match="flow_prediction"):
        training_scheduler(SimpleNamespace(config={"beta_schedule": "linear", "prediction_type": "flow_prediction"}))
