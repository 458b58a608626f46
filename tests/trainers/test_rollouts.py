"""The chain of denoising, against diffusers' scheduler and against plain Gaussians."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import Independent, Normal, kl_divergence

from helpers.tiny import tiny_pipeline, tiny_scheduler
from helpers.training import FAMILIES, tiny_model
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.rollouts import Chain, Drawer, gaussian_kl, log_probability


def model_of(prediction_type: str, **settings: Any) -> DiffusionModel:
    scheduler = tiny_scheduler(prediction_type, **settings)
    return DiffusionModel.from_pipeline(tiny_pipeline("sd15", scheduler=scheduler), "tiny")


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("settings", [{}, {"timestep_spacing": "trailing"}], ids=["leading", "trailing"])
def test_a_step_is_that_of_diffusers(prediction_type: str, eta: float, settings: dict[str, Any]) -> None:
    model = model_of(prediction_type, **settings)
    chain = Chain.of(model, 7, eta)
    scheduler = DDIMScheduler.from_config({**model.pipeline.scheduler.config, "clip_sample": False})
    scheduler.set_timesteps(7)
    assert chain.timesteps.tolist() == scheduler.timesteps.tolist()
    latents, output, noise = (torch.randn(2, 4, 8, 8) for _ in range(3))
    for number, timestep in enumerate(scheduler.timesteps):
        steps = torch.full((2,), number)
        mean = chain.mean(*chain.split(output, latents, steps), steps)
        mine = mean + chain.deviation(steps, mean) * noise
        theirs = scheduler.step(output, timestep, latents, eta=eta, variance_noise=noise).prev_sample
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_every_row_may_stand_at_another_step() -> None:
    chain = Chain.of(model_of("epsilon"), 5, 1.0)
    latents, output = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    steps = torch.tensor([4, 0, 2])
    together = chain.mean(*chain.split(output, latents, steps), steps)
    for row, step in enumerate(steps):
        one = torch.tensor([int(step)])
        here = slice(row, row + 1)
        alone = chain.mean(*chain.split(output[here], latents[here], one), one)
        assert torch.equal(alone, together[here])


def test_a_log_probability_is_the_mean_over_numbers_of_a_gaussian() -> None:
    mean, value = torch.randn(3, 4, 2, 2).double(), torch.randn(3, 4, 2, 2).double()
    deviation = torch.tensor([0.1, 1.0, 2.5]).double().view(3, 1, 1, 1)
    whole = Independent(Normal(mean, deviation.expand_as(mean)), 3).log_prob(value)
    torch.testing.assert_close(log_probability(value, mean, deviation), whole / 16)
    one = log_probability(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    assert one.item() == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi))


def test_the_divergence_is_that_of_two_gaussians() -> None:
    mean, other = torch.randn(3, 4, 2, 2).double(), torch.randn(3, 4, 2, 2).double()
    deviation = torch.tensor([0.1, 1.0, 2.5]).double().view(3, 1, 1, 1)
    sides = [Independent(Normal(each, deviation.expand_as(each)), 3) for each in (mean, other)]
    torch.testing.assert_close(gaussian_kl(mean, other, deviation), kl_divergence(*sides) / 16)
    assert not gaussian_kl(mean, mean, deviation).any()


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_drawn_picture_is_that_of_the_pipeline(family: str, prediction_type: str, scale: float) -> None:
    """Guidance, both text encoders, time ids and the chain, against diffusers' own pipeline with DDIM."""
    model = tiny_model(family, prediction_type)
    pipeline = model.pipeline
    drawer = Drawer(model, Chain.of(model, 4), scale, 64)
    prompts = ["a red circle", "a flag"]
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    states, _ = drawer.draw(model.predict, start, drawer.condition(prompts))
    with torch.no_grad():
        theirs = pipeline(
            prompts, latents=start, num_inference_steps=4, guidance_scale=scale, output_type="latent"
        ).images
        decoded = pipeline(
            prompts, latents=start, num_inference_steps=4, guidance_scale=scale, output_type="pt"
        ).images
    torch.testing.assert_close(states[-1], theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(drawer.pixels(states[-1]).clamp(0, 1).detach(), decoded, rtol=1e-3, atol=1e-4)


def test_a_chain_to_a_clean_picture_has_no_probability_at_its_end() -> None:
    chain = Chain.of(clean(), 5, 1.0)
    assert chain.sigma[-1] == 0
    assert (chain.sigma[:-1] > 0).all()


def clean() -> DiffusionModel:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    return DiffusionModel.from_pipeline(tiny_pipeline("sd15", scheduler=scheduler), "tiny")
