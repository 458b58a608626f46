"""Signals become requests: within contexts that lie in each other, twice, in threads, and in worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from t2ialign.engine.signals import SIGNALS, TWICE, StopSignal
from t2ialign.errors import Stopped

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def plain_handlers() -> Iterator[None]:
    """As in a terminal; a background shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_a_signal_is_noted_and_the_former_handlers_come_back_at_once() -> None:
    before, called = handlers(), []
    with StopSignal(lambda: called.append(time.monotonic())) as stop:
        assert handlers() != before
        assert not stop()
        stop.check()
        begun = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert stop.received is signal.SIGTERM
        assert time.monotonic() - begun >= TWICE
        assert len(called) == 1
        assert called[0] - begun < TWICE
        assert handlers() == before  # a second one acts as it would without us
        with pytest.raises(Stopped, match="stopped by SIGTERM: the same command goes on") as raised:
            stop.check()
        assert raised.value.exit_code == 143
    assert handlers() == before


def test_the_second_signal_from_the_keyboard_interrupts() -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(raised.value, Stopped)


def test_contexts_in_each_other_hear_of_one_signal() -> None:
    with StopSignal() as outer:
        with StopSignal() as inner:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert inner.received is outer.received is signal.SIGUSR1
        with StopSignal() as later:
            assert later.received is signal.SIGUSR1
    with StopSignal() as fresh:
        assert fresh.received is None


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop()


def test_outside_of_the_main_thread_nothing_is_installed() -> None:
    before, seen = handlers(), []

    def work() -> None:
        with StopSignal() as stop:
            seen.append((handlers(), stop()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


WORKER = """
import os, signal, sys, time
from t2ialign.engine.signals import leave_to_parent
pid = os.fork()
if not pid:
    leave_to_parent()
    print("ready", flush=True)
    time.sleep(60)
    os._exit(3)
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGUSR1, lambda *_: None)
print(pid, flush=True)
sys.stdin.readline()
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal is not told here")
def test_a_worker_obeys_its_parent_alone() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = sorted([process.stdout.readline().strip(), process.stdout.readline().strip()])
    assert lines[1] == "ready"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.killpg(process.pid, number)
    time.sleep(0.3)
    os.kill(int(lines[0]), 0)  # it is there
    said, _ = process.communicate("\n", timeout=20)
    assert said.strip() == "0"
