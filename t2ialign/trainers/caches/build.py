"""Filling a folder of caches before any run, with what runs will ask of it.

    CACHE_DIR/
        latents-<hex>/, texts-<hex>/    see `store`
        report.json                     what the last filling did

Keys of `report.json`:

    status ("done" or "stopped"), model, pairs {name, count, fingerprint}, processes, device, mixed_precision
    latents, texts          each null where it was not asked for, or was interrupted; else
        folder, ingredients what its name stands for
        rows                different rows that are needed
        found, added        of these, those that were there and those that this process made
        bytes               that this process added
        seconds
    damaged                 shards that were found damaged and set aside
    bad                     entries that could not be read, {count, share, which}
    seconds
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from t2ialign.data import columns as cols
from t2ialign.data import pairs, unpaired
from t2ialign.data.sources import open_table
from t2ialign.data.table_dataset import validate
from t2ialign.engine.bad_examples import BadExamples
from t2ialign.engine.launch import Launch
from t2ialign.engine.processes import make_accelerator, weight_dtype
from t2ialign.errors import ConfigError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.trainers.caches.filling import Filled, Way
from t2ialign.trainers.caches.latents import fill_latents
from t2ialign.trainers.caches.plan import cache_dtype, latent_store, text_store
from t2ialign.trainers.caches.store import Store
from t2ialign.trainers.caches.texts import fill_texts
from t2ialign.trainers.dcpo import dual_captions
from t2ialign.trainers.defaults import BUCKET_STEP, MINI_BUCKET_STEP
from t2ialign.trainers.examples import PairExamples, PictureExamples, SingleExamples
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.task import example_options
from t2ialign.trainers.trainer import place_encoders, write_json

CAPTIONS = ("prompt", "dual", "both")


def build_caches(
    config: PreferenceConfig, *, captions: str = "prompt", progress: bool = False, model: DiffusionModel | None = None
) -> dict[str, Any]:
    """Encode what is missing in `config.cache_dir` and return what `report.json` holds.

    Args:
        config: Options of a training run; those that a cache does not depend on are not looked at.
        captions: Which: "prompt", "dual" (`chosen_prompt` and `rejected_prompt`) or "both". The empty one is always
            encoded, for runs that drop captions and for guidance.
        progress: Show progress bars, in the first process.
        model: A loaded one instead of `config.model`.

    Raises:
        ConfigError: for pictures that are cut anywhere, or no folder.
        DataError: for pairs that can not be read, or a disk that is full.
        ModelError: for latents that are not finite.
    """
    if config.cache_dir is None:
        raise ConfigError("cache_dir is not given; name a folder with --cache_dir")
    begun = time.monotonic()
    with Launch() as stop:
        accelerator = make_accelerator(config)
        model = _load(config, accelerator, model)
        step = MINI_BUCKET_STEP if model.family == "mini-sd" else BUCKET_STEP
        examples = _examples(replace(config, bucket_step=config.bucket_step or step), model)
        if config.cache_latents is not False and examples.all_views() is None:
            raise ConfigError("pictures that are cut anywhere can not be encoded once; give --crop_positions, say 8")
        way = Way(stop, quiet=not (progress and accelerator.is_main_process), at_once=config.cache_batch_size)
        report = _fill(config, model, examples, _captions(examples, captions), way)
        report |= {
            "model": model.name,
            "pairs": {"name": config.pairs, "count": len(examples), "fingerprint": examples.fingerprint},
            "processes": accelerator.num_processes,
            "device": str(accelerator.device),
            "mixed_precision": accelerator.mixed_precision,
            "seconds": time.monotonic() - begun,
        }
        if accelerator.is_main_process:
            Path(config.cache_dir).mkdir(parents=True, exist_ok=True)
            write_json(Path(config.cache_dir) / "report.json", report)
    return report | {"signal": None if stop.received is None else stop.received.name}


def _load(config: PreferenceConfig, accelerator: Accelerator, model: DiffusionModel | None) -> DiffusionModel:
    """Load a model with its encoders on the device; the UNet, which nobody asks, stays where it is."""
    from t2ialign.models.loading import load_model

    if model is None:
        model = load_model(config.model, dtype=weight_dtype(accelerator), revision=config.revision)
    place_encoders(model, config, accelerator)
    return model


def _examples(config: PreferenceConfig, model: DiffusionModel) -> PictureExamples:
    opening = dict(config.opening)
    table = open_table(config.pairs, opening.pop("split"), opening.pop("revision"), **opening)
    form = cols.form_of(table.dataset.column_names, table.name, unlabelled=True)
    validate(table, form)
    options = example_options(model, config)
    if form is cols.PAIRS:
        return PairExamples(pairs.from_table(table, "keep"), options)
    return SingleExamples(unpaired.from_table(table, True), options)


def _captions(examples: PictureExamples, which: str) -> list[str]:
    found = {""}
    if which != "dual":
        found |= set(examples.all_captions())
    if which != "prompt":
        if not isinstance(examples, PairExamples):
            raise ConfigError(f"captions is {which!r}, but {examples.data.name} has single pictures; use prompt")
        found |= {caption for both in dual_captions(examples.pairs) for caption in both}
    return sorted(found)


def _fill(
    config: PreferenceConfig, model: DiffusionModel, examples: PictureExamples, captions: Sequence[str], way: Way
) -> dict[str, Any]:
    bad = BadExamples(config, len(examples), examples.name)
    stored, damaged = cache_dtype(config), 0
    report: dict[str, Any] = {"status": "done", "texts": None, "latents": None}
    if config.cache_text is not False:
        store = text_store(config, model)
        damaged += store.verify()
        zeros = config.empty_caption != "encoded"
        texts = fill_texts(model, captions, store, zeros=zeros, stored=stored, way=way)
        report["texts"] = None if texts is None else _told(store, texts.filled)
        report["status"] = "stopped" if texts is None else "done"
    if config.cache_latents is not False and report["status"] == "done":
        store = latent_store(config, model)
        damaged += store.verify()
        latents = fill_latents(model, examples, store, bad=bad, stored=stored, way=way)
        report["latents"] = None if latents is None else _told(store, latents.filled)
        report["status"] = "stopped" if latents is None else "done"
    return report | {"damaged": damaged, "bad": bad.report()}


def _told(store: Store, filled: Filled | None) -> dict[str, Any]:
    assert filled is not None
    assert store.folder is not None
    return {"folder": store.folder.name, "ingredients": store.about, **asdict(filled)}
