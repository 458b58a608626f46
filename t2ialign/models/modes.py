"""Switching a UNet between what is trained and what it was, many times a second.

Law: every switch comes back as it was, also after an exception, and `requires_grad` is never touched, so that a switch
may stand between a forward of the policy and its backward. Walking a UNet's modules takes longer than switching them
(3 ms with a LoRA on mini-SD, 2 % of a step), so they are listed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class Modes:
    """The modes of a UNet's modules, and the layers of its adapters.

    Args:
        unet: As it is now, also wrapped by accelerate or compiled; layers that are added later are not known.
    """

    def __init__(self, unet: nn.Module) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._modules = list(unet.modules())
        self._layers = [module for module in self._modules if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode inside the block."""
        # Written past nn.Module's own __setattr__, which looks for parameters and costs more than all the rest.
        training = [module for module in self._modules if module.training]
        try:
            for module in training:
                module.__dict__["training"] = False
            yield
        finally:
            for module in training:
                module.__dict__["training"] = True

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """Every adapter off and eval mode inside the block."""
        before = [layer._disable_adapters for layer in self._layers]
        with self.evaluating():
            try:
                # The flag itself, since peft's enable_adapters also switches requires_grad off and on.
                for layer in self._layers:
                    layer.__dict__["_disable_adapters"] = True
                yield
            finally:
                for layer, off in zip(self._layers, before, strict=True):
                    layer.__dict__["_disable_adapters"] = off
