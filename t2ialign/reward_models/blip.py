"""BLIP with a reward head, as ImageReward's checkpoints hold it, on transformers' classes.

Law of this file: the official names are mapped to transformers' one by one, and the architecture is read off the
shapes of the weights; a weight that is missing or of another shape is an error, never filled in. The text side is an
encoder: every word sees every other, and the picture's tokens by cross-attention.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from t2ialign.errors import ModelError
from t2ialign.reward_models.weights import first_line

logger = logging.getLogger(__name__)

HEAD_WIDTH = 64
"""Numbers in an attention head, in ViT-L/16 (1024 / 16) and in BERT-base (768 / 12)."""
MARKS = ("[DEC]", "[ENC]")
"""Tokens that BLIP puts after those of BERT."""
LAYERS = (0, 2, 4, 6, 7)
"""Places of the head's linear layers; dropout stands at the others, and does nothing when scoring."""
TOKENIZER = "google-bert/bert-base-uncased"
"""The tokenizer on the hub."""

_VISION = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.(weight|bias)", r"embeddings.patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(weight|bias)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", r"encoder.layers.\1.self_attn.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", r"encoder.layers.\1.self_attn.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.fc([12])\.(weight|bias)", r"encoder.layers.\1.mlp.fc\2.\3"),
    (r"norm\.(weight|bias)", r"post_layernorm.\1"),
)
_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""Official weights that a reward does not depend on."""


def mapped_name(name: str) -> str | None:
    """Return what one of the official weights is called here: `vision.*`, `text.*` or `head.*`; `None` if nothing.

    Args:
        name: As in `ImageReward.pt`: `blip.visual_encoder.*`, `blip.text_encoder.*` or `mlp.layers.*`.
    """
    if name.startswith(_UNUSED):
        return None
    if name.startswith("blip.text_encoder."):
        return "text." + name.removeprefix("blip.text_encoder.")
    if match := re.fullmatch(r"mlp\.layers\.(\d+)\.(weight|bias)", name):
        return f"head.{match[1]}.{match[2]}"
    if name.startswith("blip.visual_encoder."):
        own = name.removeprefix("blip.visual_encoder.")
        for pattern, target in _VISION:
            if match := re.fullmatch(pattern, own):
                return "vision." + match.expand(target)
    return None


class RewardBlip(nn.Module):
    """The picture's tokens, the words that look at them, and the head on the first word. Made by `build_blip`.

    Attributes:
        vision: transformers' `BlipVisionModel`.
        text: transformers' `BlipTextModel`, used as an encoder.
        head: Linear layers with nothing between them, by their official places.
    """

    def __init__(self, vision: Any, text: Any, head: nn.ModuleDict) -> None:
        """Take the parts."""
        super().__init__()
        self.vision, self.text, self.head = vision, text, head

    @property
    def image_size(self) -> int:
        """Side of a picture in pixels."""
        return int(self.vision.config.image_size)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return raw rewards.

        Args:
            pixels: Normalised pictures [B, 3, S, S].
            ids: Token numbers [B, T].
            mask: 1 where a token is, 0 where padding is, [B, T].

        Returns:
            float32 [B].
        """
        tokens = self.vision(pixel_values=pixels)[0]
        seen = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        words = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=tokens,
            encoder_attention_mask=seen,
            is_decoder=False,
        )[0]
        hidden = words[:, 0].float()
        for layer in self.head.values():
            assert isinstance(layer, nn.Linear)
            hidden = functional.linear(hidden, layer.weight.float(), layer.bias.float())
        rewards: torch.Tensor = hidden[:, 0]
        return rewards


@dataclass(frozen=True)
class Shape:
    """The architecture, as the shapes of the weights tell it.

    Attributes:
        vision: Of `BlipVisionConfig`.
        text: Of `BlipTextConfig`.
        head: Inner and outer width of each linear layer.
    """

    vision: dict[str, Any]
    text: dict[str, Any]
    head: list[tuple[int, int]]


