"""Filling a store: what is missing is made, by one process or many, until all of it is there.

The processes of a launch take turns at the missing rows and wait for each other; commands that know nothing of each
other begin at different places and look between two shards at what others have added. What is still missing when all
are through (a shard of another machine's disk, say) each process makes for itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor
from tqdm import tqdm

from t2ialign.engine.launch import Launch
from t2ialign.engine.task import StopRequested
from t2ialign.errors import DataError
from t2ialign.trainers.caches.store import Store, Writer, require_space

J = TypeVar("J")

CHUNK = 64
"""Rows that a process of a launch takes at a turn."""
_ROUNDS = 3


@dataclass(frozen=True)
class Way:
    """How a cache is filled.

    Attributes:
        stop: Whether to give up; what was made is kept. The processes of a `Launch` fill a folder together.
        quiet: Show no progress.
        at_once: Pictures that are encoded at once; None for as many as their size suggests.
    """

    stop: StopRequested = lambda: False
    quiet: bool = True
    at_once: int | None = None

    @property
    def launch(self) -> Launch | None:
        """The processes that fill together, if there are several."""
        return self.stop if isinstance(self.stop, Launch) and self.stop.count > 1 else None


@dataclass(frozen=True)
class Filled:
    """What a filling did.

    Attributes:
        rows: Different rows that are needed.
        found: Of these, how many were there.
        added: Rows that this process made.
        bytes: They take, without their keys.
        seconds: All of it took.
    """

    rows: int
    found: int
    added: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Work(Generic[J]):
    """What can be missing.

    Attributes:
        name: What is encoded, in the plural.
        jobs: What makes each row, by key, in a good order.
        row_bytes: Of one row.
        make: Makes rows in the order of the jobs it is given, and yields them; what it leaves out stays missing.
        given_up: Whether a job can not be done and is not tried again.
    """

    name: str
    jobs: Mapping[bytes, J]
    row_bytes: Callable[[J], int]
    make: Callable[[Iterable[tuple[bytes, J]]], Iterator[tuple[bytes, Mapping[str, Tensor]]]]
    given_up: Callable[[J], bool] = lambda job: False


def fill(store: Store, work: Work[J], way: Way) -> Filled | None:
    """Make what is missing; None if it was interrupted, in any process.

    Raises:
        DataError: if the disk is full, or rows vanish as fast as they are made.
    """
    begun = time.monotonic()
    launch = None if store.folder is None else way.launch
    store.refresh()
    store.clear_asides()
    writer = Writer(store)
    missing = _missing(store, work)
    found = len(work.jobs) - len(missing)
    for attempt in range(_ROUNDS):
        if store.folder is not None and missing:
            require_space(store.folder, sum(work.row_bytes(work.jobs[key]) for key in missing))
        mine = _share(missing, launch) if launch is not None and attempt == 0 else _turned(missing, store)
        if together(launch, int(_make(store, writer, work, mine, way))):
            return None
        store.refresh()
        missing = _missing(store, work)
        more = together(launch, len(missing))
        if not more:
            return Filled(len(work.jobs), found, writer.rows, writer.bytes, time.monotonic() - begun)
    raise DataError(
        f"{store.folder} still lacks {len(missing)} {work.name} after they were encoded; does somebody clear it?"
    )


def together(launch: Launch | None, number: int) -> int:
    """Return the sum of a number over the processes; all of them come here, also those asked to stop."""
    return number if launch is None else launch.total(number, through_stop=True)


def _missing(store: Store, work: Work[J]) -> list[bytes]:
    return [key for key, job in work.jobs.items() if key not in store and not work.given_up(job)]


def _share(missing: Sequence[bytes], launch: Launch) -> list[bytes]:
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    return [key for chunk in chunks[launch.rank :: launch.count] for key in chunk]


def _turned(missing: Sequence[bytes], store: Store) -> list[bytes]:
    """Begin at a place of one's own, so that two commands do not make the same rows; in memory at the beginning."""
    if store.folder is None or not missing:
        return list(missing)
    start = uuid.uuid4().int % (len(missing) // CHUNK + 1) * CHUNK
    return [*missing[start:], *missing[:start]]


def _make(store: Store, writer: Writer, work: Work[J], keys: Sequence[bytes], way: Way) -> bool:
    """Make rows and return whether that was interrupted; what was made by then is kept."""

    def wanted() -> Iterator[tuple[bytes, J]]:
        for key in keys:
            bar.update()
            if key not in store:
                yield key, work.jobs[key]

    with tqdm(total=len(keys), desc=f"encoding {work.name}", disable=True if way.quiet or not keys else None) as bar:
        try:
            with closing(work.make(wanted())) as made:  # type: ignore[type-var]
                for key, row in made:
                    if writer.put(key, row):
                        store.refresh()
                    if way.stop():
                        return True
        finally:
            writer.flush()
    return way.stop()
