"""Pictures from mini-SD for the gates and the pairs, with noise that is a function of the picture's number."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image


def load(folder: str) -> StableDiffusionPipeline:
    """Load the packaged pipeline in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample_pictures(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    seed: int,
    *,
    steps: int = 25,
    guidance: float = 4.0,
    batch: int = 50,
    half: bool = False,
) -> list[Image.Image]:
    """Sample a picture for each prompt by DDIM with classifier-free guidance.

    Args:
        pipeline: mini-SD.
        prompts: One for each picture.
        seed: Of the run; picture i's noise is a function of (seed, i).
        steps: DDIM steps.
        guidance: Guidance scale.
        batch: Pictures at once.
        half: Whether to compute in bfloat16, faster where the processor has it.
    """
    if half:
        pipeline.unet.set_attn_processor(AttnProcessor())
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        texts = prompts[start : start + batch]
        noise = [
            np.random.default_rng((seed, start + i)).standard_normal((4, 8, 8), dtype=np.float32)
            for i in range(len(texts))
        ]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            latents = pipeline(
                texts,
                num_inference_steps=steps,
                guidance_scale=guidance,
                latents=torch.from_numpy(np.stack(noise)),
                height=64,
                width=64,
                output_type="latent",
            ).images
        with torch.no_grad():
            decoded = pipeline.vae.decode(latents.float() / pipeline.vae.config.scaling_factor).sample
        pictures += pipeline.image_processor.postprocess(decoded, output_type="pil")
    return pictures
