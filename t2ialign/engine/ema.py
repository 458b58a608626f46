"""The running average of the trained weights: what samples and `final/` show when `--ema` is on.

The average is `diffusers.training_utils.EMAModel`, whose decay rises as (1 + k) / (10 + k) up to `ema_decay`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from t2ialign.engine.sharding import as_part, local_part, part_of


class Average:
    """An exponential moving average of some parameters.

    Args:
        parameters: What is averaged; the average begins at their present values.
        decay: In [0, 1).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        from diffusers.training_utils import EMAModel

        self._wholes = list(parameters)
        # Where a parameter is spread over processes, each averages its own part.
        self._parameters = [local_part(parameter) for parameter in parameters]
        self._ema = EMAModel(self._parameters, decay=decay, foreach=True)

    def update(self) -> None:
        """Take in the present values, after an optimizer step."""
        self._ema.step(self._parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averaged values into the parameters, and the trained ones back at the end."""
        trained = [parameter.detach().clone() for parameter in self._parameters]
        self._ema.copy_to(self._parameters)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters, trained, strict=True):
                    parameter.copy_(value)

    @property
    def updates(self) -> int:
        """How many times `update` was called."""
        return int(self._ema.optimization_step)

    def tensors(self) -> list[Tensor]:
        """Return the averaged values, in the order of the parameters, in parts like these."""
        return [as_part(shadow, whole) for shadow, whole in zip(self._ema.shadow_params, self._wholes, strict=True)]

    def load(self, tensors: Sequence[Tensor], updates: int) -> None:
        """Go on from saved values and their number of updates."""
        for shadow, value, whole in zip(self._ema.shadow_params, tensors, self._wholes, strict=True):
            shadow.copy_(local_part(part_of(value, whole)))
        self._ema.optimization_step = updates
