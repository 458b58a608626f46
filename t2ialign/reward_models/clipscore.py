"""CLIPScore: the cosine of a picture and its prompt in CLIP's space, in each of its live definitions.

Law of this file: the definition is a choice with a name, and the name stands in `version`; numbers
of two definitions, or of two checkpoints, are never put under one heading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from t2ialign.errors import ConfigError
from t2ialign.reward_models.base import check_settings, pick_device
from t2ialign.reward_models.clip_backends import ClipBackend
from t2ialign.reward_models.clip_loading import load_backend
from t2ialign.reward_models.cosine import CosineScorer
from t2ialign.reward_models.preparation import ClipPreparation, PillowPreparation

DEFAULT_CHECKPOINT = "openai/clip-vit-base-patch32"
"""The checkpoint of the paper (OpenAI's ViT-B/32), in the form of transformers."""


@dataclass(frozen=True)
class Definition:
    """One meaning of "CLIPScore".

    Attributes:
        weight: Factor of the cosine.
        clamp: Where negative values become 0: `"pair"`, `"mean"` or nowhere (`""`).
        prefix: Put before every prompt.
        formula: In words, for `info()`.
        rgb: When its code brings pictures to RGB, see `PillowPreparation`; empty: as the checkpoint says.
        half: How its code cuts where the middle falls on half a pixel; likewise.
    """

    weight: float
    clamp: str
    prefix: str
    formula: str
    rgb: str = ""
    half: str = ""


DEFINITIONS = {
    "hessel": Definition(2.5, "pair", "A photo depicts ", "2.5 * max(0, cos) per pair, then the mean", "last", "even"),
    "torchmetrics": Definition(100.0, "mean", "", "100 * cos per pair; max(0, mean) over pairs", "first", "down"),
    "cosine": Definition(1.0, "", "", "cos per pair, then the mean"),
    "cosine100": Definition(100.0, "", "", "100 * cos per pair, then the mean"),
}
"""`hessel`: Hessel et al. 2021 (arXiv 2104.08718, eq. 1, and its released prefix and transform); `torchmetrics`:
the class `CLIPScore` of that library, which HEIM and EvalGIM use, with transformers' image processor; the others
are the bare cosine."""


class ClipScore(CosineScorer):
    """CLIPScore with a checkpoint of transformers or open_clip.

    Args:
        checkpoint: See `clip_loading.load_backend`; by default OpenAI's ViT-B/32.
        definition: A key of `DEFINITIONS`.
        prefix: Replaces the definition's own prefix.
        device: As in torch, or `"auto"`.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`; published numbers are float32 but for CUDA's.
        batch_size: Pictures in a forward; it does not change scores.
        revision: Of a checkpoint on the hub.
        quick_gelu: For open_clip weights given as a file: whether they need QuickGELU.

    Raises:
        ConfigError: If definition or dtype is unknown.
        ModelError: If the checkpoint cannot be loaded.
    """

    name = "clipscore"

    def __init__(
        self,
        checkpoint: str = DEFAULT_CHECKPOINT,
        *,
        definition: str = "hessel",
        prefix: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
        revision: str | None = None,
        quick_gelu: bool | None = None,
    ) -> None:
        """Load the checkpoint."""
        if definition not in DEFINITIONS:
            raise ConfigError(f"unknown CLIPScore definition {definition!r}; choose one of {', '.join(DEFINITIONS)}")
        check_settings(dtype=dtype, batch_size=batch_size)
        backend = load_backend(
            checkpoint, device=pick_device(device), dtype=dtype, revision=revision, quick_gelu=quick_gelu
        )
        self.definition, self.rule = definition, DEFINITIONS[definition]
        self.prefix = self.rule.prefix if prefix is None else prefix
        super().__init__(backend, _preparation(backend, self.rule), batch_size)
        self.version = f"{definition}:{backend.checkpoint}@{backend.digest[:8]}"

    def value(self, cosines: torch.Tensor) -> torch.Tensor:
        """See `CosineScorer`."""
        scores = self.rule.weight * cosines
        return scores.clamp(min=0.0) if self.rule.clamp == "pair" else scores

    def aggregate(self, scores: Sequence[float]) -> float:
        """Return the mean; under `torchmetrics` it is clamped at 0."""
        mean = super().aggregate(scores)
        return max(0.0, mean) if self.rule.clamp == "mean" else mean

    def info(self) -> dict[str, Any]:
        """Say what is computed; `n_truncated` counts distinct prompts that were cut so far."""
        return self.describe(definition=self.definition, formula=self.rule.formula, prefix=self.prefix)


def _preparation(backend: ClipBackend, rule: Definition) -> ClipPreparation:
    """Return the checkpoint's own preparation, in the order of the definition's own code where it has one."""
    own = backend.preparation
    if isinstance(own, PillowPreparation) and rule.rgb:
        return replace(own, rgb=rule.rgb, half=rule.half)
    return own
