"""SIGINT, SIGTERM and SIGUSR1 become a request that work answers between two of its steps.

Law of this file: the first signal asks for a clean end; a second one ends the process at once, as it would have
without us. `timeout`, Slurm and launchers tell the same request twice within moments, so what comes within `TWICE`
seconds of the first is no second. A signal that was ignored when we came (`nohup`, a background job of a script) stays
ignored.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from t2ialign.errors import Stopped

TWICE = 0.5
"""Seconds within which signals are one request."""

SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
"""Those that this system knows; Windows has no SIGUSR1."""


class StopSignal:
    """Context in which a signal is noted instead of obeyed.

    Contexts may lie in each other: all of them hear of a signal, the outermost alone has the handlers. Where none can
    be installed, outside of the main thread, a signal does what it did before.

    Attributes:
        received: The first signal that came, or None.
    """

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        """Get ready; `then` is called when the first signal comes, inside the handler."""
        self._then = then
        self.received: signal.Signals | None = None

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.received is not None

    def check(self) -> None:
        """Raise Stopped if a stop was asked for."""
        if self():
            assert self.received is not None
            raise Stopped(self.received)

    def __enter__(self) -> StopSignal:
        """Begin to listen; what an outer context has heard counts."""
        _handlers.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more; the outermost context puts the former handlers back."""
        _handlers.leave(self)

    def hear(self, number: signal.Signals) -> None:
        """Take a stop that was asked for in another way."""
        _handlers.tell(number)
        self.received = self.received or number

    def _note(self, number: signal.Signals) -> None:
        if self.received is None:
            self.received = number
            if self._then is not None:
                self._then()


class _Handlers:
    """What the contexts of a process share."""

    def __init__(self) -> None:
        self.listening: list[StopSignal] = []
        self.previous: dict[signal.Signals, Any] = {}
        self.came = False

    def enter(self, context: StopSignal) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if self.listening:
            context.received = context.received or self.listening[-1].received
        else:
            self.came = False
            for number in SIGNALS:
                there = signal.getsignal(number)
                if there is not None and there != signal.SIG_IGN:
                    self.previous[number] = signal.signal(number, self.handle)
        self.listening.append(context)

    def leave(self, context: StopSignal) -> None:
        if context in self.listening:
            self.listening.remove(context)
            if not self.listening:
                self.restore()

    def restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def tell(self, number: signal.Signals) -> None:
        for context in self.listening:
            context._note(number)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Tell all contexts, wait for the same request to come again, then be as if we were not there."""
        if self.came:
            return
        self.came = True
        self.tell(signal.Signals(number))
        time.sleep(TWICE)
        self.restore()


_handlers = _Handlers()


def leave_to_parent(worker: int = 0) -> None:
    """In a worker process: let signals reach the process that it works for alone, which ends it itself.

    Ctrl-C, schedulers and launchers signal whole groups of processes; a worker that died of that would take from its
    parent the step that it is in. SIGTERM from the parent is obeyed.

    Args:
        worker: Its number; not used.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()


def _obey_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
