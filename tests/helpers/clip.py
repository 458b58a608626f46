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


def save_clip(folder: Path, seed: int = 0, activation: str = "quick_gelu") -> Path:
    """Saves a CLIPModel with tokenizer and image processor under `folder/tiny-clip`."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = tiny_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**shape, "vocab_size": len(tokenizer), "hidden_act": activation, **ends},
        vision_config={**shape, "image_size": IMAGE_SIZE, "patch_size": 8, "hidden_act": activation},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
        for parameter in model.parameters():  # far from the tiny initial values, so that mistakes show
            torch.nn.init.normal_(parameter, std=0.3)
    target = folder / "tiny-clip"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    sizes = {"size": {"shortest_edge": IMAGE_SIZE}, "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}}
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
