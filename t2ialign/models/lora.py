"""LoRA (arXiv 2106.09685): adding it for training, saving it as diffusers does, loading and stacking it.

Law: the fresh adapter is a function of the seed alone; a saved one is read by plain diffusers with the same result,
whatever alpha; and the base weights are never touched, so that the model without its adapter is the reference.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from t2ialign.errors import ModelError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.modes import Modes
from t2ialign.models.record import Record, read_record
from t2ialign.models.user_adapter import in_training
from t2ialign.models.weights import check_lora, read_tensors

logger = logging.getLogger(__name__)

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The projections of every attention, as in diffusers' training examples."""

ADAPTER = "default"
"""Name of the adapter in training."""

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"


def add_lora(
    unet: Any, rank: int, alpha: float | None = None, targets: Iterable[str] | str = TARGETS, seed: int = 0
) -> dict[str, torch.nn.Parameter]:
    """Adds a trainable LoRA to a frozen UNet: W x + (alpha / rank) B A x.

    A is drawn from N(0, 1 / rank^2) (peft's "gaussian") by a generator seeded with (`seed`, name of the weight),
    B is zero: the model is unchanged until the first step, and neither the global random state nor the order of
    modules matters. Adapter weights are float32 whatever the base is.

    Args:
        unet: A UNet2DConditionModel without adapters; its own weights are frozen here.
        rank: r, at least 1.
        alpha: Numerator of the scale; `rank` (scale 1) if None.
        targets: Ends of module names, or one string with commas.
        seed: Seed of the initialisation.

    Returns:
        The trainable parameters by name.

    Raises:
        ModelError: A target matches no module, or the UNet has adapters already or a user adapter in training.
        ValueError: `rank` or `alpha` is not positive.
    """
    alpha = float(rank if alpha is None else alpha)
    if rank < 1 or alpha <= 0:
        raise ValueError(f"LoRA needs rank >= 1 and alpha > 0, got rank {rank} and alpha {alpha:g}")
    if getattr(unet, "peft_config", None):
        raise ModelError(
            f"the UNet already has the adapter(s) {', '.join(unet.peft_config)}: merge them first "
            "(t2ialign.models.lora.merge_adapters), so that the reference is the model as it starts"
        )
    if in_training(unet):
        raise ModelError("the UNet has a user adapter in training: train a LoRA or a user adapter, one at a time")
    names = _target_names(unet, targets)
    from peft import LoraConfig

    # peft scales by lora_alpha / r and writes lora_alpha as it is given: whole numbers stay whole.
    config = LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        target_modules=list(names),
        init_lora_weights="gaussian",
    )
    unet.requires_grad_(False)
    devices = [unet.device] if unet.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        unet.add_adapter(config, ADAPTER)
    parameters = lora_parameters(unet)
    for name, parameter in parameters.items():
        parameter.data = _initial(name, parameter, rank, seed)
        parameter.requires_grad_(True)
    return parameters


def _initial(name: str, parameter: torch.nn.Parameter, rank: int, seed: int) -> torch.Tensor:
    if "lora_B" in name:
        return torch.zeros_like(parameter, dtype=torch.float32)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    drawn = torch.randn(parameter.shape, generator=generator) / rank
    return drawn.to(parameter.device)


