"""Weights of scorers: found by hub id, folder or file, and read without running anything.

Law of this file: tensors only. A safetensors file, or a `.pt` file that holds nothing but tensors and
plain containers (`weights_only=True`); what would run code when it is opened is refused.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.errors import ModelError
from t2ialign.problems import short

if TYPE_CHECKING:
    import torch

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""How weight files end."""


def find_weights(source: str, names: Sequence[str], revision: str | None = None) -> Path:
    """Find one weight file.

    Args:
        source: The file itself, a folder that holds one of `names`, or a hub id whose repository does.
        names: File names, the first that exists; on the hub the first alone.
        revision: Of the hub repository.

    Raises:
        ModelError: If it is not there; the message has the download command.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise ModelError(f"{source} has none of the weight files {', '.join(names)}")
        return found
    if looks_like_a_path(source):
        raise ModelError(f"there is no weight file {source}")
    return fetch(source, names[0], revision)


def looks_like_a_path(source: str) -> bool:
    """Tell a path from a hub id (`name` or `organisation/name`)."""
    return source.startswith(("/", ".", "~")) or source.count("/") > 1 or source.endswith(WEIGHT_SUFFIXES)


def fetch(repository: str, name: str, revision: str | None = None) -> Path:
    """Return a file of a hub repository, from the cache or downloaded.

    Raises:
        ModelError: If neither works; the message has the download command.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        at = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"{repository!r} is neither a file, nor a folder, nor in the hub's cache with {name}: "
            f"{first_line(error).rstrip('.')}. Download it where there is a network with: "
            f"hf download {repository} {name}{at}"
        ) from error


def commit_of(path: Path) -> str | None:
    """Return the commit of a file in the hub's cache (`snapshots/<commit>/...`); `None` for any other file."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else None


def cached_commit(repository: str, names: Sequence[str], revision: str | None = None) -> str | None:
    """Return the commit at which a repository lies in the hub's cache, by the first of its files that is there."""
    from huggingface_hub import try_to_load_from_cache

    cached = (try_to_load_from_cache(repository, name, revision=revision) for name in names)
    return next((commit_of(Path(path)) for path in cached if isinstance(path, str)), None)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a weight file's tensors, on the CPU, in their own number format.

    A `state_dict` inside, and `module.` before every name, are what training scripts leave; both are taken off.

    Raises:
        ModelError: If the file is damaged, holds more than tensors, or no tensors.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, and opening it would run code that it names; it is not loaded. "
            "Where you trust it, open it with the package that wrote it and save its state_dict() as safetensors"
        ) from error
    except Exception as error:  # safetensors and zip readers have error classes of their own
        raise ModelError(f"{path} is no readable weight file: {first_line(error)}; fetch it again") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, no named tensors; save a state_dict")
    state = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise ModelError(f"{path} holds no tensors; save a state_dict")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def check_finite(module: torch.nn.Module, name: str) -> None:
    """Refuse a model with weights that are not finite: its scores would not be numbers.

    Raises:
        ModelError: Naming the first such weight.
    """
    import torch

    for weight, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and not torch.isfinite(tensor.detach().abs().max()):
            raise ModelError(f"{name}: the weight {weight} holds numbers that are not finite; fetch it again")


def file_digest(path: Path) -> str:
    """Return a file's SHA-256, as `sha256sum` prints it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def state_digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 of a module's weights: names, types, shapes and bytes, in the order of names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class where it has none; see `t2ialign.problems.short`."""
    return short(error)
