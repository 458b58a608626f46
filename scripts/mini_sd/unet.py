"""Stage 3: the UNet, on latents and captions, with the text encoder learning on at a tenth of its rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from mini_sd.fit import Schedule, fit
from mini_sd.pictures import caption, draw, garble, to_tensor
from mini_sd.text import tokenize
from t2ialign.mini.world import Spec

BATCH = 64
EMPTY_SHARE = 0.1
"""Share of captions left empty, for classifier-free guidance."""
MIN_SNR_GAMMA = 5.0
"""Min-SNR weighting: min(SNR, 5) / SNR for the epsilon target (Hang et al. 2023, arXiv 2303.09556)."""
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def new_unet() -> UNet2DConditionModel:
    """Make an untrained UNet over 8 x 8 x 4 latents."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        block_out_channels=(96, 160),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Make Stable Diffusion's noise schedule, sampled by DDIM."""
    return DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def encode_pool(vae: AutoencoderKL, seed: int, count: int, file: Path) -> tuple[list[Spec], Tensor]:
    """Draw and encode `count` pictures once: specifications, and posteriors [count, 2, 4, 8, 8]."""
    rng = np.random.default_rng((seed, 77))
    specs: list[Spec] = []
    moments: list[Tensor] = []
    done = torch.load(file, weights_only=True) if file.exists() else None
    for _ in range(0, count, 250):
        drawn, pictures = draw(rng, 250)
        specs += drawn
        if done is None:
            with torch.no_grad():
                posterior = vae.encode(to_tensor(pictures)).latent_dist
            moments.append(torch.stack([posterior.mean, posterior.std], dim=1))
    if done is None:
        done = torch.cat(moments)
        torch.save(done, file)
    return specs, done


class _Pair(nn.Module):
    def __init__(self, unet: UNet2DConditionModel, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.encoder = unet, encoder


def train_unet(
    work: Path,
    seed: int,
    schedule: Schedule,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    start: UNet2DConditionModel | None = None,
    *,
    name: str = "unet",
    careless: float = 0.0,
    pool: int = 80_000,
) -> dict[str, Tensor]:
    """Train the UNet and the text encoder; returns both's averaged weights by name.

    `careless` is the share of captions of two objects that tell them wrongly (`pictures.garble`).
    """
    specs, posteriors = encode_pool(vae, seed, pool, work / f"latents-{seed}-{pool}.pt")
    torch.manual_seed(seed)
    unet = start or new_unet()
    # The plain attention: in bfloat16 on a CPU, the fused one's backward takes half of the step.
    unet.set_attn_processor(AttnProcessor())
    model = _Pair(unet, encoder.train())
    alphas = DDPMScheduler(**NOISE).alphas_cumprod

    def loss_of(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(len(specs), size=BATCH)
        texts = [
            "" if rng.random() < EMPTY_SHARE else caption(garble(specs[i], rng, careless), rng)[0] for i in chosen
        ]
        mean, std = posteriors[torch.from_numpy(chosen)].unbind(1)
        latents = (mean + std * torch.randn_like(mean)) * vae.config.scaling_factor
        # One timestep from each of BATCH equal strata: the same law, less noise in the gradient.
        t = ((torch.arange(BATCH) + torch.rand(BATCH)) * (1000 / BATCH)).long()
        noise, alpha = torch.randn_like(latents), alphas[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encoder(tokenize(tokenizer, texts)).last_hidden_state
            predicted = unet(noisy, t, hidden).sample.float()
        error = (predicted - noise).square().mean(dim=(1, 2, 3))
        snr = alphas[t] / (1 - alphas[t])
        weight = snr.clamp(max=MIN_SNR_GAMMA) / snr
        return (weight * error).mean(), {"error": float(error.detach().mean())}

    groups = [
        {"params": list(unet.parameters()), "factor": 1.0},
        {"params": list(encoder.parameters()), "factor": 0.1},
    ]
    return fit(name, model, loss_of, schedule, work, seed=seed, groups=groups)
