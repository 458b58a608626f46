"""CLIP backends: checkpoints of transformers and of open_clip behind one face.

Law of this file: features are raw (not normalised) float32 [B, D]; gradients flow through pixels and stop
at weights; pictures are prepared by the checkpoint's own preprocessing unless a scorer's definition has
another; prompts keep their end token when they are cut.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from t2ialign.reward_models.preparation import (
    OPENAI_MEAN,
    OPENAI_STD,
    ClipPreparation,
    LibraryPreparation,
    PillowPreparation,
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a file of weights does not say about itself.

    Attributes:
        open_clip: Name of the architecture in open_clip.
        config: Arguments of transformers' `CLIPConfig`.
        tokenizer: Hub id of its tokenizer in the form of transformers.
    """

    open_clip: str
    config: Mapping[str, Any]
    tokenizer: str


_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
_H_TEXT = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
_H_VISION = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
_L_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_L_VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}

VIT_H_14 = Architecture(
    "ViT-H-14",
    {
        "projection_dim": 1024,
        "text_config": {**_TEXT, **_H_TEXT, "hidden_act": "gelu"},
        "vision_config": {**_H_VISION, "image_size": 224, "patch_size": 14, "hidden_act": "gelu"},
    },
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
)
"""laion's ViT-H/14 (open_clip's `ViT-H-14.json`), the trunk of PickScore, HPSv2 and MPS: GELU, not QuickGELU."""
VIT_L_14 = Architecture(
    "ViT-L-14",
    {
        "projection_dim": 768,
        "text_config": {**_TEXT, **_L_TEXT, "hidden_act": "quick_gelu"},
        "vision_config": {**_L_VISION, "image_size": 224, "patch_size": 14, "hidden_act": "quick_gelu"},
    },
    "openai/clip-vit-large-patch14",
)
"""OpenAI's ViT-L/14, with QuickGELU."""


class ClipBackend:
    """A CLIP and what belongs to it.

    Attributes:
        model: The module, in evaluation mode, its weights frozen.
        checkpoint: Its name, without folders of this machine.
        digest: SHA-256: of the weight file where there is one, else of the weights in memory.
        revision: Commit on the hub, where known.
        preparation: The checkpoint's own preprocessing.
        image_size: Side of its pictures in pixels.
        limit: Tokens that fit, both ends included.
        logit_scale: Its temperature, `exp(logit_scale)`.
    """

    library: str
    versions: tuple[str, ...]
    preparation: ClipPreparation

    def __init__(self, model: Any, *, checkpoint: str, digest: str, revision: str | None) -> None:
        """Take a loaded model."""
        self.model: Any = model
        self.checkpoint, self.digest, self.revision = checkpoint, digest, revision
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.logit_scale = float(model.logit_scale.detach().float().exp().reshape(-1)[0])
        self.image_size = 224
        self.limit = 77
        self.mean: tuple[float, ...] = OPENAI_MEAN
        self.std: tuple[float, ...] = OPENAI_STD

    def image_features(self, prepared: torch.Tensor, preparation: ClipPreparation) -> torch.Tensor:
        """Return features of prepared pictures [B, 3, S, S]; float32 [B, D], differentiable in floating pictures."""
        return _features(self._encode_image(self.normalise(prepared, preparation)))

    def normalise(self, prepared: torch.Tensor, preparation: ClipPreparation) -> torch.Tensor:
        """Bring prepared pictures to the device, to [0, 1], and by mean and deviation to what the model reads."""
        pixels = prepared.to(self.device)
        if isinstance(preparation, LibraryPreparation):
            return pixels.to(self.dtype)
        pixels = pixels.float() if pixels.is_floating_point() else pixels.float() / 255.0
        mean, std = (torch.tensor(values, device=self.device)[:, None, None] for values in (self.mean, self.std))
        return ((pixels - mean) / std).to(self.dtype)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return features of texts, float32 [B, D]; what exceeds the limit is cut before the end token."""
        raise NotImplementedError

    def is_truncated(self, text: str) -> bool:
        """Tell whether a text exceeds the tokenizer's limit."""
        raise NotImplementedError

    def _encode_image(self, pixels: torch.Tensor) -> Any:
        raise NotImplementedError

    @property
    def activation(self) -> str:
        """The activation between the layers."""
        raise NotImplementedError

    def info(self, preparation: ClipPreparation) -> dict[str, Any]:
        """Describe checkpoint, preprocessing and libraries, in values for JSON."""
        return {
            "library": self.library,
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "weights_sha256": self.digest,
            "dtype": str(self.dtype).removeprefix("torch."),
            "activation": self.activation,
            "max_tokens": self.limit,
            "preprocessing": preparation.info() | {"mean": list(self.mean), "std": list(self.std)},
            "versions": {name: version(name) for name in self.versions},
        }


