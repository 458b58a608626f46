"""A model spread over processes: FSDP2, torch's `fully_shard`, as accelerate applies it.

Every process keeps a part of each parameter, of its gradient and of the optimizer's state; a forward pass gathers the
blocks one after the other, so every process must compute as many. Three laws follow:

* What is kept does not depend on the number of processes: a checkpoint holds whole tensors, gathered by all processes
  and written by the first (`gather`), and each process takes its part of them on a resume (`part_of`).
* Pictures and `final/` are made by the first process alone, as ever. It works on a `Twin`, a plain copy of the module
  that is filled with whole weights for the while.
* Only what was tried is let through (`check_backend`, `check_run`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from t2ialign.engine.config import TrainConfig
from t2ialign.engine.task import Task
from t2ialign.errors import ConfigError

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")
"""The classes of a UNet's blocks that are gathered one at a time: `fsdp_transformer_layer_cls_to_wrap`.

They are what gradient checkpointing computes again, in every family, and hold nearly all weights.
"""

OPTIMIZERS = ("adamw",)
"""Optimizers whose step is the same on parts: element by element."""


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether parameters are spread over the processes."""
    return bool(accelerator.is_fsdp2)


def check_backend(accelerator: Accelerator) -> None:
    """Refuse a backend, or a setting of it, that the engine does not know.

    Raises:
        ConfigError: saying what to launch with.
    """
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ConfigError(
            f"{kind.value} is not supported; launch with FSDP2 (trainers/launch/fsdp2_1x8.yaml), which spreads the "
            "same over the processes, or with plain data parallelism"
        )
    if kind is not DistributedType.FSDP:
        return
    plugin: Any = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ConfigError("FSDP version 1 is not supported; set fsdp_version: 2 in the launch configuration")
    if accelerator.mixed_precision == "fp16":
        raise ConfigError("mixed_precision fp16 is not supported with FSDP2; use --mixed_precision bf16 or no")
    if plugin.activation_checkpointing:
        raise ConfigError(
            "fsdp_activation_checkpointing is not supported; set it to false and use --gradient_checkpointing true"
        )
    if _offloads(plugin):
        raise ConfigError("fsdp_offload_params is not supported; set it to false")
    if accelerator.mixed_precision == "bf16":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # Gradients are added up in float32, as plain data parallelism adds them up.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.bfloat16
        )


def _offloads(plugin: Any) -> bool:
    from torch.distributed.fsdp import CPUOffloadPolicy

    return isinstance(plugin.cpu_offload, CPUOffloadPolicy)


def check_run(task: Task, config: TrainConfig) -> None:
    """Refuse what cannot be trained in parts.

    Raises:
        ConfigError: saying what to change.
    """
    if task.whole_only is not None:
        raise ConfigError(
            f"FSDP2 can not be used: {task.whole_only}; launch with plain data parallelism "
            "(trainers/launch/ddp_1x8.yaml)"
        )
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"optimizer {config.optimizer} does not work on parts of a tensor; use --optimizer "
            f"{' or '.join(OPTIMIZERS)} with FSDP2, or launch with plain data parallelism"
        )


def shard_frozen(accelerator: Accelerator, module: nn.Module) -> None:
    """Spread a module that is not trained over the processes, in place, as accelerate spreads the trained one."""
    from accelerate.utils import fsdp2_prepare_model

    fsdp2_prepare_model(accelerator, module)


def gather(value: Any, keep: bool, device: torch.device | str = "cpu") -> Any:
    """Return a nested state with whole tensors in place of parts; every process is called, in the same order.

    Args:
        value: Mappings, lists and tuples of tensors and plain values.
        keep: Whether this process wants the result. Where it does not, parts stay parts, and no memory is held.
        device: Where whole tensors go.

    Returns:
        What was not in parts is the very same.
    """
    if isinstance(value, Mapping):
        return {key: gather(item, keep, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gather(item, keep, device) for item in value)
    if not _in_parts(value):
        return value
    whole = value.detach().full_tensor()
    return whole.to(device) if keep else value.detach()


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor that every process holds; nothing is sent.

    Args:
        whole: On any device.
        like: A tensor of that shape; where it is not in parts, `whole` comes back as it is.
    """
    if not _in_parts(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    tensor: Any = like
    return distribute_tensor(
        whole.to(tensor.device, tensor.dtype), tensor.device_mesh, tensor.placements, src_data_rank=None
    )


def local_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, in the same memory; of a plain one all of it."""
    if not _in_parts(tensor):
        return tensor
    part: Any = tensor
    held: Tensor = part.detach().to_local()
    return held.requires_grad_(tensor.requires_grad)


def as_part(held: Tensor, like: Tensor) -> Tensor:
    """Return what this process holds as its part of a tensor that is spread as `like`; the reverse of `local_part`."""
    if not _in_parts(like):
        return held
    from torch.distributed.tensor import DTensor

    whole: Any = like
    return DTensor.from_local(
        held, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def optimizer_parts(state: Mapping[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """Return an optimizer's `state_dict` whose tensors of a parameter's shape are in parts like the parameter."""
    parts = {
        number: {
            name: part_of(value, parameters[number])
            if isinstance(value, Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": parts}


def whole_norm(norm: Tensor) -> Tensor:
    """Return the norm of a gradient as a plain scalar, equal on every process."""
    return norm.full_tensor() if _in_parts(norm) else norm  # type: ignore[attr-defined]


def _in_parts(value: Any) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


class Twin:
    """A module once more, plain and without weights, to be filled where whole weights are needed.

    Args:
        module: Before it is spread over the processes.

    Attributes:
        module: The twin; its parameters are on the meta device but inside `filled`.
    """

    def __init__(self, module: nn.Module) -> None:
        # deepcopy takes what stands in the memo for what it would copy: no weight is ever there twice.
        memo: dict[int, Any] = {
            id(part): nn.Parameter(torch.empty_like(part, device="meta"), requires_grad=part.requires_grad)
            for part in module.parameters()
        }
        self.module = copy.deepcopy(module, memo)

    @contextmanager
    def filled(self, parts: Mapping[str, Tensor], device: torch.device, keep: bool) -> Iterator[None]:
        """Give the twin whole weights inside the block; every process enters.

        Args:
            parts: The module's parameters by name.
            device: Where the whole ones go.
            keep: Whether this process wants them; on the others the twin stays empty.
        """
        empty = dict(self.module.named_parameters())
        try:
            for name, part in parts.items():
                whole = gather(part, keep, device)
                if keep:
                    self._put(name, nn.Parameter(whole.detach(), requires_grad=empty[name].requires_grad))
            yield
        finally:
            for name, nothing in empty.items():
                self._put(name, nothing)

    def _put(self, name: str, parameter: nn.Parameter) -> None:
        owner, _, last = name.rpartition(".")
        self.module.get_submodule(owner)._parameters[last] = parameter
