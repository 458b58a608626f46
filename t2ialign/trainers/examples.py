"""Pictures as training examples: one or two sides with their draws, and batches of them.

Law of this file: everything random about an example comes from its `Draws`. Both sides of a pair share timestep
and noise; the VAE's posterior is sampled for each side on its own; one draw decides whether an example loses its
caption.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from t2ialign.data.columns import PICTURES
from t2ialign.data.pairs import PairDataset
from t2ialign.data.picture_sizes import picture_sizes
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.errors import DataError
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.posterior import Posterior
from t2ialign.trainers.buckets import Bucketing, assign
from t2ialign.trainers.pictures import Cut, Picture, Size, prepare_picture

View = tuple[tuple[float, float], bool]
"""How a picture is looked at: where it is cut, vertically and horizontally, and whether it is mirrored."""


@dataclass(frozen=True)
class ExampleOptions:
    """How pictures become examples.

    Attributes:
        resolution: Side of the pictures, pixels.
        latent_shape: Of one such picture, (channels, height, width).
        timesteps: Number of noise levels; they are drawn uniformly from all of them.
        crop: "center" or "random".
        crop_positions: Of how many places a random cut is one; 0 for any place.
        flip: "none", "joint" or "independent".
        posterior: "sample" of what the VAE sees in a picture, or its "mean".
        caption_dropout: Chance of the empty caption.
        time_ids: None, or for SDXL "real", "fixed" or "shared".
        buckets: Sizes in place of the square, or None; each entry's pictures are brought to the one that suits it.
        bucket_group: How many examples in a row are of one size; None for a batch.
    """

    resolution: int
    latent_shape: tuple[int, int, int]
    timesteps: int
    crop: str = "center"
    flip: str = "none"
    caption_dropout: float = 0.0
    time_ids: str | None = None
    buckets: tuple[Size, ...] | None = None
    bucket_group: int | None = None
    crop_positions: int = 0
    posterior: str = "sample"


class EncodedPictures(Protocol):
    """Pictures that were encoded once."""

    @property
    def bad(self) -> Mapping[int, str]:
        """What is wrong with the entries that could not be read, by their number."""

    def read(self, index: int, views: Sequence[View], target: Size) -> tuple[Posterior, tuple[Cut, ...]]:
        """Return the posterior of an entry's sides, `[S, C, h, w]`, each seen in one way, and how they were cut."""


class EncodedCaptions(Protocol):
    """Captions that were encoded once."""

    def read(self, captions: Sequence[str]) -> Conditioning:
        """Return a row for each caption."""


@dataclass(frozen=True)
class Example:
    """One entry of the set with its draws; its sides are stacked, chosen first.

    Attributes:
        index: Number of the entry.
        timestep: Of all its sides.
        noise: Of all its sides, `[C, h, w]`.
        prompts: A caption for each side.
        latents, pixels, posterior, time_ids: Of each side, as in `Batch`.
        user: Vectors of the user, `[T, D]`, zeros for nobody; None where there are no users.
    """

    index: int
    timestep: int
    noise: Tensor
    prompts: tuple[str, ...]
    latents: Tensor | None = None
    pixels: Tensor | None = None
    posterior: Tensor | None = None
    time_ids: Tensor | None = None
    user: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """B examples of S sides as the loss takes them; the S B rows are all chosen sides, then all rejected ones.

    Attributes:
        timesteps: `[B]` int64.
        noise: `[B, C, h, w]`.
        prompts: S B captions, those dropped being empty.
        entries: Number of each entry, `[B]` int64.
        latents: `[S B, C, h, w]`, or None where pictures are encoded in the step.
        pixels: `[S B, 3, R, R]` in [-1, 1], or None.
        posterior: Unit noise of the VAE's posterior, `[S B, C, h, w]`, with `pixels`.
        time_ids: `[S B, 6]` for SDXL, else None.
        user: Vectors of the users, `[B, T, D]`, or None.
        text: S B rows, or None where captions are encoded in the step.
        reference: Errors of the reference, `[S B]`, where they are known already.
        facts: What else is known of each example, `[B, ...]` by name.
    """

    timesteps: Tensor
    noise: Tensor
    prompts: list[str]
    entries: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    latents: Tensor | None = None
    pixels: Tensor | None = None
    posterior: Tensor | None = None
    time_ids: Tensor | None = None
    user: Tensor | None = None
    text: Conditioning | None = None
    reference: Tensor | None = None
    facts: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def sides(self) -> int:
        """S, 2 for pairs and 1 for single pictures."""
        return len(self.prompts) // len(self)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors: dict[str, Any] = {
            part.name: change(getattr(self, part.name))
            for part in fields(self)
            if isinstance(getattr(self, part.name), Tensor)
        }
        text = self.text
        if text is not None:
            pooled = None if text.pooled is None else change(text.pooled)
            text = Conditioning(hidden=change(text.hidden), pooled=pooled)
        return replace(self, **tensors, text=text, facts={name: change(fact) for name, fact in self.facts.items()})

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, as torch's data loader asks."""
        return self._map(lambda tensor: tensor.pin_memory())


