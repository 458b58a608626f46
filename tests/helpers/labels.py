"""Image sets to be labelled, and a person who labels them without a page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from helpers.image_sets import write_plain_set
from helpers.pair_sets import picture

ROOT = Path(__file__).resolve().parents[2]


def image_set(path: Path, prompts: int = 3, pictures: int = 3, size: tuple[int, int] = (16, 16)) -> Path:
    """Writes a set in which every picture has a colour of its own."""
    return write_plain_set(
        path,
        (
            ({"prompt_id": f"p{p}", "prompt": f"prompt {p}", "sample": k, "model": f"m{k}"}, picture(9 * p + k, size))
            for p in range(prompts)
            for k in range(pictures)
        ),
    )


def start(images: Path, output: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """Starts `t2ialign label` as a program of its own; returns it and the address that it printed."""
    words = ["label", str(images), "--output_dir", str(output), *more]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "t2ialign", *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    if not address.startswith("http://127.0.0.1:"):
        raise AssertionError(f"{address}{process.communicate(timeout=60)}")
    return process, address