class TransformersBackend(ClipBackend):
    """A `CLIPModel` of transformers with its tokenizer."""

    library = "transformers"
    versions = ("transformers", "torch", "pillow")

    def __init__(self, model: Any, tokenizer: Any, processor: Any, **named: Any) -> None:
        """Take what is loaded; without an image processor the preprocessing is CLIP's."""
        super().__init__(model, **named)
        self.tokenizer: Any = tokenizer
        self.limit = int(model.config.text_config.max_position_embeddings)
        self.image_size = int(model.config.vision_config.image_size)
        self.preparation = PillowPreparation(self.image_size)
        if processor is not None:
            self.preparation = _of_processor(processor)
            self.mean, self.std = tuple(processor.image_mean), tuple(processor.image_std)

    def _encode_image(self, pixels: torch.Tensor) -> Any:
        return self.model.get_image_features(pixel_values=pixels)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """See `ClipBackend`."""
        ids = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.limit, return_tensors="pt")
        ids = ids.to(self.device)
        return _features(
            self.model.get_text_features(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
        )

    def is_truncated(self, text: str) -> bool:
        """See `ClipBackend`."""
        return len(self.tokenizer(text, verbose=False)["input_ids"]) > self.limit

    @property
    def activation(self) -> str:
        """See `ClipBackend`."""
        return str(self.model.config.vision_config.hidden_act)


class OpenClipBackend(ClipBackend):
    """A CLIP of open_clip with its tokenizer."""

    library = "open_clip"
    versions = ("open_clip_torch", "torch", "pillow")

    def __init__(self, model: Any, tokenizer: Any, quick_gelu: bool, **named: Any) -> None:
        """Take what is loaded."""
        import open_clip

        super().__init__(model, **named)
        self.tokenizer: Any = tokenizer
        self.quick_gelu = quick_gelu
        self.limit = int(tokenizer.context_length)
        settings = dict(open_clip.get_model_preprocess_cfg(model))
        self.preparation = _of_open_clip(settings)
        size = settings["size"]
        self.image_size = int(size if isinstance(size, int) else size[0])
        self.mean, self.std = tuple(settings["mean"]), tuple(settings["std"])

    def _encode_image(self, pixels: torch.Tensor) -> Any:
        return self.model.encode_image(pixels)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """See `ClipBackend`."""
        return _features(self.model.encode_text(self.tokenizer(list(texts)).to(self.device)))

    def is_truncated(self, text: str) -> bool:
        """See `ClipBackend`."""
        if hasattr(self.tokenizer, "encoder"):
            return len(self.tokenizer.encode(text)) + 2 > self.limit
        return len(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text))["input_ids"]) > self.limit

    @property
    def activation(self) -> str:
        """See `ClipBackend`."""
        return "quick_gelu" if self.quick_gelu else "gelu"


def _of_processor(processor: Any) -> ClipPreparation:
    """Read an image processor's settings; the usual ones become ours, others stay the library's."""
    size, crop, names = dict(processor.size), dict(processor.crop_size), {2: "bilinear", 3: "bicubic"}
    edge, resample = size.get("shortest_edge"), names.get(int(processor.resample))
    square = crop.get("height") == crop.get("width")
    steps = (processor.do_resize, processor.do_center_crop, processor.do_rescale, processor.do_normalize)
    scaled = abs(processor.rescale_factor - 1 / 255) < 1e-9
    if all(steps) and scaled and square and edge and edge >= crop["height"] and resample:
        side = int(crop["height"])
        return PillowPreparation(side, edge=0 if edge == side else int(edge), resample=resample)
    kept = {key: value for key, value in processor.to_dict().items() if key in _STEPS}
    return LibraryPreparation("transformers", json.dumps(_plain(kept), sort_keys=True))


_STEPS = (
    "do_convert_rgb",
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""Settings of an image processor that make its result."""


def _of_open_clip(settings: Mapping[str, Any]) -> ClipPreparation:
    """Read the settings of open_clip's transform likewise."""
    size, mode = settings["size"], settings.get("resize_mode") or "shortest"
    square = isinstance(size, int) or len(set(size)) == 1
    resample = settings.get("interpolation") or "bicubic"
    if square and mode in ("shortest", "squash") and resample in ("bicubic", "bilinear"):
        side = int(size if isinstance(size, int) else size[0])
        return PillowPreparation(side, squash=mode == "squash", resample=resample, rgb="last", half="even")
    return LibraryPreparation("open_clip", json.dumps(_plain(dict(settings)), sort_keys=True))


def _features(output: Any) -> torch.Tensor:
    """Take the projected features out of whatever a version of the library returns."""
    features: torch.Tensor = output if torch.is_tensor(output) else output.pooler_output
    return features.float()


def _plain(value: Any) -> Any:
    """Bring a setting to something JSON can hold."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else str(value)
