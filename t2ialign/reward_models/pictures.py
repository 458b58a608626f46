"""The pictures of a pass over a set: decoded once, prepared once for each way of preparing, in worker processes.

Law of this file: a worker uses no model. What it hands over is a function of the picture file and the preparation
alone, so neither the number of workers nor the size of a batch changes a score. A picture that cannot be read is
handed over as a sentence, for the caller to refuse or to count.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from t2ialign.data.images import decode_image
from t2ialign.engine.signals import leave_to_parent
from t2ialign.errors import DataError
from t2ialign.reward_models.base import to_rgb

logger = logging.getLogger(__name__)

LOOK_AHEAD = 2
"""Batches that each worker prepares ahead of the scorers."""
MOST_WORKERS = 8
"""Workers that each scoring process takes by default, where it has that many processors or more."""

_SHARED_MEMORY = Path("/dev/shm")
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Wanted:
    """A picture, and what is wanted of it.

    Attributes:
        path: The file.
        name: What to call it.
        preparations: Numbers of the preparations that it is wanted in.
        digest: Whether its SHA-256 is wanted too.
    """

    path: Path
    name: str
    preparations: tuple[int, ...]
    digest: bool = False


@dataclass
class PreparedBatch:
    """A batch as a worker hands it over.

    Attributes:
        rows: For each preparation the places in the batch that it was done for.
        values: For each preparation what came out, aligned with `rows`: a tensor if all are of one shape, else a list.
        failures: Place in the batch, to what is wrong with that picture.
        digests: Place in the batch, to the SHA-256 of the file, where it was wanted.
        notices: What scorers will not see of the pictures, counted.
    """

    rows: dict[int, list[int]] = field(default_factory=dict)
    values: dict[int, Any] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    notices: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class WholePicture:
    """The preparation for scorers that take whole pictures: uint8 [H, W, 3]."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the pixels, brought to RGB as `base.to_rgb` does."""
        return torch.from_numpy(np.array(to_rgb(image)))


def as_picture(pixels: torch.Tensor) -> Image.Image:
    """Turn what `WholePicture` gave back into a picture."""
    return Image.fromarray(pixels.numpy())


class _Batches(torch.utils.data.Dataset[PreparedBatch]):
    """Batches by number, for torch's loader: the item is the batch."""

    def __init__(self, batches: Sequence[Sequence[Wanted]], preparations: Sequence[Callable[..., Any]]) -> None:
        self.batches = batches
        self.preparations = preparations

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> PreparedBatch:
        return prepare_batch(self.batches[number], self.preparations)


def prepared_batches(
    batches: Sequence[Sequence[Wanted]],
    preparations: Sequence[Callable[..., Any]],
    workers: int,
) -> Iterator[PreparedBatch]:
    """Prepare batches ahead of their use, in order.

    Args:
        batches: What is wanted.
        preparations: Each takes a decoded picture, of any mode (see `base.Preparation`), and can be pickled.
        workers: Processes that do it; 0 to do it here, when a batch is asked for.
    """
    if not batches:
        return
    workers = min(workers, len(batches))
    if workers and sys.platform == "linux":
        workers = _that_fit(workers, batches, preparations)
    dataset = _Batches(batches, preparations)
    if not workers:
        yield from (dataset[number] for number in range(len(dataset)))
        return
    forked = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    yield from torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=LOOK_AHEAD,
        collate_fn=_unchanged,
        multiprocessing_context="fork" if forked else None,
        worker_init_fn=leave_to_parent,
        generator=torch.Generator(),  # else a number is drawn from the global one
    )


def default_workers(processes: int = 1) -> int:
    """Return how many workers each process takes: its share of the processors, at most `MOST_WORKERS`."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, processors // processes))


def prepare_batch(batch: Sequence[Wanted], preparations: Sequence[Callable[..., Any]]) -> PreparedBatch:
    """Read, decode and prepare the pictures of one batch."""
    done = PreparedBatch()
    values: dict[int, list[Any]] = {}
    for place, wanted in enumerate(batch):
        try:
            prepared = _prepare(wanted, preparations, partial(done.digests.__setitem__, place), done.notices)
        except DataError as error:
            done.failures[place] = str(error)
            continue
        for number, value in prepared.items():
            done.rows.setdefault(number, []).append(place)
            values.setdefault(number, []).append(value)
    done.values = {number: _stacked(each) for number, each in values.items()}
    return done


def _prepare(
    wanted: Wanted, preparations: Sequence[Callable[..., Any]], digest: Callable[[str], None], notices: Counter[str]
) -> dict[int, Any]:
    source: Path | bytes = wanted.path
    if wanted.digest:
        source = _bytes_of(wanted)
        digest(hashlib.sha256(source).hexdigest())
    image = decode_image(source, name=wanted.name)
    notices.update(_unseen(image))
    prepared = {}
    for number in wanted.preparations:
        try:
            prepared[number] = preparations[number](image)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{wanted.name}: a picture of mode {image.mode}, {image.width} x {image.height}, cannot be prepared "
                f"for a scorer ({type(error).__name__}: {error}); make it again"
            ) from error
    return prepared


def _bytes_of(wanted: Wanted) -> bytes:
    try:
        return wanted.path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{wanted.name}: there is no such file ({wanted.path})") from error
    except OSError as error:
        raise DataError(f"{wanted.name}: the file can not be opened: {error}") from error


def _unseen(image: Image.Image) -> Iterator[str]:
    """Name what the official code of scorers passes over: transparency and EXIF orientation."""
    if image.has_transparency_data:
        yield "pictures with transparency, which scorers do not see"
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return
    if orientation != 1:
        yield "pictures with an EXIF orientation, which scorers do not apply"


def _stacked(values: list[Any]) -> Any:
    """Bring tensors of one shape and type into one: a batch then crosses to the other process in one piece."""
    first = values[0]
    alike = all(torch.is_tensor(v) and v.shape == first.shape and v.dtype == first.dtype for v in values)
    return torch.stack(values) if alike else values


def _unchanged(batch: Any) -> Any:
    return batch


def _that_fit(workers: int, batches: Sequence[Sequence[Wanted]], preparations: Sequence[Callable[..., Any]]) -> int:
    """Return how many workers the shared memory has room for: containers often have 64 MB, and exceeding it kills."""
    if not _SHARED_MEMORY.is_dir():
        return workers
    one = _size_of(prepare_batch(batches[0][:1], preparations))
    batch = max(1, one * max(len(each) for each in batches))
    room = int(shutil.disk_usage(_SHARED_MEMORY).free * 0.8) // batch - 1
    fitting = min(workers, room // LOOK_AHEAD)
    if fitting < workers:
        logger.warning(
            "%s has room for the pictures of %d workers, not of %d; give the container more (--shm-size), or ask for "
            "a smaller batch",
            _SHARED_MEMORY,
            max(0, fitting),
            workers,
        )
    return max(0, fitting)


def _size_of(batch: PreparedBatch) -> int:
    """Return the bytes of a batch's tensors; of lists, the tensors in them."""
    lists = [value if isinstance(value, list) else [value] for value in batch.values.values()]
    return sum(item.nbytes for items in lists for item in items if torch.is_tensor(item))
