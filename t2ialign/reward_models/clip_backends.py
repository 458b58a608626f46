"""CLIP backends: checkpoints of transformers and of open_clip behind one face.

Law of this file: features are raw (not normalised) float32 [B, D] on the CPU; pictures are prepared
by the checkpoint's own preprocessing, on Pillow; prompts keep their end token when they are cut.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from t2ialign.errors import ModelError

logger = logging.getLogger(__name__)


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
"""Settings of an image processor that are recorded."""


class ClipBackend(Protocol):
    """Features of pictures and texts, and what made them."""

    checkpoint: str
    digest: str

    def image_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return raw features of RGB pictures, float32 [B, D]."""
        ...

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return raw features of texts, float32 [B, D]; what exceeds the limit is cut before the end token."""
        ...

    def is_truncated(self, text: str) -> bool:
        """Tell whether a text exceeds the tokenizer's limit."""
        ...

    def info(self) -> dict[str, Any]:
        """Describe the checkpoint, its preprocessing and the libraries."""
        ...


def load_backend(checkpoint: str, *, device: str, dtype: str, revision: str | None, quick_gelu: bool | None) -> Any:
    """Load a checkpoint, whichever library it belongs to.

    Args:
        checkpoint: `mini-clip`; a folder with a transformers `CLIPModel` or with an
            `open_clip_config.json`; an open_clip pair `ViT-B-32/laion2b_s34b_b79k`, where the second
            part may be a weight file, with or without `open_clip:` before it; `hf-hub:org/name` for
            open_clip's configuration on the hub; else a hub id of a transformers `CLIPModel`.
        device: As in torch.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`.
        revision: Of a transformers checkpoint on the hub.
        quick_gelu: For open_clip: force the activation; `None` for what the weights were trained with.

    Raises:
        ModelError: If the checkpoint is not there, or cannot be read.
    """
    from t2ialign.mini import resource

    settings = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
    try:
        folder = resource(checkpoint) if checkpoint == "mini-clip" else Path(checkpoint).expanduser()
    except FileNotFoundError as error:
        raise ModelError(str(error)) from error
    if folder is not None and folder.is_dir():
        if (folder / "open_clip_config.json").is_file():
            return OpenClipBackend(f"local-dir:{folder}", None, quick_gelu, name=folder.name, **settings)
        return TransformersBackend(str(folder), None, name=folder.name, **settings)
    if checkpoint.startswith("hf-hub:"):
        return OpenClipBackend(checkpoint, None, quick_gelu, name=checkpoint, **settings)
    pair = _open_clip_pair(checkpoint)
    if pair is not None:
        return OpenClipBackend(*pair, quick_gelu, name=checkpoint.removeprefix("open_clip:"), **settings)
    return TransformersBackend(checkpoint, revision, name=checkpoint, **settings)


def _open_clip_pair(checkpoint: str) -> tuple[str, str] | None:
    """Split `name/pretrained` where the name is an architecture of open_clip; `None` for a hub id."""
    explicit = checkpoint.startswith("open_clip:")
    name, _, pretrained = checkpoint.removeprefix("open_clip:").partition("/")
    import open_clip

    known = name in open_clip.list_models()
    if known and pretrained:
        return name, pretrained
    if explicit or known:
        reason = "names no weights" if known else "names no architecture of open_clip"
        raise ModelError(f"{checkpoint!r} {reason}; write open_clip:ARCHITECTURE/TAG or open_clip:ARCHITECTURE/FILE")
    return None


