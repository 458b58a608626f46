"""The oracle of the mini-world as a scorer.

Law of this file: it scores prompts of the mini-world and refuses all others by name; how a picture is
read is `t2ialign.mini.oracle`'s business alone.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.errors import DataError
from t2ialign.reward_models.base import PreparedScorer, check_pairs, to_rgb

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from t2ialign.reward_models.base import ImageInput


@dataclass(frozen=True)
class RgbPreparation:
    """A picture decoded to 8-bit RGB, whole."""

    def __call__(self, image: ImageInput) -> Image.Image:
        """See `base.Preparation`."""
        return to_rgb(image)

    def info(self) -> dict[str, Any]:
        """See `base.Preparation`."""
        return {"backend": "pillow"}


class OracleScorer(PreparedScorer):
    """Graded prompt following in the mini-world, in [0, 1]; 0 for a picture that cannot be read."""

    name = "oracle"
    version = "v1"
    preparation = RgbPreparation()

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """Score aligned pairs; float32 [B] in [0, 1].

        Raises:
            DataError: If a prompt is outside the mini-world; the message names it.
        """
        import torch

        check_pairs(prompts, prepared)
        return torch.tensor([self._one(*pair) for pair in zip(prompts, prepared, strict=True)], dtype=torch.float32)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuse prompts from outside the mini-world before any picture is read.

        Raises:
            DataError: If there is one; the message names it.
        """
        for prompt in dict.fromkeys(prompts):
            self._check(prompt)

    def _check(self, prompt: str) -> None:
        from t2ialign.mini import world

        try:
            world.parse(prompt)
        except ValueError as error:
            raise DataError(
                f"the oracle cannot judge a prompt: {error}. Score prompts of the wide world with clipscore"
            ) from error

    def _one(self, prompt: str, image: Image.Image) -> float:
        from t2ialign.mini import oracle

        self._check(prompt)
        return oracle.score(prompt, image)

    def info(self) -> dict[str, Any]:
        """Say what is computed, with a digest of the oracle's own code."""
        from t2ialign.mini import flags, oracle, world

        code = "".join(inspect.getsource(module) for module in (world, flags, oracle))
        return {
            "scorer": self.name,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            "formula": "share of the attributes asked for that are there, times 0.8 + 0.2 * confidence",
            "range": [0.0, 1.0],
            "code_sha256": hashlib.sha256(code.encode()).hexdigest(),
            "preprocessing": {"size": [world.SIZE, world.SIZE], "resample": "box"},
            "n_truncated": 0,
        }