def build_blip(state: Mapping[str, torch.Tensor], path: Path) -> RewardBlip:
    """Build the model from the official weights, in float32, for scoring.

    Args:
        state: Weights by their official names.
        path: Of their file, for messages.

    Raises:
        ModelError: If it is another model, or weights are missing or do not fit one another.
    """
    from accelerate import init_empty_weights
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    weights = {new: value.float() for old, value in state.items() if (new := mapped_name(old)) is not None}
    unknown = [name for name in state if mapped_name(name) is None and not name.startswith(_UNUSED)]
    shape = _shape(weights, path)
    with init_empty_weights(include_buffers=False):
        model = RewardBlip(
            BlipVisionModel(BlipVisionConfig(**shape.vision)),
            BlipTextModel(BlipTextConfig(**shape.text), add_pooling_layer=False),
            nn.ModuleDict({str(place): nn.Linear(*sizes) for place, sizes in zip(LAYERS, shape.head, strict=True)}),
        )
    try:
        missing, strange = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise ModelError(f"the weights {path} do not fit one another: {' '.join(str(error).split())[:300]}") from error
    if missing:
        raise ModelError(f"{path} is no whole ImageReward: it lacks {len(missing)} weights, among them {min(missing)}")
    if unknown or strange:
        logger.warning("%s: %d weights are of no use here and left out", path.name, len(unknown) + len(strange))
    return model.eval().requires_grad_(False)


def _shape(weights: Mapping[str, torch.Tensor], path: Path) -> Shape:
    try:
        patches, positions = weights["vision.embeddings.patch_embedding.weight"], weights[_POSITIONS]
        words = weights["text.embeddings.word_embeddings.weight"]
        places = weights["text.embeddings.position_embeddings.weight"]
        across = weights["text.encoder.layer.0.crossattention.self.key.weight"]
        inner = weights["vision.encoder.layers.0.mlp.fc1.weight"]
        between = weights["text.encoder.layer.0.intermediate.dense.weight"]
        head = [(int(w.shape[1]), int(w.shape[0])) for w in (weights[f"head.{i}.weight"] for i in LAYERS)]
    except KeyError as error:
        raise ModelError(
            f"{path} is no ImageReward: it lacks the weights of {error.args[0]}; needed is a checkpoint named "
            "as the authors' ImageReward.pt (blip.visual_encoder.*, blip.text_encoder.*, mlp.layers.*)"
        ) from error
    width, patch, hidden = int(patches.shape[0]), int(patches.shape[-1]), int(words.shape[1])
    side = round((positions.shape[1] - 1) ** 0.5)
    fits = side * side + 1 == positions.shape[1] and across.shape[1] == width and head[0][0] == hidden
    if not fits or width % HEAD_WIDTH or hidden % HEAD_WIDTH or head[-1][1] != 1:
        raise ModelError(
            f"the weights {path} are of no ImageReward: pictures of {width} numbers at {positions.shape[1]} places, "
            f"words of {hidden}, cross-attention to {across.shape[1]}, a head from {head[0][0]} to {head[-1][1]}"
        )
    vision = {
        "hidden_size": width,
        "intermediate_size": int(inner.shape[0]),
        "num_hidden_layers": _depth(weights, "vision.encoder.layers."),
        "num_attention_heads": width // HEAD_WIDTH,
        "image_size": side * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }
    text = {
        "vocab_size": int(words.shape[0]),
        "hidden_size": hidden,
        "encoder_hidden_size": width,
        "intermediate_size": int(between.shape[0]),
        "num_hidden_layers": _depth(weights, "text.encoder.layer."),
        "num_attention_heads": hidden // HEAD_WIDTH,
        "max_position_embeddings": int(places.shape[0]),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "bos_token_id": int(words.shape[0]) - 2,
    }
    return Shape(vision, text, head)


_POSITIONS = "vision.embeddings.position_embedding"


def _depth(weights: Mapping[str, torch.Tensor], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix))


def load_tokenizer(path: Path) -> Any:
    """Load the tokenizer beside a weight file, or BERT's from the hub, with BLIP's two tokens after its own.

    Raises:
        ModelError: If there is neither; the message has the download command.
    """
    from transformers import AddedToken, BertTokenizer

    beside = any((path.parent / name).is_file() for name in ("vocab.txt", "tokenizer.json"))
    source = str(path.parent) if beside else TOKENIZER
    try:
        tokenizer = BertTokenizer.from_pretrained(source)
        if len(tokenizer) < 10:  # without its files, transformers 5 makes an empty one and says nothing
            raise OSError(f"{source} has no vocab.txt and no tokenizer.json")
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the tokenizer {source} is not here ({first_line(error).rstrip('.')}). Put its vocab.txt beside "
            f"{path.name}, or download it where there is a network with: hf download {TOKENIZER} "
            "vocab.txt tokenizer.json tokenizer_config.json config.json"
        ) from error
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in MARKS], special_tokens=True)
    return tokenizer
