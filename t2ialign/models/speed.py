"""Speed: the switches that trade start-up time or memory layout for faster steps.

Law: each one leaves the result as it is beyond rounding, is off unless asked for, and keeps the names of the weights,
so that whatever is saved is the same with and without it.
"""

from __future__ import annotations

import torch
from torch import nn

from t2ialign.errors import ModelError
from t2ialign.models.diffusion import DiffusionModel


def speed_up(
    model: DiffusionModel, *more: nn.Module, channels_last: bool = False, compile: bool = False, vae: bool = True
) -> None:
    """Set the switches of the UNet and the VAE.

    Args:
        model: The model to set up, with its adapters on, before an optimizer or an average knows its weights.
        *more: Further UNets that work beside it, such as the frozen reference of full fine-tuning.
        channels_last: Keep pictures and convolutions in channels-last layout, which half precision on recent GPUs
            computes faster.
        compile: Compile each network with `torch.compile` where it stands, on its first call for each shape: a
            minute or more before the first step, then fewer kernels a step. A network computes with and without its
            adapters, and with and without gradient, by graphs of its own, which may round differently.
        vae: Whether the VAE is set up too.

    Raises:
        ModelError: `compile` on a CPU without a C++ compiler.
    """
    networks = [model.unet, *more]
    if channels_last:
        for network in (*networks, *([model.vae] if vae else [])):
            network.to(memory_format=torch.channels_last)
    if compile:
        _check_compiler(model.device)
        for network in networks:
            # In place: a wrapper would rename every weight.
            network.compile()
        if vae:
            model.vae.decoder.compile()


def _check_compiler(device: torch.device) -> None:
    if device.type != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # torch raises an error of its own, which it does not export
        mend = "install g++ or clang, or leave --compile out"
        raise ModelError(f"compile needs a C++ compiler on a CPU: {mend}") from error
