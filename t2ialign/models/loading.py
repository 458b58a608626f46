"""Loading: from a name to a `DiffusionModel`, whatever the name means.

Law: safetensors only, no code from the hub, no network for what is on disk; and every failure is a `ModelError` that
names what was asked for and how to mend it.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch

from t2ialign.errors import ModelError
from t2ialign.models.attention import set_attention
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.families import check_pipeline_class
from t2ialign.models.lora import WEIGHTS_NAME, load_adapter, merge_adapters
from t2ialign.models.problems import hub_problem, short
from t2ialign.models.record import read_record
from t2ialign.models.user_adapter import WEIGHTS_NAME as USER_ADAPTER_NAME
from t2ialign.models.user_adapter import find_user_adapter, load_user_adapter
from t2ialign.models.weights import check_parts, check_present
from t2ialign.problems import loading_errors

__all__ = ["DiffusionModel", "load_model"]

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""What a pipeline's parts may come from; `stable_diffusion` is diffusers' own name for its safety checker."""
_DEPTH = 8
"""Runs on runs on runs: more than this is taken for a circle."""


def load_model(
    name: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    attention: str = "auto",
    variant: str | None = None,
    config: str | None = None,
) -> DiffusionModel:
    """Loads a model, frozen and in eval mode.

    An earlier run's LoRA is merged into its base, so that it is a plain model like any other: training on it starts
    from it and has it as the reference. (To draw with adapters at chosen weights, load the base and stack them with
    `lora.load_adapter`.) An earlier run's user adapter is put beside its base, frozen: without a user the model is
    that base exactly.

    Args:
        name: "mini-sd"; a pipeline folder; a run's `final/` (LoRA, user adapter or full); one .safetensors
            checkpoint; or a hub id.
        dtype: Type of the weights. SDXL's VAE still works in float32.
        device: Where to put the model.
        revision: Branch, tag or commit of a hub id.
        attention: "auto", "sdpa" or "xformers".
        variant: Variant of the weight files, for instance "fp16"; found by itself for a folder that has no other.
        config: For a single checkpoint, a folder or hub id of the same architecture, for its configuration.

    Raises:
        ModelError: It cannot be found, is of an unsupported kind, or has no safetensors weights.
        MissingDependencyError: xformers was asked for and is not installed.
    """
    pipeline_name = str(name)
    model = _load(pipeline_name, dtype, revision, variant, config, depth=0)
    model.to(device=device)
    set_attention(model, attention)
    return model


def _load(
    name: str, dtype: torch.dtype, revision: str | None, variant: str | None, config: str | None, depth: int
) -> DiffusionModel:
    if name == "mini-sd":
        return _wrap(_from_folder(_mini_sd(), dtype, variant), name, None)
    path = Path(name).expanduser()
    if path.is_file():
        return _wrap(_from_file(path, dtype, config), name, None)
    if path.is_dir():
        if (path / "model_index.json").is_file():
            return _wrap(_from_folder(path, dtype, variant), name, None)
        if (path / WEIGHTS_NAME).is_file() or (path / USER_ADAPTER_NAME).is_file():
            return _from_run(path, dtype, variant, config, depth)
        raise ModelError(_unknown_folder(path))
    if not _HUB_ID.fullmatch(name):
        near = ", or did you mean mini-sd?" if "mini" in name.lower() else ""
        raise ModelError(f"no such folder or file: {name!r} (and not a hub id such as owner/model): check it{near}")
    return _wrap(_from_hub(name, dtype, revision, variant), name, revision or _commit(name))


