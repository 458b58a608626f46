"""HPSv2 and HPSv2.1: CLIP-H tuned on ranked pictures (Wu et al. 2023, arXiv 2306.09341).

Law of this file: the cosine without a logit scale, on pictures whose longer side is resized and which are
framed in black, never cut; whether shrinking averages stands in `version`, because official numbers
of both kinds are about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.base import check_settings, pick_device
from t2ialign.reward_models.clip_backends import VIT_H_14
from t2ialign.reward_models.clip_loading import load_backend
from t2ialign.reward_models.cosine import CosineScorer
from t2ialign.reward_models.preparation import Letterbox
from t2ialign.reward_models.weights import find_weights

REPOSITORY = "xswu/HPSv2"
"""The authors' weights on the hub."""
FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}
"""Releases and their files."""
FILE_DIGESTS = {
    "07cb0d20626232204ca3a6ec53ff5984e7e53212a8a7b0e0ec2bac1bdaf125a1": "2.0",
    "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837": "2.1",
}
"""SHA-256 of the authors' files, from the hub's record of them, and the release that each is."""
MODES = {"official": "cos", "percent": "100 * cos"}
"""What `score` returns: `hpsv2.score`'s number, about 0.2 to 0.35, or that of the benchmark's table."""


class HPSv2(CosineScorer):
    """HPSv2 or HPSv2.1.

    Args:
        checkpoint: Hub id, folder or weight file (of open_clip, or of transformers).
        release: `"2.0"` or `"2.1"`.
        mode: A key of `MODES`.
        antialias: Whether shrinking averages: `True` as torchvision does since 0.17, `False` as before.
        architecture: Of a weight file of open_clip; the authors' is ViT-H-14.
        device: As in torch, or `"auto"`.
        dtype: `"float32"`; the authors' code runs in float16 on a GPU, which rounds to about 0.0002.
        batch_size: Pictures in a forward; it does not change scores.
        revision: Of a checkpoint on the hub.

    Raises:
        ConfigError: If release, mode or dtype is unknown.
        ModelError: If the checkpoint cannot be loaded, or is the other release.
    """

    def __init__(
        self,
        checkpoint: str = REPOSITORY,
        *,
        release: str = "2.0",
        mode: str = "official",
        antialias: bool = True,
        architecture: str = VIT_H_14.open_clip,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
        revision: str | None = None,
    ) -> None:
        """Load the checkpoint."""
        if release not in FILES:
            raise ConfigError(f"unknown HPSv2 release {release!r}; choose one of {', '.join(FILES)}")
        if mode not in MODES:
            raise ConfigError(f"unknown HPSv2 mode {mode!r}; choose one of {', '.join(MODES)}")
        check_settings(dtype=dtype, batch_size=batch_size)
        backend = load_backend(
            _source(checkpoint, release, revision),
            device=pick_device(device),
            dtype=dtype,
            revision=revision,
            architecture=replace(VIT_H_14, open_clip=architecture),
        )
        found = FILE_DIGESTS.get(backend.digest, release)
        if found != release:
            raise ModelError(f"{checkpoint} holds HPSv{found}, but {release} is asked for; name {_name(found)}")
        super().__init__(backend, Letterbox(backend.image_size, antialias), batch_size)
        self.name, self.release, self.mode = _name(release), release, mode
        how = mode if antialias else f"{mode},antialias=false"
        self.version = f"{how}:{backend.checkpoint}@{backend.digest[:8]}"

    def value(self, cosines: torch.Tensor) -> torch.Tensor:
        """See `CosineScorer`."""
        return 100.0 * cosines if self.mode == "percent" else cosines

    def info(self) -> dict[str, Any]:
        """Say what is computed; `n_truncated` counts distinct prompts that were cut so far."""
        return self.describe(release=self.release, mode=self.mode, formula=MODES[self.mode])


def _name(release: str) -> str:
    return "hpsv2" if release == "2.0" else f"hpsv{release}"


def _source(checkpoint: str, release: str, revision: str | None) -> str:
    """Return what `load_backend` takes: the release's file where the checkpoint is a place that holds it."""
    from pathlib import Path

    path = Path(checkpoint).expanduser()
    if checkpoint == REPOSITORY or (path / FILES[release]).is_file():
        return str(find_weights(checkpoint, [FILES[release]], revision))
    return checkpoint