def _target_names(unet: Any, targets: Iterable[str] | str) -> tuple[str, ...]:
    split = targets.split(",") if isinstance(targets, str) else list(targets)
    names = tuple(dict.fromkeys(name.strip() for name in split if name.strip()))
    if not names:
        raise ModelError(f"LoRA has no targets: name some modules, for instance {','.join(TARGETS)}")
    fitting = [name for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    for target in names:
        if not any(name == target or name.endswith("." + target) for name in fitting):
            ends = sorted({name.rpartition(".")[2] for name in fitting if not name.rpartition(".")[2].isdigit()})
            raise ModelError(
                f"no linear or convolution layer of the UNet is called {target!r}: choose among {', '.join(ends)}, "
                "or a longer end of a module's name such as to_out.0"
            )
    return names


def lora_parameters(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights of the adapter in training by name; no other adapter's and none of the base."""
    mark = f".{ADAPTER}."
    return {name: part for name, part in unet.named_parameters() if ".lora_" in name and mark in name}


@contextmanager
def reference(unet: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The UNet without its adapters and in eval mode, inside the block.

    Every adapter layer and every module's mode come back afterwards, also after an exception; `requires_grad` is
    never touched, so that it may stand between a forward of the policy and its backward. With gradient
    checkpointing the policy's backward must come after the block, since it runs the forward again.

    Args:
        unet: The UNet, also wrapped by accelerate or torch.compile.
    """
    with Modes(unet).without_adapters():
        yield unet


def save_lora(model: DiffusionModel, directory: Path | str, *, algorithm: str | None = None) -> Path:
    """Saves the adapter in training as `pytorch_lora_weights.safetensors` with `t2ialign.json` beside it.

    The form is that of `pipeline.save_lora_weights`: float32, and in the file's metadata what a LoraConfig needs,
    so that alpha holds when it is not the rank. Only long-standing fields are written: other versions of peft
    refuse those that they do not know.

    Raises:
        ModelError: The UNet has no adapter from `add_lora`.
    """
    if ADAPTER not in (getattr(model.unet, "peft_config", None) or {}):
        raise ModelError("the UNet has no LoRA to save: call add_lora first, or save the whole pipeline")
    from peft.utils import get_peft_model_state_dict

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = model.unet.peft_config[ADAPTER]
    targets = tuple(sorted(config.target_modules))
    state = get_peft_model_state_dict(model.unet, adapter_name=ADAPTER)
    # All of them, unlike diffusers' own conversion: its reader takes the first name's form for that of every name.
    state = {
        name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): weight.float().cpu().contiguous()
        for name, weight in state.items()
    }
    model.pipeline.save_lora_weights(
        directory,
        unet_lora_layers=state,
        unet_lora_adapter_metadata={
            "r": config.r,
            "lora_alpha": config.lora_alpha,
            "target_modules": list(targets),
            "lora_dropout": 0.0,
            "bias": "none",
        },
        weight_name=WEIGHTS_NAME,
        safe_serialization=True,
    )
    record = Record.of(
        model, "lora", rank=config.r, alpha=float(config.lora_alpha), targets=targets, algorithm=algorithm
    )
    record.write(directory)
    return directory / WEIGHTS_NAME


def lora_file(path: Path | str) -> Path:
    """The LoRA weights that `path` names: a .safetensors file, a run's `final/`, or a run.

    Raises:
        ModelError: There are none.
    """
    path = Path(path).expanduser()
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is not a .safetensors file: only safetensors are read, convert it first")
        return path
    for candidate in (path / WEIGHTS_NAME, path / "final" / WEIGHTS_NAME):
        if candidate.is_file():
            return candidate
    raise ModelError(f"no LoRA in {path}: expected {WEIGHTS_NAME}, as a training run leaves it in final/")


def load_adapter(model: DiffusionModel, final_dir: Path | str, weight: float = 1.0) -> str:
    """Stacks a saved LoRA on the model; several add up, each by its own weight.

    Args:
        model: Not in LoRA training.
        final_dir: A run's `final/`, or a LoRA file in diffusers' or kohya's form.
        weight: Factor on the adapter's update; 0 is the base model.

    Returns:
        The adapter's name in the pipeline.

    Raises:
        ModelError: There is no LoRA, it belongs to another family, does not fit, or the model is in LoRA training.
    """
    weights = lora_file(final_dir)
    record = read_record(weights.parent)
    if record is not None and record.family != model.family:
        raise ModelError(
            f"adapter {final_dir} was trained on {record.base_model} ({record.family}) but the model "
            f"{model.name!r} is of the family {model.family}: use it with {record.base_model}"
        )
    if ADAPTER in (getattr(model.unet, "peft_config", None) or {}):
        raise ModelError("the model is in LoRA training: load adapters before add_lora, and merge them")
    tensors = read_tensors(weights)
    check_lora(tensors, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, str(weights))
    name = f"adapter_{len(model.adapters)}"
    try:
        with warnings.catch_warnings():
            # A second adapter is what stacking is.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            model.pipeline.load_lora_weights(
                str(weights.parent),
                weight_name=weights.name,
                adapter_name=name,
                local_files_only=True,
                use_safetensors=True,
            )
        stack = {**model.adapters, name: float(weight)}
        model.pipeline.set_adapters(list(stack), adapter_weights=list(stack.values()))
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(
            f"adapter {final_dir} does not fit the model {model.name!r} ({model.family}): {_first_line(error)}"
        ) from error
    model.unet.requires_grad_(False)
    model.adapters = stack
    return name


def merge_adapters(model: DiffusionModel) -> None:
    """Adds the stacked adapters, by their weights, to the base weights and removes them, in place.

    In half precision the sum is rounded once to the UNet's type.
    """
    if not model.adapters:
        return
    model.pipeline.fuse_lora(components=["unet"], adapter_names=list(model.adapters))
    model.pipeline.unload_lora_weights()
    model.adapters = {}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
