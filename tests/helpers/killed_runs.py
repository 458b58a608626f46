"""Kills a training run at random moments until it is done, again and again: `python killed_runs.py FOLDER KILLS SEED`.

The parent imports everything and builds the task; each attempt is a child forked from it, killed with SIGKILL at a
moment drawn evenly over the length of an undisturbed run, and the next attempt goes on from what it left. Prints JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

STEPS = 8


def main(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Return counts: kills, those within the writing of a checkpoint or of final/, finished runs, and so on."""
    import torch

    from helpers.resuming import prepare, trainer_for
    from t2ialign.engine.processes import make_accelerator

    torch.set_num_threads(1)
    prepare(folder)
    options = {"steps": STEPS, "keep_checkpoints": 2, "ema": True}
    trainer = trainer_for("group robust", folder, folder / "straight", **options)
    accelerator = make_accelerator(trainer.config)
    task = trainer.make_task(accelerator)
    attempt = Attempt(task, trainer.config, accelerator)
    attempt.run(folder / "warm", None)
    seconds = attempt.run(folder / "straight", None)
    rng, numbers = random.Random(seed), itertools.count()
    found = {"kills": 0, "in_save": 0, "in_final": 0, "before_the_first": 0, "finished": 0, "seconds": seconds}
    while found["kills"] < kills:
        output, last = folder / f"run-{next(numbers)}", 0
        while not attempt.run(output, rng.uniform(0, seconds), resume=last > 0):
            found["kills"] += 1
            found["in_save"] += bool(list(output.glob("checkpoints/.aside-step-*")))
            found["in_final"] += (output / ".aside-final").exists()
            last = check_what_is_left(output, last)
            if not last:
                found["before_the_first"] += 1
                output = folder / f"run-{next(numbers)}"
                seconds *= 1.1  # a machine that has become slower would never come to a checkpoint
        check_that_it_is_the_straight_run(folder / "straight", output)
        found["finished"] += 1
    return found


class Attempt:
    """Runs a task in a forked child."""

    def __init__(self, task: Any, config: Any, accelerator: Any) -> None:
        self.task, self.config, self.accelerator = task, config, accelerator

    def run(self, output: Path, kill_after: float | None, resume: bool = False) -> float:
        """Return the seconds that it took, or 0 if it was killed."""
        begun = time.perf_counter()
        child = os.fork()
        if child == 0:
            self._train(output, resume)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and kill_after is not None:
            return 0.0
        assert status == 0, (output / "error.txt").read_text()
        return time.perf_counter() - begun

    def _train(self, output: Path, resume: bool) -> None:
        from dataclasses import replace

        from t2ialign.engine.loop import fit

        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            fit(
                self.task,
                replace(self.config, output_dir=output, resume="latest" if resume else None),
                self.accelerator,
            )
            code = 0
        except BaseException as error:
            (output / "error.txt").write_text(repr(error))
        finally:
            os._exit(code)


def check_what_is_left(output: Path, before: int) -> int:
    """A kill costs nothing but the step that was under way; return the step of the last whole checkpoint."""
    from t2ialign.engine.checkpoints import list_checkpoints, read_checkpoint
    from t2ialign.engine.metrics import read_metrics

    whole = list_checkpoints(output / "checkpoints")
    last = read_checkpoint(whole[-1]).step if whole else 0
    log = output / "metrics.jsonl"
    logged = [line["step"] for line in read_metrics(log)] if log.is_file() else []
    assert last >= before, f"{output} went back from step {before} to {last}"
    assert logged == list(range(1, len(logged) + 1)), f"{log} has gaps"
    assert last <= len(logged) <= last + 1, f"{output}: {len(logged)} steps are logged, checkpoint {last}"
    return last


def check_that_it_is_the_straight_run(straight: Path, output: Path) -> None:
    """Same bits, same figures, nothing left over."""
    from helpers.resuming import assert_same_run

    assert_same_run(straight, output)
    assert not list(output.rglob(".aside*")), "something half written is left"
    assert len(list((output / "checkpoints").iterdir())) == 2


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
