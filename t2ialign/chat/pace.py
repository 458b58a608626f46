"""The pace of requests: so many a minute at most, and none while an endpoint asks for a pause.

Law of this file: it counts time alone, and a pause can be ended at any moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Spaces the requests of several threads evenly.

    Args:
        per_minute: The most requests a minute; `None` for no limit.
        sleep: Waits for so many seconds; by default until `end`.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        per_minute: float | None = None,
        *,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin; the first request may be sent at once."""
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._ended = threading.Event()
        self._wait = sleep or self._ended.wait
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock()

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended.is_set()

    def end(self) -> None:
        """End all pauses, now and from now on."""
        self._ended.set()

    def turn(self) -> None:
        """Wait until a request may be sent, and take its place."""
        if not self._interval:
            return
        with self._lock:
            begin = max(self._next, self._clock())
            self._next = begin + self._interval
        self.pause(begin - self._clock())

    def pause(self, seconds: float) -> None:
        """Wait so many seconds."""
        if seconds > 0:
            self._wait(seconds)
