"""What a run will need, measured on a dry step; nothing is written.

    {"parameters": ., "trainable_parameters": ., "trainable_share": .,
     "memory_bytes": {"unet", "reference", "vae", "text_encoders", "gradients", "optimizer", "average", "activations",
                     "sum"},
     "peak_memory_bytes": measured on the accelerator, null on a CPU,
     "seconds": {"batch", "pictures", "captions", "step", "caches", "run"},
     "cached": {"latents", "text": {"rows", "missing", "bytes"} or null},
     "pairs_per_step": ., "pairs_per_second": ., "steps": ., "epochs": .,
     "buckets": null or `trainers.buckets.Bucketing.report`, "device": ., "mixed_precision": .}

Of single pictures it is `pictures_per_step` and `pictures_per_second`.

`memory_bytes`: VAE and text encoders are 0 where they leave the accelerator once all is cached. `activations` is the
rest of the worst moment of a step, weights, gradients and the optimizer's state left out: what the backward pass
needs, blocks computed again by gradient checkpointing, copies that autocast makes, passing results; not what kernels
take for themselves. It is 0 with --compile, where it can not be counted.

`seconds`: `batch` is forward and backward of one batch, with the optimizer's step; `pictures` and `captions` are what
encoding them takes for one batch; `step` is an optimizer step, with the encoding of what is not cached; `caches` is
what encoding once will take before the first step, for the rows that are missing in `cache_dir`.
`cached` says what is encoded once: different rows, how many of them are missing, and the bytes of all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from t2ialign.engine.loop import make_schedule
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
from t2ialign.engine.run import Run
from t2ialign.models.reference import FrozenCopy
from t2ialign.trainers.caches.need import Need, need_of_latents, need_of_texts
from t2ialign.trainers.caches.plan import wants_latents, wants_texts
from t2ialign.trainers.caches.texts import caption_bytes
from t2ialign.trainers.examples import Batch
from t2ialign.trainers.live_memory import LiveMemory
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.task import DiffusionTask


@dataclass(frozen=True)
class Times:
    """Seconds of one batch: training on it, encoding its pictures, encoding its captions, each different one once."""

    batch: float
    pictures: float
    captions: float
    different: int


def estimate(task: DiffusionTask, config: PreferenceConfig, accelerator: Accelerator) -> dict[str, Any]:
    """Measure one step of a task, after one or two to warm up.

    Args:
        task: As the engine would be given it; its weights are changed by the steps.
        config: Options with every value known.
        accelerator: Device and processes.
    """
    schedule = make_schedule(task, config, accelerator)
    clock = Clock(accelerator.device)
    batch = _first_batch(task, config, schedule).to(accelerator.device)
    encoded = task.encoded(batch)
    pictures, _ = clock.time(lambda: task.encode(batch))
    captions, _ = clock.time(lambda: task.encode_text(batch))
    different = len(set(batch.prompts))
    run = Run(task, config, replace(schedule, accumulation=1), accelerator)
    run.advance(iter([encoded]), lambda: False)
    live = LiveMemory()
    if not config.compile:
        with live:
            run.advance(iter([encoded]), lambda: False)
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    # A loss over the whole step looks at every batch beforehand as soon as there are two.
    batches = min(schedule.accumulation, 2) if task.surveys else 1
    run.schedule = replace(schedule, accumulation=batches)
    seconds, _ = clock.time(lambda: run.advance(iter([encoded] * batches), lambda: False))
    return _summary(task, run, schedule, live.peak, Times(seconds / batches, pictures, captions, different))


def _first_batch(task: DiffusionTask, config: PreferenceConfig, schedule: Schedule) -> Batch:
    keys = schedule.batch(0, 0)
    return task.examples.collate([task.examples.read(index, Draws(config.seed, n)) for n, index in keys])


def _needs(task: DiffusionTask, schedule: Schedule) -> tuple[Need | None, Need | None]:
    """Return what is encoded once, of pictures and of captions."""
    config, captions = task.config, task.examples.all_captions()
    latents = wants_latents(config, task.examples, schedule)
    texts = wants_texts(config, len(captions), caption_bytes(task.model), schedule)
    return (
        need_of_latents(config, task.model, task.examples) if latents else None,
        need_of_texts(config, task.model, captions, zeros=task.zeros) if texts else None,
    )


def _summary(task: DiffusionTask, run: Run, schedule: Schedule, live: int, times: Times) -> dict[str, Any]:
    device = run.accelerator.device
    latents, texts = _needs(task, schedule)
    step, caches, rows = times.batch, 0.0, schedule.batch_size * task.examples.sides
    if latents is None:
        step += times.pictures
    else:
        caches += times.pictures / rows * latents.missing
    if texts is None:
        step += times.captions
    else:
        caches += times.captions / times.different * texts.missing
    step *= schedule.accumulation
    parameters = sum(part.numel() for part in task.module.parameters())
    trained = sum(part.numel() for part in run.trainable.values())
    return {
        "parameters": parameters,
        "trainable_parameters": trained,
        "trainable_share": trained / parameters,
        "memory_bytes": _memory(task, run, live, latents is not None, texts is not None),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "seconds": {**asdict(times), "step": step, "caches": caches, "run": caches + step * schedule.steps},
        "cached": {
            "latents": None if latents is None else asdict(latents),
            "text": None if texts is None else asdict(texts),
        },
        f"{task.examples.name}_per_step": schedule.per_step,
        f"{task.examples.name}_per_second": schedule.per_step / step,
        "steps": schedule.steps,
        "epochs": schedule.visits / schedule.epoch_length,
        "buckets": task.notes.get("buckets"),
        "device": str(device),
        "mixed_precision": run.accelerator.mixed_precision,
    }


def _memory(task: DiffusionTask, run: Run, live: int, latents: bool, texts: bool) -> dict[str, int]:
    away = run.accelerator.device.type != "cpu" and not task.config.keep_encoders
    reference = task.reference.unet if isinstance(task.reference, FrozenCopy) else None
    gradients = _bytes(run.trainable.values())
    state = (value for entry in run.optimizer.state.values() for value in entry.values())
    parts = {
        "unet": _bytes(task.module.parameters()),
        "reference": 0 if reference is None else _bytes(reference.parameters()),
        "vae": 0 if away and latents else _bytes(task.model.vae.parameters()),
        "text_encoders": 0 if away and texts else sum(_bytes(each.parameters()) for each in task.model.text_encoders),
        "gradients": gradients,
        "optimizer": _bytes(value for value in state if isinstance(value, Tensor)),
        "average": 0 if run.average is None else _bytes(run.average.tensors()),
        "activations": max(0, live - gradients),
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
