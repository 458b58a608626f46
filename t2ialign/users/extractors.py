"""Extractors: what turns a user's shots into vectors, and how one is named.

Law: the same shots in the same order give the same vectors on the same machine, and the name says what was computed
with which weights, so that vectors of two names are never mixed.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from t2ialign.data.pairs import PreferencePair
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.problems import hub_problem, loading_errors, short

DEFAULT = "clip:mini-clip"
KINDS = {
    "clip": "picture states of a transformers CLIPModel: clip:mini-clip, clip:FOLDER or clip:HUB_ID",
    "vlm": "hidden states of a chat model that sees: vlm:FOLDER or vlm:HUB_ID",
}
"""Kinds of extractor and a line on each."""


class Extractor(Protocol):
    """Makes an embedding.

    Attributes:
        name: `KIND:CHECKPOINT@DIGEST`, where the eight digits are of the weights, of how pictures and texts are
            prepared, and of the version of the layout of the tokens.
    """

    name: str

    def extract(self, shots: Sequence[PreferencePair]) -> Tensor:
        """Return the embedding of these shots, `[T, D]` float32 on the CPU; each token has a root mean square of 1.

        Raises:
            DataError: If there is nothing to be seen in the shots.
        """
        ...


def load_extractor(spec: str, device: str = "auto") -> Extractor:
    """Load an extractor by name.

    Args:
        spec: `clip:mini-clip`, `clip:HUB_ID_OR_FOLDER` or `vlm:HUB_ID_OR_FOLDER`; with `@` and the eight digits of an
            embedding's extractor behind it, only that very one will do.
        device: As in torch, or `auto`: a CUDA GPU where there is one.

    Raises:
        ConfigError: If there is no such kind.
        ModelError: If the checkpoint can not be loaded, or is another than the digits say.
    """
    kind, _, rest = spec.partition(":")
    checkpoint, _, digest = rest.partition("@")
    if kind not in KINDS or not checkpoint:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = (
            f"did you mean {near[0]}:{checkpoint or 'CHECKPOINT'}?" if near else f"write {'; '.join(KINDS.values())}"
        )
        raise ConfigError(f"extractor {spec!r} is unknown; {hint}")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    extractor: Extractor
    if kind == "clip":
        from t2ialign.users.clip import ClipExtractor

        extractor = ClipExtractor(checkpoint, device=device)
    else:
        from t2ialign.users.vlm import VlmExtractor

        extractor = VlmExtractor(checkpoint, device=device)
    if digest and not extractor.name.endswith(f"@{digest}"):
        raise ModelError(f"{kind}:{checkpoint} is now {extractor.name}, not {spec}: get the checkpoint of that digest")
    return extractor


def unit_tokens(tokens: Tensor) -> Tensor:
    """Scale each token to a root mean square of 1.

    Args:
        tokens: `[..., D]`, of any floating type.

    Returns:
        float32 on the CPU; a token of zeros stays zeros.
    """
    tokens = tokens.detach().float().cpu()
    size = tokens.square().mean(dim=-1, keepdim=True).sqrt()
    return torch.where(size == 0, torch.zeros_like(tokens), tokens / size)


def source_of(checkpoint: str) -> str:
    """Return what transformers is to load: a folder's path without `~`, or the hub id as it is."""
    folder = Path(checkpoint).expanduser()
    return str(folder) if folder.is_dir() else checkpoint


def named(kind: str, checkpoint: str, *parts: object) -> str:
    """Compose an extractor's name of its checkpoint (of a folder only the last part) and a digest of what it is."""
    shown = Path(checkpoint).expanduser()
    label = shown.resolve().name if shown.is_dir() else checkpoint
    digest = hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()[:8]
    return f"{kind}:{label}@{digest}"


def loaded(what: str, checkpoint: str, load: Callable[[], Any]) -> Any:
    """Run what loads a checkpoint, and turn what goes wrong into one line with its mend.

    Args:
        what: What it should be, as in "CLIPModel of transformers".
        checkpoint: The folder or hub id.
        load: Loads it.

    Raises:
        ModelError: If it can not be loaded.
    """
    try:
        return load()
    except loading_errors(AttributeError, TypeError) as error:
        if Path(checkpoint).expanduser().exists() or not isinstance(error, OSError):
            raise ModelError(f"{checkpoint} is no {what} with safetensors weights: {short(error)}") from error
        raise ModelError(hub_problem(checkpoint, None, error, kind=what)) from error


def check_whole(checkpoint: str, missing: Sequence[str]) -> None:
    """Refuse a model of which some weights were not in the file and are random now.

    Raises:
        ModelError: If there are such weights.
    """
    if missing:
        raise ModelError(
            f"{checkpoint!r} lacks {len(missing)} weights, {sorted(missing)[0]} first: it is damaged or another kind "
            "of model; download it again"
        )


def check_shots(shots: Sequence[PreferencePair]) -> None:
    """Refuse no shots.

    Raises:
        DataError: If there are none.
    """
    if not shots:
        raise DataError("an embedding needs at least one pair; give --shots 1 or more")
