"""The one training loop.

It opens the run's folder, goes on from a checkpoint if asked to, feeds the task's examples by the law of
randomness, writes metrics, checkpoints and samples, and ends with `final/`. It knows no algorithm: everything
it is told of one is a `Task`.

    output_dir/
        config.yaml                 resolved, no secrets
        metrics.jsonl               a line an optimizer step
        checkpoints/step-000100/    see `checkpoints`
        samples/step-000100.png     fixed prompts and seeds
        not-finite-step-000100/     where a run stopped on numbers that are not finite: a checkpoint that repeats it
        final/                      what the task writes
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader
from tqdm import tqdm

from t2ialign.config import dump_yaml, redacted, to_dict
from t2ialign.engine.bad_examples import BadExamples, DrawnExamples, allowed_bad, reach
from t2ialign.engine.checkpoints import Checkpoint, flaw, open_checkpoint, remove_later, write_checkpoint, write_folder
from t2ialign.engine.config import TrainConfig, known
from t2ialign.engine.launch import Launch
from t2ialign.engine.metrics import MetricsLog
from t2ialign.engine.order import Schedule, ScheduleSampler
from t2ialign.engine.processes import start_tracker
from t2ialign.engine.resume import check_config, check_output, flatten
from t2ialign.engine.run import Run
from t2ialign.engine.signals import leave_to_parent
from t2ialign.engine.task import GivenUp, Task
from t2ialign.errors import DataError, T2IAlignError

logger = logging.getLogger(__name__)

_MEND = "nothing that was there is lost: make room, and go on with --resume latest"


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
        bad_pairs: Entries that could not be read and were left out: `BadExamples.report`.
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
    bad_pairs: Mapping[str, Any] = field(default_factory=dict)
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
        blocks=task.examples.blocks,
        buckets=task.examples.buckets,
        group=task.examples.bucket_group,
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
    with Launch() as stop:
        return _Fit(task, config, accelerator, stop).train()


def loader_of(task: Task, config: TrainConfig, schedule: Schedule, start: int) -> DataLoader[Any]:
    """Return the batches of this process from step `start` on, each a `DrawnBatch`."""
    drawn = DrawnExamples(task.examples, schedule, allowed_bad(config, reach(schedule)))
    return DataLoader(
        drawn,
        batch_sampler=ScheduleSampler(schedule, start),
        collate_fn=drawn.collate,
        num_workers=config.workers,
        worker_init_fn=leave_to_parent,
        pin_memory=torch.cuda.is_available(),
    )


class _Fit:
    """One call of `fit`: the run, its folder and its clock."""

    def __init__(self, task: Task, config: TrainConfig, accelerator: Accelerator, stop: Launch) -> None:
        self.task, self.config, self.accelerator, self.stop = task, config, accelerator, stop
        self.output = Path(config.output_dir)
        self.started = time.perf_counter()
        self.schedule = make_schedule(task, config, accelerator)
        self.options = flatten(redacted(to_dict(config))) | {
            "mixed_precision": accelerator.mixed_precision,  # what "auto" is on this machine
            "examples": task.examples.fingerprint,
            "examples per step": self.schedule.per_step,
            # The stages of a curriculum are shares of the whole run, so its length is part of what a seed means.
            "steps of the curriculum": None if self.schedule.stages is None else self.schedule.steps,
            **self.schedule.layout(),
        }
        self.bad = BadExamples(config, reach(self.schedule), task.examples.name)
        # What a signal kept from being done after the last step.
        self.unmeasured = self.undrawn = False
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
        self._first(lambda: dump_yaml(replace(self.config, resume=None), self.output / "config.yaml"), "config.yaml")
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
        path, checkpoint = open_checkpoint(self.output, self.config.resume)
        check_config(checkpoint, self.options)
        logger.info("going on from %s", path)
        return checkpoint

    def _restore(self, run: Run, checkpoint: Checkpoint) -> None:
        run.restore(checkpoint)
        self.bad.load(checkpoint.state.get("bad", {}))
        self.unmeasured = bool(checkpoint.state.get("unmeasured"))
        self.resumed_from = run.step
        if self.accelerator.is_main_process:
            remove_later(self.output / "checkpoints", run.step)

    def _steps(self, run: Run, log: MetricsLog) -> bool:
        """Train until the last step or a signal; return whether it was a signal."""
        total, asked = self.schedule.steps, self._asked()
        # Made here: beginning to load draws from torch's generator, which each step seeds for itself.
        batches = self.bad.watch(iter(loader_of(self.task, self.config, self.schedule, run.step)))
        quiet = None if self.accelerator.is_main_process else True
        if not asked:
            asked = self._catch_up(run, log)
        bar = tqdm(total=total, initial=run.step, unit="step", disable=quiet)
        with bar:
            while run.step < total and not asked:
                begun = time.perf_counter()
                try:
                    figures, asked = run.advance(batches, self.stop)
                except GivenUp:  # before anything of the step was done
                    asked = True
                    break
                self.bad.settle(self.accelerator)
                seconds = time.perf_counter() - begun
                self.timed += seconds
                self._log(run, log, figures | self._measure(run), seconds)
                bar.update()
                bar.set_postfix(loss=f"{figures['loss']:.4f}", refresh=False)
                self._guard(run)
                if self.config.checkpoint_every and run.step % self.config.checkpoint_every == 0:
                    self._checkpoint(run, log, wanted=True)
                self._draw(run, asked or self.unmeasured)
                asked = asked or self.unmeasured or self.undrawn
        return asked and (run.step < total or self.unmeasured or self.undrawn)

    def _catch_up(self, run: Run, log: MetricsLog) -> bool:
        """Do what was left undone after the step that a run goes on from; return whether a signal stopped it again."""
        if run.step == 0 or self.unmeasured:
            found = self._measure(run)
            if run.step and found:
                log.amend(found)
        self._draw(run, self.unmeasured, missing=True)
        return self.unmeasured or self.undrawn

    def _asked(self) -> bool:
        """Whether any process was asked to stop, so that all of them agree."""
        asked = torch.tensor([float(self.stop())], device=self.accelerator.device)
        return bool(self.accelerator.gather(asked).any())

    def _log(self, run: Run, log: MetricsLog, figures: dict[str, Any], seconds: float) -> None:
        done = run.step * self.schedule.per_step
        rate = {f"{self.task.examples.name}_per_second": self.schedule.per_step / seconds}
        epoch = done / self.schedule.epoch_length
        log.write(run.step, figures | {"epoch": epoch, "skipped_steps": run.skipped} | rate)
        self.first = self.first or dict(log.last)

    def _guard(self, run: Run) -> None:
        """Stop a run that has lost its footing, leaving what repeats it."""
        if run.skipped_in_a_row < self.config.max_bad_steps:
            return
        kept = self._kept(run, footing=True)
        folder = self.output / f"not-finite-step-{kept.step + 1:06d}"
        told = {"seed": self.config.seed, "steps": [self._told(step) for step in range(kept.step, run.step)]}

        def write() -> None:
            if flaw(folder) is not None:
                write_folder(folder, kept, told)

        self._first(write, "writing what repeats the bad steps")
        raise T2IAlignError(
            f"{run.skipped_in_a_row} steps in a row were not finite, the last is step {run.step}. {folder} holds the "
            f"run as it was before step {kept.step + 1}, and which examples they saw: --resume {folder} repeats them. "
            "Lower --learning_rate, or use --mixed_precision bf16 or no"
        )

    def _told(self, step: int) -> dict[str, Any]:
        """Return which examples a step sees, for looking into it; `step` counts from 0."""
        first = step * self.schedule.per_step
        every = [(n, self.schedule.index(n)) for n in range(first, first + self.schedule.per_step)]
        return {
            "step": step + 1,
            "examples": [{"n": n, "index": index, **self.task.trace(n, index)} for n, index in every],
        }

    def _draw(self, run: Run, asked: bool, missing: bool = False) -> None:
        """Draw sample pictures where it is time.

        Where a signal keeps them from being drawn the run stops at this very step, and draws them when it goes on.

        Args:
            run: At the end of a step.
            asked: Whether it is stopping.
            missing: Draw only what is not there.
        """
        every = self.config.sample_every
        file = self.output / "samples" / f"step-{run.step:06d}.png"
        self.undrawn = False
        if not every or run.step == 0 or run.step % every:
            return
        there = []

        def draw() -> None:
            if not (missing and file.is_file()) and not asked:
                file.parent.mkdir(exist_ok=True)
                self.task.write_samples(file, self.stop)
            there.append(file.is_file() or not (asked or self.stop()))

        with self._shown(run):
            self._first(draw, "drawing sample pictures")
        self.undrawn = self._agreed(not all(there))

    def _measure(self, run: Run) -> dict[str, Any]:
        """Let the first process look at the model as it is shown, where its time has come."""
        self.unmeasured = False
        every = self.task.measure_every
        if not every or (run.step % every and run.step != self.schedule.steps):
            return {}
        found: dict[str, Any] = {}
        given_up = []

        def measure() -> None:
            try:
                found.update(self.task.measure(run.step))
            except GivenUp:
                given_up.append(True)

        with self._shown(run):
            self._first(measure, "measuring")
        self.unmeasured = self._agreed(bool(given_up))
        return found

    def _agreed(self, mine: bool) -> bool:
        """Return what the first process says."""
        said = [mine]
        broadcast_object_list(said)
        return said[0]

    def _shown(self, run: Run, device: torch.device | None = None) -> Any:
        """Return the context in which the first process draws and writes; every process enters it."""
        return run.shown(device or self.accelerator.device)

    def _checkpoint(self, run: Run, log: MetricsLog, wanted: bool) -> None:
        """Keep the run's state: every process is asked for its part, the first one writes the whole."""
        if not wanted:
            return
        kept = self._kept(run)

        def write() -> None:
            log.sync()
            write_checkpoint(self.output / "checkpoints", kept, self.config.keep_checkpoints)

        self._first(write, "writing a checkpoint")

    def _kept(self, run: Run, footing: bool = False) -> Checkpoint:
        kept = run.checkpoint(self.options, footing)
        bad = {str(entry): why for entry, why in self.bad.found.items()}
        return replace(kept, state={**kept.state, "unmeasured": self.unmeasured, "bad": bad})

    def _first(self, work: Callable[[], object], what: str) -> None:
        """Let the first process do something, and every process fail if it fails.

        Raises:
            DataError: where the disk refused, or on the other processes where the first one failed.
        """
        from safetensors import SafetensorError

        failure: Exception | None = None
        if self.accelerator.is_main_process:
            try:
                work()
            except (OSError, SafetensorError) as error:
                failure = DataError(f"{what} failed: {error}; {_MEND}")
                failure.__cause__ = error
            except Exception as error:
                failure = error
        self.stop.wait(through_stop=True)  # others look out meanwhile, and may be asked to stop
        said = [None if failure is None else str(failure)]
        broadcast_object_list(said)
        if failure is not None:
            raise failure
        if said[0] is not None:
            raise DataError(said[0])

    def _final(self, run: Run, log: MetricsLog) -> None:
        """Write `final/` aside, then put it in place; where that fails, leave a checkpoint to go on from."""
        aside, target = self.output / ".aside-final", self.output / "final"

        def write() -> None:
            try:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir()
                self.task.write_final(aside, {"steps": run.step, **log.last})
                shutil.rmtree(target, ignore_errors=True)
                os.replace(aside, target)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

        try:
            with self._shown(run, torch.device("cpu")):
                self._first(write, "writing final/")
        except Exception:
            self._checkpoint(run, log, wanted=True)
            raise

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
            bad_pairs=self.bad.report(),
            first=self.first,
            last=dict(log.last),
            peak_memory_bytes=torch.cuda.max_memory_allocated() if cuda else None,
        )
