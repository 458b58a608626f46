"""LAION's aesthetic predictor v2: how much people like a picture, whatever the prompt.

Law of this file: the normalised features of OpenAI's CLIP ViT-L/14 through five linear layers without
anything between them (the public file `sac+logos+ava1-l14-linearMSE`); the prompt is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from t2ialign.errors import ModelError
from t2ialign.reward_models.base import (
    PreparedScorer,
    check_batch,
    check_pairs,
    check_settings,
    check_some,
    pick_device,
    spans,
    stacked,
)
from t2ialign.reward_models.clip_backends import VIT_L_14
from t2ialign.reward_models.clip_loading import load_backend
from t2ialign.reward_models.preparation import ClipPreparation, PillowPreparation
from t2ialign.reward_models.weights import commit_of, file_digest, find_weights, read_state

if TYPE_CHECKING:
    from pathlib import Path

    from t2ialign.reward_models.base import ImageInput

HEAD = "trl-lib/ddpo-aesthetic-predictor"
"""A hub repository with the authors' file, renamed."""
HEAD_FILES = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth", "model.safetensors")
"""Its name there, its name at the authors', and what one converts it to."""
LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers; dropout stands at the others, and does nothing when scoring."""


class AestheticScore(PreparedScorer):
    """The aesthetic predictor v2, about 1 to 10.

    Args:
        checkpoint: The five layers: hub id, folder or file.
        clip: The CLIP below them, see `clip_loading.load_backend`.
        device: As in torch, or `"auto"`.
        dtype: Of the CLIP; the layers are float32.
        batch_size: Pictures in a forward; it does not change scores.
        revision: Of the five layers on the hub.
        clip_revision: Of the CLIP on the hub.

    Raises:
        ConfigError: If dtype is unknown.
        ModelError: If a checkpoint cannot be loaded, or the two do not fit.
    """

    name = "aesthetic"
    preparation: ClipPreparation

    def __init__(
        self,
        checkpoint: str = HEAD,
        *,
        clip: str = VIT_L_14.tokenizer,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
        revision: str | None = None,
        clip_revision: str | None = None,
    ) -> None:
        """Load both checkpoints."""
        check_settings(dtype=dtype, batch_size=batch_size)
        path = find_weights(checkpoint, HEAD_FILES, revision)
        self.backend = load_backend(
            clip, device=pick_device(device), dtype=dtype, revision=clip_revision, architecture=VIT_L_14
        )
        self.layers = [(w.to(self.backend.device), b.to(self.backend.device)) for w, b in _read_layers(path)]
        self.head = {"checkpoint": path.name, "revision": commit_of(path), "weights_sha256": file_digest(path)}
        own = self.backend.preparation
        # The authors use OpenAI's `clip`, whose transform brings a picture to RGB last.
        self.preparation = replace(own, rgb="last", half="even") if isinstance(own, PillowPreparation) else own
        self.batch_size = batch_size
        self.version = f"v2:{path.name}@{str(self.head['weights_sha256'])[:8]}+{self.backend.digest[:8]}"
        with torch.no_grad():
            width = self.backend.image_features(
                torch.zeros(1, 3, *(self.backend.image_size,) * 2), self.preparation
            ).shape[1]
        if width != self.layers[0][0].shape[1]:
            raise ModelError(
                f"{path} reads features of {self.layers[0][0].shape[1]} numbers and {clip} makes {width}; "
                "give the CLIP that it was trained on (OpenAI's ViT-L/14 for the authors' file)"
            )

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """See `base.Prepares`; prompts are not read."""
        check_pairs(prompts, prepared)
        with torch.no_grad():
            parts = [self._head(self._features(prepared[i:j])).cpu() for i, j in spans(len(prepared), self.batch_size)]
        return torch.cat(parts) if parts else torch.zeros(0)

    def score_tensors(self, prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """See `base.Differentiable`; prompts are not read."""
        check_pairs(prompts, images)
        check_batch(images)
        pixels = self.preparation.tensors(images.to(self.backend.device))
        return self._head(self.backend.image_features(pixels, self.preparation))

    def embed_images(self, images: Sequence[ImageInput]) -> torch.Tensor:
        """Return raw picture features, float32 [I, D] on the CPU."""
        check_some(images)
        with torch.no_grad():
            parts = [
                self._features([self.preparation(image) for image in images[i:j]]).cpu()
                for i, j in spans(len(images), self.batch_size)
            ]
        return torch.cat(parts)

    def _features(self, prepared: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
        return self.backend.image_features(stacked(prepared), self.preparation)

    def _head(self, features: torch.Tensor) -> torch.Tensor:
        hidden = functional.normalize(features, dim=-1)
        for weight, bias in self.layers:
            hidden = functional.linear(hidden, weight, bias)
        return hidden[:, 0]

    def info(self) -> dict[str, Any]:
        """Say what is computed."""
        return {
            "scorer": self.name,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            "formula": "five linear layers on the normalised picture feature; the prompt is not read",
            "head": self.head,
            **self.backend.info(self.preparation),
            "n_truncated": 0,
        }


def _read_layers(path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Read weights and biases, float32, from the first layer to the last.

    Raises:
        ModelError: If the file is another predictor; those with an activation between the layers are.
    """
    state = read_state(path)
    wanted = [f"layers.{place}.{kind}" for place in LAYERS for kind in ("weight", "bias")]
    if sorted(state) != sorted(wanted):
        raise ModelError(
            f"{path} is no aesthetic predictor v2 of linear layers: it holds {', '.join(sorted(state)[:4])}, ...; "
            f"needed are exactly layers {', '.join(map(str, LAYERS))}, as in sac+logos+ava1-l14-linearMSE.pth"
        )
    layers = [(state[f"layers.{i}.weight"].float(), state[f"layers.{i}.bias"].float()) for i in LAYERS]
    if any(one.shape[0] != two.shape[1] for (one, _), (two, _) in pairwise(layers)) or layers[-1][0].shape[0] != 1:
        raise ModelError(f"the layers of {path} do not fit one another, or do not end in one number")
    return layers
