"""ImageReward (Xu et al. 2023, arXiv 2304.05977), and VP-Score, the same architecture with other weights.

Law of this file: a score is the official reward, normalised by the official constants, of the first 35 tokens of the
prompt; what is cut is counted. Tensors alone are read, with `weights_only`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.base import (
    PreparedScorer,
    check_batch,
    check_pairs,
    check_settings,
    pick_device,
    spans,
    stacked,
)
from t2ialign.reward_models.blip import build_blip, load_tokenizer
from t2ialign.reward_models.preparation import OPENAI_MEAN, OPENAI_STD, PillowPreparation
from t2ialign.reward_models.weights import commit_of, file_digest, find_weights, read_state

MAX_TOKENS = 35
"""Tokens of a prompt that are read, [CLS] and [SEP] among them (the authors' `max_length`)."""


@dataclass(frozen=True)
class Release:
    """What differs between the scorers of this architecture.

    Attributes:
        checkpoint: The default checkpoint; empty where none is public.
        files: Names of the weight file in a folder; on the hub the first.
        mean: Taken off the raw reward.
        std: What the rest is divided by.
    """

    checkpoint: str
    files: tuple[str, ...]
    mean: float = 0.0
    std: float = 1.0


RELEASES = {
    # The constants stand in the authors' ImageReward.py.
    "imagereward": Release(
        "THUDM/ImageReward", ("ImageReward.pt", "model.safetensors"), 0.16717362830052426, 1.0333394966054072
    ),
    "vpscore": Release("", ("VPScore.pt", "vpscore.safetensors", "model.safetensors")),
}
"""Scorers of this architecture by name."""


class ImageReward(PreparedScorer):
    """ImageReward, about -2.5 to 2; or VP-Score, on its own scale.

    Args:
        checkpoint: Weights named as the authors': hub id, folder or file. A `vocab.txt` beside them is used;
            without, BERT's from the hub.
        release: `"imagereward"` or `"vpscore"`.
        mean: Taken off the raw reward; by default the release's.
        std: What the rest is divided by; by default the release's.
        device: As in torch, or `"auto"`.
        dtype: `"float32"` as the authors' code, `"float16"` or `"bfloat16"`; the head is always float32.
        batch_size: Pictures in a forward; it does not change scores.
        revision: Of a checkpoint on the hub.

    Raises:
        ConfigError: If release or dtype is unknown, or std is not above 0.
        ModelError: If the weights or the tokenizer are not there, hold more than tensors, or do not fit.
    """

    preparation: PillowPreparation

    def __init__(
        self,
        checkpoint: str = "",
        *,
        release: str = "imagereward",
        mean: float | None = None,
        std: float | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
        revision: str | None = None,
    ) -> None:
        """Load the weights."""
        if release not in RELEASES:
            raise ConfigError(f"unknown release {release!r}; choose one of {', '.join(RELEASES)}")
        check_settings(dtype=dtype, batch_size=batch_size)
        known = RELEASES[release]
        self.mean, self.std = known.mean if mean is None else mean, known.std if std is None else std
        if not self.std > 0:
            raise ConfigError(f"std is {self.std}; it must be above 0")
        if not checkpoint and not known.checkpoint:
            raise ModelError(f"{release} has no public weights that we know; give yours with {release}@FILE")
        path = find_weights(checkpoint or known.checkpoint, known.files, revision)
        self.model = build_blip(read_state(path), path)
        self.tokenizer = load_tokenizer(path)
        words = self.model.text.config.vocab_size
        if len(self.tokenizer) != words:
            raise ModelError(
                f"{path} knows {words} tokens and the tokenizer has {len(self.tokenizer)}; put the vocab.txt that the "
                "weights were trained with beside them"
            )
        self.device, self.dtype = pick_device(device), getattr(torch, dtype)
        self.model.to(device=self.device, dtype=self.dtype)
        # The authors' transform resizes and cuts before it brings a picture to RGB.
        self.preparation = PillowPreparation(self.model.image_size, rgb="last", half="even")
        self.name, self.batch_size = release, batch_size
        self.checkpoint, self.digest, self.revision = path.name, file_digest(path), commit_of(path)
        scale = "official" if (self.mean, self.std) == (known.mean, known.std) else f"({self.mean:g},{self.std:g})"
        self.version = f"{scale}:{self.checkpoint}@{self.digest[:8]}"
        self._lengths: dict[str, bool] = {}

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """See `base.Prepares`."""
        check_pairs(prompts, prepared)
        with torch.no_grad():
            parts = [
                self._score(prompts[i:j], stacked(prepared[i:j]).to(self.device).float() / 255.0).cpu()
                for i, j in spans(len(prepared), self.batch_size)
            ]
        return torch.cat(parts) if parts else torch.zeros(0)

    def score_tensors(self, prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """See `base.Differentiable`."""
        check_pairs(prompts, images)
        check_batch(images)
        return self._score(prompts, self.preparation.tensors(images.to(self.device)))

    def _score(self, prompts: Sequence[str], pixels: torch.Tensor) -> torch.Tensor:
        """Score pictures [B, 3, S, S] in [0, 1]."""
        mean, std = (torch.tensor(each, device=self.device)[:, None, None] for each in (OPENAI_MEAN, OPENAI_STD))
        self.count_truncated(prompts)
        words = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        rewards = self.model(((pixels - mean) / std).to(self.dtype), words["input_ids"], words["attention_mask"])
        scores: torch.Tensor = (rewards - self.mean) / self.std
        return scores

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Count the distinct prompts of more than 35 tokens, [CLS] and [SEP] among them."""
        distinct = set(prompts)
        for prompt in distinct - self._lengths.keys():
            self._lengths[prompt] = len(self.tokenizer(prompt, verbose=False)["input_ids"]) > MAX_TOKENS
        return sum(self._lengths[prompt] for prompt in distinct)

    def info(self) -> dict[str, Any]:
        """Say what is computed; `n_truncated` counts distinct prompts that were cut so far."""
        return {
            "scorer": self.name,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            "formula": "(five linear layers on [CLS] of BLIP's text encoder, which looks at the picture - mean) / std",
            "mean": self.mean,
            "std": self.std,
            "library": "transformers",
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "weights_sha256": self.digest,
            "dtype": str(self.dtype).removeprefix("torch."),
            "activation": "gelu",
            "max_tokens": MAX_TOKENS,
            "preprocessing": self.preparation.info() | {"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD)},
            "versions": {name: version(name) for name in ("transformers", "torch", "pillow")},
            "n_truncated": sum(self._lengths.values()),
        }
