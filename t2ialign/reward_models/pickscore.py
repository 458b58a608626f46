"""PickScore: CLIP-H tuned on people's choices between two pictures (Kirstain et al. 2023, arXiv 2305.01569).

Law of this file: `score` is exp(logit_scale) * cos, as the authors' code returns it; the softmax over two
pictures is a question of its own and never hidden in a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from t2ialign.errors import ConfigError
from t2ialign.reward_models.base import check_settings, pick_device
from t2ialign.reward_models.clip_backends import VIT_H_14
from t2ialign.reward_models.clip_loading import load_backend
from t2ialign.reward_models.cosine import CosineScorer
from t2ialign.reward_models.preparation import PillowPreparation

if TYPE_CHECKING:
    from t2ialign.reward_models.base import ImageInput

DEFAULT_CHECKPOINT = "yuvalkirstain/PickScore_v1"
"""The authors' weights, trained on Pick-a-Pic v1."""
MODES = {"official": "exp(logit_scale) * cos", "cosine": "cos"}
"""What `score` returns."""


class PickScore(CosineScorer):
    """PickScore, about 18 to 24 for ordinary pictures.

    Args:
        checkpoint: A `CLIPModel` of transformers: hub id, folder or weight file.
        mode: `"official"`: logit scale times cosine; `"cosine"`: the cosine alone, about 0.2.
        device: As in torch, or `"auto"`.
        dtype: `"float32"` as the authors' code, `"float16"` or `"bfloat16"`.
        batch_size: Pictures in a forward; it does not change scores.
        revision: Of a checkpoint on the hub.

    Raises:
        ConfigError: If mode or dtype is unknown.
        ModelError: If the checkpoint cannot be loaded.
    """

    name = "pickscore"

    def __init__(
        self,
        checkpoint: str = DEFAULT_CHECKPOINT,
        *,
        mode: str = "official",
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
        revision: str | None = None,
    ) -> None:
        """Load the checkpoint."""
        if mode not in MODES:
            raise ConfigError(f"unknown PickScore mode {mode!r}; choose one of {', '.join(MODES)}")
        check_settings(dtype=dtype, batch_size=batch_size)
        backend = load_backend(
            checkpoint, device=pick_device(device), dtype=dtype, revision=revision, architecture=VIT_H_14
        )
        preparation = backend.preparation
        if isinstance(preparation, PillowPreparation):
            preparation = replace(preparation, rgb="first", half="down")  # the authors use transformers' processor
        super().__init__(backend, preparation, batch_size)
        self.mode = mode
        self.version = f"{mode}:{backend.checkpoint}@{backend.digest[:8]}"

    def value(self, cosines: torch.Tensor) -> torch.Tensor:
        """See `CosineScorer`."""
        return self.backend.logit_scale * cosines if self.mode == "official" else cosines

    def preference(
        self, prompts: Sequence[str], first: Sequence[ImageInput], second: Sequence[ImageInput]
    ) -> torch.Tensor:
        """Return how likely a person prefers each of two pictures: the softmax over the official scores.

        Args:
            prompts: [B].
            first: [B].
            second: [B].

        Returns:
            float32 [B, 2] on the CPU; rows add up to 1.
        """
        scores = torch.stack([self.score(prompts, first), self.score(prompts, second)], dim=-1)
        logits = scores if self.mode == "official" else self.backend.logit_scale * scores
        return logits.softmax(dim=-1)

    def info(self) -> dict[str, Any]:
        """Say what is computed; `n_truncated` counts distinct prompts that were cut so far."""
        return self.describe(mode=self.mode, formula=MODES[self.mode], logit_scale=self.backend.logit_scale)
