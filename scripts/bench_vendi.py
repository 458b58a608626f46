"""What an exact Vendi score costs beside the product X'X that it contains, and a million items as a stream.

    python scripts/bench_vendi.py --json bench.json
    python scripts/bench_vendi.py --n 20000 --repeats 3 --profile
    python scripts/bench_vendi.py --stream 1000000

All runs are paired (one of each in turn, in one process) and given as medians with quartiles:

    vendi_over_product     `vendi_score(X, (0.5, 1, 2, inf))` of n x d features in float64, cosine kernel, over
                           `X.T @ X` in float64, which numpy gives to the rank-k update of its BLAS: half the work of
                           a general product
    stream_over_product    the same from an iterator over blocks of 10,000 rows
    float32_over_product   the same of float32 features, which are summed in float64, over the product in float64
    order_2_over_product   order 2 alone, which needs no eigenvalues

`--clock cpu` counts the processor time of all threads instead of wall time, for a machine that has other work.
`stages` gives milliseconds of the parts alone: bringing rows to length one, the product, the eigenvalues. `--stream N`
scores N rows that are made block by block, and reports the time and the most memory that was used over it.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BLOCK = 10_000
ORDERS = (0.5, 1.0, 2.0, float("inf"))


def features(n: int, d: int) -> np.ndarray:
    """Features with a falling spectrum and a mean, as embeddings have them."""
    generator = np.random.default_rng(0)
    return np.asarray(generator.standard_normal((n, d)) * np.exp(-np.arange(d) / 100) + 0.05)


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array as a stream."""
    yield from (array[start : start + BLOCK] for start in range(0, len(array), BLOCK))


def endless(n: int, d: int) -> Iterator[np.ndarray]:
    """N rows in float32, made block by block."""
    block = features(BLOCK, d).astype(np.float32)
    for start in range(0, n, BLOCK):
        yield np.roll(block, start // BLOCK, axis=1)[: n - start]


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds_of(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Time of one call."""
    begun = clock()
    work()
    return clock() - begun


def in_turn(works: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Time pieces of work in turn, each round beginning with the next one, after one of each to warm up."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(seconds_of(works[name], clock))
    return seconds


def spread(values: list[float]) -> dict[str, Any]:
    """Median and quartiles."""
    ordered = sorted(values)
    n = len(ordered)
    return {"median": statistics.median(ordered), "low": ordered[n // 4], "high": ordered[(3 * n) // 4], "n": n}


def measure(n: int, d: int, repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    """All ratios, and the stages."""
    from t2ialign import vendi_score
    from t2ialign.eval.vendi.streaming import second_moment, unit_map

    x = features(n, d)
    single = x.astype(np.float32)
    works: dict[str, Callable[[], Any]] = {
        "product": lambda: x.T @ x,
        "vendi": lambda: vendi_score(x, ORDERS),
        "stream": lambda: vendi_score(blocks(x), ORDERS),
        "float32": lambda: vendi_score(single, ORDERS),
        "order_2": lambda: vendi_score(x, 2),
        "moment": lambda: second_moment([x]),
        "moment_alone": lambda: second_moment([x], lambda rows: rows),
    }
    seconds = in_turn(works, repeats, clock)
    product = seconds["product"]
    report: dict[str, Any] = {
        f"{name}_over_product": spread([a / b for a, b in zip(seconds[name], product, strict=True)])
        for name in ("vendi", "stream", "float32", "order_2")
    }
    matrix = second_moment([x], unit_map).matrix
    eigenvalues = [seconds_of(lambda: np.linalg.eigvalsh(matrix), clock) for _ in range(5)]
    median = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    report["milliseconds"] = median
    report["stages"] = {
        "to_length_one": median["moment"] - median["moment_alone"],
        "product_in_blocks": median["moment_alone"],
        "eigenvalues": 1000 * statistics.median(eigenvalues),
    }
    return report


def measure_stream(n: int, d: int) -> dict[str, Any]:
    """Time and memory of a stream that is longer than memory need be."""
    from t2ialign import vendi_score

    vendi_score(features(2000, d))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    found = vendi_score(endless(n, d), ORDERS)
    seconds = time.perf_counter() - begun
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"n": n, "d": d, "seconds": seconds, "more_memory_mib": more / 1024, "score": found.to_dict()}


def show_profile(n: int, d: int) -> None:
    """The calls that take longest."""
    from t2ialign import vendi_score

    x = features(n, d)
    vendi_score(x, ORDERS)
    profile = cProfile.Profile()
    profile.runcall(vendi_score, x, ORDERS)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(12)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--stream", type=int, help="instead score so many rows, made block by block")
    parser.add_argument("--profile", action="store_true", help="also show where the time goes")
    parser.add_argument("--json", type=Path, help="also write the report here")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"n": arguments.n, "d": arguments.d, "numpy": np.__version__}
    report |= {
        "clock": arguments.clock,
        "processors": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }
    if arguments.profile:
        show_profile(arguments.n, arguments.d)
    if arguments.stream:
        report |= measure_stream(arguments.stream, arguments.d)
    else:
        report |= measure(arguments.n, arguments.d, arguments.repeats, CLOCKS[arguments.clock])
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
