"""What scorers share that compare a picture's features with a prompt's: CLIPScore, PickScore, HPSv2.

Law of this file: a score is a function of one cosine, so it depends on its own prompt and picture
alone; features are compared in float32 whatever the model runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from t2ialign.reward_models.base import PreparedScorer, check_batch, check_pairs, check_some, spans, stacked

if TYPE_CHECKING:
    from t2ialign.reward_models.base import ImageInput
    from t2ialign.reward_models.clip_backends import ClipBackend
    from t2ialign.reward_models.preparation import ClipPreparation


class CosineScorer(PreparedScorer):
    """A score that is a function of the cosine between features of picture and prompt.

    A scorer defines `value`, and sets `name` and `version`.

    Attributes:
        backend: The CLIP that makes the features.
        preparation: How pictures are prepared for it.
        prefix: Put before every prompt.
    """

    preparation: ClipPreparation
    prefix: str = ""

    def __init__(self, backend: ClipBackend, preparation: ClipPreparation, batch_size: int) -> None:
        """Take a loaded backend."""
        self.backend, self.preparation, self.batch_size = backend, preparation, batch_size
        self._lengths: dict[str, bool] = {}

    def value(self, cosines: torch.Tensor) -> torch.Tensor:
        """Turn cosines into scores, element by element, differentiably."""
        raise NotImplementedError

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """See `base.Prepares`."""
        check_pairs(prompts, prepared)
        if not prompts:
            return torch.zeros(0)
        with torch.no_grad():
            cosines = functional.cosine_similarity(self._images(prepared), self._texts(prompts), dim=-1)
            return self.value(cosines).cpu()

    def score_tensors(self, prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """See `base.Differentiable`."""
        check_pairs(prompts, images)
        check_batch(images)
        pixels = self.preparation.tensors(images.to(self.backend.device))
        features = self.backend.image_features(pixels, self.preparation)
        return self.value(functional.cosine_similarity(features, self._texts(prompts), dim=-1))

    def score_matrix(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score every prompt with every picture; float32 [P, I] on the CPU."""
        texts = functional.normalize(self.embed_texts(prompts), dim=-1)
        return self.value(texts @ functional.normalize(self.embed_images(images), dim=-1).T)

    def embed_images(self, images: Sequence[ImageInput]) -> torch.Tensor:
        """Return raw picture features, float32 [I, D] on the CPU."""
        check_some(images)
        with torch.no_grad():
            parts = [
                self._images([self.preparation(image) for image in images[i:j]]).cpu()
                for i, j in spans(len(images), self.batch_size)
            ]
        return torch.cat(parts)

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return raw features of the prompts, each after the prefix, float32 [P, D] on the CPU."""
        check_some(prompts)
        with torch.no_grad():
            return self._texts(prompts).cpu()

    def _images(self, prepared: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
        batches = [stacked(prepared[i:j]) for i, j in spans(len(prepared), self.batch_size)]
        return torch.cat([self.backend.image_features(batch, self.preparation) for batch in batches])

    def _texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embed each distinct prompt once, then lay the features out for the pairs."""
        self.count_truncated(prompts)
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        texts = [self.prefix + prompt for prompt in distinct]
        parts = [self.backend.text_features(texts[i:j]) for i, j in spans(len(texts), self.batch_size)]
        return torch.cat(parts)[[place[prompt] for prompt in prompts]]

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Count the distinct prompts that exceed the tokenizer's limit, prefix included."""
        distinct = set(prompts)
        for prompt in distinct - self._lengths.keys():
            self._lengths[prompt] = self.backend.is_truncated(self.prefix + prompt)
        return sum(self._lengths[prompt] for prompt in distinct)

    def describe(self, **own: Any) -> dict[str, Any]:
        """Compose an info: name and version, the scorer's own words, the backend's."""
        return {
            "scorer": self.name,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            **own,
            **self.backend.info(self.preparation),
            "n_truncated": sum(self._lengths.values()),
        }
