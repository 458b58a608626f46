"""Examples that can not be read: the first one ends the run, or they are left out, counted, up to a stated share.

Law of this file: a bad entry is left out whole, and what stands in for it is the next good entry of its stage and its
bucket, as they are stored: a function of the entry alone. So workers, processes, caches and a resume do not change a
run, and what is counted is the same for all of them. What was found is in the checkpoints and in the report.

A `DataError` of `Examples.read` is about the entry that was asked for; every other error ends the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import Dataset

from t2ialign.engine.config import TrainConfig
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
from t2ialign.engine.task import Examples
from t2ialign.errors import DataError

logger = logging.getLogger(__name__)

SHOWN = 20
"""Bad entries that the report tells one by one."""
_WARNED = 5
_IN_ERRORS = 3

Reasons = dict[int, str]
"""What is wrong with each bad entry, by its number."""


class Drawn(NamedTuple):
    """An example, or None where none could be had, with what is wrong with the entries that it stands in for."""

    example: Any
    bad: Reasons


class DrawnBatch(NamedTuple):
    """Examples put together, or None where one of them could not be had, with the bad entries that were met."""

    batch: Any
    bad: Reasons


def reach(schedule: Schedule) -> int:
    """Return how many entries a run can look at: all of them, or as many as it has examples."""
    return min(schedule.length, schedule.visits)


def allowed_bad(config: TrainConfig, count: int) -> int | None:
    """Return how many of `count` entries may be bad; None where the first one ends the run."""
    return None if config.on_bad_pair == "raise" else int(config.max_bad_share * count)


class DrawnExamples(Dataset[Drawn]):
    """Examples by `(n, index)`, as a data loader asks for them.

    Args:
        examples: Of the task.
        schedule: Of the run.
        allowed: How many entries may be bad; None where the first one ends the run.
    """

    def __init__(self, examples: Examples, schedule: Schedule, allowed: int | None) -> None:
        self._examples = examples
        self._schedule = schedule
        self._allowed = allowed
        self._known: Reasons = {}

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, key: tuple[int, int]) -> Drawn:
        n, index = key
        draws = Draws(self._schedule.seed, n)
        bad: Reasons = {}
        for entry in self._in_turn(n, index):
            if (example := self._read(entry, draws)) is not None:
                return Drawn(example, bad)
            bad[entry] = self._known[entry]
            if self._allowed is None or len(bad) > self._allowed:
                break
        return Drawn(None, bad)

    def collate(self, drawn: list[Drawn]) -> DrawnBatch:
        """Put examples together into a batch."""
        bad = {entry: reason for each in drawn for entry, reason in each.bad.items()}
        examples = [each.example for each in drawn]
        whole = all(example is not None for example in examples)
        return DrawnBatch(self._examples.collate(examples) if whole else None, bad)

    def _read(self, entry: int, draws: Draws) -> Any:
        if entry in self._known:
            return None
        try:
            return self._examples.read(entry, draws)
        except DataError as error:
            self._known[entry] = str(error)
            return None

    def _in_turn(self, n: int, index: int) -> Iterator[int]:
        """Yield an entry, then those that may stand in for it, in order."""
        yield index
        yield from stand_ins(self._schedule, n, index)


def stand_ins(schedule: Schedule, n: int, index: int) -> Iterator[int]:
    """Yield the entries that may stand in for entry `index` as example n: the next ones of its stage and bucket."""
    stage = schedule.stage(n)
    entries = np.arange(schedule.length) if stage is None else np.sort(stage)
    if schedule.buckets is not None:
        entries = entries[schedule.buckets[entries] == schedule.buckets[index]]
    after = int(np.searchsorted(entries, index, side="right"))
    for entry in np.roll(entries, -after):
        if entry != index:
            yield int(entry)


class BadExamples:
    """The bad entries that a run has met, over all processes.

    Args:
        config: Options of the run.
        count: How many entries are looked at: `reach`, or the whole set where a cache is filled.
        name: What an example is, in the plural.

    Attributes:
        found: What is wrong with each bad entry.
        allowed: How many there may be; None where the first one ends the run.
    """

    def __init__(self, config: TrainConfig, count: int, name: str) -> None:
        self.allowed = allowed_bad(config, count)
        self.found: Reasons = {}
        self._name, self._share, self._count = name, config.max_bad_share, count
        self._new: Reasons = {}

    def note(self, entry: int, error: DataError) -> None:
        """Count a bad entry, where all entries are looked at before the training, as for a cache.

        Raises:
            DataError: where it is the first and none may be bad, or one more than may be.
        """
        if self.allowed is None:
            raise unreadable(str(error)) from error
        self._count_in(entry, str(error))
        if len(self.found) > self.allowed:
            raise self._refusal(self.found)

    def watch(self, batches: Iterator[DrawnBatch]) -> Iterator[Any]:
        """Yield the batches and note the bad entries that were met for them.

        Raises:
            DataError: at the first bad entry, or where too many of them follow each other.
        """
        for batch, bad in batches:
            self._new |= bad
            if batch is None and self.allowed is None:
                raise unreadable(next(iter(bad.values())))
            if batch is None:
                raise self._refusal(bad)
            yield batch

    def settle(self, accelerator: Accelerator) -> None:
        """Bring together what every process has met; all of them are called after each step.

        Raises:
            DataError: on every process, where more entries are bad than may be.
        """
        if self.allowed is None:
            return
        met: list[tuple[int, str]] = list(self._new.items())
        self._new = {}
        if accelerator.num_processes > 1:
            met = gather_object(met)
        for entry, reason in sorted(met):
            self._count_in(entry, reason)
        if len(self.found) > self.allowed:
            raise self._refusal(self.found)

    def load(self, found: Mapping[str, str]) -> None:
        """Go on from what a checkpoint holds."""
        self.found = {int(entry): reason for entry, reason in found.items()}

    def report(self) -> dict[str, Any]:
        """Return count, share of the entries that the run can look at, and what is wrong with the first ones."""
        shown = [self.found[entry] for entry in sorted(self.found)[:SHOWN]]
        return {"count": len(self.found), "share": len(self.found) / self._count, "which": shown}

    def _count_in(self, entry: int, reason: str) -> None:
        if entry in self.found:
            return
        self.found[entry] = reason
        if len(self.found) <= _WARNED:
            logger.warning("left out, and another one taken: %s", reason)
        if len(self.found) == _WARNED:
            logger.warning("further %s that can not be read are counted without a word", self._name)

    def _refusal(self, bad: Reasons) -> DataError:
        return too_many(bad, self.allowed or 0, self._share, self._name)


def unreadable(reason: str) -> DataError:
    """Make the error for the first bad entry of a run that takes none."""
    return DataError(
        f"{reason}; `t2ialign data check` finds all such, and `--on_bad_pair drop` leaves them out of the training"
    )


def too_many(bad: Reasons, allowed: int, share: float, name: str) -> DataError:
    """Make the error for more bad entries than a run takes."""
    told = "; ".join(bad[entry] for entry in sorted(bad)[:_IN_ERRORS])
    what = name if len(bad) != 1 else name.removesuffix("s")
    more = "" if len(bad) <= _IN_ERRORS else f"; and {len(bad) - _IN_ERRORS} more"
    return DataError(
        f"{len(bad)} {what} can not be read, where max_bad_share {share:g} allows {allowed}: {told}{more}. Mend them "
        "(`t2ialign data check` finds all), or raise --max_bad_share"
    )
