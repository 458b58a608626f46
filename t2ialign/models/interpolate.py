"""Weight interpolation: a model between two tuned ones, (1 - w) first + w second.

Two models tuned from one base towards different ends (one for what people prefer, one for diversity, say) often lie
in one basin, and the weights between them give what no training run aimed at: a knob between the two ends that costs
nothing (Wortsman et al., 2022, for classifiers; Cideron et al., "Diversity-Rewarded CFG Distillation", 2024, for this
use).

A LoRA's update is a product, B A, and the mean of products is not the product of means. So two LoRAs are laid side by
side: `A = [A1; A2]`, `B = [(1 - w) s1 B1, w s2 B2]` with s = alpha / r, whose product is exactly `(1 - w) s1 B1 A1 +
w s2 B2 A2`, at rank r1 + r2 and scale 1. Anything else is loaded as whole pipelines and interpolated weight by weight.

Law of this file: w = 0 and w = 1 give the ends bit for bit; a folder appears whole or not at all; the ends are never
written to.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.errors import ModelError
from t2ialign.models.card import write_card
from t2ialign.models.record import Record, package_versions, read_record
from t2ialign.models.saving import save_pipeline, scrub

if TYPE_CHECKING:
    import torch

    from t2ialign.models.diffusion import DiffusionModel

NOTE_NAME = "interpolation.json"
"""Beside the weights: `first`, `second`, `weight`, `kind` ("lora" or "full") and the ends' digests."""
ALGORITHM = "interpolation"

_Lora = tuple[dict[str, tuple["torch.Tensor", "torch.Tensor"]], dict[str, float]]


def interpolate(first: Path | str, second: Path | str, weight: float, output_dir: Path | str) -> Path:
    """Write the model between two.

    Two LoRAs of one base give a LoRA, which plain diffusers loads and `export` turns to kohya's form. Any other two
    models of one architecture (full fine-tunes, a base and a LoRA on it) give a whole pipeline.

    Args:
        first: A run's `final/`, or any other model that `load_model` takes.
        second: Likewise.
        weight: w: 0 is the first, 1 the second. Beyond them, from -1 to 2, it is an extrapolation.
        output_dir: The folder to write: weights, `t2ialign.json`, a card, and `interpolation.json`. If it is there
            from the same two ends and weight, nothing is done.

    Returns:
        `output_dir`.

    Raises:
        ModelError: The two do not belong together, one is missing or a user adapter, or the folder holds something
            else.
        ValueError: `weight` is out of range.
    """
    if not math.isfinite(weight) or not -1 <= weight <= 2:
        raise ValueError(
            f"weight is {weight}; 0 is the first model and 1 the second, and -1 to 2 is as far as it goes"
        )
    target = Path(output_dir)
    records = [_record(each) for each in (first, second)]
    kind = "lora" if all(record is not None and record.kind == "lora" for record in records) else "full"
    note = {
        "first": scrub(str(first)),
        "second": scrub(str(second)),
        "weight": float(weight),
        "kind": kind,
        "first_sha256": _digest(first),
        "second_sha256": _digest(second),
    }
    if _is_done(target, note):
        return target
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        if kind == "lora":
            _write_lora(Path(first), Path(second), weight, aside)
        else:
            _write_pipeline(str(first), str(second), weight, aside)
        title = f"Between {Path(note['first']).name} and {Path(note['second']).name}, weight {weight:g}"
        write_card(aside, title=title, settings={key: value for key, value in note.items() if value is not None})
        (aside / NOTE_NAME).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        if target.is_dir():
            target.rmdir()
        os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _is_done(target: Path, note: dict[str, Any]) -> bool:
    """Whether the folder is what was asked for.

    Raises:
        ModelError: It holds something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    file = target / NOTE_NAME
    if not file.is_file():
        raise ModelError(f"{target} is there and holds something else: name another folder")
    found = json.loads(file.read_text(encoding="utf-8"))
    differing = [f"{key} {found.get(key)!r}, now {value!r}" for key, value in note.items() if found.get(key) != value]
    if differing:
        raise ModelError(f"{target} is an interpolation of other ends ({'; '.join(differing)}): name another folder")
    return True


def _record(name: Path | str) -> Record | None:
    """The record beside a model, if it is a folder that has one.

    Raises:
        ModelError: It is a user adapter, which is no point between models.
    """
    path = Path(name).expanduser()
    record = read_record(path) if path.is_dir() else None
    if record is not None and record.kind == "user_adapter":
        raise ModelError(
            f"{name} is a user adapter, whose users are mixed when pictures are drawn (generate --user A:0.3,B:0.7): "
            "interpolate LoRAs or whole models"
        )
    return record


def _digest(name: Path | str) -> str | None:
    """SHA-256 of a local model's weights; `None` for a name."""
    path = Path(name).expanduser()
    if not path.exists():
        return None
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while block := content.read(1 << 24):
                found.update(block)
    return found.hexdigest()


