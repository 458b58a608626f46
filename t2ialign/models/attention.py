"""Attention: which kernel computes it.

Law: the choice changes speed and memory, never what is computed beyond rounding; a kernel that is not there is an
error with its mend, not a silent other choice.
"""

from __future__ import annotations

import importlib.util

from t2ialign.errors import MissingDependencyError, ModelError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.user_adapter import unwrapped_attention

BACKENDS = ("auto", "sdpa", "xformers")


def set_attention(model: DiffusionModel, backend: str = "auto") -> str:
    """Chooses the attention of the UNet and the VAE.

    Args:
        model: The model to set up; call it before a LoRA is added. A user adapter stays, beside the chosen attention.
        backend: "sdpa" is PyTorch's scaled_dot_product_attention, "xformers" is the package's memory-efficient
            attention, "auto" is "sdpa".

    Returns:
        The backend in use, "sdpa" or "xformers".

    Raises:
        ModelError: `backend` is unknown, or "xformers" is asked for without a CUDA device.
        MissingDependencyError: xformers is not installed.
    """
    if backend not in BACKENDS:
        raise ModelError(f"unknown attention {backend!r}: choose one of {', '.join(BACKENDS)}")
    if backend == "xformers":
        _check_xformers(model)
        with unwrapped_attention(model.unet):
            for part in (model.unet, model.vae):
                part.enable_xformers_memory_efficient_attention()
        return "xformers"
    from diffusers.models.attention_processor import AttnProcessor2_0

    with unwrapped_attention(model.unet):
        for part in (model.unet, model.vae):
            part.set_attn_processor(AttnProcessor2_0())
    return "sdpa"


def _check_xformers(model: DiffusionModel) -> None:
    import torch

    if not torch.cuda.is_available() or model.device.type != "cuda":
        raise ModelError(
            f"attention 'xformers' runs on CUDA devices only and the model is on {model.device}: use attention 'sdpa'"
        )
    if importlib.util.find_spec("xformers") is None:
        raise MissingDependencyError("xformers", purpose="attention 'xformers'")
