"""The frozen reference: the model as it was before training, whichever way it is kept.

Law: `predict` of a reference runs without gradients and without dropout, leaves the policy as it found it, and
right after loading equals the policy's prediction (bit for bit with LoRA and with a user adapter).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from t2ialign.models import lora, user_adapter
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.modes import Modes


class Reference(ABC):
    """Predicts what the model predicted before training."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """As `DiffusionModel.predict`: [B, C, h, w], without gradients."""


class WithoutAdapter(Reference):
    """The reference of LoRA training: the same UNet with its adapters off. It costs no memory.

    Args:
        model: A model after `lora.add_lora`.
        unet: Its UNet as wrapped for training, if it is wrapped.
    """

    def __init__(self, model: DiffusionModel, unet: torch.nn.Module | None = None) -> None:
        """Keep the model; nothing is copied."""
        self.model = model
        self.unet: torch.nn.Module = model.unet if unet is None else unet

    @cached_property
    def _modes(self) -> Modes:
        return Modes(self.unet)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """As `DiffusionModel.predict`: [B, C, h, w], without gradients."""
        with torch.no_grad(), self._modes.without_adapters():
            return self.model.predict(noisy, timesteps, conditioning, unet=self.unet)


class WithoutUser(Reference):
    """The reference of user adapter training: the same UNet, told of no user. It costs no memory.

    Its adapters other than the user's stay on: they are part of the model as it was before training.

    Args:
        model: A model after `user_adapter.add_user_adapter`.
        unet: Its UNet as wrapped for training, if it is wrapped.
    """

    def __init__(self, model: DiffusionModel, unet: torch.nn.Module | None = None) -> None:
        """Keep the model; nothing is copied."""
        self.model = model
        self.unet: torch.nn.Module = model.unet if unet is None else unet

    @cached_property
    def _modes(self) -> Modes:
        return Modes(self.unet)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """As `DiffusionModel.predict`: [B, C, h, w], without gradients, whoever the users are."""
        with torch.no_grad(), self._modes.evaluating():
            return self.model.predict(noisy, timesteps, conditioning.with_user(None), unet=self.unet)


class FrozenCopy(Reference):
    """The reference of full fine-tuning: a copy of the UNet made now, so make it before the first step.

    Args:
        model: The model whose UNet is copied.
        dtype: Type of the copy; the model's if None. In half precision it needs half the memory, but its prediction
            is then no longer equal to the policy's at the first step.

    Raises:
        ValueError: The UNet has adapters; `WithoutAdapter` and `WithoutUser` need no copy.
    """

    def __init__(self, model: DiffusionModel, dtype: torch.dtype | None = None) -> None:
        """Copy the UNet."""
        if getattr(model.unet, "peft_config", None):
            raise ValueError("the UNet has LoRA adapters: use WithoutAdapter, which needs no copy")
        if user_adapter.in_training(model.unet):
            raise ValueError("the UNet has a user adapter in training: use WithoutUser, which needs no copy")
        self.model = model
        self.unet: torch.nn.Module = copy.deepcopy(model.unet)
        self.unet.requires_grad_(False)
        self.unet.eval()
        if dtype is not None:
            self.unet.to(dtype=dtype)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """As `DiffusionModel.predict`: [B, C, h, w], without gradients."""
        with torch.no_grad():
            return self.model.predict(noisy, timesteps, conditioning, unet=self.unet)


def make_reference(model: DiffusionModel, dtype: torch.dtype | None = None) -> Reference:
    """The reference that fits what is trained.

    `WithoutUser` if the UNet has a user adapter in training, `WithoutAdapter` if it has a LoRA in training, else a
    `FrozenCopy`.

    Raises:
        ValueError: It has both in training: neither switched off alone is the model as it was.
    """
    lora_in_training = lora.ADAPTER in (getattr(model.unet, "peft_config", None) or {})
    if user_adapter.in_training(model.unet):
        if lora_in_training:
            raise ValueError("the UNet has a LoRA and a user adapter in training: train one at a time")
        return WithoutUser(model)
    return WithoutAdapter(model) if lora_in_training else FrozenCopy(model, dtype)
