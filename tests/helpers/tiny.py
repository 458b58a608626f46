"""Tiny pipelines with random weights: the real classes in small, made in the process, without downloads.

Law: `tiny_pipeline(family, seed=s)` is a function of its arguments alone, so that two calls give equal weights.
Every picture is 64 px (latents of 4 x 8 x 8, as in mini-SD); a forward of the UNet takes some milliseconds.

    pipeline = tiny_pipeline("sdxl")                 # a StableDiffusionXLPipeline
    model = load_model(save_tiny(tmp_path, "sd2"))   # SD2: v_prediction unless asked otherwise
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

FAMILIES = ("sd15", "sd2", "sdxl")
WIDTH = 32
RESOLUTION = 64


def tiny_tokenizer(length: int = 77, pad_token: str = "<|endoftext|>") -> Any:
    """A byte-level CLIPTokenizer without merges: a token a character, so that truncation is easy to provoke."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=pad_token, model_max_length=length)


def _text_config(tokenizer: Any, activation: str) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=WIDTH,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_vae(scaling_factor: float = 0.18215, force_upcast: bool = False) -> Any:
    """An AutoencoderKL of factor 8 with 4 latent channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=RESOLUTION,
        scaling_factor=scaling_factor,
        force_upcast=force_upcast,
    )


def tiny_unet(family: str) -> Any:
    """A UNet2DConditionModel of two levels, in the shape of `family`."""
    from diffusers import UNet2DConditionModel

    shape: dict[str, Any] = {"cross_attention_dim": WIDTH, "attention_head_dim": 4}
    if family == "sd2":
        shape |= {"attention_head_dim": (2, 4), "use_linear_projection": True}
    if family == "sdxl":
        shape = {
            "cross_attention_dim": 2 * WIDTH,
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "transformer_layers_per_block": (1, 2),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
        }
    return UNet2DConditionModel(
        sample_size=RESOLUTION // 8,
        block_out_channels=(WIDTH, 2 * WIDTH),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D")
        if family == "sdxl"
        else ("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")
        if family == "sdxl"
        else ("UpBlock2D", "CrossAttnUpBlock2D"),
        **shape,
    )


def tiny_scheduler(prediction_type: str = "epsilon", name: str = "DDIMScheduler", **more: Any) -> Any:
    """A scheduler of class `name` with Stable Diffusion's noise schedule."""
    import diffusers

    settings: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
    }
    if name in ("DDIMScheduler", "PNDMScheduler"):
        settings |= {"set_alpha_to_one": False, "steps_offset": 1}
    if name == "DDIMScheduler":
        settings["clip_sample"] = False
    return getattr(diffusers, name)(**settings, **more)


def tiny_pipeline(
    family: str = "sd15", prediction_type: str | None = None, seed: int = 0, scheduler: Any | None = None
) -> Any:
    """Builds a pipeline of `family` ("sd15", "sd2" or "sdxl") with random weights.

    `prediction_type` is "epsilon" for "sd15" and "sdxl" and "v_prediction" for "sd2" unless given. The caller's
    random state is left as it was.
    """
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    if family not in FAMILIES:
        raise ValueError(f"family must be one of {FAMILIES}, not {family!r}")
    prediction_type = prediction_type or ("v_prediction" if family == "sd2" else "epsilon")
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "tokenizer": tokenizer,
            "text_encoder": CLIPTextModel(_text_config(tokenizer, "gelu" if family == "sd2" else "quick_gelu")),
            "unet": tiny_unet(family),
            "vae": tiny_vae(0.13025, force_upcast=True) if family == "sdxl" else tiny_vae(),
            "scheduler": scheduler or tiny_scheduler(prediction_type),
        }
        if family == "sdxl":
            parts["tokenizer_2"] = tiny_tokenizer(pad_token="!")
            parts["text_encoder_2"] = CLIPTextModelWithProjection(_text_config(parts["tokenizer_2"], "gelu"))
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if family == "sdxl":
        pipeline: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny(folder: Path, family: str = "sd15", prediction_type: str | None = None, seed: int = 0) -> Path:
    """Saves the tiny pipeline under `folder/tiny-FAMILY` as safetensors and returns that folder."""
    target = Path(folder) / f"tiny-{family}"
    tiny_pipeline(family, prediction_type, seed).save_pretrained(target, safe_serialization=True)
    return target
