"""Commands in processes of their own that have their libraries loaded: `python works.py` forks one for each line.

A line of stdin is JSON: `argv` of the command line, `log` for its stdout and stderr, `slow` (seconds that each call of
a named step takes longer, so that a signal finds the process within it; each leaves a byte in the log's `.steps`), and
`group` (whether the child heads a process group). The answers are lines too: the child's id when it has begun, and its
exit status, as `Popen.returncode` has it, when it has ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

STEPS = {
    "unet": ("diffusers:UNet2DConditionModel", "forward"),
    "vae": ("diffusers:AutoencoderKL", "encode"),
    "judge": ("t2ialign.mini.oracle", "judge"),
    "read": ("t2ialign.mini.oracle", "read"),
    "extract": ("t2ialign.users.clip:ClipExtractor", "extract"),
    "look": ("t2ialign.data.check", "_look"),
}
"""What can be slowed: module, class, and the name of the method or function."""


class Child:
    """A command that runs; made by `Works.start`.

    Attributes:
        pid: Of the process.
        log: What it says goes there.
        steps: Number of slowed steps that it has begun.
    """

    def __init__(self, works: Works, pid: int, log: Path) -> None:
        self.works, self.pid, self.log = works, pid, log
        self.status: int | None = None

    def until(self, there: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for something that it writes; it must not have ended by then."""
        deadline = time.monotonic() + seconds
        while not there():
            assert Path(f"/proc/{self.pid}/stat").exists(), self.said()
            assert "Z" not in Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1][:3], self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.005)

    @property
    def steps(self) -> int:
        file = _steps(self.log)
        return file.stat().st_size if file.exists() else 0

    def signal(self, *numbers: int, pause: float = 0.0) -> None:
        """Send signals, one after the other."""
        for place, number in enumerate(numbers):
            if place:
                time.sleep(pause)
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Return how it ended."""
        if self.status is None:
            self.status = int(self.works.line())
        return self.status

    def said(self) -> str:
        """Return what it said so far."""
        return self.log.read_text() if self.log.exists() else ""


class Works:
    """The process that has the libraries loaded, and forks commands; use it as a context."""

    def __enter__(self) -> Works:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def start(
        self,
        *words: object,
        log: Path,
        slow: dict[str, float] | None = None,
        group: bool = False,
    ) -> Child:
        """Begin a command."""
        assert self.process.stdin is not None
        _steps(log).unlink(missing_ok=True)
        asked = {"argv": [str(word) for word in words], "log": str(log), "slow": slow or {}, "group": group}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Child(self, int(self.line()), log)

    def run(self, *words: object, log: Path) -> str:
        """Run a command to its end; it must succeed."""
        child = self.start(*words, log=log)
        assert child.wait() == 0, child.said()
        return child.said()


def _steps(log: Path) -> Path:
    return log.with_suffix(".steps")


def _slow_down(step: str, seconds: float, steps: Path) -> None:
    place, name = STEPS[step]
    module, _, owner = place.partition(":")
    found: Any = importlib.import_module(module)
    found = getattr(found, owner) if owner else found
    act = getattr(found, name)

    def slowly(*given: Any, **more: Any) -> Any:
        with steps.open("ab") as lines:
            lines.write(b".")
        time.sleep(seconds)
        return act(*given, **more)

    setattr(found, name, slowly)


def _child(asked: dict[str, Any]) -> int:
    from t2ialign.cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    if asked["group"]:
        os.setpgid(0, 0)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    for step, seconds in asked["slow"].items():
        _slow_down(step, seconds, _steps(Path(asked["log"])))
    return main(asked["argv"])


def _serve() -> None:
    import diffusers.loaders.peft  # noqa: F401
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer  # noqa: F401

    import t2ialign.annotation.annotate
    import t2ialign.eval.suites.run
    import t2ialign.generation.self_pairs
    import t2ialign.models.loading
    import t2ialign.reward_models.scoring
    import t2ialign.trainers.dpo
    import t2ialign.users.embed  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            sys.exit(_child(json.loads(line)))
        answers.write(f"{pid}\n")
        answers.flush()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers.write(f"{status}\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
