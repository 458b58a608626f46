"""Encoding every picture and every caption once, before training.

What is kept of a picture is the mean and the deviation of its posterior, so that sampling it stays a function
of (seed, n). The caches are in memory, for sets that are visited more often than they are large. Pictures are
encoded in the order of the set and in batches of a fixed size, so that the same set gives the same bits in
every run.
"""

from __future__ import annotations

import logging

import torch
from tqdm import tqdm

from t2ialign.engine.order import Schedule
from t2ialign.engine.task import StopRequested
from t2ialign.models.conditioning import Conditioning
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.examples import ExampleOptions, LatentCache, PictureExamples, TextCache
from t2ialign.trainers.preference_config import PreferenceConfig

logger = logging.getLogger(__name__)

MEMORY = 2 << 30
"""Bytes up to which a cache is filled without being asked for."""

EXAMPLES_AT_ONCE = 4
CAPTIONS_AT_ONCE = 16


def wants_latents(config: PreferenceConfig, examples: PictureExamples, schedule: Schedule) -> bool:
    """Return whether pictures are encoded once: as asked, or where it pays and fits.

    It never is where pictures are cut or mirrored at random, since what is encoded then differs each time.
    """
    options = examples.options
    if options.crop == "random" or options.flip != "none":
        if config.cache_latents:
            logger.warning("pictures are cut or mirrored at random, so they are encoded in every step")
        return False
    if config.cache_latents is not None:
        return config.cache_latents
    return schedule.visits >= len(examples) and latent_bytes(options, len(examples), examples.sides) <= MEMORY


def latent_bytes(options: ExampleOptions, count: int, sides: int) -> int:
    """Return the size of the cache of a set: mean and deviation of each side, float32."""
    channels, height, width = options.latent_shape
    return count * sides * 2 * channels * height * width * 4


def wants_texts(config: PreferenceConfig, captions: int, caption_bytes: int, schedule: Schedule) -> bool:
    """Return whether captions are encoded once: as asked, or where it pays and fits."""
    if config.cache_text is not None:
        return config.cache_text
    return schedule.visits >= captions and captions * caption_bytes <= MEMORY


@torch.no_grad()
def fill_latents(
    model: DiffusionModel, examples: PictureExamples, *, quiet: bool, stop: StopRequested
) -> LatentCache | None:
    """Encode every picture of a set; None if it was interrupted."""
    shape = (len(examples), examples.sides, *examples.options.latent_shape)
    mean, std = torch.empty(shape), torch.empty(shape)
    time_ids = None if examples.options.time_ids is None else torch.empty(len(examples), examples.sides, 6)
    starts = range(0, len(examples), EXAMPLES_AT_ONCE)
    for start in tqdm(starts, desc="encoding pictures", disable=True if quiet else None):
        if stop():
            return None
        rows = range(start, min(start + EXAMPLES_AT_ONCE, len(examples)))
        entries = [examples.pictures(index) for index in rows]
        pixels = torch.stack([picture.pixels for entry in entries for picture in entry])
        centre = model.encode_images(pixels)
        spread = model.encode_images(pixels, torch.ones_like(centre)) - centre
        here = slice(start, start + len(entries))
        mean[here] = centre.cpu().unflatten(0, (-1, examples.sides))
        std[here] = spread.cpu().unflatten(0, (-1, examples.sides))
        if time_ids is not None:
            for index, entry in zip(rows, entries, strict=True):
                sizes = examples.time_ids(entry)
                assert sizes is not None
                time_ids[index] = sizes
    return LatentCache(mean, std, time_ids)


@torch.no_grad()
def fill_texts(
    model: DiffusionModel, captions: list[str], *, zeros: bool, quiet: bool, stop: StopRequested
) -> TextCache | None:
    """Encode distinct captions, the empty one as zeros where asked for and configured; None if it was interrupted."""
    parts = []
    starts = range(0, len(captions), CAPTIONS_AT_ONCE)
    for start in tqdm(starts, desc="encoding captions", disable=True if quiet else None):
        if stop():
            return None
        some = captions[start : start + CAPTIONS_AT_ONCE]
        parts.append(model.encode_prompts(some, force_zeros_for_empty_prompt=zeros).to("cpu"))
    joined = Conditioning.cat(parts)
    return TextCache({caption: row for row, caption in enumerate(captions)}, joined)
