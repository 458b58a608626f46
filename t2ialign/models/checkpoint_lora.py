"""A LoRA from the middle of a run: what a checkpoint trained, in the form of `final/`, so that everything loads it.

Law: the same weights as the run's own `final/` would have held had it ended there (the moving average, where the run
keeps one), written by the same writer; the run itself is only read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.errors import ModelError
from t2ialign.models.record import read_record

if TYPE_CHECKING:
    from t2ialign.models.diffusion import DiffusionModel


def run_of(place: str | Path) -> Path | None:
    """Return the run that a run's folder or its `final/` belongs to; `None` where there are no checkpoints."""
    path = Path(place).expanduser()
    for folder in (path, path.parent if path.name == "final" else path):
        if (folder / "checkpoints").is_dir() and (folder / "config.yaml").is_file():
            return folder
    return None


def save_checkpoint_lora(checkpoint: str | Path, directory: str | Path) -> Path:
    """Write the LoRA of a checkpoint into a folder that `load_model`, `load_adapter` and diffusers read.

    The base model is loaded for it, since the order of a moving average is that of its modules.

    Args:
        checkpoint: `RUN/checkpoints/step-NNNNNN`.
        directory: Where `pytorch_lora_weights.safetensors` and `t2ialign.json` go.

    Returns:
        The folder.

    Raises:
        DataError: If the checkpoint is damaged.
        ModelError: If the run trained no LoRA, or the weights do not fit its base model.
    """
    from t2ialign.engine.checkpoints import read_checkpoint
    from t2ialign.models.loading import load_model
    from t2ialign.models.lora import add_lora, save_lora

    checkpoint, directory = Path(checkpoint), Path(directory)
    read = read_checkpoint(checkpoint)
    config = read.config
    if config.get("method") != "lora":
        raise ModelError(
            f"{checkpoint} is of a run with method {config.get('method')!r}; only a LoRA can be taken out of a "
            "checkpoint: train with method lora, or compare the final/ of several runs"
        )
    record = read_record(checkpoint.parent.parent / "final")
    base = str(config["model"]) if record is None else record.base_model
    model = load_model(base, revision=config.get("revision"))
    model.unet.requires_grad_(False)
    targets = config["lora.targets"]
    named = add_lora(model.unet, int(config["lora.rank"]), config.get("lora.alpha"), targets)
    _fill(model, named, read.trainable, read.average, checkpoint)
    save_lora(model, directory, algorithm=None if record is None else record.algorithm)
    return directory


def _fill(
    model: DiffusionModel, named: dict[str, Any], trainable: Any, average: list[Any] | None, checkpoint: Path
) -> None:
    """Copy the checkpoint's weights, or their average, into the adapter."""
    ordered = {name: part for name, part in model.unet.named_parameters() if part.requires_grad}
    if set(trainable) != set(named) or set(ordered) != set(named):
        raise ModelError(
            f"the weights in {checkpoint} do not fit a LoRA of {model.name!r}; is that still the model that the run "
            "began with?"
        )
    values = dict(trainable) if average is None else dict(zip(ordered, average, strict=True))
    for name, part in named.items():
        if part.shape != values[name].shape:
            raise ModelError(f"{checkpoint}: {name} has shape {tuple(values[name].shape)}, not {tuple(part.shape)}")
        part.data.copy_(values[name])
