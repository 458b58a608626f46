"""Pictures, encoded once: the mean and the deviation of each one's posterior, as the VAE gives them.

Sampling a posterior stays a function of (seed, n), and so does the choice among the cuts and mirrored views that were
encoded. A picture is encoded in the number format of the VAE and, unless asked otherwise, kept in it, so that reading
it gives the bits that encoding it in the step would give.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from t2ialign.engine.bad_examples import BadExamples
from t2ialign.errors import DataError, ModelError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.posterior import Posterior
from t2ialign.trainers.caches.filling import Filled, Way, Work, fill, together
from t2ialign.trainers.caches.keys import Content, content_of, picture_key
from t2ialign.trainers.caches.store import MISSING, Rows, Store
from t2ialign.trainers.examples import PictureExamples, View
from t2ialign.trainers.pictures import Cut, Size, apply_cut, plan_cut

PIXELS_AT_ONCE = 2 << 20
"""Pixels that are encoded at once: two pictures of 1024 x 1024, eight of 512 x 512."""
MOST_AT_ONCE = 32
_AHEAD = 2


@dataclass(frozen=True)
class LatentCache:
    """Encoded pictures of a set of N examples of S sides, each seen in V ways.

    Attributes:
        rows: Where they are.
        places: Of each, `[N, S, V]`.
        sizes: Height and width of each picture, `[N, S, 2]`.
        views: The ways.
        shift, scale: Of the latents; see `Posterior`.
        bad: What is wrong with the entries that could not be read, by their number.
        filled: What filling it did, if it was.
    """

    rows: Rows
    places: NDArray[np.int64]
    sizes: NDArray[np.int32]
    views: Mapping[View, int]
    shift: float
    scale: float
    bad: Mapping[int, str] = field(default_factory=dict)
    filled: Filled | None = None

    def read(self, index: int, views: Sequence[View], target: Size) -> tuple[Posterior, tuple[Cut, ...]]:
        """Return the posterior of an entry's sides, `[S, C, h, w]`, each seen in one way, and how they were cut."""
        sides = range(len(views))
        places = [int(self.places[index, side, self.views[views[side]]]) for side in sides]
        if MISSING in places:
            raise DataError(f"entry {index} has a picture that could not be encoded")
        found = [self.rows.read(place) for place in places]
        mean = torch.stack([row["mean"] for row in found])
        std = torch.stack([row["std"] for row in found]) if "std" in found[0] else None
        sizes = [(int(self.sizes[index, side, 0]), int(self.sizes[index, side, 1])) for side in sides]
        cuts = tuple(plan_cut(size, target, *view) for size, view in zip(sizes, views, strict=True))
        return Posterior(mean, std, self.shift, self.scale), cuts


@dataclass(frozen=True)
class Job:
    """A picture to encode: the side of an entry, and how it is cut."""

    index: int
    side: int
    cut: Cut


def fill_latents(
    model: DiffusionModel,
    examples: PictureExamples,
    store: Store,
    *,
    bad: BadExamples | None = None,
    stored: torch.dtype | None = None,
    way: Way | None = None,
) -> LatentCache | None:
    """Encode every picture of a set that is not in a store; None if it was interrupted.

    Args:
        model: Whose VAE encodes.
        examples: Their pictures are cut and mirrored in a countable number of ways.
        store: Of rows that share what `keys.latent_ingredients` says.
        bad: Entries that can not be read are noted here, and it raises where they are too many; without it the first
            one does.
        stored: Number format of the rows; that of the VAE by default.
        way: How.

    Raises:
        DataError: for pictures that can not be read, or a disk that is full.
        ModelError: if a picture's latents are not finite; it is named and not kept.
    """
    views, way = examples.all_views(), way or Way()
    if views is None:
        raise ValueError("pictures that are cut anywhere can not be encoded once")
    begun = time.monotonic()
    unreadable = Unreadable(bad)
    contents = look_at(examples, unreadable, way)
    if contents is None:
        return None
    encoder = _Encoder(model, examples, unreadable, stored or model.vae_dtype, way)
    rounds: list[Filled] = []
    while True:
        # An entry that can not be read gives up its pictures to the next one that has them.
        bad_before = len(unreadable.reasons)
        readable = [[None] * len(each) if index in unreadable else each for index, each in enumerate(contents)]
        keys, jobs = jobs_of(examples, readable, views)
        filled = fill(store, Work("pictures", jobs, encoder.row_bytes, encoder.make, encoder.given_up), way)
        if filled is None:
            return None
        rounds.append(filled)
        launch = None if store.folder is None else way.launch  # in memory each process fills for itself
        if not together(launch, len(unreadable.reasons) - bad_before):
            break
    shape = (len(examples), examples.sides, len(views))
    places = store.places(keys).reshape(shape)
    places[list(unreadable.reasons)] = MISSING
    sizes = np.array([[(0, 0) if each is None else each.size for each in entry] for entry in contents], dtype=np.int32)
    filled = replace(
        filled,
        found=rounds[0].found,
        added=sum(each.added for each in rounds),
        bytes=sum(each.bytes for each in rounds),
        seconds=time.monotonic() - begun,
    )
    numbers = {view: number for number, view in enumerate(views)}
    scale = model.posterior_scale
    return LatentCache(store.rows, places, sizes, numbers, *scale, bad=unreadable.reasons, filled=filled)


