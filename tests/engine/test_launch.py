"""Processes of a launch wait for each other, hear of stops and failures, and do not hang."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from t2ialign.engine.launch import Launch

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "launched.py"


def test_three_processes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    settings = {**os.environ, **shared, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    running = [
        subprocess.Popen(command, env={**settings, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(3)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    together, failed, told = zip(
        *(json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)), strict=True
    )

    assert [each["total"] for each in together] == [6, 6, 6]
    assert [each["inner"] for each in together] == [30, 30, 30]
    assert together[0]["waited"] < 0.2
    assert min(each["waited"] for each in together[1:]) > 0.25
    assert not any(each["stop"] for each in together)

    assert [each["error"] for each in failed] == ["OtherProcessError", "OtherProcessError", "DataError"]
    assert failed[2]["said"] == "a picture is broken"
    assert max(each["seconds"] for each in failed) < 10

    assert told[2]["knows"]
    assert all(each["heard"] for each in told)
    assert {each["agreed"] for each in told} == {1}
    assert {each["exit_code"] for each in told} == {138}


def test_a_single_process_waits_for_nobody_and_starts_nothing() -> None:
    begun = time.monotonic()
    with Launch() as launch, launch.first_goes_first():
        launch.wait()
        assert launch.total(7) == 7
        assert (launch.rank, launch.count, launch()) == (0, 1, False)
    assert time.monotonic() - begun < 0.5
