"""The processes of an `accelerate launch`, as generating and scoring need them.

Law of this file: a single process, the usual case, starts nothing and imports no accelerate.
"""

from __future__ import annotations

import os

import torch

from t2ialign.engine.launch import Launch


class Processes(Launch):
    """This process among those of its launch; see `Launch`. Use it as a context."""

    def device(self, wanted: str) -> str:
        """Return the device of this process; `auto` is a CUDA GPU of its own where there is one."""
        if wanted != "auto":
            return wanted
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}" if self.count > 1 else "cuda"
