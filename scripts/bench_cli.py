"""Measure how fast `t2ialign --help` answers: the median of ten runs in fresh processes.

    python scripts/bench_cli.py [--runs 10] [--json FILE]

The design asks for less than 0.5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = (("--help",), ("train", "dpo", "--help"), ("generate", "--help"))
LIMIT = 0.5


def seconds(words: tuple[str, ...], runs: int) -> list[float]:
    """Time a command line in `runs` fresh processes, in seconds."""
    measured = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "t2ialign", *words], check=True, stdout=subprocess.DEVNULL)
        measured.append(time.perf_counter() - start)
    return measured


def main() -> int:
    """Measure, show, and exit 1 if `t2ialign --help` is over the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="processes a command line (default: 10)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    results = {}
    for words in COMMANDS:
        seconds(words, 1)  # fills the disk cache and the byte-code cache
        measured = seconds(words, arguments.runs)
        results[" ".join(words)] = {
            "median": statistics.median(measured),
            "lowest": min(measured),
            "highest": max(measured),
            "runs": arguments.runs,
        }
        span = f"{min(measured):.3f} to {max(measured):.3f}"
        print(f"t2ialign {' '.join(words):<18} median {statistics.median(measured):.3f} s ({span})")
    figures = {
        "seconds": results,
        "limit": LIMIT,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if results["--help"]["median"] < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
