"""MPS: PickScore's CLIP-H with cross-attention from picture to prompt (Zhang et al. 2024, CVPR, "Learning
Multi-dimensional Human Preference for Text-to-Image Generation").

Law of this file: a pair's score depends on that pair alone. The official code scales the similarity that
decides which words are seen by the largest of the whole batch; ours by the pair's own, which is the
official number for one prompt at a time. Weights are tensors in safetensors, never the official pickle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

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
from t2ialign.reward_models.clip_backends import VIT_H_14, TransformersBackend
from t2ialign.reward_models.clip_loading import build_clip, load_tokenizer
from t2ialign.reward_models.preparation import ClipPreparation, PillowPreparation
from t2ialign.reward_models.weights import commit_of, file_digest, find_weights, read_state

OVERALL = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
"""The condition of overall preference, the only one whose weights are released (the authors' README)."""
FILES = ("mps.safetensors", "model.safetensors")
"""Names of a converted file in a folder."""
HOW = (
    "the official file is a pickled program, which is not loaded here; convert it once as reward_models/mps.md says "
    "and give the result: mps@FILE.safetensors"
)


class MPS(PreparedScorer):
    """MPS, overall preference.

    Args:
        checkpoint: The converted weights: file, folder or hub id. A `config.json` and a tokenizer beside
            them are used; without, CLIP ViT-H/14's.
        condition: What the words of a prompt are compared with; a word that is far from it is not seen.
        threshold: How near a word must be, as a share of the nearest: 0.01 as in the released model and
            its README, 0.3 as in the authors' evaluation scripts.
        device: As in torch, or `"auto"`.
        dtype: `"float32"`; the official code runs in float16.
        batch_size: Pictures in a forward; it does not change scores.
        revision: Of a checkpoint on the hub.

    Raises:
        ConfigError: If dtype is unknown or the threshold out of range.
        ModelError: If the weights are not there, are a pickle, or do not fit.
    """

    name = "mps"
    preparation: ClipPreparation

    def __init__(
        self,
        checkpoint: str = "",
        *,
        condition: str = OVERALL,
        threshold: float = 0.01,
        device: str = "auto",
        dtype: str = "float32",
        batch_size: int = 32,
        revision: str | None = None,
    ) -> None:
        """Load the weights."""
        check_settings(dtype=dtype, batch_size=batch_size)
        if not threshold < 1.0:
            raise ConfigError(f"threshold is {threshold}; it must be below 1, or no word is seen")
        if not checkpoint:
            raise ModelError(f"mps needs weights: {HOW}")
        path = find_weights(checkpoint, FILES, revision)
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is no safetensors file; {HOW}")
        self.backend, self.cross = _load(path, pick_device(device), getattr(torch, dtype))
        own = self.backend.preparation
        # The authors use transformers' processor, after `convert("RGB")`.
        self.preparation = replace(own, rgb="first", half="down") if isinstance(own, PillowPreparation) else own
        self.condition, self.threshold, self.batch_size = condition, threshold, batch_size
        aspect = "overall" if condition == OVERALL else hashlib.sha256(condition.encode()).hexdigest()[:8]
        self.version = f"{aspect},{threshold:g}:{path.name}@{self.backend.digest[:8]}"
        self._lengths: dict[str, bool] = {}
        with torch.no_grad():
            self._condition_words = self._words([condition])[0][0]

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """See `base.Prepares`."""
        check_pairs(prompts, prepared)
        with torch.no_grad():
            parts = [
                self._score(prompts[i:j], stacked(prepared[i:j])).cpu()
                for i, j in spans(len(prepared), self.batch_size)
            ]
        return torch.cat(parts) if parts else torch.zeros(0)

    def score_tensors(self, prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """See `base.Differentiable`."""
        check_pairs(prompts, images)
        check_batch(images)
        return self._score(prompts, self.preparation.tensors(images.to(self.backend.device)))

    def _score(self, prompts: Sequence[str], prepared: torch.Tensor) -> torch.Tensor:
        pixels = self.backend.normalise(prepared, self.preparation)
        model = self.backend.model
        tokens = model.visual_projection(model.vision_model(pixel_values=pixels)[0])
        self.count_truncated(prompts)
        words, ends = self._words(prompts)
        seen = attend(self.cross, tokens, words, self._visible(words))[:, 0]
        return self.backend.logit_scale * functional.cosine_similarity(seen.float(), ends.float(), dim=-1)

    def _words(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return projected features of every token [B, 77, D], padding included, and of the end tokens [B, D]."""
        model, limit = self.backend.model, self.backend.limit
        ids = self.backend.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
        )["input_ids"].to(self.backend.device)
        output = model.text_model(input_ids=ids)
        return model.text_projection(output[0]), model.text_projection(output[1])

    def _visible(self, words: torch.Tensor) -> torch.Tensor:
        """Tell which tokens are near the condition; bool [B, 77]."""
        nearest = (words.float() @ self._condition_words.float().T).amax(dim=-1)
        return nearest / nearest.amax(dim=-1, keepdim=True) > self.threshold

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Count the distinct prompts that exceed the tokenizer's limit."""
        distinct = set(prompts)
        for prompt in distinct - self._lengths.keys():
            self._lengths[prompt] = self.backend.is_truncated(prompt)
        return sum(self._lengths[prompt] for prompt in distinct)

    def info(self) -> dict[str, Any]:
        """Say what is computed; `n_truncated` counts distinct prompts that were cut so far."""
        return {
            "scorer": self.name,
            "version": self.version,
            "higher_is_better": self.higher_is_better,
            "formula": "exp(logit_scale) * cos(picture token after cross-attention, end token of the prompt)",
            "condition": self.condition,
            "threshold": self.threshold,
            "threshold_relative_to": "the nearest token of the same prompt",
            "logit_scale": self.backend.logit_scale,
            **self.backend.info(self.preparation),
            "n_truncated": sum(self._lengths.values()),
        }


def attend(
    state: Mapping[str, torch.Tensor], x: torch.Tensor, words: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """Let picture tokens look at the words that are seen, then at one another, layer by layer.

    Both looks have many query heads and one head of keys and values, run beside a gated feed-forward,
    and are added to what came in; the second turns queries and keys by rotary positions.

    Args:
        state: Weights by the official names (`layers.0.0.fn.to_q.weight`, ...).
        x: Picture tokens [B, N, D].
        words: Word tokens [B, M, D].
        seen: bool [B, M].

    Returns:
        [B, N, D].
    """
    depth = 1 + max(int(name.split(".")[1]) for name in state)
    mask = seen[:, None, None, :]
    for layer in range(depth):
        for step, part in enumerate((_look_at_words, _look_around)):
            prefix = f"layers.{layer}.{step}.fn."
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            normed = functional.layer_norm(x, x.shape[-1:], own["norm.weight"], own["norm.bias"])
            x = x + part(own, normed, words, mask)
    return x


def _look_at_words(
    own: Mapping[str, torch.Tensor], x: torch.Tensor, words: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    keys, values = functional.linear(words, own["to_kv.weight"]).chunk(2, dim=-1)
    looked = _one_key_head(functional.linear(x, own["to_q.weight"]), keys, values, mask)
    forward = functional.linear(_gated(functional.linear(x, own["ff.0.weight"])), own["ff.2.weight"])
    return functional.linear(looked, own["to_out.weight"]) + forward


def _look_around(
    own: Mapping[str, torch.Tensor], x: torch.Tensor, words: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    frequencies = own["rotary_emb.inv_freq"]
    head, inner = 2 * frequencies.shape[0], own["attn_out.weight"].shape[1]
    fused = functional.linear(x, own["fused_attn_ff_proj.weight"])
    queries, keys, values, gate = fused.split([inner, head, head, fused.shape[-1] - inner - 2 * head], dim=-1)
    places = torch.arange(x.shape[1], device=x.device, dtype=frequencies.dtype)
    angles = torch.outer(places, frequencies).repeat(1, 2)
    queries = _turned(queries.unflatten(-1, (-1, head)), angles[:, None]).flatten(-2)
    looked = _one_key_head(queries, _turned(keys, angles), values, None)
    forward = functional.linear(_gated(gate), own["ff_out.1.weight"])
    return functional.linear(looked, own["attn_out.weight"]) + forward


def _one_key_head(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attention of many query heads [B, N, H * d] to one head of keys and values [B, M, d]."""
    heads = queries.unflatten(-1, (-1, keys.shape[-1])).transpose(1, 2)
    shape = (heads.shape[0], heads.shape[1], *keys.shape[1:])
    looked = functional.scaled_dot_product_attention(
        heads, keys[:, None].expand(shape), values[:, None].expand(shape), attn_mask=mask
    )
    return looked.transpose(1, 2).flatten(-2)


def _gated(x: torch.Tensor) -> torch.Tensor:
    content, gate = x.chunk(2, dim=-1)
    return functional.silu(gate) * content


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos().to(x.dtype) + torch.cat([-second, first], dim=-1) * angles.sin().to(x.dtype)


def _load(path: Path, device: torch.device, dtype: torch.dtype) -> tuple[TransformersBackend, dict[str, torch.Tensor]]:
    """Load the trunk (`model.`) and the cross-attention (`cross_model.`).

    Raises:
        ModelError: If one of the two is missing or the trunk does not fit.
    """
    state = read_state(path)
    trunk = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    cross = {name.removeprefix("cross_model."): value for name, value in state.items() if name.startswith("cross_")}
    if not trunk or "layers.0.0.fn.to_q.weight" not in cross:
        raise ModelError(
            f"{path} is no MPS: it needs weights named model.* and cross_model.layers.*, and holds "
            f"{', '.join(sorted(state)[:3])}, ..."
        )
    model = build_clip(trunk, path, VIT_H_14).to(device=device, dtype=dtype)
    tokenizer = load_tokenizer(path, VIT_H_14)
    backend = TransformersBackend(
        model, tokenizer, None, checkpoint=path.name, digest=file_digest(path), revision=commit_of(path)
    )
    # The rotary frequencies stay float32: angles of up to 257 radians need it.
    kept = {name: value.to(device, torch.float32 if "inv_freq" in name else dtype) for name, value in cross.items()}
    return backend, kept
