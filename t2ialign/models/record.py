"""Record: `t2ialign.json`, the note beside trained weights that says what they belong to.

Law: small, complete and without secrets: from it alone `load_model` finds the base model again and `export_kohya`
knows the family. It is read before anything heavy is imported.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t2ialign.errors import ModelError

if TYPE_CHECKING:
    from t2ialign.models.diffusion import DiffusionModel

FILE_NAME = "t2ialign.json"
FORMAT = 1

Kind = Literal["lora", "full", "user_adapter"]

_PACKAGES = ("t2ialign", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


@dataclass(frozen=True)
class Record:
    """What `t2ialign.json` holds.

    Attributes:
        kind: "lora" for adapter weights, "full" for a whole pipeline, "user_adapter" for a user adapter's weights.
        base_model: "mini-sd", a hub id, or the absolute path of a folder or file.
        family: Family of the base model (`families.Family`).
        base_revision: Hub revision of the base model, if one was asked for.
        prediction_type: "epsilon", "v_prediction" or "sample".
        resolution: Native side in pixels.
        layers_per_block: Of the UNet (2 for every Stable Diffusion); the kohya names of SDXL depend on it.
        rank: LoRA's r; None for "full".
        alpha: LoRA's alpha; the update is scaled by alpha / rank.
        targets: Ends of the names of the modules that have LoRA.
        user_width: Width D of the tokens that a user adapter takes; None for the other kinds.
        user_token_count: Number T of tokens of a user.
        user_extractor: What makes them, or "" if that was not said.
        algorithm: The algorithm that trained it, for instance "dpo".
        versions: Versions of the packages that wrote it.
        format: Version of this file's format.
    """

    kind: Kind
    base_model: str
    family: str
    base_revision: str | None = None
    prediction_type: str = "epsilon"
    resolution: int = 512
    layers_per_block: int = 2
    rank: int | None = None
    alpha: float | None = None
    targets: tuple[str, ...] = ()
    user_width: int | None = None
    user_token_count: int | None = None
    user_extractor: str | None = None
    algorithm: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, model: DiffusionModel, kind: Kind, **more: Any) -> Record:
        """The record of weights trained from `model`; `more` are further fields."""
        return cls(
            kind=kind,
            base_model=stored_name(model.name),
            family=model.family,
            base_revision=model.revision,
            prediction_type=model.prediction_type,
            resolution=model.resolution,
            layers_per_block=int(model.unet.config.layers_per_block),
            versions=package_versions(),
            **more,
        )

    def write(self, directory: Path) -> Path:
        """Writes `t2ialign.json` into `directory`, at once or not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        target = directory / FILE_NAME
        aside = target.with_suffix(".json.tmp")
        aside.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(aside, target)
        return target


def read_record(directory: Path) -> Record | None:
    """Reads `directory/t2ialign.json`, or gives None where there is none.

    Raises:
        ModelError: The file is no record, or of a format newer than this version reads.
    """
    path = Path(directory) / FILE_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {key: content[key] for key in (part.name for part in fields(Record)) if key in content}
        known["targets"] = tuple(known.get("targets") or ())
        record = Record(**known)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{path} is not a record of t2ialign ({error}): copy it again from the run's final/"
        ) from error
    if record.format > FORMAT:
        raise ModelError(f"{path} has format {record.format}, this version reads up to {FORMAT}: update t2ialign")
    return record


def stored_name(name: str) -> str:
    """A model's name as it is stored: paths absolute, so that a run can be loaded from another folder."""
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide what weights mean."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
