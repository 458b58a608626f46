"""DiffusionModel against the diffusers pipeline and scheduler that it stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.tiny import FAMILIES, RESOLUTION, tiny_pipeline, tiny_scheduler
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel

PROMPTS = ["a red circle", "", "Ünïcode 漢字 and a very long tail " * 6]


def wrapped(family: str, **more: Any) -> DiffusionModel:
    return DiffusionModel.from_pipeline(tiny_pipeline(family, **more))


def batch(model: DiffusionModel, size: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(3)
    latents, noise = torch.randn((2, size, 4, 8, 8), generator=generator)
    timesteps = torch.tensor([7, 981] * size)[:size]
    return latents, noise, timesteps, model.encode_prompts([f"prompt {number}" for number in range(size)])


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_prompts_is_the_pipelines(family: str) -> None:
    model = wrapped(family)
    expected = model.pipeline.encode_prompt(
        PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    found = model.encode_prompts(PROMPTS)
    assert torch.equal(found.hidden, expected[0])
    if family == "sdxl":
        assert found.pooled is not None
        assert torch.equal(found.pooled, expected[2])
    else:
        assert found.pooled is None
        assert found.time_ids is None


def test_encode_prompts_masks_where_the_encoder_asks_for_it() -> None:
    model = wrapped("sd15")
    plain = model.encode_prompts(["a"])
    model.pipeline.text_encoder.config.use_attention_mask = True
    expected = model.pipeline.encode_prompt(["a"], "cpu", 1, False)[0]
    assert torch.equal(model.encode_prompts(["a"]).hidden, expected)
    assert not torch.equal(plain.hidden, expected)


def test_sdxl_zeros_for_empty_prompts_on_request_only() -> None:
    model = wrapped("sdxl")
    _, negative, _, negative_pooled = model.pipeline.encode_prompt("x", device="cpu", do_classifier_free_guidance=True)
    zeroed = model.encode_prompts(["", "x"], force_zeros_for_empty_prompt=True)
    assert zeroed.pooled is not None
    assert torch.equal(zeroed.hidden[:1], negative)
    assert torch.equal(zeroed.pooled[:1], negative_pooled)
    assert torch.equal(zeroed.hidden[1], model.encode_prompts(["x"]).hidden[0])
    assert model.encode_prompts([""]).hidden.abs().sum() > 0
    model.pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    assert model.encode_prompts([""], force_zeros_for_empty_prompt=True).hidden.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenize_cuts_and_counts(family: str) -> None:
    model = wrapped(family)
    # A token a character here: 75 letters and the two ends fill CLIP's 77.
    fits, cut = "a" * 75, "a" * 76
    assert model.count_truncated([fits, cut, "", cut]) == 2
    assert model.count_truncated([]) == 0
    for ids in model.tokenize([fits, cut]):
        assert ids.shape == (2, 77)
        assert torch.equal(ids[0, :75], ids[1, :75])
        assert ids[0, 76] == ids[1, 76]


def test_no_prompts_is_an_error() -> None:
    with pytest.raises(ValueError, match="no prompts"):
        wrapped("sd15").encode_prompts([])


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_images_is_the_vaes(family: str) -> None:
    model = wrapped(family)
    pixels = torch.rand((2, 3, RESOLUTION, RESOLUTION)) * 2 - 1
    distribution = model.vae.encode(pixels).latent_dist
    factor = {"sdxl": 0.13025}.get(family, 0.18215)
    assert torch.allclose(model.encode_images(pixels), distribution.mode() * factor, atol=1e-6)
    expected = distribution.sample(torch.Generator().manual_seed(5)) * factor
    noise = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(model.encode_images(pixels, noise), expected, atol=1e-6)


def test_encode_images_subtracts_a_shift() -> None:
    model = wrapped("sd15")
    pixels = torch.zeros((1, 3, RESOLUTION, RESOLUTION))
    plain = model.encode_images(pixels)
    model.vae.register_to_config(shift_factor=0.5)
    assert torch.allclose(model.encode_images(pixels), plain - 0.5 * 0.18215, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sdxl_vae_works_in_float32(dtype: torch.dtype) -> None:
    model = wrapped("sdxl").to(dtype=dtype)
    pixels = torch.rand((1, 3, RESOLUTION, RESOLUTION)) * 2 - 1
    found = model.encode_images(pixels.to(dtype))
    assert model.vae.dtype == dtype
    expected = model.vae.to(torch.float32).encode(pixels.to(dtype).float()).latent_dist.mode() * 0.13025
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_half_precision_vae_comes_back_after_an_error() -> None:
    model = wrapped("sdxl").to(dtype=torch.bfloat16)
    with pytest.raises(RuntimeError):
        model.encode_images(torch.zeros((1, 4, RESOLUTION, RESOLUTION)))
    assert model.vae.dtype == torch.bfloat16


@pytest.mark.parametrize("family", FAMILIES)
def test_predict_is_the_unets(family: str) -> None:
    model = wrapped(family)
    latents, noise, timesteps, conditioning = batch(model)
    noisy = model.add_noise(latents, noise, timesteps)
    added = None
    if family == "sdxl":
        side = (RESOLUTION, RESOLUTION)
        ids = model.pipeline._get_add_time_ids(side, (0, 0), side, torch.float32, text_encoder_projection_dim=32)
        added = {"text_embeds": conditioning.pooled, "time_ids": ids.repeat(2, 1)}
    expected = model.unet(noisy, timesteps, encoder_hidden_states=conditioning.hidden, added_cond_kwargs=added).sample
    assert torch.equal(model.predict(noisy, timesteps, conditioning), expected)


def test_sdxl_sizes_reach_the_unet() -> None:
    model = wrapped("sdxl")
    latents, _, timesteps, conditioning = batch(model)
    cropped = conditioning.with_time_ids(model.time_ids((640, 480), (13, 0), (64, 64)).expand(2, 6))
    assert cropped.time_ids is not None
    assert cropped.time_ids[0].tolist() == [640, 480, 13, 0, 64, 64]
    assert not torch.equal(model.predict(latents, timesteps, conditioning), model.predict(latents, timesteps, cropped))


def test_predict_with_another_unet_in_half_precision() -> None:
    model = wrapped("sd15")
    other = tiny_pipeline("sd15", seed=1).unet.to(torch.bfloat16)
    latents, _, timesteps, conditioning = batch(model)
    found = model.predict(latents, timesteps, conditioning, unet=other)
    assert found.dtype == torch.bfloat16
    assert not torch.allclose(found.float(), model.predict(latents, timesteps, conditioning), atol=1e-2)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_noise_and_target_are_the_schedulers(prediction_type: str) -> None:
    model = wrapped("sd15", prediction_type=prediction_type)
    latents, noise, timesteps, _ = batch(model)
    scheduler = model.pipeline.scheduler
    assert torch.equal(model.add_noise(latents, noise, timesteps), scheduler.add_noise(latents, noise, timesteps))
    expected = {
        "epsilon": noise,
        "sample": latents,
        "v_prediction": scheduler.get_velocity(latents, noise, timesteps),
    }[prediction_type]
    assert torch.equal(model.target(latents, noise, timesteps), expected)


@given(t=st.integers(0, 999), seed=st.integers(0, 2**31))
def test_the_clean_latents_follow_from_noise_and_velocity(t: int, seed: int) -> None:
    """x_0 = sqrt(abar) x_t - sqrt(1 - abar) v: golden identity of arXiv 2202.00512, in float64."""
    model = _velocity_model()
    latents, noise = torch.randn((2, 1, 4, 2, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    timesteps = torch.tensor([t])
    level = model.noise_scheduler.alphas_cumprod[t].double()
    noisy, velocity = model.add_noise(latents, noise, timesteps), model.target(latents, noise, timesteps)
    assert torch.allclose(level.sqrt() * noisy - (1 - level).sqrt() * velocity, latents, atol=1e-6)


_CACHE: dict[str, DiffusionModel] = {}


def _velocity_model() -> DiffusionModel:
    if "v" not in _CACHE:
        _CACHE["v"] = wrapped("sd2")
    return _CACHE["v"]


def test_facts_about_a_model() -> None:
    model = wrapped("sd2", scheduler=tiny_scheduler("v_prediction", "EulerDiscreteScheduler"))
    assert model.prediction_type == "v_prediction"
    assert model.resolution == model.default_resolution == RESOLUTION
    assert model.num_train_timesteps == 1000
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert model.to(dtype=torch.bfloat16).dtype == torch.bfloat16
    parts = [part for part in model.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())
    assert not any(part.training for part in parts)


def test_sdxls_sizes_reach_the_unet_as_whole_numbers() -> None:
    class Told(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, **told: Any) -> tuple[torch.Tensor]:
            self.sizes = told["added_cond_kwargs"]["time_ids"]
            return (noisy,)

    model = DiffusionModel.from_pipeline(tiny_pipeline("sdxl"), "tiny")
    told, sizes = Told(), (1023, 769)
    text = model.encode_prompts(["a"]).with_time_ids(model.time_ids(sizes))
    model.predict(torch.zeros(1, 4, 8, 8), torch.tensor([7]), text, unet=told)
    assert told.sizes.tolist() == [[1023, 769, 0, 0, 1023, 769]]
    assert not told.sizes.is_floating_point(), "FSDP2 casts what is floating to bfloat16, which has no 1023"
