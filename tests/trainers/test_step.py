"""The whole step against one written plainly from the published formulas, with nothing of ours on that side.

Diffusion-DPO (arXiv 2311.12908, equation 14 with the constants of DiffusionDPO's train.py:1125-1145), DDPM noising
(arXiv 2006.11239, equation 4), v-prediction (arXiv 2202.00512), SDXL's conditioning (arXiv 2307.01952).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.tiny import tiny_pipeline
from helpers.training import FAMILIES, dpo_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
from t2ialign.objectives import dpo
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.preference import PreferenceTask

BETA = 500.0
LORA = {"rank": 4, "alpha": 8.0}


def plain_text(pipeline: Any, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
    """Text states as the papers' models take them: the last one, or for SDXL the last but one of both encoders."""

    def ids(tokenizer: Any) -> Tensor:
        tokens = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        return torch.as_tensor(tokens.input_ids)

    if not hasattr(pipeline, "text_encoder_2"):
        return pipeline.text_encoder(ids(pipeline.tokenizer)).last_hidden_state, None
    one = pipeline.text_encoder(ids(pipeline.tokenizer), output_hidden_states=True)
    two = pipeline.text_encoder_2(ids(pipeline.tokenizer_2), output_hidden_states=True)
    return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1), two.text_embeds


def plain_loss(
    pipeline: Any, policy: Any, reference: Any, v_prediction: bool, inputs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Loss and margins of Diffusion-DPO on pictures `[2B, 3, H, W]`, chosen first, each with its caption."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    signal = torch.cumprod(1 - betas, dim=0)[torch.cat([inputs["t"], inputs["t"]])].view(-1, 1, 1, 1)
    with torch.no_grad():
        posterior = pipeline.vae.encode(inputs["pixels"]).latent_dist
        x0 = (posterior.mean + posterior.std * inputs["posterior"]) * pipeline.vae.config.scaling_factor
        text, pooled = plain_text(pipeline, inputs["prompts"])
    eps = torch.cat([inputs["eps"], inputs["eps"]])
    noisy = signal.sqrt() * x0 + (1 - signal).sqrt() * eps
    target = signal.sqrt() * eps - (1 - signal).sqrt() * x0 if v_prediction else eps
    more = {}
    if pooled is not None:
        sizes = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]).repeat(len(x0), 1)
        more = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}

    def errors(unet: Any) -> tuple[Tensor, Tensor]:
        predicted = unet(noisy, torch.cat([inputs["t"]] * 2), text, **more).sample
        each = ((predicted - target) ** 2).mean(dim=(1, 2, 3))
        half = len(each) // 2
        return each[:half], each[half:]

    chosen, rejected = errors(policy)
    with torch.no_grad():
        held_chosen, held_rejected = errors(reference)
    inside = -0.5 * BETA * ((chosen - rejected) - (held_chosen - held_rejected))
    return -torch.log(torch.sigmoid(inside)).mean(), inside.detach()


def shake(unet: Any) -> None:
    """Move what is trained away from where it began, so that policy and reference differ."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def twin_with_lora(unet: Any, trained: Any) -> Any:
    """The same UNet with peft's own LoRA and the trained adapter's numbers."""
    from peft import LoraConfig, inject_adapter_in_model

    unet.requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    config = LoraConfig(r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules=targets)
    twin = inject_adapter_in_model(config, unet)
    values = {name: part for name, part in trained.named_parameters() if ".lora_" in name}
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if ".lora_" in name:
                parameter.copy_(values[name])
    return twin


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_the_step_equals_the_published_formula(
    tmp_path: Path, pairs: PairDataset, family: str, prediction_type: str, method: str
) -> None:
    config = dpo_config(tmp_path, method=method, beta=BETA)
    config.lora.rank, config.lora.alpha = int(LORA["rank"]), LORA["alpha"]
    model = tiny_model(family, prediction_type)
    task = PreferenceTask(model, pairs, dpo(BETA), resolve(config, family=family, resolution=64))
    shake(model.unet)
    batch = task.examples.collate([task.examples.read(index, Draws(0, index)) for index in (0, 1, 5)])
    output = task.loss(task.module, batch)
    output.loss.backward()

    other = tiny_pipeline(family, prediction_type)
    reference = copy.deepcopy(other.unet)
    policy = copy.deepcopy(model.unet) if method == "full" else twin_with_lora(other.unet, model.unet)
    policy.zero_grad()
    inputs = {
        "t": batch.timesteps,
        "eps": batch.noise,
        "posterior": batch.posterior,
        "pixels": batch.pixels,
        "prompts": batch.prompts,
    }
    loss, margins = plain_loss(other, policy, reference, prediction_type == "v_prediction", inputs)
    loss.backward()

    assert margins.abs().min() > 1e-3
    assert output.loss.item() == pytest.approx(loss.item(), abs=1e-4 * max(1.0, margins.abs().max().item()))
    torch.testing.assert_close(output.margin, margins, rtol=1e-4, atol=1e-3)
    ours = {name: part.grad for name, part in model.unet.named_parameters() if part.requires_grad}
    theirs = {name: part.grad for name, part in policy.named_parameters() if part.requires_grad}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        mine = ours[name]
        assert gradient is not None
        assert mine is not None
        torch.testing.assert_close(mine, gradient, rtol=2e-3, atol=2e-4 * gradient.abs().max().item() + 1e-6)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_loss_is_ln_2_and_every_margin_zero(
    tmp_path: Path, pairs: PairDataset, family: str, prediction_type: str, cached: bool, checkpointing: bool
) -> None:
    config = dpo_config(tmp_path, cache_latents=cached, cache_text=cached, gradient_checkpointing=checkpointing)
    resolved = resolve(config, family=family, resolution=64)
    task = PreferenceTask(tiny_model(family, prediction_type), pairs, dpo(5000), resolved)
    task.setup(torch.device("cpu"), Schedule(0, len(pairs), 4, 2), lambda: False)
    batch = task.examples.collate([task.examples.read(index, Draws(0, index)) for index in (0, 3)])
    output = task.loss(task.module, batch)
    assert output.loss.item() == pytest.approx(0.6931471805599453, abs=1e-6)
    assert output.margin.tolist() == [0.0, 0.0]
    output.loss.backward()
    assert any(part.grad is not None and part.grad.abs().max() > 0 for part in task.module.parameters())
