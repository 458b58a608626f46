"""What it costs to open and read a set of pairs streamed, in memory, and copied to Arrow files.

    python scripts/bench_streaming.py --json bench.json
    python scripts/bench_streaming.py --pairs 400 --shards 4 --repeats 1

A set of pairs is written in parquet shards (JPEG pictures with detail at every scale), and opened in each way:

    streamed      `load_pairs(..., streaming=True)`: pictures are read a row group at a time, in the order of training
    in_memory     all of the files in memory, as sets up to 256 MiB are opened
    mapped        copied to Arrow files and mapped from there, as larger sets are opened; `first` makes the copy

Each repeat is a process of its own, one of each in turn. The medians of these are given:

    open_s            seconds until the pairs are there, prompts and numbers checked
    read_by_opening   bytes that the process read meanwhile, over the size of the files
    first_pair_s      seconds from then to the first pair of the order
    pairs_per_second  of one epoch in the order of training, decoding included
    read_by_epoch     bytes that the process read from its opening to the end of that epoch, over the size of the files
    peak_mib          the most memory of the process, above what it had after its imports
    written_mib       what opening left on disk

`hub` is a server on this machine that the real client reads a tenth of an epoch from: the share of the bytes that was
sent by then, by opening and by reading, and the number of requests.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

WAYS = ("streamed", "in_memory", "mapped first", "mapped")


def write_set(folder: Path, pairs: int, shards: int, side: int, group: int) -> int:
    """Write the set; return its size in bytes."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)

    def picture() -> bytes:
        pixels = np.zeros((side, side, 3), dtype=np.float32)
        for octave in (4, 8, 16, 32, 64, 128, 256):
            grain = (rng.uniform(-1, 1, (octave, octave, 3)) * 200 / octave**0.6 + 128).clip(0, 255)
            pixels += np.asarray(Image.fromarray(grain.astype(np.uint8)).resize((side, side), 3), np.float32) - 128
        buffer = io.BytesIO()
        Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    folder.mkdir(parents=True)
    each = -(-pairs // shards)
    for number in range(shards):
        rows = [
            {
                "prompt": f"prompt {n}",
                "chosen": {"bytes": picture()},
                "rejected": {"bytes": picture()},
                "margin": 0.1 * n,
            }
            for n in range(number * each, min((number + 1) * each, pairs))
        ]
        file = folder / f"train-{number:05d}-of-{shards:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=group, compression="zstd")
    return sum(file.stat().st_size for file in folder.iterdir())


def read_by_system() -> int:
    """Bytes that this process has read through system calls; 0 where the system does not count them."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.is_file() else 0


def measure(way: str, folder: Path, buffer_mib: int) -> dict[str, float]:
    """Open and read the set once in this process."""
    from datasets import Dataset  # noqa: F401  its import is no part of opening

    from t2ialign.data import sources
    from t2ialign.data.pairs import load_pairs
    from t2ialign.engine.order import Schedule

    sources.IN_MEMORY_BYTES = 0 if way.startswith("mapped") else 1 << 60
    load_pairs("mini-pairs", split="test", streaming=True)[0]
    had, begun_bytes, begun = peak(), read_by_system(), time.perf_counter()
    pairs = load_pairs(folder, streaming=way == "streamed", buffer_mib=buffer_mib)
    opened, opened_bytes = time.perf_counter(), read_by_system()
    schedule = Schedule(0, len(pairs), len(pairs), 1, blocks=pairs.blocks)
    pairs[schedule.index(0)]
    first = time.perf_counter()
    for n in range(len(pairs)):
        pairs[schedule.index(n)]
    done = time.perf_counter()
    return {
        "open_s": opened - begun,
        "read_by_opening": opened_bytes - begun_bytes,
        "first_pair_s": first - opened,
        "pairs_per_second": len(pairs) / (done - first),
        "read_by_epoch": read_by_system() - opened_bytes,
        "peak_mib": peak() - had,
    }


def peak() -> float:
    """The most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def in_a_process(way: str, folder: Path, buffer_mib: int, cache: Path) -> dict[str, Any]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--one", way, "--folder", str(folder), "--buffer_mib", str(buffer_mib)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    found: dict[str, Any] = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    )
    return found


def from_hub(folder: Path, size: int, count: int) -> dict[str, float]:
    """Open the set from a server and read a tenth of an epoch in the order of training."""
    from helpers.hub_server import dataset_hub

    script = (
        "import sys; from t2ialign.data.pairs import load_pairs; from t2ialign.engine.order import Schedule\n"
        "pairs = load_pairs('own/set', streaming=True, buffer_mib=int(sys.argv[1])); print(flush=True); input()\n"
        "order = Schedule(0, len(pairs), len(pairs), 1, blocks=pairs.blocks)\n"
        "[pairs[order.index(n)] for n in range(len(pairs) // 10)]\n"
    )
    with dataset_hub(folder.parents[2]) as hub, tempfile.TemporaryDirectory() as home:
        own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HOME": home}
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(max(1, size // 10 >> 20))],
            env={**os.environ, **own, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        opened, requests = hub.sent, len(hub.ranges)
        process.communicate(b"\n")
        if process.returncode:
            raise SystemExit("reading from the server failed")
        return {
            "opening": opened / size,
            "opening_requests": requests,
            "reading": (hub.sent - opened) / size,
            "reading_requests": len(hub.ranges) - requests,
            "pairs": count // 10,
        }


def compare(folder: Path, size: int, repeats: int, buffer_mib: int) -> dict[str, dict[str, float]]:
    """Measure every way, one of each in turn; medians."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for way in WAYS:
                found[way].append(in_a_process(way, folder, buffer_mib, Path(cache)))
                written = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
                found[way][-1]["written_mib"] = written / 2**20 if way.startswith("mapped") else 0.0
    medians = {}
    for way, runs in found.items():
        medians[way] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for key in ("read_by_opening", "read_by_epoch"):
            medians[way][key] /= size
    return medians


def main() -> None:
    """Write a set, measure, and show a table or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--row_group", type=int, default=50)
    parser.add_argument("--buffer_mib", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.folder, args.buffer_mib)))
        return
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "own" / "set" / "data"
        size = write_set(folder, args.pairs, args.shards, args.side, args.row_group)
        result: dict[str, Any] = {
            "set": {"pairs": args.pairs, "shards": args.shards, "mib": size / 2**20, "row_group": args.row_group},
            "buffer_mib": args.buffer_mib,
            "repeats": args.repeats,
            **compare(folder, size, args.repeats, args.buffer_mib),
            "hub": from_hub(folder, size, args.pairs),
        }
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
