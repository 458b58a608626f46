"""The processes of one launch: they wait for each other, tell each other of a stop, and one failure ends all.

Law of this file: nobody waits for somebody who will not come. A process that waits looks out meanwhile, so a stop that
one process was asked for, or an error that one has met, reaches all of them within moments; the error is told once. A
single process, the usual case, starts nothing and imports nothing.

What they tell each other goes through the key-value store of torch's process group, which needs no process to be at
the same place as another.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from t2ialign.engine.signals import StopSignal
from t2ialign.errors import OtherProcessError, Stopped

T = TypeVar("T")

LOOK_EVERY = 0.2
"""Seconds between two looks at what others have told."""
PATIENCE = 60.0
"""Seconds that a process which stops waits for the others to come to the end of what they are at."""
_AFTER_FAILURE = 5.0

_POLL = 0.02
_sessions = itertools.count()


class Launch(StopSignal):
    """Context of some work that all processes of a launch do together; see `StopSignal`.

    Every process enters and leaves the same contexts in the same order, and calls `wait` as often as the others. What
    lies in another context is part of it: it is the outermost that a failure ends.

    Attributes:
        rank: Number of this process, from 0.
        count: How many there are.
    """

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        """Read the launcher's environment."""
        super().__init__(then)
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self._store: Any = None
        self._steps = itertools.count()
        self._meetings = itertools.count()
        self._looked = 0.0
        self._told = False
        self._outer: Launch | None = None

    def __enter__(self) -> Self:
        """Join the group, if there is one, and begin to listen."""
        super().__enter__()
        if self.count > 1:
            self._outer = _open[-1] if _open else None
            if self._outer is not None:
                outer = self._outer
                self._store, self._steps, self._meetings = outer._store, outer._steps, outer._meetings
            else:
                self._store = _shared_store(next(_sessions))
            _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others how it ended here, and do not leave them alone.

        Raises:
            OtherProcessError: in place of an error, where another process has told of one already.
        """
        first = True
        try:
            if self in _open:
                _open.remove(self)
            if self._store is not None and self._outer is None:
                first = self._leave(error)
        finally:
            super().__exit__(kind, error, trace)
        if error is not None and not first:
            raise OtherProcessError("another process of this launch failed, and has told why") from error

    def __call__(self) -> bool:
        """Whether any process was asked to stop; others are told, and heard, at most every `LOOK_EVERY` seconds.

        Raises:
            OtherProcessError: if another process has failed.
        """
        if self._store is not None:
            self._exchange()
        return self.received is not None

    def wait(self, *, through_stop: bool = False) -> None:
        """Wait until every process is here.

        Args:
            through_stop: Also where a stop was asked for: the others come here all the same.

        Raises:
            Stopped: if a stop is asked for meanwhile.
            OtherProcessError: if another process fails meanwhile.
        """
        if self._store is None:
            return
        # Counted apart: a process that is stopped leaves out what it would have waited for, and no meeting.
        key = f"meet-{next(self._meetings)}" if through_stop else f"wait-{next(self._steps)}"
        self._ask(lambda store: store.add(key, 1))
        while self._ask(lambda store: store.add(key, 0)) < self.count:
            if not through_stop:
                self.check()
            self()
            time.sleep(_POLL)

    def total(self, number: int, *, through_stop: bool = False) -> int:
        """Return the sum over all processes of a number of 0 or more; they wait for each other, as `wait` does.

        Through a stop it is how they agree: the sum is the same for all, whenever each was asked to stop.
        """
        if self._store is None:
            return number
        key = f"sum-{next(self._meetings)}" if through_stop else f"total-{next(self._steps)}"
        self._ask(lambda store: store.add(key, number))
        self.wait(through_stop=through_stop)
        return int(self._ask(lambda store: store.add(key, 0)))

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let process 0 through the block before the others."""
        if self.rank != 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()

    def _exchange(self) -> None:
        if self.received is not None:
            self._tell_stop(self.received)
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        if self._ask(lambda store: store.check(["failed"])):
            raise OtherProcessError("another process of this launch failed, and has told why")
        if self.received is None and self._ask(lambda store: store.check(["stop"])):
            self.hear(signal.Signals(int(self._ask(lambda store: store.get("stop")))))

    def _tell_stop(self, number: signal.Signals) -> None:
        if not self._told:
            self._told = True
            self._ask(lambda store: store.set("stop", str(number.value)))

    def _ask(self, question: Callable[[Any], T]) -> T:
        try:
            return question(self._store)
        except RuntimeError as error:  # the store is where the first process is, or its launcher
            raise OtherProcessError(f"the first process of this launch is gone: {error}", told=False) from error

    def _leave(self, error: BaseException | None) -> bool:
        """Tell how it ended; return whether an error is for this process to tell."""
        first = True
        stopped = self.received is not None
        try:
            if isinstance(error, Stopped):
                stopped = True
                self._tell_stop(error.number)
            elif isinstance(error, OtherProcessError):
                stopped = False
            elif error is not None:
                stopped = False
                first = int(self._ask(lambda store: store.add("failures", 1))) == 1
                self._ask(lambda store: store.set("failed", "1"))
            self._ask(lambda store: store.add("left", 1))
            if stopped or self.rank == 0:  # one that left early would have its launcher end the others
                self._see_others_leave(PATIENCE if stopped or error is None else _AFTER_FAILURE)
        except OtherProcessError:
            pass
        return first

    def _see_others_leave(self, patience: float) -> None:
        until = time.monotonic() + patience
        while self._ask(lambda store: store.add("left", 0)) < self.count and time.monotonic() < until:
            time.sleep(_POLL)


_open: list[Launch] = []


def _shared_store(session: int) -> Any:
    """Return the group's store, with names of its own for each session."""
    import torch
    import torch.distributed
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())
    if not torch.distributed.is_initialized():
        return None
    c10d = torch.distributed.distributed_c10d
    return c10d.PrefixStore(f"t2ialign-{session}", c10d._get_default_store())
