"""How much memory some work takes at its worst moment, counted from the tensors it makes.

It sees what no sum over a model's parts shows: activations, blocks that gradient checkpointing computes again, copies
that autocast makes, and passing results. It does not see what kernels take for themselves, nor what an allocator keeps
in reserve.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Context that follows the storages of the tensors that are made inside it, in forward and backward passes.

    What was there before does not count, also where work gives views of it.

    Attributes:
        live: Bytes alive now.
        peak: The most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it makes."""
        for storage in _storages((args, kwargs)):
            self._know(storage, 0)
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._know(storage, storage.nbytes())
        return result

    def _know(self, storage: torch.UntypedStorage, size: int) -> None:
        number = id(storage)
        if number in self._known:
            return

        def forget(_: Any) -> None:
            self._known.pop(number, None)
            self.live -= size

        self._known[number] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for each in tree_leaves(values):
        if isinstance(each, Tensor) and each.device.type != "meta":
            yield each.untyped_storage()
