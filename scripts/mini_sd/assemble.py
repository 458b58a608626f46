"""Write what is packaged: a `StableDiffusionPipeline` folder and a `CLIPModel` folder, in half precision."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from mini_sd.clip import new_clip, new_processor
from mini_sd.unet import new_scheduler, new_unet


def load_averages(work: Path, stage: str) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Return the UNet and the text encoder with the averaged weights of a stage."""
    state = torch.load(work / f"{stage}.pt", weights_only=True)
    encoder = CLIPTextModel.from_pretrained(work / "text_encoder")
    unet = new_unet()
    for name, module in (("unet.", unet), ("encoder.", encoder)):
        weights = {n.removeprefix(name): p for n, p in state["ema"].items() if n.startswith(name)}
        module.load_state_dict(weights, strict=False)
    return unet, encoder


def assemble_pipeline(work: Path, output: Path) -> Path:
    """Put the stages' averaged weights together; works on an unfinished UNet stage too."""
    latest = "headroom" if (work / "headroom.pt").exists() else "unet"
    unet, encoder = load_averages(work, latest)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=encoder,
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = output / "mini-sd"
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder


def assemble_clip(weights: dict[str, Tensor], tokenizer: CLIPTokenizer, output: Path) -> Path:
    """Write the CLIP with its tokenizer and picture processor."""
    clip = new_clip(tokenizer)
    clip.load_state_dict(weights, strict=False)
    folder = output / "mini-clip"
    clip.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    new_processor().save_pretrained(folder)
    return folder
