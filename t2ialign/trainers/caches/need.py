"""What a cache needs and what of it is there, without encoding anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.caches.filling import Way
from t2ialign.trainers.caches.keys import caption_keys
from t2ialign.trainers.caches.latents import Unreadable, jobs_of, look_at
from t2ialign.trainers.caches.plan import cache_dtype, latent_bytes, latent_store, text_store
from t2ialign.trainers.caches.texts import caption_bytes
from t2ialign.trainers.examples import PictureExamples
from t2ialign.trainers.preference_config import PreferenceConfig


@dataclass(frozen=True)
class Need:
    """What a cache needs.

    Attributes:
        rows: Different rows.
        missing: How many of them are not there yet.
        bytes: Of all of them.
    """

    rows: int
    missing: int
    bytes: int


def need_of_latents(config: PreferenceConfig, model: DiffusionModel, examples: PictureExamples) -> Need:
    """Return what encoding a set's pictures once needs; with a folder every file is looked at, else all count as new.

    Raises:
        DataError: for pictures that can not be read, where there is a folder.
    """
    stored = cache_dtype(config) or model.vae_dtype
    views = examples.all_views() or []
    most = len(examples) * examples.sides * len(views)
    row = latent_bytes(examples, stored) // max(1, most)
    if config.cache_dir is None:
        return Need(most, most, most * row)
    contents = look_at(examples, Unreadable(None), Way())
    _, jobs = jobs_of(examples, contents or [], views)
    store = latent_store(config, model)
    return Need(len(jobs), sum(key not in store for key in jobs), len(jobs) * row)


def need_of_texts(config: PreferenceConfig, model: DiffusionModel, captions: Sequence[str], *, zeros: bool) -> Need:
    """Return what encoding captions once needs."""
    keys = set(caption_keys(model, captions, zeros=zeros))
    store = text_store(config, model)
    size: int = caption_bytes(model, cache_dtype(config))
    return Need(len(keys), sum(key not in store for key in keys), len(keys) * size)
