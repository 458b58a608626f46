"""Tiny CLIP checkpoints with random weights, of transformers and of open_clip, made in the process.

Law: the files are what the libraries write themselves; nothing of t2ialign has a hand in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from helpers.tiny import tiny_tokenizer

IMAGE_SIZE = 32
TINY_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


def save_clip(
    folder: Path, seed: int = 0, activation: str = "quick_gelu", image_size: int = IMAGE_SIZE, patch_size: int = 8
) -> Path:
    """Saves a CLIPModel with tokenizer and image processor under `folder/tiny-clip`."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = tiny_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**shape, "vocab_size": len(tokenizer), "hidden_act": activation, **ends},
        vision_config={**shape, "image_size": image_size, "patch_size": patch_size, "hidden_act": activation},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
        for parameter in model.parameters():  # far from the tiny initial values, so that mistakes show
            torch.nn.init.normal_(parameter, std=0.3)
        torch.nn.init.constant_(model.logit_scale, 2.5)
    target = folder / "tiny-clip"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    sizes = {"size": {"shortest_edge": image_size}, "crop_size": {"height": image_size, "width": image_size}}
    CLIPImageProcessorPil(**sizes).save_pretrained(target)
    return target


def save_open_clip(folder: Path, quick_gelu: bool = False, seed: int = 0) -> Path:
    """Saves an open_clip folder (`open_clip_config.json` and safetensors) under `folder/tiny-open-clip`."""
    import json

    import open_clip
    from safetensors.torch import save_file

    target = folder / "tiny-open-clip"
    target.mkdir(parents=True, exist_ok=True)
    config = {**TINY_ARCHITECTURE, "quick_gelu": quick_gelu}
    content = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}
    (target / "open_clip_config.json").write_text(json.dumps(content), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, target / "open_clip_model.safetensors")
    return target


def save_head(folder: Path, width: int = 16, seed: int = 0) -> Path:
    """Saves the five linear layers of an aesthetic predictor v2 as the authors' `.pth` is, ever narrower."""
    sizes = (width, 12, 8, 6, 4, 1)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for place, inner, outer in zip((0, 2, 4, 6, 7), sizes, sizes[1:], strict=False):
        state[f"layers.{place}.weight"] = 0.5 * torch.randn(outer, inner, generator=generator)
        state[f"layers.{place}.bias"] = torch.randn(outer, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "sac+logos+ava1-l14-linearMSE.pth")
    return folder / "sac+logos+ava1-l14-linearMSE.pth"


def save_mps(folder: Path, seed: int = 0, layers: int = 2, heads: int = 2) -> Path:
    """Saves a folder with weights named as the official MPS names them, its CLIP's config.json and its tokenizer."""
    from safetensors.torch import load_file, save_file

    target = save_clip(folder, seed, "gelu").rename(folder / "tiny-mps")
    trunk = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    state = {f"model.{name}": value for name, value in trunk.items()}
    state["model.text_model.embeddings.position_ids"] = torch.arange(77)[None]  # older transformers saved it
    dim, head, inner = 16, 8, heads * 8
    shapes = {
        "0.fn.norm.weight": (dim,),
        "0.fn.norm.bias": (dim,),
        "0.fn.to_q.weight": (inner, dim),
        "0.fn.to_kv.weight": (2 * head, dim),
        "0.fn.to_out.weight": (dim, inner),
        "0.fn.ff.0.weight": (8 * dim, dim),
        "0.fn.ff.2.weight": (dim, 4 * dim),
        "1.fn.norm.weight": (dim,),
        "1.fn.norm.bias": (dim,),
        "1.fn.fused_attn_ff_proj.weight": (inner + 2 * head + 8 * dim, dim),
        "1.fn.attn_out.weight": (dim, inner),
        "1.fn.ff_out.1.weight": (dim, 4 * dim),
    }
    generator = torch.Generator().manual_seed(seed)
    for layer in range(layers):
        for name, shape in shapes.items():
            state[f"cross_model.layers.{layer}.{name}"] = torch.randn(shape, generator=generator)
        frequencies = 1.0 / 10000 ** (torch.arange(0, head, 2) / head)
        state[f"cross_model.layers.{layer}.1.fn.rotary_emb.inv_freq"] = frequencies
    save_file(state, target / "mps.safetensors")
    return target
