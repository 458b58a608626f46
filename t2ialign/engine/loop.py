"""The one training loop.

It opens the run's folder, goes on from a checkpoint if asked to, feeds the task's examples by the law of
randomness, writes metrics, checkpoints and samples, and ends with `final/`. It knows no algorithm: everything
it is told of one is a `Task`.

    output_dir/
        config.yaml                 resolved, no secrets
        metrics.jsonl               a line an optimizer step
        checkpoints/step-000100/    see `checkpoints`
        samples/step-000100.png     fixed prompts and seeds
        final/                      what the task writes
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm

from t2ialign.config import dump_yaml, to_dict
from t2ialign.engine.checkpoints import Checkpoint, find_checkpoint, read_checkpoint, remove_later, write_checkpoint
from t2ialign.engine.config import TrainConfig, known
from t2ialign.engine.metrics import MetricsLog
from t2ialign.engine.order import Schedule, ScheduleSampler
from t2ialign.engine.processes import start_tracker
from t2ialign.engine.resume import check_config, check_output, flatten
from t2ialign.engine.run import Run
from t2ialign.engine.signals import StopSignal
from t2ialign.engine.task import DrawnExamples, Task
from t2ialign.errors import T2IAlignError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        status: "done", or "stopped" by a signal after a checkpoint.
        signal: Name of that signal, or None.
        steps: Optimizer steps done, those before a resume included.
        resumed_from: Step of the checkpoint that the run went on from, or None.
        seconds: Of this part of the run, caches included.
        steps_per_second: Of this part of the run, caches and pictures left out; None without a step.
        skipped_steps: Steps without an update because something was not finite.
        first: Figures of the first step of this part of the run.
        last: Figures of its last step.
        peak_memory_bytes: Of the accelerator, or None on a CPU.
    """

    status: str
    signal: str | None
    steps: int
    resumed_from: int | None
    seconds: float
    steps_per_second: float | None
    skipped_steps: int
    first: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)
    peak_memory_bytes: int | None = None


def make_schedule(task: Task, config: TrainConfig, accelerator: Accelerator) -> Schedule:
    """Return the order of a run's examples for this process."""
    if not len(task.examples):
        raise T2IAlignError("there is nothing to train on: the set has no examples; try `t2ialign data check`")
    return Schedule(
        seed=config.seed,
        length=len(task.examples),
        steps=known(config.steps, "steps"),
        batch_size=known(config.batch_size, "batch_size"),
        accumulation=known(config.gradient_accumulation_steps, "gradient_accumulation_steps"),
        processes=accelerator.num_processes,
        rank=accelerator.process_index,
        stages=task.examples.stages,
    )


def fit(task: Task, config: TrainConfig, accelerator: Accelerator) -> FitResult:
    """Train a task.

    Args:
        task: Model, examples and loss.
        config: Options with every value known.
        accelerator: From `processes.make_accelerator`.

    Raises:
        ConfigError: for a folder that holds another run, or a resume under other options.
        DataError: for a checkpoint that is missing or damaged.
        T2IAlignError: after `max_bad_steps` steps in a row that were not finite.
    """
    with StopSignal() as stop:
        return _Fit(task, config, accelerator, stop).train()


def loader_of(task: Task, config: TrainConfig, schedule: Schedule, start: int) -> DataLoader[Any]:
    """Return the batches of this process from step `start` on."""
    return DataLoader(
        DrawnExamples(task.examples, config.seed),
        batch_sampler=ScheduleSampler(schedule, start),
        collate_fn=task.examples.collate,
        num_workers=config.workers,
        worker_init_fn=_ignore_interrupts,
        pin_memory=torch.cuda.is_available(),
    )


