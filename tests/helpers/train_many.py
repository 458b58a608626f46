"""Training runs one after the other, each in forked processes: `python train_many.py JOBS`, a JSON list.

A job has `algorithm`, `options`, `output`, `pairs`, `steps` and, where they are wanted, `processes`, `sharded`, and
`begun` with `resume`: the folder of another run, which is copied, and the name of the checkpoint to go on from; and
`poison`: the batch whose gradient is not finite on the second process. A step has four examples however many processes
there are. What is imported is imported once.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def run(job: dict[str, Any]) -> None:
    from helpers.training import short_config, tiny_model, trainer_of

    processes = job.get("processes", 1)
    settings = {
        "lr_scheduler": "constant",
        "learning_rate": 2e-4,
        "checkpoint_every": 1,
        "keep_checkpoints": 0,
        "batch_size": 4 // processes,
        "resume": f"{job['output']}/checkpoints/{job['resume']}" if "resume" in job else None,
    }
    config = short_config(
        job["algorithm"],
        Path(job["output"]),
        pairs=job["pairs"],
        steps=job["steps"],
        **{**settings, **job["options"]},
    )
    trainer = trainer_of(job["algorithm"])(config, model=tiny_model())
    if os.environ.get("RANK") == "1" and "poison" in job:
        poison(trainer, job["poison"])
    trainer.train()
    if job.get("sharded"):
        check_parts(trainer.task)


def poison(trainer: Any, call: int) -> None:
    """Make the gradient of one batch, counted from 0, not finite on this process; its loss stays."""
    make_task, calls = trainer.make_task, itertools.count()

    def make(accelerator: Any) -> Any:
        task = make_task(accelerator)
        loss = task.loss

        def poisoned(*arguments: Any) -> Any:
            output = loss(*arguments)
            if next(calls) == call:
                output.loss.register_hook(lambda gradient: gradient * math.nan)
            return output

        task.loss = poisoned
        return task

    trainer.make_task = make


def check_parts(task: Any) -> None:
    """Fail unless what is trained, and a reference beside it, is in parts.

    Of a network without a backward pass what is in no block stays gathered after its forward.
    """
    from torch.distributed.tensor import DTensor

    for network, least in ((task.module, 1.0), *((other, 0.6) for other in task.beside)):
        sizes = [(part.numel(), isinstance(part, DTensor)) for part in network.parameters()]
        share = sum(size for size, parted in sizes if parted) / sum(size for size, _ in sizes)
        if share < least:
            raise AssertionError(f"only {share:.0%} of a network is in parts")


def in_processes(job: dict[str, Any]) -> None:
    """Do a job in as many forked processes as it asks for; the first that fails ends the others and this process."""
    from helpers import cpu_sharding

    count = job.get("processes", 1)
    if "begun" in job:
        shutil.copytree(job["begun"], job["output"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        if count > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        if job.get("sharded"):
            os.environ.update(cpu_sharding.ENVIRONMENT)
        try:
            run(job)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    for _ in range(count):
        _, status = os.wait()
        if status:
            for child in children:
                try:
                    os.kill(child, 9)
                except ProcessLookupError:
                    continue
            raise SystemExit(f"{job['output']} failed")


def main(jobs: str) -> None:
    import torch

    import t2ialign.trainers.dpo  # noqa: F401  (imported before the forks)
    from helpers import cpu_sharding
    from helpers.training import tiny_model

    torch.set_num_threads(1)
    tiny_model()
    cpu_sharding.allow()
    for job in json.loads(jobs):
        in_processes(job)


if __name__ == "__main__":
    main(sys.argv[1])
