"""Memory: the switches that trade time for memory.

Law: each one leaves the result as it is beyond rounding; only tiling may show, and says so.
"""

from __future__ import annotations

from t2ialign.models.diffusion import DiffusionModel


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