def _ignore_interrupts(worker: int) -> None:
    """Let Ctrl-C reach the training process alone; it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Fit:
    """One call of `fit`: the run, its folder and its clock."""

    def __init__(self, task: Task, config: TrainConfig, accelerator: Accelerator, stop: StopSignal) -> None:
        self.task, self.config, self.accelerator, self.stop = task, config, accelerator, stop
        self.output = Path(config.output_dir)
        self.started = time.perf_counter()
        self.schedule = make_schedule(task, config, accelerator)
        self.options = flatten(to_dict(config)) | {
            "examples": task.examples.fingerprint,
            "examples per step": self.schedule.per_step,
            # The stages of a curriculum are shares of the whole run, so its length is part of what a seed means.
            "steps of the curriculum": None if self.schedule.stages is None else self.schedule.steps,
        }
        self.resumed_from: int | None = None
        self.timed = 0.0
        self.first: dict[str, Any] = {}

    def train(self) -> FitResult:
        """Do the whole run."""
        check_output(self.output, self.config.resume, self.task.prepared)
        checkpoint = self._checkpoint_to_resume()
        self.accelerator.wait_for_everyone()
        self.task.setup(self.accelerator.device, self.schedule, self.stop)
        run = Run(self.task, self.config, self.schedule, self.accelerator)
        if checkpoint is not None:
            self._restore(run, checkpoint)
        if self.accelerator.is_main_process:
            self.output.mkdir(parents=True, exist_ok=True)
            dump_yaml(replace(self.config, resume=None), self.output / "config.yaml")
        self.accelerator.wait_for_everyone()
        start_tracker(self.accelerator, self.config, self.options)
        log = MetricsLog(self.output / "metrics.jsonl", self.accelerator, run.step)
        try:
            stopped = self._steps(run, log)
            self._checkpoint(run, log, wanted=stopped or self.config.checkpoint_every > 0)
            if not stopped:
                self._final(run, log)
        finally:
            log.close()
            self.accelerator.end_training()
            self.accelerator.unwrap_model(run.module, keep_fp32_wrapper=False)
        return self._result(run, log, stopped)

    def _checkpoint_to_resume(self) -> Checkpoint | None:
        """Read the checkpoint that was asked for, and refuse it under other options, before anything takes long."""
        if self.config.resume is None:
            return None
        path = find_checkpoint(self.output, self.config.resume)
        checkpoint = read_checkpoint(path)
        check_config(checkpoint, self.options)
        logger.info("going on from %s", path)
        return checkpoint

    def _restore(self, run: Run, checkpoint: Checkpoint) -> None:
        run.restore(checkpoint)
        self.resumed_from = run.step
        if self.accelerator.is_main_process:
            remove_later(self.output / "checkpoints", run.step)

    def _steps(self, run: Run, log: MetricsLog) -> bool:
        """Train until the last step or a signal; return whether it was a signal."""
        total, asked = self.schedule.steps, self._asked()
        batches: Iterator[Any] = iter(loader_of(self.task, self.config, self.schedule, run.step))
        quiet = None if self.accelerator.is_main_process else True
        if run.step == 0 and not asked:
            self._measure(run)
        bar = tqdm(total=total, initial=run.step, unit="step", disable=quiet)
        with bar:
            while run.step < total and not asked:
                begun = time.perf_counter()
                figures, asked = run.advance(batches, self.stop)
                seconds = time.perf_counter() - begun
                self.timed += seconds
                self._log(run, log, figures | self._measure(run), seconds)
                bar.update()
                bar.set_postfix(loss=f"{figures['loss']:.4f}", refresh=False)
                self._guard(run)
                self._periodic(run, log, asked)
        return asked and run.step < total

    def _asked(self) -> bool:
        """Whether any process was asked to stop, so that all of them agree."""
        asked = torch.tensor([float(self.stop())], device=self.accelerator.device)
        return bool(self.accelerator.gather(asked).any())

    def _log(self, run: Run, log: MetricsLog, figures: dict[str, Any], seconds: float) -> None:
        done = run.step * self.schedule.per_step
        rate = {f"{self.task.examples.name}_per_second": self.schedule.per_step / seconds}
        log.write(run.step, figures | {"epoch": done / self.schedule.length, "skipped_steps": run.skipped} | rate)
        self.first = self.first or dict(log.last)

    def _guard(self, run: Run) -> None:
        """Stop a run that has lost its footing, leaving what is needed to look into it."""
        if run.skipped_in_a_row < self.config.max_bad_steps:
            return
        per_step = self.schedule.per_step
        begin = (run.step - 1) * per_step
        file = self.output / f"not-finite-step-{run.step:06d}.json"
        if self.accelerator.is_main_process:
            examples = [{"n": n, "index": self.schedule.index(n)} for n in range(begin, begin + per_step)]
            file.write_text(json.dumps({"step": run.step, "seed": self.config.seed, "examples": examples}, indent=1))
        raise T2IAlignError(
            f"{run.skipped_in_a_row} steps in a row were not finite, the last is step {run.step}; its examples are in "
            f"{file}. Lower --learning_rate, or use --mixed_precision bf16 or no"
        )

    def _periodic(self, run: Run, log: MetricsLog, asked: bool) -> None:
        every = self.config.checkpoint_every
        if every and run.step % every == 0:
            self._checkpoint(run, log, wanted=True)
        every = self.config.sample_every
        if every and run.step % every == 0 and not asked:
            with self._shown(run):
                if self.accelerator.is_main_process:
                    file = self.output / "samples" / f"step-{run.step:06d}.png"
                    file.parent.mkdir(exist_ok=True)
                    self.task.write_samples(file, self.stop)
            self.accelerator.wait_for_everyone()

    def _measure(self, run: Run) -> dict[str, Any]:
        """Let the first process look at the model as it is shown, where its time has come."""
        every = self.task.measure_every
        if not every or (run.step % every and run.step != self.schedule.steps):
            return {}
        found: dict[str, Any] = {}
        if self.accelerator.is_main_process:
            with self._shown(run):
                found = dict(self.task.measure(run.step))
        self.accelerator.wait_for_everyone()
        return found

    def _shown(self, run: Run) -> Any:
        return nullcontext() if run.average is None else run.average.applied()

    def _checkpoint(self, run: Run, log: MetricsLog, wanted: bool) -> None:
        if wanted and self.accelerator.is_main_process:
            log.sync()
            write_checkpoint(self.output / "checkpoints", run.checkpoint(self.options), self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _final(self, run: Run, log: MetricsLog) -> None:
        """Write `final/` aside, then put it in place."""
        if self.accelerator.is_main_process:
            aside, target = self.output / ".aside-final", self.output / "final"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            with self._shown(run):
                self.task.write_final(aside, {"steps": run.step, **log.last})
            shutil.rmtree(target, ignore_errors=True)
            os.replace(aside, target)
        self.accelerator.wait_for_everyone()

    def _result(self, run: Run, log: MetricsLog, stopped: bool) -> FitResult:
        here = run.step - (self.resumed_from or 0)
        cuda = self.accelerator.device.type == "cuda"
        return FitResult(
            status="stopped" if stopped else "done",
            signal=self.stop.received.name if stopped and self.stop.received else None,
            steps=run.step,
            resumed_from=self.resumed_from,
            seconds=time.perf_counter() - self.started,
            steps_per_second=here / self.timed if self.timed else None,
            skipped_steps=run.skipped,
            first=self.first,
            last=dict(log.last),
            peak_memory_bytes=torch.cuda.max_memory_allocated() if cuda else None,
        )