def _commit(name: str) -> str | None:
    """Return the commit of a hub id that was loaded without a revision, so that what is recorded names it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "model_index.json")
    parts = Path(found).parts if isinstance(found, str) else ()
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


def _wrap(pipeline: Any, name: str, revision: str | None) -> DiffusionModel:
    pipeline.set_progress_bar_config(disable=True)
    parts = {part: getattr(pipeline, part, None) for part in ("unet", "vae", "text_encoder", "text_encoder_2")}
    parts = {part: module for part, module in parts.items() if module is not None}
    check_parts(parts, name)
    for part in ("text_encoder", "text_encoder_2"):
        if part in parts and (Path(name).expanduser() / part).is_dir():
            check_present(Path(name).expanduser() / part, parts[part], name)
    return DiffusionModel.from_pipeline(pipeline, name, revision)


def _mini_sd() -> Path:
    from t2ialign.mini import resource

    try:
        folder = resource("mini-sd")
    except FileNotFoundError as error:
        raise ModelError(str(error)) from error
    if folder is None:
        raise ModelError("this installation has no 'mini-sd': install t2ialign again")
    return folder


def _unknown_folder(path: Path) -> str:
    if (path / "final").is_dir():
        return f"{path} is a training run: its model is {path / 'final'}"
    return (
        f"{path} is no model: it has neither model_index.json (a pipeline folder of diffusers) nor {WEIGHTS_NAME} "
        f"(a LoRA run's final/) nor {USER_ADAPTER_NAME} (a user adapter's): name a folder that has one of them"
    )


def _pipeline_class(name: str, config: dict[str, Any]) -> Any:
    import diffusers

    class_name = str(config.get("_class_name"))
    check_pipeline_class(name, class_name)
    for part, value in config.items():
        library = value[0] if isinstance(value, list | tuple) and value else None
        if not part.startswith("_") and isinstance(library, str) and library not in _LIBRARIES:
            raise ModelError(
                f"model {name!r} takes its {part} from {library!r}, code of its own, which is never run: use a model "
                "whose parts are those of diffusers and transformers"
            )
    return getattr(diffusers, class_name)


def _without_checkers(class_name: str) -> dict[str, Any]:
    absent = {"feature_extractor": None, "image_encoder": None}
    if class_name == "StableDiffusionPipeline":
        return {**absent, "safety_checker": None, "requires_safety_checker": False}
    return {**absent, "add_watermarker": False}


def _typed(dtype: torch.dtype) -> dict[str, Any]:
    """The option of `from_pretrained` for the weights' type, which diffusers 0.42 has renamed."""
    import diffusers

    version = tuple(int(part) for part in diffusers.__version__.split(".")[:2])
    return {"dtype" if version >= (0, 42) else "torch_dtype": dtype}


def _from_folder(folder: Path, dtype: torch.dtype, variant: str | None) -> Any:
    from diffusers import DiffusionPipeline

    cls = _pipeline_class(str(folder), DiffusionPipeline.load_config(str(folder), local_files_only=True))
    variant = variant or _only_variant(folder)
    try:
        return cls.from_pretrained(
            str(folder),
            **_typed(dtype),
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            **_without_checkers(cls.__name__),
        )
    except loading_errors(NotImplementedError) as error:
        raise ModelError(_broken_folder(folder, error)) from error


def _broken_folder(folder: Path, error: Exception) -> str:
    pickles = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.bin"))
    if pickles and not any(folder.glob("*/*.safetensors")):
        return (
            f"{folder} has its weights in pickle files ({', '.join(pickles[:3])}), which can run code: only "
            "safetensors are read. Convert it where you trust it: load it with diffusers and save_pretrained(..., "
            "safe_serialization=True)"
        )
    return f"cannot load {folder}: {short(error)}; copy the folder again, or name the variant of its weight files"


def _only_variant(folder: Path) -> str | None:
    """The variant of the UNet's files if there is no plain one, such as "fp16" of `...model.fp16.safetensors`."""
    stem = "diffusion_pytorch_model"
    if (folder / "unet" / f"{stem}.safetensors").is_file():
        return None
    for path in sorted((folder / "unet").glob(f"{stem}.*.safetensors")):
        found = path.name.removeprefix(stem + ".").removesuffix(".safetensors")
        if "-of-" not in found:
            logger.info("%s has only the variant %s: using it", folder, found)
            return found
    return None


def _from_hub(name: str, dtype: torch.dtype, revision: str | None, variant: str | None) -> Any:
    from diffusers import DiffusionPipeline

    try:
        config = DiffusionPipeline.load_config(name, revision=revision)
        cls = _pipeline_class(name, config)
        return cls.from_pretrained(
            name,
            **_typed(dtype),
            variant=variant,
            revision=revision,
            use_safetensors=True,
            **_without_checkers(cls.__name__),
        )
    except loading_errors(NotImplementedError) as error:
        raise ModelError(hub_problem(name, revision, error)) from error


