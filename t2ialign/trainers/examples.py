"""Preference pairs as training examples: a pair with its draws, and batches of them.

Law of this file: everything random about an example comes from its `Draws`. Both sides of a pair share timestep
and noise; the VAE's posterior is sampled for each side on its own; one draw decides whether the pair loses its
caption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from t2ialign.data.pairs import PairDataset, PreferencePair
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.models.conditioning import Conditioning
from t2ialign.trainers.pictures import Picture, prepare_picture


@dataclass(frozen=True)
class ExampleOptions:
    """How pairs become examples.

    Attributes:
        resolution: Side of the pictures, pixels.
        latent_shape: Of one picture, (channels, height, width).
        timesteps: Number of noise levels; they are drawn uniformly from all of them.
        crop: "center" or "random".
        flip: "none", "joint" or "independent".
        caption_dropout: Chance of the empty caption.
        time_ids: None, or for SDXL "real" or "fixed".
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
    """Encoded pictures of a set of N pairs, chosen side first.

    Attributes:
        mean: Of the posterior, scaled, `[N, 2, C, h, w]`.
        std: Of the posterior, scaled, the same shape.
        time_ids: For SDXL `[N, 2, 6]`, else None.
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
class PairExample:
    """One pair with its draws; the two sides are stacked, chosen first."""

    timestep: int
    noise: Tensor
    prompt: str
    latents: Tensor | None = None
    pixels: Tensor | None = None
    posterior: Tensor | None = None
    time_ids: Tensor | None = None


@dataclass(frozen=True)
class PairBatch:
    """B pairs as the loss takes them; 2B rows are the chosen sides, then the rejected ones.

    Attributes:
        timesteps: `[B]` int64.
        noise: `[B, C, h, w]`.
        prompts: B captions, those dropped being empty.
        latents: `[2B, C, h, w]`, or None where pictures are encoded in the step.
        pixels: `[2B, 3, R, R]` in [-1, 1], or None.
        posterior: Unit noise of the VAE's posterior, `[2B, C, h, w]`, with `pixels`.
        time_ids: `[2B, 6]` for SDXL, else None.
        text: B rows, or None where captions are encoded in the step.
    """

    timesteps: Tensor
    noise: Tensor
    prompts: list[str]
    latents: Tensor | None = None
    pixels: Tensor | None = None
    posterior: Tensor | None = None
    time_ids: Tensor | None = None
    text: Conditioning | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def _map(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        tensors: dict[str, Any] = {
            field.name: change(getattr(self, field.name))
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        text = self.text
        if text is not None:
            pooled = None if text.pooled is None else change(text.pooled)
            text = Conditioning(hidden=change(text.hidden), pooled=pooled)
        return replace(self, **tensors, text=text)

    def to(self, device: torch.device) -> PairBatch:
        """Return the batch on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PairBatch:
        """Return the batch in page-locked memory, as torch's data loader asks."""
        return self._map(lambda tensor: tensor.pin_memory())


class PairExamples:
    """The examples of a pair set.

    Args:
        pairs: The set.
        options: How pairs become examples.

    Attributes:
        name: "pairs".
        latents: Encoded pictures, once a cache was filled.
        texts: Encoded captions, once a cache was filled.
    """

    name = "pairs"

    def __init__(self, pairs: PairDataset, options: ExampleOptions) -> None:
        self.pairs = pairs
        self.options = options
        self.latents: LatentCache | None = None
        self.texts: TextCache | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def fingerprint(self) -> str:
        """Of the pair set's contents."""
        return self.pairs.fingerprint

    def read(self, index: int, draws: Draws) -> PairExample:
        """Return pair `index` with the draws of one training example."""
        options = self.options
        dropped = draws.chance(Stream.CAPTION, options.caption_dropout)
        example = PairExample(
            timestep=draws.integer(Stream.TIMESTEP, options.timesteps),
            noise=draws.normal(Stream.NOISE, options.latent_shape),
            prompt="" if dropped else self.pairs.prompts[index],
        )
        streams = (Stream.POSTERIOR_CHOSEN, Stream.POSTERIOR_REJECTED)
        posterior = torch.stack([draws.normal(stream, options.latent_shape) for stream in streams])
        if self.latents is not None:
            cache = self.latents
            latents = torch.addcmul(cache.mean[index], cache.std[index], posterior)
            time_ids = None if cache.time_ids is None else cache.time_ids[index]
            return replace(example, latents=latents, time_ids=time_ids)
        pictures = self.pictures(self.pairs[index], draws)
        pixels = torch.stack([picture.pixels for picture in pictures])
        return replace(example, pixels=pixels, posterior=posterior, time_ids=self.time_ids(pictures))

    def pictures(self, pair: PreferencePair, draws: Draws | None = None) -> tuple[Picture, Picture]:
        """Return the two pictures of a pair, resized, cut and mirrored; without draws, cut in the middle."""
        position, flips = (0.5, 0.5), (False, False)
        if draws is not None and self.options.crop == "random":
            vertical, horizontal = draws.uniform(Stream.CROP, 2)
            position = (vertical, horizontal)
        if draws is not None and self.options.flip != "none":
            first = draws.chance(Stream.FLIP_CHOSEN, 0.5)
            alone = self.options.flip == "independent"
            flips = (first, draws.chance(Stream.FLIP_REJECTED, 0.5) if alone else first)
        side = self.options.resolution
        return (
            prepare_picture(pair.chosen, side, position=position, flip=flips[0]),
            prepare_picture(pair.rejected, side, position=position, flip=flips[1]),
        )

    def time_ids(self, pictures: tuple[Picture, Picture]) -> Tensor | None:
        """Return SDXL's size ids of two pictures, `[2, 6]`: original size, cut, target size; None for other families.

        "fixed" gives every picture the ids of an uncut one of the training size, as DiffusionDPO's train.py:1078-1085.
        """
        if self.options.time_ids is None:
            return None
        side = self.options.resolution
        if self.options.time_ids == "fixed":
            return torch.tensor([[side, side, 0, 0, side, side]] * 2, dtype=torch.float32)
        rows = [[*picture.original_size, *picture.crop, side, side] for picture in pictures]
        return torch.tensor(rows, dtype=torch.float32)

    def collate(self, examples: list[PairExample]) -> PairBatch:
        """Put B examples together, chosen sides first."""
        prompts = [example.prompt for example in examples]
        text = None
        if self.texts is not None:
            rows = torch.tensor([self.texts.rows[prompt] for prompt in prompts])
            text = self.texts.conditioning.index(rows)
        return PairBatch(
            timesteps=torch.tensor([example.timestep for example in examples]),
            noise=torch.stack([example.noise for example in examples]),
            prompts=prompts,
            latents=_sides(examples, "latents"),
            pixels=_sides(examples, "pixels"),
            posterior=_sides(examples, "posterior"),
            time_ids=_sides(examples, "time_ids"),
            text=text,
        )


def _sides(examples: list[PairExample], name: str) -> Tensor | None:
    values: list[Any] = [getattr(example, name) for example in examples]
    if values[0] is None:
        return None
    return torch.stack(values, dim=1).flatten(0, 1)
