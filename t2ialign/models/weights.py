"""Weights: reading a safetensors file or refusing it by name, and looking whether loaded weights can be any good.

Law: a file is read whole and is what it says, or `ModelError` names it; numbers that are not finite, and weights that
a library made up because the file lacks them, are found when they are loaded and not in the pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2ialign.errors import ModelError
from t2ialign.problems import short

_HALF = re.compile(r"(lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)(?=\.)")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ModelError: It is damaged, or holds numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is no whole safetensors file ({short(error)}): copy it again") from error
    check_finite(tensors, str(file))
    return dict(tensors)


def check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are not finite.

    Raises:
        ModelError: Naming the first of them.
    """
    for weight, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # The largest of all is not finite if one of them is not; it takes no memory. One-byte types have no largest.
        numbers = tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()
        if not torch.isfinite(numbers.abs().max()):
            raise ModelError(f"{name}: the weight {weight} holds numbers that are not finite: copy or train it again")


def check_parts(parts: Mapping[str, Any], name: str) -> None:
    """Refuse a model some of whose weights are missing (diffusers leaves them without memory) or not finite.

    Args:
        parts: Modules by their name.
        name: What to call the model.

    Raises:
        ModelError: Naming the first such weight.
    """
    for part, module in parts.items():
        state = {f"{part}.{weight}": tensor for weight, tensor in module.state_dict().items()}
        if lost := [weight for weight, tensor in state.items() if tensor.is_meta]:
            raise ModelError(f"cannot load {name}: it lacks {len(lost)} weights, among them {lost[0]}: copy it again")
        check_finite(state, name)


def check_present(folder: Path, module: Any, name: str) -> None:
    """Refuse a module of transformers that the files of its folder do not fill: the rest would be random numbers.

    Names are compared from their end, for versions of transformers differ in how they begin.

    Raises:
        ModelError: Naming the first weight that is in no file.
    """
    from safetensors import safe_open

    stored: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            stored |= {end for key in opened.keys() for end in _ends(key)}  # noqa: SIM118
    lost = [key for key in module.state_dict() if not stored & _telling(key)]
    if lost:
        raise ModelError(
            f"cannot load {name}: {folder.name} lacks {len(lost)} weights, among them {lost[0]}: copy it again"
        )


def _telling(key: str) -> set[str]:
    """Return the whole name and that without its first part, unless nothing is left of it but `weight`."""
    return {end for number, end in enumerate(_ends(key)[:2]) if number == 0 or "." in end}


def _ends(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def check_lora(names: Iterable[str], shapes: Mapping[str, tuple[int, ...]], file: str) -> None:
    """Refuse a LoRA whose halves do not fit together: a file that was cut by hand, or two ranks in one layer.

    Args:
        names: Of its tensors.
        shapes: Of its tensors.
        file: What to call it.

    Raises:
        ModelError: There is no LoRA in it, a half is missing, or the two are of different rank.
    """
    halves: dict[str, dict[int, tuple[int, ...]]] = {}
    for name in names:
        found = _HALF.search(name)
        if found is None or not name.endswith(".weight"):  # a bias stands on one half alone
            continue
        second = found[1] in ("lora_B", "lora_up", "lora.up")
        layer = name[: found.start()] + name[found.end() :]
        halves.setdefault(layer, {})[int(second)] = shapes[name]
    if not halves:
        raise ModelError(f"{file} holds no LoRA: none of its tensors is called lora_A, lora_B, lora_down or lora_up")
    for layer, both in halves.items():
        if len(both) < 2:
            raise ModelError(f"{file} is no whole LoRA: the layer {layer} has one of its two halves: copy it again")
        if both[0][0] != both[1][1]:
            raise ModelError(
                f"{file}: the halves of the layer {layer} have the ranks {both[0][0]} and {both[1][1]}: copy it again"
            )
