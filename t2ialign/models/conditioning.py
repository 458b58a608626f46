"""Conditioning: what a UNet is told beside the noisy latents and the timestep.

Law: plain tensors with the batch first, nothing that knows a tokenizer, so that it can be cached and sliced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Text (for SDXL also pooled text and sizes, for PPD also users) for a batch.

    Attributes:
        hidden: Hidden states of the text encoder(s), [B, L, D].
        pooled: Pooled embedding of SDXL's second text encoder, [B, P]; None for the other families.
        time_ids: SDXL's (original height, original width, crop top, crop left, target height, target width) in
            pixels, [B, 6], float32; None for the other families.
        user: Users' embeddings as a user adapter takes them, T tokens of width D, [B, T, D], float32; a row of zeros
            is nobody. None where there are no users, and for a model without a user adapter.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    user: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuses parts of different batch sizes, and users that are not [B, T, D] (ValueError)."""
        for name in ("pooled", "time_ids", "user"):
            part = getattr(self, name)
            if part is not None and part.shape[0] != self.hidden.shape[0]:
                raise ValueError(f"{name} has {part.shape[0]} rows but hidden has {self.hidden.shape[0]}")
        if self.user is not None and self.user.ndim != 3:
            raise ValueError(f"user has the shape {tuple(self.user.shape)}: give [B, T, D]")

    def __len__(self) -> int:
        """The batch size B."""
        return self.hidden.shape[0]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Conditioning:
        """Moves and casts.

        `time_ids` and `user` stay float32: bfloat16 cannot hold a size such as 1023, and float16 not every number of
        an embedding.
        """
        return Conditioning(
            self.hidden.to(device=device, dtype=dtype),
            None if self.pooled is None else self.pooled.to(device=device, dtype=dtype),
            None if self.time_ids is None else self.time_ids.to(device=device),
            None if self.user is None else self.user.to(device=device),
        )

    def index(self, rows: Any) -> Conditioning:
        """The rows chosen by a slice, a list of integers, or an integer or boolean tensor."""
        return Conditioning(
            self.hidden[rows],
            None if self.pooled is None else self.pooled[rows],
            None if self.time_ids is None else self.time_ids[rows],
            None if self.user is None else self.user[rows],
        )

    def repeat(self, times: int) -> Conditioning:
        """The whole batch `times` times, one after the other: rows 0, 1, 0, 1 for two rows and `times` 2."""
        return Conditioning.cat([self] * times)

    def with_time_ids(self, time_ids: Tensor) -> Conditioning:
        """The same text with other sizes; see `DiffusionModel.time_ids`."""
        return replace(self, time_ids=time_ids)

    def with_user(self, user: Tensor | None) -> Conditioning:
        """The same text for users [B, T, D]; for None without any."""
        return replace(self, user=user)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Joins batches of one family.

        Raises:
            ValueError: `parts` is empty, or some have a pooled embedding, sizes or users and others have not.
        """
        if not parts:
            raise ValueError("nothing to join: `parts` is empty")

        def join(name: str) -> Tensor | None:
            present = [part for part in (getattr(part, name) for part in parts) if part is not None]
            if present and len(present) != len(parts):
                if name == "user":
                    raise ValueError(
                        f"cannot join conditioning with and without users: {len(present)} of {len(parts)} have them; "
                        "give the others zeros, which are nobody"
                    )
                raise ValueError(
                    f"cannot join conditioning of different families: {len(present)} of {len(parts)} have {name}"
                )
            return torch.cat(present) if present else None

        return Conditioning(torch.cat([part.hidden for part in parts]), join("pooled"), join("time_ids"), join("user"))
