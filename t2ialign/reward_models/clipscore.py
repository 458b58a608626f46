"""CLIPScore: the cosine of a picture and its prompt in CLIP's space, in each of its live definitions.

Law of this file: the definition is a choice with a name, and the name stands in `version`; numbers
of two definitions, or of two checkpoints, are never put under one heading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from t2ialign.errors import ConfigError
from t2ialign.reward_models.base import check_pairs, to_rgb
from t2ialign.reward_models.clip_backends import ClipBackend, load_backend

if TYPE_CHECKING:
    from t2ialign.reward_models.base import ImageInput

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
    """

    weight: float
    clamp: str
    prefix: str
    formula: str


DEFINITIONS = {
    "hessel": Definition(2.5, "pair", "A photo depicts ", "2.5 * max(0, cos) per pair, then the mean"),
    "torchmetrics": Definition(100.0, "mean", "", "100 * cos per pair; max(0, mean) over pairs"),
    "cosine": Definition(1.0, "", "", "cos per pair, then the mean"),
    "cosine100": Definition(100.0, "", "", "100 * cos per pair, then the mean"),
}
"""`hessel`: Hessel et al. 2021 (arXiv 2104.08718, eq. 1, and its released prefix); `torchmetrics`: the
class `CLIPScore` of that library, which HEIM and EvalGIM use; the others are the bare cosine."""


class ClipScore:
    """CLIPScore with a checkpoint of transformers or open_clip.

    Args:
        checkpoint: See `clip_backends.load_backend`; by default OpenAI's ViT-B/32.
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
    higher_is_better = True

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
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ConfigError(f"unknown dtype {dtype!r}; choose float32, float16 or bfloat16")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.definition, self.batch_size = definition, batch_size
        self.rule = DEFINITIONS[definition]
        self.prefix = self.rule.prefix if prefix is None else prefix
        self.backend: ClipBackend = load_backend(
            checkpoint, device=device, dtype=dtype, revision=revision, quick_gelu=quick_gelu
        )
        self.version = f"{definition}:{self.backend.checkpoint}@{self.backend.digest[:8]}"
        self._lengths: dict[str, bool] = {}

    def score(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score aligned pairs by the definition.

        Args:
            prompts: [B]; what exceeds the tokenizer's limit is cut (its end token stays) and counted.
            images: [B], see `base.to_rgb`.

        Returns:
            float32 [B] on the CPU.
        """
        check_pairs(prompts, images)
        if not prompts:
            return torch.zeros(0)
        cosines = functional.cosine_similarity(self.embed_images(images), self._embed_distinct(prompts), dim=-1)
        scores = self.rule.weight * cosines
        return scores.clamp(min=0.0) if self.rule.clamp == "pair" else scores

    def score_matrix(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score every prompt with every picture; float32 [P, I]."""
        texts = functional.normalize(self.embed_texts(prompts), dim=-1)
        scores = self.rule.weight * (texts @ functional.normalize(self.embed_images(images), dim=-1).T)
        return scores.clamp(min=0.0) if self.rule.clamp == "pair" else scores

    def embed_images(self, images: Sequence[ImageInput]) -> torch.Tensor:
        """Return raw picture features, float32 [B, D]."""
        batches = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        return torch.cat([self.backend.image_features([to_rgb(image) for image in batch]) for batch in batches])

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return raw features of the prompts with the definition's prefix, float32 [B, D]."""
        self.count_truncated(prompts)
        texts = [self.prefix + prompt for prompt in prompts]
        batches = [texts[i : i + self.batch_size] for i in range(0, len(texts), self.batch_size)]
        return torch.cat([self.backend.text_features(batch) for batch in batches])

    def _embed_distinct(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed each distinct prompt once, then lay the features out for the pairs."""
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        return self.embed_texts(distinct)[[place[prompt] for prompt in prompts]]

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Count the distinct prompts that exceed the tokenizer's limit, prefix included."""
        distinct = set(prompts)
        for prompt in distinct - self._lengths.keys():
            self._lengths[prompt] = self.backend.is_truncated(self.prefix + prompt)
        return sum(self._lengths[prompt] for prompt in distinct)

    def aggregate(self, scores: Sequence[float]) -> float:
        """Return the mean; under `torchmetrics` it is clamped at 0."""
        mean = float(torch.tensor(list(scores), dtype=torch.float64).mean())
        return max(0.0, mean) if self.rule.clamp == "mean" else mean

    def info(self) -> dict[str, Any]:
        """Say what is computed; `n_truncated` counts distinct prompts that were cut so far."""
        return {
            "scorer": self.name,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            "definition": self.definition,
            "formula": self.rule.formula,
            "prefix": self.prefix,
            **self.backend.info(),
            "n_truncated": sum(self._lengths.values()),
        }
