"""Names: what models and image sets are called in folders, records, grids and reports.

Law of this file: a name says which model it was, never where it lies on this machine, and no two
things in one picture or table share one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError, DataError
from t2ialign.generation.options import GenerateOptions


def model_label(model: str, adapter: str | None = None) -> str:
    """Name a model by its folder, file or hub id, or by the run that its adapter comes from.

    `runs/first/final` is `first`; `org/name` is `name`; `model.safetensors` is `model`.
    """
    path = PurePath(adapter or model)
    name = path.stem if path.suffix == ".safetensors" else path.name
    if name in ("final", "pytorch_lora_weights") and path.parent.name:
        return model_label(str(path.parent))
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def variants(options: GenerateOptions) -> list[tuple[str, str | None, str]]:
    """List what is to be generated: (model, adapter or `None`, label), in the order given.

    Raises:
        ConfigError: If two of them would have the same label.
    """
    count = max(len(options.model), len(options.adapter), 1)
    models = options.model * count if len(options.model) == 1 else options.model
    given = options.adapter or ["none"] * count
    adapters = [None if name.lower() == "none" else name for name in given]
    labels = options.label or [model_label(*pair) for pair in zip(models, adapters, strict=True)]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two models would both be called {label!r}; name each with --label")
    return list(zip(models, adapters, labels, strict=True))


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
