"""Loading CLIP checkpoints: a folder, a file, a hub id, or an open_clip name.

Law of this file: what cannot be loaded says exactly what is missing and how to get it; tensors only, no
code from the hub, no folder of this machine in a name that is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from t2ialign.errors import ModelError
from t2ialign.problems import loading_errors
from t2ialign.reward_models.clip_backends import Architecture, ClipBackend, OpenClipBackend, TransformersBackend
from t2ialign.reward_models.preparation import pillow_processor
from t2ialign.reward_models.weights import (
    WEIGHT_SUFFIXES,
    cached_commit,
    check_finite,
    commit_of,
    file_digest,
    first_line,
    looks_like_a_path,
    read_state,
    state_digest,
)

PACKAGED = ("mini-clip", "mini-pickscore")
"""Checkpoints that come with t2ialign."""


def load_backend(
    checkpoint: str,
    *,
    device: torch.device,
    dtype: str,
    revision: str | None = None,
    quick_gelu: bool | None = None,
    architecture: Architecture | None = None,
) -> ClipBackend:
    """Load a checkpoint, whichever library it belongs to.

    Args:
        checkpoint: `mini-clip` or `mini-pickscore`; a folder with a transformers `CLIPModel` or with an
            `open_clip_config.json`; a weight file of either library; an open_clip pair
            `ViT-B-32/laion2b_s34b_b79k`, where the second part may be a weight file, with or without
            `open_clip:` before it; `hf-hub:org/name` for open_clip's configuration on the hub; else a hub
            id of a transformers `CLIPModel`.
        device: Where the model runs.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`.
        revision: Of a checkpoint on the hub.
        quick_gelu: For open_clip: force the activation; `None` for what the weights were trained with.
        architecture: Of a bare weight file without a configuration beside it, and the tokenizer of a
            checkpoint that has none.

    Raises:
        ModelError: If the checkpoint is not there, or cannot be read.
    """
    from t2ialign.mini import resource

    place = {"device": device, "dtype": getattr(torch, dtype)}
    try:
        packaged = resource(checkpoint) if checkpoint in PACKAGED else None
        path = packaged or Path(checkpoint).expanduser()
    except FileNotFoundError as error:
        raise ModelError(str(error)) from error
    if path.is_dir():
        if (path / "open_clip_config.json").is_file():
            return _load_open_clip(f"local-dir:{path}", None, quick_gelu, name=path.name, **place)
        return _load_transformers(str(path), None, architecture, name=path.name, **place)
    if path.is_file():
        return _load_file(path, architecture, quick_gelu, **place)
    if checkpoint.startswith("hf-hub:"):
        at = f"{checkpoint}@{revision}" if revision else checkpoint
        return _load_open_clip(at, None, quick_gelu, name=checkpoint, **place)
    pair = _open_clip_pair(checkpoint)
    if pair is not None:
        return _load_open_clip(*pair, quick_gelu, name=checkpoint.removeprefix("open_clip:"), **place)
    return _load_transformers(checkpoint, revision, architecture, name=checkpoint, **place)


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


def _load_file(
    path: Path, architecture: Architecture | None, quick_gelu: bool | None, *, device: torch.device, dtype: torch.dtype
) -> ClipBackend:
    """Load a bare weight file, of transformers or of open_clip by its names."""
    state = read_state(path)
    if "visual.conv1.weight" in state or "visual.trunk.patch_embed.proj.weight" in state:
        if architecture is None:
            raise ModelError(f"{path} holds weights of open_clip; say which with open_clip:ARCHITECTURE/{path}")
        return _load_open_clip(
            architecture.open_clip, str(path), quick_gelu, name=path.name, device=device, dtype=dtype
        )
    model = build_clip(state, path, architecture).to(device=device, dtype=dtype)
    tokenizer = load_tokenizer(path, architecture)
    return TransformersBackend(
        model, tokenizer, None, checkpoint=path.name, digest=file_digest(path), revision=commit_of(path)
    )


def build_clip(state: Mapping[str, torch.Tensor], path: Path, architecture: Architecture | None) -> Any:
    """Build a transformers `CLIPModel` from weights; its configuration is the `config.json` beside them, if any.

    Raises:
        ModelError: If there is no configuration, or the weights do not fit it.
    """
    from accelerate import init_empty_weights
    from transformers import CLIPConfig, CLIPModel

    beside = path.parent / "config.json"
    if beside.is_file():
        config = CLIPConfig.from_pretrained(str(path.parent))
    elif architecture is not None:
        config = CLIPConfig(**architecture.config)
    else:
        raise ModelError(f"{path} does not say which architecture it is; put its config.json beside it")
    with init_empty_weights(include_buffers=False):
        model = CLIPModel(config)
    # Older versions of transformers saved the numbers of the positions among the weights.
    wanted = {name: value.float() for name, value in state.items() if not name.endswith("position_ids")}
    try:
        model.load_state_dict(wanted, strict=True, assign=True)
    except RuntimeError as error:
        what = "the config.json beside it" if beside.is_file() else f"CLIP {architecture and architecture.open_clip}"
        lines = " ".join(str(error).split())[:300]
        raise ModelError(f"the weights {path} do not fit {what}: {lines}") from error
    check_finite(model, str(path))
    return model.eval().requires_grad_(False)


def load_tokenizer(path: Path, architecture: Architecture | None) -> Any:
    """Load the tokenizer beside a weight file, or the architecture's from the hub.

    Raises:
        ModelError: If there is neither; the message has the download command.
    """
    beside = any((path.parent / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    if not beside and architecture is None:
        raise ModelError(
            f"there is no tokenizer beside {path}; put its tokenizer.json and tokenizer_config.json there"
        )
    source = str(path.parent) if beside else str(architecture and architecture.tokenizer)
    try:
        return _tokenizer(source)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the tokenizer {source} is not here ({first_line(error).rstrip('.')}). Put tokenizer.json and "
            f"tokenizer_config.json beside {path.name}, or download it where there is a network with: "
            f"hf download {source} --exclude '*.bin' '*.safetensors'"
        ) from error


def _tokenizer(source: str, revision: str | None = None) -> Any:
    """Load a tokenizer with its words: without its files, transformers 5 makes an empty one and says nothing.

    Raises:
        OSError: If it is not there.
    """
    from transformers import AutoTokenizer, CLIPTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # there may be no config.json beside, which only AutoTokenizer needs
        tokenizer = CLIPTokenizer.from_pretrained(source, revision=revision)
    if len(tokenizer) <= 256:  # fewer than bytes
        raise OSError(f"{source} has no tokenizer.json and no vocab.json")
    return tokenizer


def _load_transformers(
    source: str,
    revision: str | None,
    architecture: Architecture | None,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
) -> ClipBackend:
    from transformers import CLIPModel

    try:
        model, report = CLIPModel.from_pretrained(source, revision=revision, dtype=dtype, output_loading_info=True)
    except loading_errors() as error:
        raise ModelError(_missing(source, revision, error)) from error
    if report["missing_keys"]:  # transformers fills them with random numbers and goes on
        raise ModelError(
            f"{source} is no whole CLIPModel: it lacks {len(report['missing_keys'])} weights, among them "
            f"{min(report['missing_keys'])}; give a checkpoint of that class"
        )
    check_finite(model, source)
    try:
        tokenizer = _tokenizer(source, revision)
        processor = pillow_processor().from_pretrained(source, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        if architecture is None:
            raise ModelError(_missing(source, revision, error)) from error
        tokenizer, processor = load_tokenizer(Path(source) / "config.json", architecture), None
    commit = None if Path(source).is_dir() else cached_commit(source, ["config.json"], revision)
    digest = state_digest(model)
    model = model.eval().requires_grad_(False).to(device)
    return TransformersBackend(model, tokenizer, processor, checkpoint=name, digest=digest, revision=commit)


def _load_open_clip(
    architecture: str,
    pretrained: str | None,
    quick_gelu: bool | None,
    *,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
) -> ClipBackend:
    import open_clip

    file = Path(pretrained).expanduser() if pretrained else None
    file = file if file is not None and file.is_file() else None
    forced = needs_quick_gelu(architecture, pretrained) if quick_gelu is None else quick_gelu
    try:
        model = open_clip.create_model(
            architecture, str(file or "") or pretrained, force_quick_gelu=forced, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    except loading_errors() as error:
        raise ModelError(_missing_open_clip(architecture, pretrained, error)) from error
    check_finite(model, name)
    model = model.eval().requires_grad_(False).to(device=device, dtype=dtype)
    digest = file_digest(file) if file else state_digest(model)
    quick = forced or any(type(module).__name__ == "QuickGELU" for module in model.modules())
    shown = f"{name.partition('/')[0]}/{file.name}" if file and name != file.name else name
    revision = commit_of(file) if file else _open_clip_commit(architecture, pretrained)
    return OpenClipBackend(model, tokenizer, quick, checkpoint=shown, digest=digest, revision=revision)


def needs_quick_gelu(architecture: str, pretrained: str | None) -> bool:
    """Tell whether a set of weights that open_clip knows by tag was trained with QuickGELU.

    The weights of OpenAI were, though their plain architecture names (`ViT-B-32`) say GELU.
    """
    if not pretrained or ":" in architecture:
        return False
    from open_clip import get_pretrained_cfg

    return bool(get_pretrained_cfg(architecture, pretrained).get("quick_gelu", False))


def _open_clip_commit(architecture: str, pretrained: str | None) -> str | None:
    """Return the commit that open_clip's weights have in the hub's cache, where they came from there."""
    from open_clip import get_pretrained_cfg

    if architecture.startswith("hf-hub:"):
        repository, _, revision = architecture.removeprefix("hf-hub:").partition("@")
    else:
        known = get_pretrained_cfg(architecture, pretrained) if pretrained else {}
        repository, revision = str(known.get("hf_hub", "")).rstrip("/"), ""
    names = ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return cached_commit(repository, names, revision or None) if repository else None


def _missing(source: str, revision: str | None, error: Exception) -> str:
    if Path(source).expanduser().exists():
        return (
            f"{source} is not a folder of a transformers CLIPModel with its tokenizer and processor: "
            f"{first_line(error)}"
        )
    if looks_like_a_path(source):
        kinds = ", ".join(WEIGHT_SUFFIXES)
        return f"there is no checkpoint {source}; give a folder, a weight file ({kinds}) or a hub id"
    at = f" --revision {revision}" if revision else ""
    return (
        f"the CLIP checkpoint {source!r} is neither a folder nor in the hub's cache: {first_line(error).rstrip('.')}. "
        f"Download it where there is a network with: hf download {source}{at}"
    )


def _missing_open_clip(architecture: str, pretrained: str | None, error: Exception) -> str:
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

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
    name = f"{architecture}{'/' + pretrained if pretrained else ''}"
    return f"open_clip cannot load {name}: {first_line(error)}. {where}"