def _from_file(path: Path, dtype: torch.dtype, config: str | None) -> Any:
    import diffusers

    if path.suffix in _PICKLES:
        raise ModelError(
            f"{path} is a pickle, which can run code when it is read: only .safetensors checkpoints are read. "
            "Convert it where you trust it (load the state dict with torch.load(..., weights_only=True), save it with "
            "safetensors.torch.save_file), or use the model's safetensors release"
        )
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is no model: expected a folder or a .safetensors checkpoint")
    cls = getattr(diffusers, _checkpoint_class(path))
    options: dict[str, Any] = {} if config is None else {"config": config}
    try:
        return cls.from_single_file(
            str(path),
            **_typed(dtype),
            local_files_only=config is not None and Path(config).is_dir(),
            **_without_checkers(cls.__name__),
            **options,
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        diffusers.loaders.single_file_utils.SingleFileComponentError,
    ) as error:
        raise ModelError(_broken_file(path, config, error)) from error


def _checkpoint_class(path: Path) -> str:
    """The pipeline class of a checkpoint, from the names of its tensors (only the header is read)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())
    except SafetensorError as error:
        raise ModelError(f"{path} is not a whole safetensors file ({short(error)}): copy it again") from error
    if find_user_adapter(path) is not None:
        raise ModelError(f"{path} is a user adapter, not a model: load its base model and give it as --adapter")
    if any("lora" in name for name in names):
        raise ModelError(f"{path} is a LoRA, not a model: load its base model and give it as the adapter (--adapter)")
    if not any(name.startswith("model.diffusion_model.") for name in names):
        raise ModelError(
            f"{path} is not a Stable Diffusion checkpoint: it has no model.diffusion_model.* weights (a part of a "
            "pipeline? then name the pipeline's folder)"
        )
    sdxl = any(name.startswith("conditioner.embedders.") for name in names)
    return "StableDiffusionXLPipeline" if sdxl else "StableDiffusionPipeline"


def _broken_file(path: Path, config: str | None, error: Exception) -> str:
    if config is None and isinstance(error, OSError):
        from diffusers.loaders.single_file_utils import fetch_diffusers_config
        from safetensors.torch import load_file

        kind = fetch_diffusers_config(load_file(path))["pretrained_model_name_or_path"]
        return (
            f"the configuration of {path} is that of {kind}, which is not in the hub's cache, and the hub cannot be "
            f"reached. With a network, run `hf download {kind} --include '*.json' '*.txt'`; or pass config=FOLDER of "
            "a pipeline of the same architecture"
        )
    return f"cannot load {path}: {short(error)}"


def _from_run(folder: Path, dtype: torch.dtype, variant: str | None, config: str | None, depth: int) -> DiffusionModel:
    if depth >= _DEPTH:
        raise ModelError(f"{folder} is a run on a run on a run without end: check base_model in its t2ialign.json")
    record = read_record(folder)
    base = record.base_model if record is not None else _base_of_card(folder)
    if base is None:
        raise ModelError(
            f"{folder} does not say which model its weights belong to (no t2ialign.json, no base_model in README.md): "
            f"name the base model and give {folder} as the adapter (--adapter)"
        )
    try:
        model = _load(base, dtype, record.base_revision if record else None, variant, config, depth + 1)
    except ModelError as error:
        raise ModelError(f"the base model of {folder}: {error}") from error
    if (folder / WEIGHTS_NAME).is_file():
        load_adapter(model, folder)
        merge_adapters(model)
    else:
        load_user_adapter(model, folder)
    model.name, model.revision = str(folder), None
    return model


def _base_of_card(folder: Path) -> str | None:
    """`base_model` in the front matter of a model card."""
    import yaml

    card = folder / "README.md"
    if not card.is_file():
        return None
    match = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    try:
        front = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError:
        return None
    base = front.get("base_model") if isinstance(front, dict) else None
    base = base[0] if isinstance(base, list) and base else base
    return base if isinstance(base, str) else None
