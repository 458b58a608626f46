"""Pictures as training examples: one or two sides with their draws, and batches of them.

Law of this file: everything random about an example comes from its `Draws`. Both sides of a pair share timestep
and noise; the VAE's posterior is sampled for each side on its own; one draw decides whether an example loses its
caption.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from t2ialign.data.pairs import PairDataset
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.models.conditioning import Conditioning
from t2ialign.trainers.pictures import Picture, prepare_picture


@dataclass(frozen=True)
class ExampleOptions:
    """How pictures become examples.

    Attributes:
        resolution: Side of the pictures, pixels.
        latent_shape: Of one picture, (channels, height, width).
        timesteps: Number of noise levels; they are drawn uniformly from all of them.
        crop: "center" or "random".
        flip: "none", "joint" or "independent".
        caption_dropout: Chance of the empty caption.
        time_ids: None, or for SDXL "real", "fixed" or "shared".
    """

    resolution: int
    latent_shape: tuple[int, int, int]
    timesteps: int
    crop: str = "center"
    flip: str = "none"
    caption_dropout: float = 0.0
    time_ids: str | None = None


@dataclass(frozen=True)
class LatentCache:
    """Encoded pictures of a set of N examples of S sides, chosen side first.

    Attributes:
        mean: Of the posterior, scaled, `[N, S, C, h, w]`.
        std: Of the posterior, scaled, the same shape.
        time_ids: For SDXL `[N, S, 6]`, else None.
    """

    mean: Tensor
    std: Tensor
    time_ids: Tensor | None = None


@dataclass(frozen=True)
class TextCache:
    """Encoded captions: the rows of `conditioning`, by caption."""

    rows: dict[str, int]
    conditioning: Conditioning


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
        self.latents: LatentCache | None = None
        self.texts: TextCache | None = None
        self.users: Users | None = None

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

    def all_captions(self) -> list[str]:
        """Return every different caption that an example may have, sorted; the empty one if captions are dropped."""
        found = {caption for index in range(len(self)) for caption in self.captions(index)}
        return sorted(found | ({""} if self.options.caption_dropout else set()))

    def read(self, index: int, draws: Draws) -> Example:
        """Return entry `index` with the draws of one training example."""
        options = self.options
        dropped = draws.chance(Stream.CAPTION, options.caption_dropout)
        example = Example(
            index=index,
            timestep=draws.integer(Stream.TIMESTEP, options.timesteps),
            noise=draws.normal(Stream.NOISE, options.latent_shape),
            prompts=("",) * self.sides if dropped else self.captions(index),
            user=None if self.users is None else self.users.read(index, draws),
        )
        streams = (Stream.POSTERIOR_CHOSEN, Stream.POSTERIOR_REJECTED)[: self.sides]
        posterior = torch.stack([draws.normal(stream, options.latent_shape) for stream in streams])
        if self.latents is not None:
            cache = self.latents
            latents = torch.addcmul(cache.mean[index], cache.std[index], posterior)
            time_ids = None if cache.time_ids is None else cache.time_ids[index]
            return replace(example, latents=latents, time_ids=time_ids)
        pictures = self.pictures(index, draws)
        pixels = torch.stack([picture.pixels for picture in pictures])
        return replace(example, pixels=pixels, posterior=posterior, time_ids=self.time_ids(pictures))

    def pictures(self, index: int, draws: Draws | None = None) -> tuple[Picture, ...]:
        """Return the pictures of an entry, resized, cut and mirrored; without draws, cut in the middle."""
        images = self.images(index)
        position, flips = (0.5, 0.5), [False] * len(images)
        if draws is not None and self.options.crop == "random":
            vertical, horizontal = draws.uniform(Stream.CROP, 2)
            position = (vertical, horizontal)
        if draws is not None and self.options.flip != "none":
            streams = (Stream.FLIP_CHOSEN, Stream.FLIP_REJECTED)
            alone = self.options.flip == "independent"
            flips = [draws.chance(streams[side if alone else 0], 0.5) for side in range(len(images))]
        return tuple(
            prepare_picture(image, self.options.resolution, position=position, flip=flip)
            for image, flip in zip(images, flips, strict=True)
        )

    def time_ids(self, pictures: tuple[Picture, ...]) -> Tensor | None:
        """Return SDXL's size ids of an entry's pictures, `[S, 6]`: original size, cut, target size; else None.

        "fixed" gives every picture the ids of an uncut one of the training size, as DiffusionDPO's train.py:1078-1085;
        "shared" gives both sides those of the chosen picture, near what MaPO's and diffusers' scripts do with the
        first one (mapo train.py:405-410).
        """
        if self.options.time_ids is None:
            return None
        side = self.options.resolution
        if self.options.time_ids == "fixed":
            return torch.tensor([[side, side, 0, 0, side, side]] * len(pictures), dtype=torch.float32)
        told = [pictures[0]] * len(pictures) if self.options.time_ids == "shared" else pictures
        return torch.tensor([[*each.original_size, *each.crop, side, side] for each in told], dtype=torch.float32)

    def collate(self, examples: list[Example]) -> Batch:
        """Put B examples together, chosen sides first."""
        prompts = [example.prompts[side] for side in range(self.sides) for example in examples]
        text = None
        if self.texts is not None:
            rows = torch.tensor([self.texts.rows[prompt] for prompt in prompts])
            text = self.texts.conditioning.index(rows)
        entries = torch.tensor([example.index for example in examples])
        return Batch(
            timesteps=torch.tensor([example.timestep for example in examples]),
            noise=torch.stack([example.noise for example in examples]),
            prompts=prompts,
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


def _user(example: Example) -> Tensor:
    assert example.user is not None
    return example.user


def _stacked(examples: list[Example], name: str) -> Tensor | None:
    values: list[Any] = [getattr(example, name) for example in examples]
    if values[0] is None:
        return None
    return torch.stack(values, dim=1).flatten(0, 1)
