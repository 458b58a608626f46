"""Devices, precision and processes, through accelerate.

Every process holds the whole model, or with FSDP2 a part of it (`sharding`); other backends are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from t2ialign.engine.config import TrainConfig
from t2ialign.engine.sharding import check_backend, is_sharded
from t2ialign.errors import ConfigError, MissingDependencyError

_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return the accelerator of a run; processes come from `accelerate launch` or `torchrun`.

    Raises:
        ConfigError: for fp16 on a CPU, or a backend that is not supported.
        MissingDependencyError: if the tracker's package is not installed.
    """
    precision = choose_precision(config.mixed_precision)
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        mixed_precision=precision,
        log_with=_tracker(config.tracker),
        project_dir=str(config.output_dir),
        step_scheduler_with_optimizer=False,
    )
    check_backend(accelerator)
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError("mixed_precision fp16 needs a GPU; use --mixed_precision no or bf16 on a CPU")
    if config.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    return accelerator


def choose_precision(asked: str) -> str:
    """Return "no", "fp16" or "bf16" for what was asked, "auto" by the device at hand."""
    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def weight_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the dtype of weights that are not trained."""
    return _DTYPES[accelerator.mixed_precision]


def autocast_of(accelerator: Accelerator) -> Callable[[], AbstractContextManager[Any]]:
    """Return the context in which the trained module is computed, for what must be computed as it is.

    FSDP2 casts the weights themselves and needs none.
    """
    return nullcontext if is_sharded(accelerator) else accelerator.autocast


def start_tracker(accelerator: Accelerator, config: TrainConfig, options: Mapping[str, Any]) -> None:
    """Open the tracker, if one is asked for, with the run's options as plain values."""
    if config.tracker is not None:
        plain = {name: value if isinstance(value, int | float) else str(value) for name, value in options.items()}
        accelerator.init_trackers("t2ialign", config=plain)


def _tracker(name: str | None) -> str | None:
    if name is None:
        return None
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = sorted(str(kind.value) for kind in LoggerType if kind is not LoggerType.ALL)
    if name not in known or name not in {str(key) for key in LOGGER_TYPE_TO_CLASS}:
        raise ConfigError(f"tracker is {name!r}; choose from {', '.join(known)}")
    if name not in {str(kind.value) for kind in get_available_trackers()}:
        raise MissingDependencyError(name, extra="trackers", purpose="logging to a tracker")
    return name
