"""What an encoded picture or caption depends on, as keys: equal keys mean equal rows.

A row's key holds what is the row's own: the bytes of the picture's file and how it is cut (`pictures.plan_cut`), or
the token ids of a caption. The folder's name holds what all of its rows share: the weights and the configuration of
the encoder, the number formats, and the format of the files. So a picture that is in many pairs is encoded once, a
subset, a new split or a grown set finds its rows, and a changed picture, encoder, size or number format never does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from t2ialign.data.images import upright_size
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.caches.store import KEY_BYTES
from t2ialign.trainers.pictures import METHOD, Cut, Size

FORMAT = 1
"""Of keys and rows; another number is another folder."""

_NOT_WEIGHTS = ("transformers_version", "torch_dtype", "dtype")


@dataclass(frozen=True)
class Content:
    """A picture's file, as far as its encoding depends on it.

    Attributes:
        digest: Of its bytes, 16.
        size: Height and width once it is upright, pixels.
    """

    digest: bytes
    size: Size


def content_of(encoded: bytes, name: str | None = None) -> Content:
    """Look at a picture's file without decoding it.

    Raises:
        DataError: if its header shows that it can not be read.
    """
    return Content(hashlib.sha256(encoded).digest()[:KEY_BYTES], upright_size(encoded, name=name))


def picture_key(digest: bytes, cut: Cut) -> bytes:
    """Return the key of a picture cut in one way."""
    whole = (METHOD, cut.original_size, cut.resized, cut.corner, cut.target, cut.flip)
    return hashlib.sha256(digest + repr(whole).encode()).digest()[:KEY_BYTES]


def caption_keys(model: DiffusionModel, captions: Sequence[str], *, zeros: bool) -> list[bytes]:
    """Return the key of each caption: of what the tokenizers make of it, and of zeros where they stand for it."""
    found: list[bytes] = []
    none = bool(zeros and model.family == "sdxl" and model.pipeline.config.force_zeros_for_empty_prompt)
    for start in range(0, len(captions), 1024):
        some = list(captions[start : start + 1024])
        parts = [part for tokens in model.tokens(some) for part in (tokens.input_ids, tokens.attention_mask)]
        for number, caption in enumerate(some):
            digest = hashlib.sha256(b"zeros" if none and caption == "" else b"tokens")
            for part in parts:
                digest.update(part[number].numpy().astype("<i8").tobytes())
            found.append(digest.digest()[:KEY_BYTES])
    return found


def latent_ingredients(model: DiffusionModel, stored: torch.dtype, posterior: str) -> dict[str, Any]:
    """Return what all encoded pictures of a folder share."""
    return {
        "format": FORMAT,
        "rows": "posterior of pictures, not scaled: " + ("mean" if posterior == "mean" else "mean and deviation"),
        "encoder": module_digest(model.vae),
        "computed in": type_name(model.vae_dtype),
        "stored in": type_name(stored),
    }


def text_ingredients(model: DiffusionModel, stored: torch.dtype | None) -> dict[str, Any]:
    """Return what all encoded captions of a folder share."""
    computed = [type_name(encoder.dtype) for encoder in model.text_encoders]
    return {
        "format": FORMAT,
        "rows": "captions",
        "family": "sdxl" if model.family == "sdxl" else "sd",
        "encoders": [module_digest(encoder) for encoder in model.text_encoders],
        "computed in": computed,
        "stored in": "as computed" if stored is None else type_name(stored),
    }


def folder_name(kind: str, ingredients: Mapping[str, Any]) -> str:
    """Return the name of the folder of rows that share these ingredients."""
    return f"{kind}-{hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]}"


def module_digest(module: nn.Module) -> str:
    """Return 32 hexadecimal digits of a part's weights and configuration, the same on every device."""
    config: Any = module.config
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)  # of transformers and of diffusers
    kept = {key: value for key, value in plain.items() if not key.startswith("_") and key not in _NOT_WEIGHTS}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    weights: dict[str, Tensor] = module.state_dict()
    for name, tensor in sorted(weights.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def type_name(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
