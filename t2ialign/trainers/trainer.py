"""A run from beginning to end: load, fill in defaults, fit, report.

Keys of `output_dir/report.json`:

    algorithm, status ("done" or "stopped"), signal
    steps, resumed_from, skipped_steps
    bad_pairs {count, share, which}   what could not be read and was left out (--on_bad_pair drop)
    seconds                        of this part of the run, everything included
    pairs_per_second               of its steps, over all processes; pictures_per_second for single pictures
    peak_memory_bytes              of the accelerator, null on a CPU
    model {name, revision, family, prediction_type, parameters, trainable_parameters}   revision: on the hub, as it was
                                   asked for, else the commit that was loaded
    pairs {name, count, fingerprint, dropped, notices}   of single pictures too
    pairs.streamed {shards, row_groups, bytes, commit}   null where the set was opened whole (docs/streaming.md)
    buckets                        with --aspect_buckets: `trainers.buckets.Bucketing.report`
    error_rise {last, highest, limit, warned_at}   how far both errors rose (docs/resume.md); not of refl and ddpo
    captions, captions_cut         different captions, and those longer than the text encoder takes
    cached {latents, text}         what was encoded once
    processes, mixed_precision, device
    first, last                    the lines of metrics.jsonl of the first and last step of this part of the run
    final                          folder of the trained weights, or null
    pushed_to                      where on the hub, if it was pushed
    versions                       of the packages that matter
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from abc import ABC, abstractmethod
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate import Accelerator

from t2ialign.config import redacted
from t2ialign.data.pairs import PairDataset
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.launch import Launch
from t2ialign.engine.loop import FitResult, fit
from t2ialign.engine.processes import autocast_of, make_accelerator, weight_dtype
from t2ialign.engine.resume import check_output
from t2ialign.errors import ConfigError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.model_config import ModelConfig
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.task import Autocast, DiffusionTask, ModelTask

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=ModelConfig)
C = TypeVar("C", bound=PreferenceConfig)
D = TypeVar("D", bound=PairDataset | UnpairedDataset)
K = TypeVar("K", bound=ModelTask)


class ModelTrainer(ABC, Generic[M, K]):
    """Trains a diffusion model; what it learns from is a subclass's.

    Args:
        config: Options; those left None are filled for the model's family.
        model: A loaded model to train in place; by default the one that `config.model` names.

    Attributes:
        config: The options with every value known, once `train` or `estimate` was called.
        model: The model, then trained.
        task: The task that the engine was given.
        prepared: Names in the run's folder that may be there before it begins, by `Task.prepared`.
    """

    algorithm: ClassVar[str]
    prepared: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: M, model: DiffusionModel | None = None) -> None:
        self.config = config
        self.model = model
        self.task: K | None = None

    @abstractmethod
    def make_task(self, accelerator: Accelerator) -> K:
        """Open what is learned from, load the model (`load_model`) and put them together."""

    @abstractmethod
    def describe(self, task: K) -> dict[str, Any]:
        """Return what the report says of what was learned from."""

    def train(self) -> dict[str, Any]:
        """Train, and return what `report.json` holds; with `config.estimate`, only measure.

        Raises:
            T2IAlignError: whatever a user can mend: options, pairs, model, folder, steps that are not finite.
            Stopped: where a signal asks for it before the first step, and nothing is there to be reported.
        """
        if self.config.estimate:
            estimated = self.estimate()
            if self.config.estimate_file is not None:
                self.config.estimate_file.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.config.estimate_file, estimated)
            return estimated
        check_output(Path(self.config.output_dir), self.config.resume, self.prepared)
        accelerator = make_accelerator(self.config)
        with Launch():
            task = self._prepare(accelerator)
            result = fit(task, self.config, accelerator)
            report = self._report(task, accelerator, result)
            if accelerator.is_main_process:
                self._publish(report)
        return report

    def _publish(self, report: dict[str, Any]) -> None:
        """Write the report, then push `final/` if that was asked for, and note where to."""
        output = Path(self.config.output_dir)
        write_json(output / "report.json", report)
        if report["status"] == "done" and self.config.push_to_hub is not None:
            from t2ialign.models.hub import push

            report["pushed_to"] = str(push(output / "final", self.config.push_to_hub))
            write_json(output / "report.json", report)

    def estimate(self) -> dict[str, Any]:
        """Measure parameters, memory and time on a dry step, and write nothing.

        Raises:
            ConfigError: where the algorithm has no dry step.
        """
        raise ConfigError(
            f"{self.algorithm} has no --estimate: its steps draw pictures first; run --steps 2 into a folder of its "
            "own, whose report.json shows time and peak memory"
        )

    def _prepare(self, accelerator: Accelerator) -> K:
        task = self.make_task(accelerator)
        task.algorithm = self.algorithm
        self.model, self.task = task.model, task
        return task

    def resolve(self, model: DiffusionModel, accelerator: Accelerator) -> None:
        """Fill the options that are left open, for the model's family."""
        self.config = resolve(
            self.config,
            family=model.family,
            resolution=model.default_resolution,
            processes=accelerator.num_processes,
            algorithm=self.algorithm,
        )

    def load_model(self, accelerator: Accelerator) -> DiffusionModel:
        """Load the model, unless one was given, and bring its parts to the device."""
        from t2ialign.models.loading import load_model

        kept = torch.float32 if self.config.method == "full" else weight_dtype(accelerator)
        model = self.model
        if model is None:
            model = load_model(
                self.config.model,
                dtype=kept,
                device=accelerator.device,
                revision=self.config.revision,
                attention=self.config.attention,
            )
        place_encoders(model, self.config, accelerator)
        model.unet.to(accelerator.device)
        return model

    def _report(self, task: K, accelerator: Accelerator, result: FitResult) -> dict[str, Any]:
        from t2ialign.models.record import package_versions

        model = task.model
        facts = asdict(result)
        rate = facts.pop("steps_per_second")
        batch = (self.config.batch_size or 1) * (self.config.gradient_accumulation_steps or 1)
        per_second = None if rate is None else rate * batch * accelerator.num_processes
        return {
            "algorithm": self.algorithm,
            **facts,
            f"{task.examples.name}_per_second": per_second,
            "model": {
                "name": self.config.model,
                "revision": model.revision,
                "family": model.family,
                "prediction_type": model.prediction_type,
                **count_parameters(task),
            },
            **self.describe(task),
            **task.notes,
            "processes": accelerator.num_processes,
            "mixed_precision": accelerator.mixed_precision,
            "device": str(accelerator.device),
            "final": str(Path(self.config.output_dir) / "final") if result.status == "done" else None,
            "versions": package_versions(),
        }


