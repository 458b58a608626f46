"""Stage 1: the autoencoder, first on crops, then on whole pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mini_sd.fit import Schedule, fit
from mini_sd.pictures import crop, draw, to_tensor

KL_WEIGHT = 1e-4
CROP_SHARE = 0.75
"""Share of the steps spent on crops of half the side, which cost a quarter each."""


def new_vae() -> AutoencoderKL:
    """Make an untrained autoencoder: factor 8, 4 latent channels, 0.94 million parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def train_vae(work: Path, seed: int, schedule: Schedule, start: AutoencoderKL | None = None) -> AutoencoderKL:
    """Train the autoencoder on L1 + MSE + KL; bfloat16 forward, float32 weights."""
    torch.manual_seed(seed)
    vae = start or new_vae()
    vae.train()

    def loss_of(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        whole = step >= CROP_SHARE * schedule.steps
        _, pictures = draw(rng, 12 if whole else 32)
        x = to_tensor(pictures)
        x = x if whole else crop(x, rng, 32)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample.float()
        l1, mse = (y - x).abs().mean(), (y - x).square().mean()
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return l1 + mse + KL_WEIGHT * kl, {"l1": float(l1.detach()), "kl": float(kl.detach())}

    vae.load_state_dict(fit("vae", vae, loss_of, schedule, work, seed=seed), strict=False)
    return vae.eval()


def measure_scale(vae: AutoencoderKL, seed: int, count: int = 1000) -> float:
    """Return 1 / (standard deviation of the latents), Stable Diffusion's `scaling_factor`."""
    _, pictures = draw(np.random.default_rng((seed, 1)), count)
    with torch.no_grad():
        latents = torch.cat([vae.encode(x).latent_dist.sample() for x in to_tensor(pictures).split(100)])
    return float(1.0 / latents.std())