class Unreadable:
    """The entries that can not be read.

    Args:
        bad: Counts them, and raises where they are too many; None where the first one is.
    """

    def __init__(self, bad: BadExamples | None) -> None:
        self._bad = bad

    def __contains__(self, index: int) -> bool:
        return self._bad is not None and index in self._bad.found

    @property
    def reasons(self) -> dict[int, str]:
        """What is wrong with each."""
        return {} if self._bad is None else dict(self._bad.found)

    def note(self, index: int, error: DataError) -> None:
        """Take an entry in.

        Raises:
            DataError: if it is one too many.
        """
        if self._bad is None:
            raise error
        if index not in self:
            self._bad.note(index, error)


def look_at(examples: PictureExamples, unreadable: Unreadable, way: Way) -> list[list[Content | None]] | None:
    """Look at the file of every picture; None if it was interrupted, and for a picture that can not be read.

    The processes of a launch look at a part each, and tell each other.
    """
    launch, count = way.launch, len(examples)
    begin, end = (0, count) if launch is None else _part(count, launch.rank, launch.count)
    found: list[list[Content | None]] = []
    wrong: list[tuple[int, str]] = []
    stopped = False
    for index in range(begin, end):
        stopped = way.stop()
        if stopped:
            break
        try:
            files = examples.encoded(index)
            found.append([content_of(file, examples.where(index, side)) for side, file in enumerate(files)])
        except DataError as error:
            unreadable.note(index, error)
            found.append([None] * examples.sides)
            wrong.append((index, str(error)))
    if together(launch, int(stopped)):
        return None
    if launch is None:
        return found
    for index, reason in gather_object(wrong):
        unreadable.note(index, DataError(reason))
    everything: list[list[Content | None]] = gather_object(found)
    return everything


def _part(count: int, rank: int, processes: int) -> tuple[int, int]:
    return count * rank // processes, count * (rank + 1) // processes


def jobs_of(
    examples: PictureExamples, contents: Sequence[Sequence[Content | None]], views: Sequence[View]
) -> tuple[list[bytes], dict[bytes, Job]]:
    """Return the key of each picture in each way, `[N S V]`, and a job for each different one."""
    keys: list[bytes] = []
    jobs: dict[bytes, Job] = {}
    for index, entry in enumerate(contents):
        target = examples.target(index)
        for side, content in enumerate(entry):
            for position, flip in views:
                if content is None:
                    keys.append(b"")
                    continue
                cut = plan_cut(content.size, target, position, flip)
                key = picture_key(content.digest, cut)
                keys.append(key)
                jobs.setdefault(key, Job(index, side, cut))
    return keys, jobs