def _write_lora(first: Path, second: Path, weight: float, directory: Path) -> None:
    from t2ialign.models.lora import WEIGHTS_NAME, lora_file

    records = [_same_base(first, second), _record(second)]
    one, two = records
    assert one is not None
    assert two is not None
    if weight in (0, 1):
        source, record = (first, one) if weight == 0 else (second, two)
        shutil.copyfile(lora_file(source), directory / WEIGHTS_NAME)
        replace(record, algorithm=ALGORITHM, versions=package_versions()).write(directory)
        return
    parts = [_read(first, one), _read(second, two)]
    rank = sum(max(down.shape[0] for down, _ in pairs.values()) for pairs, _ in parts)
    targets = tuple(sorted({*one.targets, *two.targets}))
    _save_lora(_side_by_side(parts, (1 - weight, weight), rank), rank, targets, directory)
    record = replace(
        one, rank=rank, alpha=float(rank), targets=targets, algorithm=ALGORITHM, versions=package_versions()
    )
    record.write(directory)


def _read(folder: Path, record: Record) -> _Lora:
    from t2ialign.models.export import read_lora
    from t2ialign.models.lora import lora_file

    return read_lora(lora_file(folder), record)


def _same_base(first: Path, second: Path) -> Record:
    one, two = _record(first), _record(second)
    assert one is not None
    assert two is not None
    for name in ("family", "base_model", "base_revision", "prediction_type"):
        if getattr(one, name) != getattr(two, name):
            raise ModelError(
                f"{first} and {second} are LoRAs of different bases ({name} {getattr(one, name)!r} and "
                f"{getattr(two, name)!r}): between them there is no model"
            )
    return one


def _side_by_side(
    parts: list[_Lora], weights: tuple[float, float], rank: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of every module of either LoRA, filled up with zeros to one rank."""
    import torch

    found = {}
    for module in sorted({name for pairs, _ in parts for name in pairs}):
        downs, ups = [], []
        for (pairs, alphas), share in zip(parts, weights, strict=True):
            if module in pairs:
                down, up = (half.to(torch.float64) for half in pairs[module])
                downs.append(down)
                ups.append(up * (share * alphas[module] / down.shape[0]))
        down, up = torch.cat(downs, 0), torch.cat(ups, 1)
        missing = rank - down.shape[0]
        if missing:
            down = torch.cat([down, down.new_zeros(missing, *down.shape[1:])], 0)
            up = torch.cat([up, up.new_zeros(up.shape[0], missing, *up.shape[2:])], 1)
        found[module] = (down.float().contiguous(), up.float().contiguous())
    return found


def _save_lora(
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], rank: int, targets: tuple[str, ...], directory: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    from t2ialign.models.lora import WEIGHTS_NAME

    state = {}
    for module, (down, up) in pairs.items():
        state[f"{module}.lora.down.weight"], state[f"{module}.lora.up.weight"] = down, up
    notes = {"r": rank, "lora_alpha": rank, "target_modules": list(targets), "lora_dropout": 0.0, "bias": "none"}
    StableDiffusionPipeline.save_lora_weights(
        directory,
        unet_lora_layers=state,
        unet_lora_adapter_metadata=notes,
        weight_name=WEIGHTS_NAME,
        safe_serialization=True,
    )


def _write_pipeline(first: str, second: str, weight: float, directory: Path) -> None:
    from t2ialign.models.loading import load_model

    one, two = load_model(first), load_model(second)
    for name, kept, other in (
        ("family", one.family, two.family),
        ("prediction", one.prediction_type, two.prediction_type),
    ):
        if kept != other:
            raise ModelError(f"{first} and {second} differ in {name} ({kept}, {other}): no model lies between")
    for name in _components(one):
        _blend(getattr(one.pipeline, name), getattr(two.pipeline, name, None), weight, name)
    save_pipeline(one, directory, algorithm=ALGORITHM)


def _components(model: DiffusionModel) -> list[str]:
    import torch

    parts = model.pipeline.components
    return [name for name, part in parts.items() if isinstance(part, torch.nn.Module)]


def _blend(part: Any, other: Any, weight: float, name: str) -> None:
    """Move a module's weights towards another's, in place, through double precision; equal ones stay as they are."""
    import torch

    mine, theirs = part.state_dict(), {} if other is None else other.state_dict()
    shapes = [{key: tuple(value.shape) for key, value in each.items()} for each in (mine, theirs)]
    if shapes[0] != shapes[1]:
        key = sorted(key for key in {*shapes[0], *shapes[1]} if shapes[0].get(key) != shapes[1].get(key))[0]
        raise ModelError(
            f"the two models' {name} differ in {key} ({shapes[0].get(key)} and {shapes[1].get(key)}): they are not of "
            "one architecture, and between them there is no model"
        )
    with torch.no_grad():
        for key, value in mine.items():
            end = theirs[key]
            if weight == 0:
                continue
            if weight == 1 or not value.is_floating_point():
                value.copy_(end)
            else:
                start = value.double()
                value.copy_(start + weight * (end.double() - start))
