"""Scoring in processes of its own: killed without warning and continued, and two processes instead of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.image_sets import write_plain_set

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "score_tiny.py"
PICTURES = 30
pytestmark = pytest.mark.slow
TABLES = ("scores.parquet", "scores.network.json", "scores.slow.json")


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(SCRIPT.parent.parent.parent), str(SCRIPT.parent.parent)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **more}


def run(*words: object, launcher: tuple[str, ...] = ()) -> str:
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, words)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


class Place:
    """A set, and the files of an undisturbed run on it; further runs write beside them."""

    def __init__(self, folder: Path) -> None:
        generator = np.random.default_rng(0)
        pictures = [
            (
                {"prompt_id": f"p{i:02d}", "prompt": f"picture number {i}", "sample": 0, "seed": i},
                Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)),
            )
            for i in range(PICTURES)
        ]
        self.folder, self.set = folder, write_plain_set(folder / "set", pictures)
        self.straight = folder / "straight"
        assert run(*self.words(self.straight)) == f"[({PICTURES}, 0), ({PICTURES}, 0)] 0"

    def words(self, output: Path, seconds: float = 0.0, workers: int = 1) -> list[object]:
        return [self.set, output / "scores.parquet", output.with_suffix(".log"), seconds, workers]

    def same_as_straight(self, output: Path) -> bool:
        there = sorted(path.name for path in output.iterdir())
        assert there == sorted([*TABLES, "scores.summary.json"])
        return all((output / name).read_bytes() == (self.straight / name).read_bytes() for name in TABLES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


def start(words: list[object], processes: int) -> list[subprocess.Popen[bytes]]:
    """Start one process, or several that find each other as under a launcher, each the head of its own group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(processes):
        many = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        several = {**many, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if processes > 1 else {}
        started.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), *map(str, words)],
                env=environment(**several),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
    return started


def lines_in(output: Path) -> int:
    return sum(part.read_bytes().count(b"\n") for part in output.glob("scores.part-*.jsonl"))


def start_and_kill(place: Place, output: Path, processes: int, least: int) -> None:
    """Run until so many lines are there, then kill without warning; workers outlive that by a moment."""
    running = start(place.words(output, seconds=0.2), processes)
    try:
        deadline = time.monotonic() + 120
        while lines_in(output) < least and time.monotonic() < deadline:
            assert all(each.poll() is None for each in running)
            time.sleep(0.005)
    finally:
        for each in running:
            each.kill()
        for each in running:
            each.wait()


def kept_in(output: Path) -> dict[str, set[str]]:
    """The prompts that the parts hold scores of, by scorer, read without the package."""
    kept: dict[str, set[str]] = {"network": set(), "slow": set()}
    for part in output.glob("scores.part-*.jsonl"):
        for line in part.read_bytes().split(b"\n")[:-1]:
            content = json.loads(line)
            for row in content.get("rows", []):
                kept[content["scorer"]].add(f"picture number {int(row[1][1:])}")
    return kept


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_to_the_same_table(place: Place, processes: int) -> None:
    output = place.folder / f"killed-{processes}"
    log = output.with_suffix(".log")
    start_and_kill(place, output, processes, least=5)
    assert not (output / "scores.parquet").exists()
    kept = kept_in(output)
    assert 0 < len(kept["slow"]) <= len(kept["network"]) < PICTURES
    before = log.read_text().splitlines()
    told = run(*place.words(output))
    assert told == str([(PICTURES - len(kept[name]), len(kept[name])) for name in ("network", "slow")]) + " 0"
    after = log.read_text().splitlines()[len(before) :]
    assert len(after) == PICTURES - len(kept["slow"])  # nothing that was kept is scored twice
    assert not set(after) & kept["slow"]
    assert place.same_as_straight(output)


def test_two_processes_write_the_table_of_one(place: Place) -> None:
    output = place.folder / "two"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    told = run(*place.words(output), launcher=launcher)
    assert told.splitlines() == [f"[({PICTURES}, 0), ({PICTURES}, 0)] 0"] * 2
    assert sorted(output.with_suffix(".log").read_text().splitlines()) == sorted(
        f"picture number {i}" for i in range(PICTURES)
    )
    assert place.same_as_straight(output)


def test_a_file_that_is_being_written_is_refused(place: Place) -> None:
    output = place.folder / "held"
    (running,) = start(place.words(output, seconds=0.2), 1)
    try:
        while not lines_in(output):
            assert running.poll() is None
            time.sleep(0.005)
        running.send_signal(signal.SIGSTOP)
        command = [sys.executable, str(SCRIPT), *map(str, place.words(output))]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert "another run is writing" in done.stderr
    finally:
        running.send_signal(signal.SIGCONT)
        assert running.wait(timeout=120) == 0
    assert place.same_as_straight(output)