class _Encoder:
    """Turns jobs into rows, reading the next pictures while some are encoded."""

    def __init__(
        self, model: DiffusionModel, examples: PictureExamples, unreadable: Unreadable, stored: torch.dtype, way: Way
    ) -> None:
        self.model, self.examples, self.unreadable, self.stored = model, examples, unreadable, stored
        self._way = way
        self._parts = ("mean",) if examples.options.posterior == "mean" else ("mean", "std")
        self._last: tuple[int, tuple[Image.Image, ...]] | None = None

    def row_bytes(self, job: Job) -> int:
        """Return the size of a row."""
        channels, height, width = self.examples.latent_shape(job.index)
        return channels * height * width * len(self._parts) * self.stored.itemsize

    def make(self, jobs: Iterable[tuple[bytes, Job]]) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
        """Yield the rows of jobs; those of an entry that can not be read are left out and noted."""
        waiting: list[Future[tuple[list[tuple[bytes, Job, Tensor]], list[tuple[int, DataError]]]]] = []
        batches = self._batches(jobs)
        with ThreadPoolExecutor(max_workers=1) as reader:  # one thread, for sets need not be read by several
            while True:
                while len(waiting) < _AHEAD and (batch := next(batches, None)) is not None:
                    waiting.append(reader.submit(self._read, batch))
                if not waiting:
                    return
                read, wrong = waiting.pop(0).result()
                for index, error in wrong:
                    self.unreadable.note(index, error)
                if read:
                    yield from self._encode(read)

    def given_up(self, job: Job) -> bool:
        """Whether the entry of a job can not be read."""
        return job.index in self.unreadable

    def at_once(self, target: Size) -> int:
        """Return how many pictures of a size are encoded at once."""
        fitting = PIXELS_AT_ONCE // (target[0] * target[1])
        return self._way.at_once or max(1, min(MOST_AT_ONCE, fitting))

    def _batches(self, jobs: Iterable[tuple[bytes, Job]]) -> Iterator[list[tuple[bytes, Job]]]:
        """Yield jobs of one size together."""
        waiting: dict[Size, list[tuple[bytes, Job]]] = {}
        for key, job in jobs:
            some = waiting.setdefault(job.cut.target, [])
            some.append((key, job))
            if len(some) >= self.at_once(job.cut.target):
                yield waiting.pop(job.cut.target)
        yield from waiting.values()

    def _read(
        self, batch: Sequence[tuple[bytes, Job]]
    ) -> tuple[list[tuple[bytes, Job, Tensor]], list[tuple[int, DataError]]]:
        read, wrong = [], []
        for key, job in batch:
            try:
                read.append((key, job, apply_cut(self._images(job.index)[job.side], job.cut).pixels))
            except DataError as error:
                wrong.append((job.index, error))
        return read, wrong

    def _images(self, index: int) -> tuple[Image.Image, ...]:
        if self._last is None or self._last[0] != index:
            self._last = (index, self.examples.images(index))
        return self._last[1]

    @torch.no_grad()
    def _encode(self, read: Sequence[tuple[bytes, Job, Tensor]]) -> Iterator[tuple[bytes, dict[str, Tensor]]]:
        posterior = self.model.posterior(torch.stack([pixels for *_, pixels in read]), steady=True)
        parts = {name: getattr(posterior, name).to(self.stored).cpu() for name in self._parts}
        finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in parts.values()]).all(dim=0)
        for number, (key, job, _) in enumerate(read):
            if not finite[number]:
                raise not_finite(self.examples.where(job.index, job.side), self.model, self.stored)
            yield key, {name: part[number] for name, part in parts.items()}


def not_finite(what: str, model: DiffusionModel, stored: torch.dtype | None = None) -> ModelError:
    """Make the error for latents that are not finite.

    Args:
        what: The picture, or several.
        model: Whose VAE encoded it.
        stored: Number format that the latents were brought to, if they were.
    """
    kinds = str(model.vae_dtype).removeprefix("torch.")
    if stored is not None and stored != model.vae_dtype:
        kinds += f", kept in {str(stored).removeprefix('torch.')}"
    return ModelError(
        f"{what}: its latents are not finite (the VAE of {model.name} works in {kinds}). Use --vae_dtype float32, or "
        "a VAE that was made for half precision, such as SDXL's fp16-fix; if it is float32 already, its weights are "
        "broken"
    )
