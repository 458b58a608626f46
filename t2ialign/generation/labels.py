"""Names: what models and image sets are called in folders, records, grids and reports.

Law of this file: a name says which model it was, never where it lies on this machine, and no two
things in one picture or table share one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError, DataError
from t2ialign.generation.options import GenerateOptions


def model_label(model: str, adapter: str | None = None) -> str:
    """Name a model by its folder, file or hub id, or by the run that its adapter comes from.

    `runs/first/final` is `first`; `org/name` is `name`; `model.safetensors` is `model`.
    """
    path = PurePath(adapter or model)
    name = path.stem if path.suffix == ".safetensors" else path.name
    if name in ("final", "pytorch_lora_weights", "user_adapter") and path.parent.name:
        return model_label(str(path.parent))
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def user_label(spec: str) -> str:
    """Name a user by the file, and a mix by files and weights.

    `users/alice.safetensors` is `alice`; `a.safetensors:0.3,b.safetensors:0.7` is `0.3-a-0.7-b`.

    Raises:
        ConfigError: If the spec cannot be read; see `users.mix`.
    """
    from t2ialign.users.mix import parse_mix

    parts = [(file_label(path), weight) for path, weight in parse_mix(spec)]
    alone = len(parts) == 1 and parts[0][1] == 1
    text = parts[0][0] if alone else " ".join(f"{weight:g} {name}" for name, weight in parts)
    return re.sub(r"[^\w.-]+", "-", text).strip(".") or "user"


def file_label(path: str) -> str:
    """Return the name of a user's file without folder and ending."""
    return PurePath(path).name.removesuffix(".safetensors")


class Variant(NamedTuple):
    """One way of making pictures.

    Attributes:
        model: As given.
        adapter: A run's `final/`, or `None`.
        user: A user's file or a mix, or `None` for nobody.
        label: What it is called.
        guidance: The guidance scale, `None` for the model's default.
        drawn_from: The scales of which one is drawn for each picture; empty where all have `guidance`.
    """

    model: str
    adapter: str | None
    user: str | None
    label: str
    guidance: float | None = None
    drawn_from: tuple[float, ...] = ()

    def scale(self, seed: int, prompt_id: str, sample: int) -> float | None:
        """Return the guidance scale of one picture, a function of these three and the label where it is drawn."""
        if not self.drawn_from:
            return self.guidance
        text = "\x1f".join(("guidance", str(int(seed)), prompt_id, str(int(sample)), self.label))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return self.drawn_from[int.from_bytes(digest[:8], "big") % len(self.drawn_from)]


def variants(options: GenerateOptions) -> list[Variant]:
    """List what is to be generated, in the order given.

    Raises:
        ConfigError: If two of them would have the same label, or a user cannot be read.
    """
    count = max(len(options.model), len(options.adapter), len(options.user), 1)
    models = options.model * count if len(options.model) == 1 else options.model
    adapters, users = (_each(given, count) for given in (options.adapter, options.user))
    labels = options.label or [_label(*parts) for parts in zip(models, adapters, users, strict=True)]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two models would both be called {label!r}; name each with --label")
    plain = [Variant(*parts) for parts in zip(models, adapters, users, labels, strict=True)]
    found = [scaled for variant in plain for scaled in _scaled(variant, options)]
    names = [variant.label for variant in found]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two kinds of pictures would both be called {repeated[0]!r}; name the models with --label")
    return found


def _scaled(variant: Variant, options: GenerateOptions) -> list[Variant]:
    """Give a variant its guidance scales: one of it for each, named by it, or one that draws."""
    scales = options.guidance_scales
    if len(scales) == 1:
        return [variant._replace(guidance=scales[0])]
    known = tuple(float(scale) for scale in scales if scale is not None)
    if options.guidance_choice == "drawn":
        return [variant._replace(drawn_from=known)]
    return [variant._replace(label=f"{variant.label}-g{scale:g}", guidance=scale) for scale in known]


def _each(given: Sequence[str], count: int) -> list[str | None]:
    """Bring what was given to one a variant; `none` is `None`."""
    names = list(given) or ["none"]
    return [None if name.lower() == "none" else name for name in (names * count if len(names) == 1 else names)]


def _label(model: str, adapter: str | None, user: str | None) -> str:
    label = model_label(model, adapter)
    return label if user is None else f"{label}-{user_label(user)}"


def set_labels(directories: Sequence[Path], labels: Sequence[str] | None = None) -> list[str]:
    """Name image sets: by the model named in their pictures, else by their folders, else by their paths.

    Args:
        directories: The image sets.
        labels: Names to use instead, one a set.

    Raises:
        DataError: If given labels are not as many as the sets, or not all different.
    """
    if labels:
        if len(labels) != len(directories) or len(set(labels)) != len(labels):
            raise DataError(f"{len(labels)} labels for {len(directories)} sets; give each set one, all different")
        return list(labels)
    models = []
    for directory in directories:
        named = {record.model for record in ImageSet(directory).records}
        models.append(named.pop() if len(named) == 1 else "")
    folders = [Path(directory).resolve().name for directory in directories]
    for names in (models, folders):
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{i}: {directory}" for i, directory in enumerate(directories, 1)]
