"""SIGINT and SIGTERM become a request that the loop answers between two steps.

The first signal asks for a checkpoint and a clean end; a second one ends the process at once, as it would have
without us.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Context in which a signal is noted instead of obeyed.

    Attributes:
        received: The first signal that came, or None.
    """

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        """Get ready; `then` is called when the first signal comes, inside the handler."""
        self._then = then
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.received is not None

    def __enter__(self) -> StopSignal:
        """Install the handlers; only the main thread of a process can."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the former handlers back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        if self._then is not None:
            self._then()
