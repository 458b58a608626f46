"""A nested state as tensors for safetensors and a structure for JSON, and back; never pickle.

Optimizers keep their state in dictionaries of dictionaries with whole-number keys; JSON has neither tensors nor
such keys, so both are written in a marked form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TENSOR = "__tensor__"
_PAIRS = "__pairs__"
_TUPLE = "__tuple__"


def pack(state: Any, copy: bool = True) -> tuple[Any, dict[str, Tensor]]:
    """Split a nested state of dictionaries, lists, tuples, tensors and plain values.

    Args:
        state: To split.
        copy: Whether to bring the tensors to the CPU; otherwise they are those of the state.

    Returns:
        A structure that `json` can write, and the tensors it refers to by name; copied ones are contiguous and on the
        CPU.

    Raises:
        TypeError: for a value that is none of these.
    """
    tensors: dict[str, Tensor] = {}
    structure = _pack(state, "state", tensors)
    if copy:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return structure, tensors


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {_PAIRS: [[key, _pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{name}.{number}", tensors) for number, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} holds a {type(value).__name__}, which a checkpoint cannot keep")


def unpack(structure: Any, tensors: dict[str, Tensor]) -> Any:
    """Put a state together again from what `pack` returned."""
    if isinstance(structure, list):
        return [unpack(item, tensors) for item in structure]
    if not isinstance(structure, dict):
        return structure
    if _TENSOR in structure:
        return torch.clone(tensors[structure[_TENSOR]])
    if _TUPLE in structure:
        return tuple(unpack(item, tensors) for item in structure[_TUPLE])
    return {key: unpack(item, tensors) for key, item in structure[_PAIRS]}
