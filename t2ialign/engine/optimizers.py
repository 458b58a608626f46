"""Optimizers by name, and the learning rate as a function of the step.

The rate is computed, not stepped: it needs no state in a checkpoint and is right after any resume.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from t2ialign.engine.config import TrainConfig, known
from t2ialign.errors import ConfigError, MissingDependencyError


def build_optimizer(config: TrainConfig, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that `config.optimizer` names, over the given parameters.

    Adafactor is set as the official Diffusion-DPO script sets it for SDXL: a given rate, no relative step, no
    scaling by the parameters' size (DiffusionDPO train.py:667-674).

    Raises:
        ConfigError: for an unknown name, or `adamw8bit` without a CUDA device.
        MissingDependencyError: for `adamw8bit` without bitsandbytes.
    """
    name = known(config.optimizer, "optimizer")
    rate = known(config.learning_rate, "learning_rate")
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return cast(
            torch.optim.Optimizer,
            Adafactor(
                parameters,
                lr=rate,
                weight_decay=config.weight_decay,
                clip_threshold=1.0,
                scale_parameter=False,
                relative_step=False,
                warmup_init=False,
            ),
        )
    if name not in ("adamw", "adamw8bit"):
        raise ConfigError(f"optimizer is {name!r}; choose from adamw, adamw8bit, adafactor")
    options: dict[str, Any] = {
        "lr": rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": config.weight_decay,
    }
    if name == "adamw8bit":
        return _adamw8bit()(parameters, **options)
    # One kernel for all parameters: on a CPU a fifth of the time of torch's default, a loop over them.
    return torch.optim.AdamW(parameters, fused=True, **options)


def keep_layout(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimizer's tensors into the memory layout of their parameters.

    A checkpoint keeps values in the usual order, and fused kernels walk through memory: beside a channels-last
    parameter they would take each other's numbers.
    """
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            if (
                isinstance(value, torch.Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                entry[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _adamw8bit() -> type[torch.optim.AdamW]:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError("bitsandbytes", purpose="optimizer adamw8bit")
    if not torch.cuda.is_available():
        raise ConfigError("optimizer adamw8bit needs a CUDA device; use --optimizer adamw on this machine")
    import bitsandbytes

    return cast(type[torch.optim.AdamW], bitsandbytes.optim.AdamW8bit)


def rate_factor(config: TrainConfig) -> Callable[[int], float]:
    """Return the factor on the peak learning rate as a function of the optimizer step, counted from 0.

    The courses are those of `diffusers.optimization.get_scheduler`.
    """
    from diffusers.optimization import get_scheduler

    peak = known(config.learning_rate, "learning_rate") or 1.0
    idle = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = get_scheduler(
        known(config.lr_scheduler, "lr_scheduler"),
        idle,
        num_warmup_steps=known(config.lr_warmup_steps, "lr_warmup_steps"),
        num_training_steps=known(config.steps, "steps"),
    )
    return cast(Callable[[int], float], scheduler.lr_lambdas[0])


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
