"""`srun` and `scontrol` as far as `trainers/launch/slurm.sh` uses them, on one machine: tasks are processes here.

`srun OPTIONS COMMAND...` starts SLURM_NTASKS tasks, hands on the signals that it gets, and ends with the highest code.
`scontrol show hostnames` names this machine; `scontrol requeue JOB` notes the job in the file that REQUEUED names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType


def srun(arguments: list[str]) -> int:
    command = list(arguments)
    while command[0].startswith("--"):
        command.pop(0)
    tasks = [
        subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(int(os.environ["SLURM_NTASKS"]))
    ]

    def hand_on(number: int, frame: FrameType | None) -> None:
        for task in tasks:
            task.send_signal(number)

    signal.signal(signal.SIGUSR1, hand_on)
    codes = [task.wait() for task in tasks]
    return max(code if code >= 0 else 128 - code for code in codes)


def scontrol(arguments: list[str]) -> int:
    if arguments[:2] == ["show", "hostnames"]:
        print("127.0.0.1")  # noqa: T201
        return 0
    if arguments[0] == "requeue":
        with Path(os.environ["REQUEUED"]).open("a") as file:
            file.write(arguments[1] + "\n")
        return 0
    return 1


def install(folder: Path) -> None:
    """Write both as programs into a folder."""
    for name in ("srun", "scontrol"):
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
        file.chmod(0o755)


if __name__ == "__main__":
    sys.exit({"srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
