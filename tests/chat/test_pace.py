"""The pace of requests, by a clock of its own."""

from __future__ import annotations

import threading
import time

from t2ialign.chat.pace import Pace


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_requests_are_spaced_evenly() -> None:
    clock = Clock()
    pace = Pace(30, sleep=clock.sleep, clock=clock)
    begun = []
    for _ in range(4):
        pace.turn()
        begun.append(clock.now - 100.0)
    assert begun == [0.0, 2.0, 4.0, 6.0]
    clock.now += 100.0  # time that went by is not saved up
    for _ in range(2):
        pace.turn()
        begun.append(clock.now - 100.0)
    assert begun[4:] == [106.0, 108.0]


def test_without_a_limit_nobody_waits() -> None:
    clock = Clock()
    pace = Pace(None, sleep=clock.sleep, clock=clock)
    for _ in range(9):
        pace.turn()
    assert clock.now == 100.0


def test_threads_share_the_pace() -> None:
    pace = Pace(1200)
    begun: list[float] = []

    def work() -> None:
        pace.turn()
        begun.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun.sort()
    assert begun[-1] - begun[0] >= 0.24  # five intervals of 0.05 s


def test_a_pause_ends_when_all_is_to_end() -> None:
    pace = Pace()
    threading.Timer(0.1, pace.end).start()
    begun = time.monotonic()
    pace.pause(60.0)
    pace.pause(60.0)
    assert time.monotonic() - begun < 10
    assert pace.ended
