"""The processes of an `accelerate launch`, as far as generation needs them.

Law of this file: a single process, the usual case, starts nothing and imports no accelerate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Processes:
    """This process among those of its launch.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
    """

    def __init__(self) -> None:
        """Read the launcher's environment, and join the group if there is one."""
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self._local = int(os.environ.get("LOCAL_RANK", "0")) if self.count > 1 else 0
        self._state: Any = None
        if self.count > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.cuda.is_available())

    def device(self, wanted: str) -> str:
        """Return the device of this process; `auto` is a CUDA GPU of its own where there is one."""
        if wanted != "auto":
            return wanted
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{self._local}" if self.count > 1 else "cuda"

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let process 0 through the block before the others."""
        if self._state is None:
            yield
            return
        with self._state.main_process_first():
            yield
