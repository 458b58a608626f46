"""Scorers trained by `t2ialign train reward` with a head of their own: aspects, users (PAL), cyclic preferences.

Law of this file: a score is the head's on CLIP's features, with the preparation of CLIP's own folder; what has no
score of a single picture compares two and refuses the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.base import check_batch, check_pairs, check_settings, pick_device
from t2ialign.reward_models.clip_loading import load_backend
from t2ialign.reward_models.cosine import CosineScorer
from t2ialign.reward_models.heads import Head, PalHead, make_head
from t2ialign.reward_models.weights import file_digest, read_state

if TYPE_CHECKING:
    from t2ialign.reward_models.base import ImageInput

NOTE, WEIGHTS = "head.json", "head.safetensors"


class PreferenceModel(CosineScorer):
    """A CLIP with a trained head.

    Args:
        checkpoint: `final/` of `t2ialign train reward` with a head other than `cosine`.
        group: The aspect or the user whose score is wanted; none for the mean over aspects, or the average user.
        device: As in torch, or `"auto"`.
        dtype: Of CLIP: `"float32"`, `"float16"` or `"bfloat16"`; the head is float32.
        batch_size: Pictures in a forward; it does not change scores.

    Raises:
        ConfigError: If the group is unknown.
        ModelError: If the folder cannot be loaded.

    Attributes:
        head: The head.
    """

    name = "preference"

    def __init__(
        self,
        checkpoint: str,
        *,
        group: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
    ) -> None:
        """Load CLIP and head."""
        check_settings(dtype=dtype, batch_size=batch_size)
        backend = load_backend(checkpoint, device=pick_device(device), dtype=dtype)
        super().__init__(backend, backend.preparation, batch_size)
        folder = Path(checkpoint).expanduser()
        self.head = load_head(folder).to(backend.device).eval().requires_grad_(False)
        self.group = group
        self._number = self._find(group)
        self._logits: torch.Tensor | None = None
        digest = file_digest(folder / WEIGHTS)[:8]
        self.version = f"{self.head.kind}{f'({group})' if group else ''}:{backend.checkpoint}@{digest}"

    def _find(self, group: str | None) -> int:
        if group is None:
            return -1
        if group not in self.head.groups:
            known = ", ".join(self.head.groups[:8]) or "none"
            raise ConfigError(f"group {group!r} is not known to this scorer; it has {known}")
        return self.head.groups.index(group)

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """See `base.Prepares`.

        Raises:
            ConfigError: If the head has no score of a single picture.
        """
        check_pairs(prompts, prepared)
        if not prompts:
            return torch.zeros(0)
        with torch.no_grad():
            return self._scores(self._images(prepared), self._texts(prompts)).cpu()

    def score_tensors(self, prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """See `base.Differentiable`."""
        check_pairs(prompts, images)
        check_batch(images)
        pixels = self.preparation.tensors(images.to(self.backend.device))
        return self._scores(self.backend.image_features(pixels, self.preparation), self._texts(prompts))

    def score_matrix(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score every prompt with every picture; float32 [P, I] on the CPU."""
        texts, pictures = self.embed_texts(prompts), self.embed_images(images)
        device = self.backend.device
        rows = [self._scores(pictures.to(device), text.expand(len(pictures), -1).to(device)).cpu() for text in texts]
        return torch.stack(rows)

    def compare(
        self, prompts: Sequence[str], first: Sequence[ImageInput], second: Sequence[ImageInput]
    ) -> torch.Tensor:
        """Return how likely the first of two pictures is preferred; float32 [B] on the CPU.

        Args:
            prompts: [B].
            first: [B].
            second: [B].
        """
        check_pairs(prompts, first)
        check_pairs(prompts, second)
        if not prompts:
            return torch.zeros(0)
        pictures = torch.cat([self.embed_images(first), self.embed_images(second)]).to(self.backend.device)
        texts = self.embed_texts(prompts).to(self.backend.device).repeat(2, 1)
        with torch.no_grad():
            if self.head.scalar:
                one, two = self._scores(pictures, texts).chunk(2)
                return (one - two).sigmoid().cpu()
            numbers = torch.arange(len(prompts), device=pictures.device)
            group = torch.full((len(pictures),), -1, device=pictures.device)
            scale = torch.tensor(self.backend.logit_scale, device=pictures.device)
            margins = self.head.margins(pictures, texts, scale, group, numbers, numbers + len(prompts))
            return margins.sigmoid().cpu()

    def fit_user(
        self,
        prompts: Sequence[str],
        chosen: Sequence[ImageInput],
        rejected: Sequence[ImageInput],
        *,
        prior: float = 0.1,
    ) -> torch.Tensor:
        """Score from now on for a new user, known by a few pairs; returns the user's mixture, `[K]`, adding up to 1.

        Args:
            prompts: [B].
            chosen: The pictures that the user preferred, [B].
            rejected: The others, [B].
            prior: Hold of the average user; see `heads.PalHead.fit_user`.

        Raises:
            ConfigError: If the head knows no users.
        """
        if not isinstance(self.head, PalHead):
            raise ConfigError(f"a head of the kind {self.head.kind} knows no users; train with --head pal")
        check_pairs(prompts, chosen)
        check_pairs(prompts, rejected)
        pictures = torch.cat([self.embed_images(chosen), self.embed_images(rejected)]).to(self.backend.device)
        texts = self.embed_texts(prompts).to(self.backend.device).repeat(2, 1)
        numbers = torch.arange(len(prompts), device=pictures.device)
        self._logits = self.head.fit_user(pictures, texts, numbers, numbers + len(prompts), prior)
        weights = self._logits.softmax(dim=-1).cpu()
        shown = " ".join(f"{value:.4f}" for value in weights.tolist())
        self.version = f"{self.version.split(';')[0]};mixture {shown}"
        return weights

    def _scores(self, pictures: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        if not self.head.scalar:
            raise ConfigError(
                f"a head of the kind {self.head.kind} has no score of a single picture; ask compare for two"
            )
        if self._logits is not None and isinstance(self.head, PalHead):
            return self.head.scores_by(self._logits.expand(len(pictures), -1), pictures, texts)
        group = torch.full((len(pictures),), self._number, device=pictures.device)
        scale = torch.tensor(self.backend.logit_scale, device=pictures.device)
        return self.head.scores(pictures, texts, scale, group)

    def info(self) -> dict[str, Any]:
        """Say what is computed."""
        return self.describe(head=self.head.kind, group=self.group, groups=len(self.head.groups))


def load_head(folder: Path) -> Head:
    """Load a head from `head.json` and `head.safetensors`.

    Raises:
        ModelError: If a file is missing or damaged, or they do not fit.
    """
    if not (folder / NOTE).is_file():
        raise ModelError(
            f"{folder} has no {NOTE}: it is no scorer with a head of its own; a scorer trained with --head cosine is "
            f"loaded with pickscore@{folder}"
        )
    try:
        settings = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        features = int(settings.pop("features"))
        head = make_head(settings, features)
        head.load_state_dict(read_state(folder / WEIGHTS))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"the head in {folder} cannot be loaded: {error}; train it again") from error
    return head
