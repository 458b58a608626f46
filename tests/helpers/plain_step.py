"""A training step written plainly from the published formulas, with nothing of ours in it.

Diffusion-DPO (arXiv 2311.12908, equation 14 with the constants of DiffusionDPO's train.py:1125-1145), DDPM noising
(arXiv 2006.11239, equation 4), v-prediction (arXiv 2202.00512), SDXL's conditioning (arXiv 2307.01952).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
