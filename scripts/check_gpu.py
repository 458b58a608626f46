"""Runs every test marked `gpu`, for whoever has an NVIDIA GPU.

    python scripts/check_gpu.py            # all of them
    python scripts/check_gpu.py -k fp16    # more arguments go to pytest

It prints the device and the versions first. Exit code 1: a test failed; 3: there is no CUDA device to test on.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "bitsandbytes", "xformers")


def installed(package: str) -> str:
    """A package's version, or that it is missing (its tests then skip)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> int:
    """Run the tests and return an exit code."""
    import torch

    for package in PACKAGES:
        print(f"{package:<14}{installed(package)}")
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to check here", file=sys.stderr)
        return 3
    print(f"{'device':<14}{torch.cuda.get_device_name()}", flush=True)
    command = [sys.executable, "-m", "pytest", "tests", "-m", "gpu", "-ra", *sys.argv[1:]]
    return 1 if subprocess.run(command, cwd=ROOT, check=False).returncode else 0


if __name__ == "__main__":
    sys.exit(main())