class Trainer(ModelTrainer[C, DiffusionTask], Generic[C, D]):
    """Trains on pictures; an algorithm says which, and with what loss.

    Args:
        config: Options; those left None are filled for the model's family.
        model: A loaded model to train in place; by default the one that `config.model` names.
        pairs: Loaded pairs or pictures; by default those that `config.pairs` names.
    """

    def __init__(self, config: C, model: DiffusionModel | None = None, pairs: D | None = None) -> None:
        super().__init__(config, model)
        self.pairs = pairs

    @abstractmethod
    def load_data(self) -> D:
        """Open what `config.pairs` names."""

    def check_data(self, data: D) -> None:
        """Refuse data that lack what the options ask for, before a model is loaded."""
        return None

    @abstractmethod
    def build(self, model: DiffusionModel, data: D, autocast: Autocast) -> DiffusionTask:
        """Put model, data and loss together, by options with every value known."""

    def make_task(self, accelerator: Accelerator) -> DiffusionTask:
        """Open the data, load the model and put them together."""
        self.pairs = self.load_data() if self.pairs is None else self.pairs
        if (streamed := self.pairs.streamed) is not None and streamed["commit"] is not None:
            self.config = replace(self.config, pairs_revision=streamed["commit"])  # the same one on resume
        self.check_data(self.pairs)
        model = self.load_model(accelerator)
        self.resolve(model, accelerator)
        return self.build(model, self.pairs, autocast_of(accelerator))

    def estimate(self) -> dict[str, Any]:
        """Measure parameters, memory and time on a dry step, and write nothing."""
        from t2ialign.trainers.estimate import estimate

        accelerator = make_accelerator(self.config)
        return estimate(self._prepare(accelerator), self.config, accelerator)

    def describe(self, task: DiffusionTask) -> dict[str, Any]:
        """Return name, count, fingerprint and notices of the pairs, and what was encoded once."""
        pairs, examples = task.examples.data, task.examples
        return {
            "pairs": {
                "name": self.config.pairs,
                "count": len(pairs),
                "fingerprint": pairs.fingerprint,
                "dropped": dict(pairs.dropped),
                "notices": dict(pairs.notices),
                "streamed": pairs.streamed,
            },
            "cached": {"latents": examples.latents is not None, "text": examples.texts is not None},
        }


def place_encoders(model: DiffusionModel, config: ModelConfig, accelerator: Accelerator) -> None:
    """Bring VAE and text encoders to the device, in the number format of frozen weights or the one asked for."""
    small = weight_dtype(accelerator)
    for part in (*model.text_encoders, model.vae):
        wanted = torch.float32 if part is model.vae and config.vae_dtype == "float32" else small
        part.to(accelerator.device)
        if part.dtype != wanted:
            part.to(wanted)


def count_parameters(task: ModelTask) -> dict[str, int]:
    """Return how many numbers the UNet has, its LoRA included, and how many of them are trained."""
    parameters = list(task.module.parameters())
    trained = sum(part.numel() for part in parameters if part.requires_grad)
    return {"parameters": sum(part.numel() for part in parameters), "trainable_parameters": trained}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file at once or not at all, without secrets."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.aside")
    aside.write_text(json.dumps(redacted(value), indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(aside, path)