class TransformersBackend:
    """A `CLIPModel` of transformers, from a folder or the hub."""

    def __init__(
        self, source: str, revision: str | None, *, name: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Load model, tokenizer and the Pillow flavour of the image processor."""
        from transformers import AutoTokenizer, CLIPModel

        self.checkpoint = name
        try:
            model = CLIPModel.from_pretrained(source, revision=revision, dtype=dtype)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=revision)
            self.processor: Any = _pil_processor().from_pretrained(source, revision=revision)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(_missing(source, revision, error)) from error
        self.model: Any = model.eval().requires_grad_(False).to(device)
        self.revision = getattr(model.config, "_commit_hash", None)
        self.limit = int(model.config.text_config.max_position_embeddings)
        self.digest = state_digest(model)

    @torch.inference_mode()
    def image_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """See `ClipBackend`."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return _features(self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype)))

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """See `ClipBackend`."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.limit, return_tensors="pt"
        ).to(self.model.device)
        return _features(
            self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        )

    def is_truncated(self, text: str) -> bool:
        """See `ClipBackend`."""
        return len(self.tokenizer(text, verbose=False)["input_ids"]) > self.limit

    def info(self) -> dict[str, Any]:
        """See `ClipBackend`."""
        return {
            "library": "transformers",
            "checkpoint": self.checkpoint,
            "revision": self.revision,
            "weights_sha256": self.digest,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "activation": self.model.config.vision_config.hidden_act,
            "max_tokens": self.limit,
            "preprocessing": {"backend": "pillow"} | {k: _plain(getattr(self.processor, k, None)) for k in _STEPS},
            "versions": {k: version(k) for k in ("transformers", "torch", "pillow")},
        }


class OpenClipBackend:
    """A CLIP of open_clip: an architecture with weights, a folder, or a hub repository."""

    def __init__(
        self,
        architecture: str,
        pretrained: str | None,
        quick_gelu: bool | None,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Load model, tokenizer and inference preprocessing."""
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.checkpoint = _without_folders(name, pretrained)
        self.quick_gelu = needs_quick_gelu(architecture, pretrained) if quick_gelu is None else quick_gelu
        weights = (
            str(Path(pretrained).expanduser()) if pretrained and Path(pretrained).expanduser().is_file() else None
        )
        try:
            model = open_clip.create_model(
                architecture, weights or pretrained, force_quick_gelu=self.quick_gelu, require_pretrained=True
            )
            self.tokenizer: Any = open_clip.get_tokenizer(architecture)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(_missing_open_clip(architecture, pretrained, error)) from error
        self.model: Any = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self.device, self.dtype = device, dtype
        self.settings = dict(open_clip.get_model_preprocess_cfg(self.model))
        self.prepare: Any = image_transform_v2(PreprocessCfg(**self.settings), is_train=False)
        self.limit = int(self.tokenizer.context_length)
        self.digest = state_digest(self.model)

    @torch.inference_mode()
    def image_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """See `ClipBackend`."""
        pixels = torch.stack([self.prepare(image) for image in images])
        return _features(self.model.encode_image(pixels.to(self.device, self.dtype)))

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """See `ClipBackend`."""
        return _features(self.model.encode_text(self.tokenizer(list(texts)).to(self.device)))

    def is_truncated(self, text: str) -> bool:
        """See `ClipBackend`."""
        if hasattr(self.tokenizer, "encoder"):
            return len(self.tokenizer.encode(text)) + 2 > self.limit
        return len(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text))["input_ids"]) > self.limit

    def info(self) -> dict[str, Any]:
        """See `ClipBackend`."""
        return {
            "library": "open_clip",
            "checkpoint": self.checkpoint,
            "revision": None,
            "weights_sha256": self.digest,
            "dtype": str(self.dtype).removeprefix("torch."),
            "activation": "quick_gelu" if self.quick_gelu else "as the architecture says",
            "max_tokens": self.limit,
            "preprocessing": {"backend": "pillow"} | {key: _plain(value) for key, value in self.settings.items()},
            "versions": {k: version(k) for k in ("open_clip_torch", "torch", "torchvision", "pillow")},
        }


def needs_quick_gelu(architecture: str, pretrained: str | None) -> bool:
    """Tell whether a set of weights that open_clip knows by tag was trained with QuickGELU.

    The weights of OpenAI were, though their plain architecture names (`ViT-B-32`) say GELU.
    """
    if not pretrained or ":" in architecture:
        return False
    from open_clip import get_pretrained_cfg

    return bool(get_pretrained_cfg(architecture, pretrained).get("quick_gelu", False))


def state_digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 of a module's weights: names, types, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _features(output: Any) -> torch.Tensor:
    """Take the projected features out of whatever a version of the library returns."""
    features: torch.Tensor = output if torch.is_tensor(output) else output.pooler_output
    return features.float().cpu()


def _pil_processor() -> Any:
    """Return the image processor that resizes with Pillow, as the checkpoints were made to be used."""
    try:
        from transformers import CLIPImageProcessorPil

        return CLIPImageProcessorPil
    except ImportError:  # transformers before 5.1 calls it so
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor


def _plain(value: Any) -> Any:
    """Bring a setting to something JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else str(value)


def _without_folders(name: str, pretrained: str | None) -> str:
    """Name weights from a file by the file alone; where it lies on this machine is nobody's business."""
    if pretrained and Path(pretrained).expanduser().is_file():
        return f"{name.partition('/')[0]}/{Path(pretrained).name}"
    return name


def _missing(source: str, revision: str | None, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(source).expanduser().exists():
        return f"{source} is not a folder of a transformers CLIPModel with its tokenizer and processor: {first}"
    at = f" --revision {revision}" if revision else ""
    return (
        f"the CLIP checkpoint {source!r} is neither a folder nor in the hub's cache: {first.rstrip('.')}. "
        f"Download it where there is a network with: hf download {source}{at}"
    )


def _missing_open_clip(architecture: str, pretrained: str | None, error: Exception) -> str:
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if architecture.startswith("hf-hub:"):
        where = f"Download it where there is a network with: hf download {architecture.removeprefix('hf-hub:')}"
    elif pretrained and get_pretrained_cfg(architecture, pretrained):
        known = get_pretrained_cfg(architecture, pretrained)
        hub = str(known.get("hf_hub", "")).rstrip("/")
        where = f"Download it where there is a network with: hf download {hub}" if hub else f"Get {known.get('url')}"
    elif pretrained:
        tags = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        where = f"Give a weight file, or one of the tags that open_clip knows for it: {tags}"
    else:
        where = "Give a folder with open_clip_config.json and its weights"
    return f"open_clip cannot load {architecture}{'/' + pretrained if pretrained else ''}: {first}. {where}"
