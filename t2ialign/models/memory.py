"""Memory: the switches that trade time for memory, and what leaves the accelerator while nothing needs it.

Law: each one leaves the result as it is beyond rounding; only tiling may show, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from t2ialign.models.diffusion import DiffusionModel

AWAY = torch.device("cpu")
"""Where parts wait that are not needed."""


def save_memory(
    model: DiffusionModel,
    *,
    gradient_checkpointing: bool = False,
    vae_slicing: bool = False,
    vae_tiling: bool = False,
) -> None:
    """Sets the switches of the UNet and the VAE; what is False is switched off.

    Args:
        model: The model to set up.
        gradient_checkpointing: The UNet keeps only the inputs of its blocks and computes them again in backward:
            about a third more time for a fraction of the activations.
        vae_slicing: The VAE takes a batch one picture at a time.
        vae_tiling: The VAE takes a picture in overlapping tiles. Seams can show; for pictures that do not fit
            otherwise.
    """
    if gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
    else:
        model.unet.disable_gradient_checkpointing()
    (model.vae.enable_slicing if vae_slicing else model.vae.disable_slicing)()
    (model.vae.enable_tiling if vae_tiling else model.vae.disable_tiling)()


def send_away(model: DiffusionModel, *, vae: bool, text_encoders: bool) -> None:
    """Moves encoders that are not needed for a while off the accelerator; on a CPU nothing moves.

    Args:
        model: Whose UNet stays.
        vae: Whether the VAE goes.
        text_encoders: Whether the text encoders go.
    """
    parts = [*([model.vae] if vae else []), *(model.text_encoders if text_encoders else [])]
    if model.device != AWAY and parts:
        _move(parts, AWAY)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def all_here(model: DiffusionModel) -> Iterator[None]:
    """Brings the encoders that are elsewhere to the UNet's device, and back afterwards."""
    moved = [(part, part.device) for part in (model.vae, *model.text_encoders) if part.device != model.device]
    _move([part for part, _ in moved], model.device)
    try:
        yield
    finally:
        for part, device in moved:
            part.to(device)
        if moved and torch.cuda.is_available():
            torch.cuda.empty_cache()


def _move(parts: Sequence[Any], device: torch.device) -> None:
    for part in parts:
        part.to(device)