class Users(ABC):
    """Who chose which pair, as vectors; it goes to worker processes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Equal for equal vectors; a run does not resume on others."""

    @abstractmethod
    def read(self, index: int, draws: Draws) -> Tensor:
        """Return the vectors of the user of an entry, `[T, D]`, zeros where the draw leaves the user out."""


class PictureExamples(ABC):
    """Entries of one or two pictures as training examples.

    Args:
        options: How pictures become examples.
        facts: What else is known of each entry, `[N, ...]` by name.
        stages: Entries of each stage of a curriculum, or None.

    Attributes:
        name: What an entry is, in the plural.
        sides: Pictures of an entry.
        latents: Encoded pictures, once a cache was filled.
        texts: Encoded captions, once a cache was filled.
        users: Who chose, for personal tuning.
    """

    name: str
    sides: int

    def __init__(
        self,
        options: ExampleOptions,
        facts: Mapping[str, Tensor] | None = None,
        stages: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        self.options = options
        self.facts = dict(facts or {})
        self.stages = stages
        self.latents: EncodedPictures | None = None
        self.texts: EncodedCaptions | None = None
        self.users: Users | None = None

    @cached_property
    def blocks(self) -> Sequence[NDArray[np.int64]] | None:
        """Entries of each block of a streamed set, or None."""
        return self.data.blocks

    @cached_property
    def bucketing(self) -> Bucketing | None:
        """Which entry is in which bucket, by the sizes of its pictures; None where all are squares."""
        options = self.options
        if options.buckets is None:
            return None
        return assign(picture_sizes(self.data), options.buckets, options.resolution)

    @property
    def buckets(self) -> NDArray[np.int64] | None:
        """The bucket of each entry, or None where all are squares."""
        return None if self.bucketing is None else self.bucketing.of

    @property
    def bucket_group(self) -> int | None:
        """How many examples in a row are of one bucket; None for a batch."""
        return self.options.bucket_group

    @property
    @abstractmethod
    def data(self) -> PairDataset | UnpairedDataset:
        """The set that the entries come from."""

    @property
    def fingerprint(self) -> str:
        """Of the set's contents, and of who chose."""
        return self.data.fingerprint + ("" if self.users is None else self.users.fingerprint)

    def __len__(self) -> int:
        return len(self.data)

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Return the caption of each side of an entry."""

    @abstractmethod
    def images(self, index: int) -> tuple[Image.Image, ...]:
        """Return the decoded pictures of an entry, one a side."""

    @abstractmethod
    def encoded(self, index: int) -> tuple[bytes, ...]:
        """Return the pictures of an entry as their files hold them, one a side."""

    @abstractmethod
    def where(self, index: int, side: int) -> str:
        """Return what to call a picture in a message: its set, row and column."""

    def all_captions(self) -> list[str]:
        """Return every different caption that an example may have, sorted; the empty one if captions are dropped."""
        found = {caption for index in range(len(self)) for caption in self.captions(index)}
        return sorted(found | ({""} if self.options.caption_dropout else set()))

    def read(self, index: int, draws: Draws) -> Example:
        """Return entry `index` with the draws of one training example.

        Raises:
            DataError: if its pictures can not be read, or could not when the cache was filled.
        """
        options = self.options
        if self.latents is not None and index in self.latents.bad:
            raise DataError(self.latents.bad[index])
        shape = self.latent_shape(index)
        dropped = draws.chance(Stream.CAPTION, options.caption_dropout)
        example = Example(
            index=index,
            timestep=draws.integer(Stream.TIMESTEP, options.timesteps),
            noise=draws.normal(Stream.NOISE, shape),
            prompts=("",) * self.sides if dropped else self.captions(index),
            user=None if self.users is None else self.users.read(index, draws),
        )
        streams = (Stream.POSTERIOR_CHOSEN, Stream.POSTERIOR_REJECTED)[: self.sides]
        sampled = options.posterior == "sample"
        posterior = torch.stack([draws.normal(stream, shape) for stream in streams]) if sampled else None
        if self.latents is not None:
            found, cuts = self.latents.read(index, self.views(draws), self.target(index))
            return replace(example, latents=found.latents(posterior), time_ids=self.time_ids(cuts))
        pictures = self.pictures(index, draws)
        pixels = torch.stack([picture.pixels for picture in pictures])
        time_ids = self.time_ids([picture.cut for picture in pictures])
        return replace(example, pixels=pixels, posterior=posterior, time_ids=time_ids)

    def target(self, index: int) -> Size:
        """Return the training size of an entry's pictures, of all of its sides."""
        side = self.options.resolution
        return (side, side) if self.bucketing is None else self.bucketing.size(index)

    def latent_shape(self, index: int) -> tuple[int, int, int]:
        """Return the shape of an entry's latents, (channels, height, width)."""
        channels, rows, _ = self.options.latent_shape
        factor = self.options.resolution // rows
        height, width = self.target(index)
        return channels, height // factor, width // factor

    def pictures(self, index: int, draws: Draws | None = None) -> tuple[Picture, ...]:
        """Return the pictures of an entry, resized, cut and mirrored; without draws, cut in the middle."""
        target = self.target(index)
        return tuple(
            prepare_picture(image, target, position=position, flip=flip)
            for image, (position, flip) in zip(self.images(index), self.views(draws), strict=True)
        )

    def views(self, draws: Draws | None = None) -> list[View]:
        """Return how each side of an entry is cut and mirrored; both are cut at the same relative place."""
        position, flips = (0.5, 0.5), [False] * self.sides
        if draws is not None and self.options.crop == "random":
            vertical, horizontal = draws.uniform(Stream.CROP, 2)
            position = (vertical, horizontal)
            if count := self.options.crop_positions:
                position = _positions(count)[int(vertical * count)]
        if draws is not None and self.options.flip != "none":
            streams = (Stream.FLIP_CHOSEN, Stream.FLIP_REJECTED)
            alone = self.options.flip == "independent"
            flips = [draws.chance(streams[side if alone else 0], 0.5) for side in range(self.sides)]
        return [(position, flip) for flip in flips]

    def all_views(self) -> list[View] | None:
        """Return every way in which a picture may be cut and mirrored; None where there is no end of them."""
        options = self.options
        if options.crop == "random" and not options.crop_positions:
            return None
        places = _positions(options.crop_positions) if options.crop == "random" else [(0.5, 0.5)]
        return [(place, flip) for place in places for flip in ((False,) if options.flip == "none" else (False, True))]

    def time_ids(self, cuts: Sequence[Cut]) -> Tensor | None:
        """Return SDXL's size ids of an entry's pictures, `[S, 6]`: original size, cut, target size; else None.

        "fixed" gives every picture the ids of an uncut one of the training size, as DiffusionDPO's train.py:1078-1085;
        "shared" gives both sides those of the chosen picture, near what MaPO's and diffusers' scripts do with the
        first one (mapo train.py:405-410).
        """
        if self.options.time_ids is None:
            return None
        if self.options.time_ids == "fixed":
            return torch.tensor([[*cut.target, 0, 0, *cut.target] for cut in cuts], dtype=torch.float32)
        told = [cuts[0]] * len(cuts) if self.options.time_ids == "shared" else cuts
        return torch.tensor([[*cut.original_size, *cut.crop, *cut.target] for cut in told], dtype=torch.float32)

    def collate(self, examples: list[Example]) -> Batch:
        """Put B examples together, chosen sides first."""
        prompts = [example.prompts[side] for side in range(self.sides) for example in examples]
        text = None if self.texts is None else self.texts.read(prompts)
        entries = torch.tensor([example.index for example in examples])
        return Batch(
            timesteps=torch.tensor([example.timestep for example in examples]),
            noise=torch.stack([example.noise for example in examples]),
            prompts=prompts,
            entries=entries,
            latents=_stacked(examples, "latents"),
            pixels=_stacked(examples, "pixels"),
            posterior=_stacked(examples, "posterior"),
            time_ids=_stacked(examples, "time_ids"),
            user=None if self.users is None else torch.stack([_user(example) for example in examples]),
            text=text,
            facts={name: fact[entries] for name, fact in self.facts.items()},
        )


class PairExamples(PictureExamples):
    """The examples of a pair set.

    Args:
        pairs: The set.
        options: How pairs become examples.
        captions: Captions of the chosen and of the rejected side of each pair; by default the prompt for both.
        more: `facts` and `stages` of `PictureExamples`.
    """

    name = "pairs"
    sides = 2

    def __init__(
        self,
        pairs: PairDataset,
        options: ExampleOptions,
        captions: Sequence[tuple[str, str]] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(options, **more)
        self.pairs = pairs
        self._captions = captions

    @property
    def data(self) -> PairDataset:
        """The pair set."""
        return self.pairs

    def captions(self, index: int) -> tuple[str, str]:
        """Return the captions of both sides."""
        if self._captions is not None:
            return self._captions[index]
        return (self.pairs.prompts[index],) * 2

    def images(self, index: int) -> tuple[Image.Image, Image.Image]:
        """Return the chosen and the rejected picture."""
        pair = self.pairs[index]
        return pair.chosen, pair.rejected

    def encoded(self, index: int) -> tuple[bytes, bytes]:
        """Return the files of the chosen and of the rejected picture."""
        chosen, rejected = (self.pairs.encoded(index, side) for side in PICTURES)
        return chosen, rejected

    def where(self, index: int, side: int) -> str:
        """Return the set, the row and the side."""
        return f"{self.pairs.name} row {self.pairs.row(index)}, {PICTURES[side]}"


class SingleExamples(PictureExamples):
    """The examples of a set of single pictures with labels.

    Args:
        pictures: The set; its labels become the fact `label`, 1 or 0.
        options: How pictures become examples.
    """

    name = "pictures"
    sides = 1

    def __init__(self, pictures: UnpairedDataset, options: ExampleOptions) -> None:
        super().__init__(options, {"label": torch.tensor(pictures.labels, dtype=torch.bool)})
        self.singles = pictures

    @property
    def data(self) -> UnpairedDataset:
        """The set of pictures."""
        return self.singles

    def captions(self, index: int) -> tuple[str]:
        """Return the caption."""
        return (self.singles.prompts[index],)

    def images(self, index: int) -> tuple[Image.Image]:
        """Return the picture."""
        return (self.singles[index].image,)

    def encoded(self, index: int) -> tuple[bytes]:
        """Return the picture's file."""
        return (self.singles.encoded(index),)

    def where(self, index: int, side: int) -> str:
        """Return the set and the row."""
        return f"{self.singles.name} row {self.singles.row(index)}"


def _positions(count: int) -> list[tuple[float, float]]:
    """Return places of a cut, from one end of the room to the other; a single one is the middle."""
    places = [0.5] if count == 1 else [number / (count - 1) for number in range(count)]
    return [(place, place) for place in places]


def _user(example: Example) -> Tensor:
    assert example.user is not None
    return example.user


def _stacked(examples: list[Example], name: str) -> Tensor | None:
    values: list[Any] = [getattr(example, name) for example in examples]
    if values[0] is None:
        return None
    return torch.stack(values, dim=1).flatten(0, 1)
