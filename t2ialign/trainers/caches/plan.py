"""What is encoded once, and where it is kept: what was asked for, or what pays and fits."""

from __future__ import annotations

import logging

import torch

from t2ialign.engine.order import Schedule
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.caches.keys import folder_name, latent_ingredients, text_ingredients
from t2ialign.trainers.caches.store import Store
from t2ialign.trainers.examples import PictureExamples
from t2ialign.trainers.preference_config import PreferenceConfig

logger = logging.getLogger(__name__)

MEMORY = 2 << 30
"""Bytes up to which a cache in memory is filled without being asked for."""

_TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def wants_latents(config: PreferenceConfig, examples: PictureExamples, schedule: Schedule) -> bool:
    """Return whether pictures are encoded once: as asked, or where it pays and fits.

    It never is where pictures are cut anywhere, since what is encoded then differs each time.
    """
    views = examples.all_views()
    if views is None:
        if config.cache_latents or (config.cache_latents is None and config.cache_dir is not None):
            logger.warning(
                "pictures are cut anywhere, so they are encoded in every step; with --crop_positions 8, say, the cuts "
                "are a few and can be kept"
            )
        return False
    if config.cache_latents is not None:
        return config.cache_latents
    if config.cache_dir is not None:
        return True
    pays = schedule.visits >= len(examples) * len(views)
    return pays and latent_bytes(examples, cache_dtype(config) or torch.float32) <= MEMORY


def latent_bytes(examples: PictureExamples, stored: torch.dtype) -> int:
    """Return the size of a cache of a set's pictures, if all of them are different."""
    channels, height, width = examples.options.latent_shape
    parts = 1 if examples.options.posterior == "mean" else 2
    pictures = len(examples) * examples.sides * len(examples.all_views() or ())
    return pictures * parts * channels * height * width * stored.itemsize


def wants_texts(config: PreferenceConfig, captions: int, caption_bytes: int, schedule: Schedule) -> bool:
    """Return whether captions are encoded once: as asked, or where it pays and fits."""
    if config.cache_text is not None:
        return config.cache_text
    if config.cache_dir is not None:
        return True
    return schedule.visits >= captions and captions * caption_bytes <= MEMORY


def cache_dtype(config: PreferenceConfig) -> torch.dtype | None:
    """Return the number format of cached rows; None for that in which they are computed."""
    return _TYPES.get(config.cache_dtype)


def latent_store(config: PreferenceConfig, model: DiffusionModel) -> Store:
    """Open the store of encoded pictures: the folder for this VAE and these formats, or memory."""
    if config.cache_dir is None:
        return Store()
    ingredients = latent_ingredients(model, cache_dtype(config) or model.vae_dtype, config.posterior)
    return Store(config.cache_dir / folder_name("latents", ingredients), {**ingredients, "model": model.name})


def text_store(config: PreferenceConfig, model: DiffusionModel) -> Store:
    """Open the store of encoded captions: the folder for these text encoders and formats, or memory."""
    if config.cache_dir is None:
        return Store()
    ingredients = text_ingredients(model, cache_dtype(config))
    return Store(config.cache_dir / folder_name("texts", ingredients), {**ingredients, "model": model.name})
