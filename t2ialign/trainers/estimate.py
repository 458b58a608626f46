"""What a run will need, measured on a dry step; nothing is written.

    {"parameters": ., "trainable_parameters": ., "trainable_share": .,
     "memory_bytes": {"unet", "reference", "vae", "text_encoders", "gradients", "optimizer", "average", "activations",
                     "sum"},
     "peak_memory_bytes": measured on the accelerator, null on a CPU,
     "seconds": {"batch", "encoding", "step", "caches", "run"},
     "pairs_per_step": ., "pairs_per_second": ., "steps": ., "epochs": ., "device": ., "mixed_precision": .}

Of single pictures it is `pictures_per_step` and `pictures_per_second`. `activations` is what the backward pass of one
batch keeps, counted as torch saves it. `step` is the accumulated
batches of an optimizer step, with encoding where nothing is cached; `caches` is what encoding once will take
before the first step.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from t2ialign.engine.loop import make_schedule
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
from t2ialign.engine.run import Run
from t2ialign.models.reference import FrozenCopy
from t2ialign.trainers.caches import wants_latents, wants_texts
from t2ialign.trainers.examples import Batch
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.task import DiffusionTask


def estimate(task: DiffusionTask, config: PreferenceConfig, accelerator: Accelerator) -> dict[str, Any]:
    """Measure one step of a task twice, and return the second.

    Args:
        task: As the engine would be given it; its weights are changed by the two steps.
        config: Options with every value known.
        accelerator: Device and processes.
    """
    schedule = make_schedule(task, config, accelerator)
    clock = Clock(accelerator.device)
    batch = _first_batch(task, config, schedule).to(accelerator.device)
    batch = replace(batch, text=None)
    task.encoded(batch)
    encoding, encoded = clock.time(lambda: task.encoded(batch))
    run = Run(task, config, replace(schedule, accumulation=1), accelerator)
    kept = SavedTensors(task.module.parameters())
    with kept:
        run.advance(iter([encoded]), lambda: False)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    # A loss over the whole step looks at every batch beforehand as soon as there are two.
    batches = min(schedule.accumulation, 2) if task.surveys else 1
    run.schedule = replace(schedule, accumulation=batches)
    seconds, _ = clock.time(lambda: run.advance(iter([encoded] * batches), lambda: False))
    return _summary(task, run, schedule, kept.bytes, seconds / batches, encoding)


def _first_batch(task: DiffusionTask, config: PreferenceConfig, schedule: Schedule) -> Batch:
    keys = schedule.batch(0, 0)
    return task.examples.collate([task.examples.read(index, Draws(config.seed, n)) for n, index in keys])


def _summary(
    task: DiffusionTask, run: Run, schedule: Schedule, activations: int, seconds: float, encoding: float
) -> dict[str, Any]:
    config, device = task.config, run.accelerator.device
    captions = len(task.examples.all_captions())
    latents = wants_latents(config, task.examples, schedule)
    cached = latents and wants_texts(config, captions, 0, schedule)
    step = schedule.accumulation * (seconds + (0.0 if cached else encoding))
    caches = encoding * len(task.examples) / schedule.batch_size if cached else 0.0
    parameters = sum(part.numel() for part in task.module.parameters())
    trained = sum(part.numel() for part in run.trainable.values())
    return {
        "parameters": parameters,
        "trainable_parameters": trained,
        "trainable_share": trained / parameters,
        "memory_bytes": _memory(task, run, activations),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "seconds": {
            "batch": seconds,
            "encoding": encoding,
            "step": step,
            "caches": caches,
            "run": caches + step * schedule.steps,
        },
        f"{task.examples.name}_per_step": schedule.per_step,
        f"{task.examples.name}_per_second": schedule.per_step / step,
        "steps": schedule.steps,
        "epochs": schedule.visits / schedule.length,
        "device": str(device),
        "mixed_precision": run.accelerator.mixed_precision,
    }


def _memory(task: DiffusionTask, run: Run, activations: int) -> dict[str, int]:
    reference = task.reference.unet if isinstance(task.reference, FrozenCopy) else None
    state = (value for entry in run.optimizer.state.values() for value in entry.values())
    parts = {
        "unet": _bytes(task.module.parameters()),
        "reference": 0 if reference is None else _bytes(reference.parameters()),
        "vae": _bytes(task.model.vae.parameters()),
        "text_encoders": sum(_bytes(encoder.parameters()) for encoder in task.model.text_encoders),
        "gradients": _bytes(run.trainable.values()),
        "optimizer": _bytes(value for value in state if isinstance(value, Tensor)),
        "average": 0 if run.average is None else _bytes(run.average.tensors()),
        "activations": activations,
    }
    return {**parts, "sum": sum(parts.values())}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Clock:
    """Times work on a device, waiting for it to end."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def time(self, work: Any) -> tuple[float, Any]:
        """Return the seconds that a call took, and what it returned."""
        self._wait()
        begun = time.perf_counter()
        result = work()
        self._wait()
        return time.perf_counter() - begun, result

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


@dataclass
class SavedTensors:
    """Context that counts what autograd keeps for the backward pass, weights left out.

    Attributes:
        parameters: The model's, not counted.
        bytes: Of different storages kept.
    """

    parameters: Iterable[nn.Parameter]
    bytes: int = 0
    _seen: set[int] = field(default_factory=set)

    def __enter__(self) -> SavedTensors:
        """Begin to count."""
        self._seen = {part.untyped_storage().data_ptr() for part in self.parameters}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop counting."""
        self._hooks.__exit__(*error)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor
