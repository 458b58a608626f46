"""Attention and memory switches leave the prediction as it is."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from helpers.tiny import tiny_pipeline
from t2ialign.errors import MissingDependencyError, ModelError
from t2ialign.models import attention, memory
from t2ialign.models.diffusion import DiffusionModel


def model_and_gradient(checkpointing: bool) -> tuple[DiffusionModel, torch.Tensor]:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    memory.save_memory(model, gradient_checkpointing=checkpointing)
    model.unet.requires_grad_(True)
    model.unet.train()
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    model.predict(latents, torch.tensor([5]), model.encode_prompts(["a"])).square().mean().backward()
    gradient: torch.Tensor = model.unet.conv_in.weight.grad
    return model, gradient


def test_gradient_checkpointing_gives_the_same_gradient() -> None:
    _, plain = model_and_gradient(False)
    model, recomputed = model_and_gradient(True)
    assert model.unet.is_gradient_checkpointing
    assert torch.allclose(plain, recomputed, atol=1e-6)
    memory.save_memory(model)
    assert not model.unet.is_gradient_checkpointing


def test_vae_slicing_and_tiling() -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"))
    pixels = torch.rand((3, 3, 64, 64)) * 2 - 1
    plain = model.encode_images(pixels)
    memory.save_memory(model, vae_slicing=True, vae_tiling=True)
    assert model.vae.use_slicing
    assert model.vae.use_tiling
    assert torch.allclose(model.encode_images(pixels), plain, atol=1e-5)
    memory.save_memory(model)
    assert not model.vae.use_slicing
    assert not model.vae.use_tiling


def test_sdpa_equals_the_plain_product() -> None:
    from diffusers.models.attention_processor import AttnProcessor

    model = DiffusionModel.from_pipeline(tiny_pipeline("sd2"))
    model.unet.set_attn_processor(AttnProcessor())
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    arguments = latents, torch.tensor([5]), model.encode_prompts(["a"])
    plain = model.predict(*arguments)
    for backend in ("auto", "sdpa"):
        assert attention.set_attention(model, backend) == "sdpa"
        assert torch.allclose(model.predict(*arguments), plain, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the error of a machine without CUDA")
def test_xformers_without_cuda() -> None:
    with pytest.raises(ModelError, match=r"CUDA devices only.*'sdpa'"):
        attention.set_attention(DiffusionModel.from_pipeline(tiny_pipeline("sd15")), "xformers")


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="the error of a machine without xformers")
def test_xformers_without_the_package() -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15")).to("cuda")
    with pytest.raises(MissingDependencyError, match=r"t2ialign\[xformers\]"):
        attention.set_attention(model, "xformers")
