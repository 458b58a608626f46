"""Caches: training from them is training without them, and a row is read only where it is the right one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.pairs import BLUE, RED, colour_pairs, picture
from helpers.training import dpo_config, short_config, tiny_model, trainer_of
from t2ialign.data.pairs import PairDataset, load_pairs
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.randomness import Draws
from t2ialign.errors import ConfigError, DataError, ModelError, SourceError
from t2ialign.models import memory
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.objectives import dpo
from t2ialign.trainers.caches import build, store
from t2ialign.trainers.caches.filling import Way
from t2ialign.trainers.caches.latents import LatentCache, fill_latents
from t2ialign.trainers.caches.overview import look
from t2ialign.trainers.caches.plan import latent_store, text_store
from t2ialign.trainers.caches.store import Store
from t2ialign.trainers.caches.texts import fill_texts
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.dpo import DiffusionDPOTrainer
from t2ialign.trainers.examples import Batch, ExampleOptions, PairExamples
from t2ialign.trainers.preference import PreferenceTask
from t2ialign.trainers.task import example_options

OPTIONS = ExampleOptions(resolution=64, latent_shape=(4, 8, 8), timesteps=1000)
PPD = {"extractor": "clip:mini-clip", "shots": 2, "embeddings": 1, "shot_pool": 2}
KINDS: dict[str, dict[str, Any]] = {
    "dpo sd15": {},
    "dpo sdxl": {"caption_dropout": 0.5},
    "dpo sdxl with cuts": {"crop": "random", "crop_positions": 3, "flip": "independent", "time_ids": "real"},
    "dcpo sd15": {},
    "mapo sd15": {"posterior": "mean"},
    "ppd sd15": PPD,
    "kto sd15": {},
    "sft sd15": {"batch_size": 1},
}
"""Algorithm, family and options."""


@contextmanager
def encodings(model: DiffusionModel) -> Iterator[Counter[str]]:
    """Counts the pictures and the captions that go through a model's encoders."""
    counted: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        return lambda part, args, kwargs: counted.update({name: len(args[0] if args else kwargs["input_ids"])})

    parts = {"pictures": model.vae.encoder, "captions": model.text_encoders[0]}
    hooks = [part.register_forward_pre_hook(count(name), with_kwargs=True) for name, part in parts.items()]
    yield counted
    for hook in hooks:
        hook.remove()


def weights(output: Path) -> dict[str, torch.Tensor]:
    (file,) = (output / "final").glob("*.safetensors")
    return dict(load_file(file))


def run(kind: str, output: Path, data: PairDataset, **changes: Any) -> tuple[dict[str, Any], Counter[str]]:
    algorithm, family, *_ = kind.split()
    options = {"steps": 2, **KINDS[kind], **({} if algorithm in ("mapo", "sft") else {"beta": 500.0}), **changes}
    config = short_config(algorithm, output, **options)
    given: Any = UnpairedDataset.from_pairs(data) if algorithm in ("sft", "kto") else data
    model = tiny_model(family)
    with encodings(model) as counted:
        report = trainer_of(algorithm)(config, model=model, pairs=given).train()
    return report, counted


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """Six pairs of two users with captions of each side, wider than high."""
    return colour_pairs(
        tmp_path_factory.mktemp("wide"),
        8,
        sizes=((112, 64), (80, 100)),
        chosen_prompt=lambda n: f"a red picture {n % 4}",
        rejected_prompt=lambda n: f"a blue one, number {n % 5}",
        user_id=lambda n: "ann" if n % 2 else "bob",
    )


@pytest.mark.parametrize("kind", KINDS)
def test_training_from_a_folder_is_training_without_it_bit_for_bit(
    tmp_path: Path, wide: PairDataset, kind: str
) -> None:
    cached, _ = run(kind, tmp_path / "cached", wide, cache_dir=str(tmp_path / "cache"))
    again, counted = run(kind, tmp_path / "again", wide, cache_dir=str(tmp_path / "cache"))
    online, _ = run(kind, tmp_path / "online", wide, cache_latents=False, cache_text=False)
    assert cached["cached"] == again["cached"] == {"latents": True, "text": True}
    assert online["cached"] == {"latents": False, "text": False}
    assert counted["pictures"] == 0
    mine = weights(tmp_path / "again")
    for name, tensor in weights(tmp_path / "online").items():
        assert torch.equal(mine[name], tensor), name
    for one, other in zip(
        *(read_metrics(tmp_path / name / "metrics.jsonl") for name in ("cached", "online")), strict=True
    ):
        assert {key: value for key, value in one.items() if "per_second" not in key} == {
            key: value for key, value in other.items() if "per_second" not in key
        }


def fill(data: PairDataset, folder: Path, model: DiffusionModel | None = None, **options: Any) -> Counter[str]:
    """Fill a cache as `data cache` does, and count what is encoded for it."""
    model = model or tiny_model()
    config = dpo_config(Path("unused"), pairs=str(data.name), cache_dir=folder, **options)
    with encodings(model) as counted:
        examples = PairExamples(data, example_options(model, config))
        assert fill_latents(model, examples, latent_store(config, model)) is not None
        captions = examples.all_captions()
        assert fill_texts(model, captions, text_store(config, model), zeros=True) is not None
    return counted


def rows(folder: Path, kind: str = "latents") -> list[int]:
    return [each["rows"] for each in look(folder) if each["folder"].startswith(kind)]


def test_a_row_is_kept_once_whatever_set_its_picture_is_in(tmp_path: Path, pairs: PairDataset) -> None:
    cache = tmp_path / "cache"
    assert fill(pairs, cache)["pictures"] == 16
    assert rows(cache) == [16]
    assert not fill(pairs.select([5, 2]), cache)["pictures"]
    grown = colour_pairs(tmp_path / "grown", 10)
    assert fill(grown, cache)["pictures"] == 4
    swapped = colour_pairs(tmp_path / "swapped", 8, chosen=BLUE, rejected=RED)  # other pictures of the same kind
    assert fill(swapped, cache)["pictures"] == 16
    assert rows(cache) == [36]
    assert rows(cache, "texts") == [3]


def test_a_changed_picture_is_encoded_anew_though_its_name_and_size_stay(tmp_path: Path) -> None:
    folder, cache = tmp_path / "set", tmp_path / "cache"
    (folder / "train").mkdir(parents=True)
    for name, colour in (("a", RED), ("b", BLUE)):
        picture(colour, 0).save(folder / "train" / f"{name}.png", compress_level=0)
    line = {"prompt": "a picture", "chosen": "a.png", "rejected": "b.png"}
    (folder / "train" / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    assert fill(load_pairs(folder), cache)["pictures"] == 2
    file = folder / "train" / "a.png"
    before = file.stat()
    picture(RED, 5).save(file, compress_level=0)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert fill(load_pairs(folder), cache)["pictures"] == 1 + 1  # a lone picture is encoded beside itself
    assert rows(cache) == [3]


@pytest.mark.parametrize("change", ["weights", "configuration", "half precision", "kept in half", "mean"])
def test_another_encoder_or_format_has_a_folder_of_its_own(tmp_path: Path, pairs: PairDataset, change: str) -> None:
    cache = tmp_path / "cache"
    data = pairs.select([0, 1])
    fill(data, cache)
    model = tiny_model()
    options: dict[str, Any] = {}
    if change == "weights":
        next(model.vae.parameters()).data[0] += 1e-3
    elif change == "configuration":
        model.vae.register_to_config(scaling_factor=0.5)
    elif change == "half precision":
        model.vae.to(torch.bfloat16)
    elif change == "kept in half":
        options["cache_dtype"] = "fp16"
    else:
        options["posterior"] = "mean"
    assert fill(data, cache, model, **options)["pictures"] == 4
    assert rows(cache) == [4, 4]
    assert not fill(data, cache)["pictures"]


def test_size_cut_and_mirror_are_part_of_the_key(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    data = colour_pairs(tmp_path / "set", 2, sizes=((128, 64), (64, 64)))
    assert fill(data, cache)["pictures"] == 4
    assert fill(data, cache, resolution=32)["pictures"] == 4
    assert fill(data, cache, flip="joint")["pictures"] == 4
    # Three places: of the wide pictures the middle is there, the square ones are the same at every place.
    assert fill(data, cache, crop="random", crop_positions=3)["pictures"] == 4
    assert not fill(data, cache, crop="random", crop_positions=1)["pictures"]
    assert rows(cache) == [16]


def test_random_cuts_come_from_the_law_of_randomness(tmp_path: Path) -> None:
    data = colour_pairs(tmp_path / "set", 1, sizes=((320, 64), (64, 64)))
    examples = PairExamples(data, replace(OPTIONS, crop="random", crop_positions=5))
    seen = Counter(examples.views(Draws(3, n))[0][0] for n in range(500))
    assert set(seen) == {(place, place) for place in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert min(seen.values()) > 70
    assert examples.views(Draws(3, 7)) == examples.views(Draws(3, 7))
    lefts = {examples.pictures(0, Draws(3, n))[0].crop for n in range(60)}
    assert lefts == {(0, left) for left in (0, 64, 128, 192, 256)}
    assert PairExamples(data, replace(OPTIONS, crop="random")).all_views() is None


def batch_of(examples: PairExamples) -> Batch:
    return examples.collate([examples.read(index, Draws(1, index)) for index in range(len(examples))])


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_the_number_encoded_at_once_changes_no_bit(tmp_path: Path, wide: PairDataset, at_once: int) -> None:
    model = tiny_model("sdxl")
    examples = PairExamples(wide, replace(OPTIONS, time_ids="real"))
    online = batch_of(examples)
    assert online.pixels is not None
    expected = model.encode_images(online.pixels, online.posterior, steady=True)
    examples.latents = fill_latents(model, examples, Store(), way=Way(at_once=at_once))
    cached = batch_of(examples)
    assert cached.latents is not None
    assert torch.equal(cached.latents, expected)
    assert cached.time_ids is not None
    assert online.time_ids is not None
    assert torch.equal(cached.time_ids, online.time_ids)


def test_half_precision_is_kept_as_it_is(tmp_path: Path, pairs: PairDataset) -> None:
    model = tiny_model()
    model.to(dtype=torch.bfloat16)
    examples = PairExamples(pairs, OPTIONS)
    online = batch_of(examples)
    assert online.pixels is not None
    expected = model.encode_images(online.pixels, online.posterior, steady=True)
    found = fill_latents(model, examples, Store())
    assert isinstance(found, LatentCache)
    row = found.rows.read(int(found.places[0, 0, 0]))
    assert {tensor.dtype for tensor in row.values()} == {torch.bfloat16}
    examples.latents = found
    latents = batch_of(examples).latents
    assert latents is not None
    assert torch.equal(latents, expected)


def test_an_interrupted_filling_keeps_what_it_made(tmp_path: Path, pairs: PairDataset) -> None:
    model, examples = tiny_model(), PairExamples(pairs, OPTIONS)
    calls = iter(range(1000))
    way = Way(lambda: next(calls) > len(pairs) + 4, at_once=2)
    with encodings(model) as counted:
        assert fill_latents(model, examples, Store(tmp_path / "rows", {}), way=way) is None
        kept = len(Store(tmp_path / "rows"))
        assert 0 < kept < 16
        assert fill_latents(model, examples, Store(tmp_path / "rows", {})) is not None
    assert counted["pictures"] < 16 + 6
    assert len(Store(tmp_path / "rows")) == 16


def child(work: Callable[[], object]) -> int:
    """Do something in a forked process, which ends without cleaning up."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        try:
            work()
        finally:
            os._exit(0)
    return pid


def test_two_commands_at_once_build_one_cache(
    tmp_path: Path, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 4096)
    torch.set_num_threads(1)
    model, examples, folder = tiny_model(), PairExamples(pairs, OPTIONS), tmp_path / "rows"

    def work() -> None:
        fill_latents(model, examples, Store(folder), way=Way(at_once=2))

    for pid in [child(work) for _ in range(3)]:
        os.waitpid(pid, 0)
    together = fill_latents(model, examples, Store(folder))
    alone = fill_latents(model, examples, Store())
    assert together is not None
    assert alone is not None
    assert together.filled is not None
    assert (together.filled.found, together.filled.added) == (16, 0)
    for one, other in zip(together.places.ravel(), alone.places.ravel(), strict=True):
        mine, theirs = together.rows.read(int(one)), alone.rows.read(int(other))
        assert all(torch.equal(mine[name], theirs[name]) for name in ("mean", "std"))


def test_a_killed_filling_goes_on(tmp_path: Path, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_SECONDS", 0.0)
    torch.set_num_threads(1)
    model, examples, folder = tiny_model(), PairExamples(pairs, OPTIONS), tmp_path / "rows"
    kept = 0
    for _ in range(10):
        pid = child(lambda: fill_latents(model, examples, Store(folder), way=Way(at_once=1)))
        time.sleep(0.06)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert len(Store(folder)) >= kept
        kept = len(Store(folder))
    with encodings(model) as counted:
        assert fill_latents(model, examples, Store(folder), way=Way(at_once=2)) is not None
    assert counted["pictures"] <= 16 - kept + 1
    assert Store(folder).verify() == 0


def test_a_damaged_shard_is_filled_again_by_the_next_run(tmp_path: Path, pairs: PairDataset) -> None:
    cache = tmp_path / "cache"
    fill(pairs, cache)
    (shard,) = cache.glob("latents-*/shard-*")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert fill(pairs, cache)["pictures"] == 16
    assert rows(cache) == [16]
    assert look(cache)[0]["damaged"] == 1


def test_building_reports_what_it_did(tmp_path: Path, wide: PairDataset) -> None:
    source = Path(str(wide._table.root))
    config = dpo_config(tmp_path, pairs=str(source), cache_dir=tmp_path / "cache", flip="joint")
    report = build.build_caches(config, captions="both", model=tiny_model())
    assert json.loads((tmp_path / "cache" / "report.json").read_text()) == {
        key: value for key, value in report.items() if key != "signal"
    }
    assert report["status"] == "done"
    assert (report["latents"]["rows"], report["latents"]["added"], report["latents"]["found"]) == (32, 32, 0)
    assert report["latents"]["bytes"] == 32 * 2 * 4 * 8 * 8 * 4
    assert report["texts"]["rows"] == 1 + 3 + 4 + 5
    assert report["latents"]["ingredients"]["computed in"] == "float32"
    again = build.build_caches(config, captions="both", model=tiny_model())
    assert (again["latents"]["added"], again["latents"]["found"], again["texts"]["added"]) == (0, 32, 0)
    with pytest.raises(ConfigError, match="crop_positions"):
        build.build_caches(replace(config, crop="random"), model=tiny_model())


def test_building_checks_every_row(tmp_path: Path, wide: PairDataset) -> None:
    config = dpo_config(tmp_path, pairs=str(wide._table.root), cache_dir=tmp_path / "cache")
    build.build_caches(config, model=tiny_model())
    (shard,) = (tmp_path / "cache").glob("latents-*/shard-*")
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    trainer = DiffusionDPOTrainer(
        dpo_config(tmp_path / "run", cache_dir=tmp_path / "cache", steps=8), model=tiny_model(), pairs=wide
    )
    with pytest.raises(SourceError, match=shard.name):
        trainer.train()
    report = build.build_caches(config, model=tiny_model())
    assert report["damaged"] == 1
    assert report["latents"]["added"] == 16


def test_a_pair_that_can_not_be_read_is_noted_and_the_others_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "train").mkdir(parents=True)
    lines = []
    for n in range(4):
        for side, colour in (("chosen", RED), ("rejected", BLUE)):
            picture(colour, n).save(folder / "train" / f"{n}-{side}.png")
        lines.append({"prompt": "p", "chosen": f"{n}-chosen.png", "rejected": f"{n}-rejected.png"})
    (folder / "train" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole = (folder / "train" / "2-rejected.png").read_bytes()
    (folder / "train" / "2-rejected.png").write_bytes(whole[: len(whole) // 2])
    config = dpo_config(tmp_path, pairs=str(folder), cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match="row 2, rejected"):
        build.build_caches(config, model=tiny_model())
    dropping = replace(config, on_bad_pair="drop", max_bad_share=0.5)
    report = build.build_caches(dropping, model=tiny_model())
    assert report["bad"]["count"] == 1
    assert rows(tmp_path / "cache")[0] in (6, 7)
    run = dpo_config(tmp_path / "run", cache_dir=tmp_path / "cache", steps=4, on_bad_pair="drop", max_bad_share=0.5)
    result = DiffusionDPOTrainer(run, model=tiny_model(), pairs=load_pairs(folder)).train()
    assert result["cached"]["latents"]
    assert result["bad_pairs"]["count"] == 1


def overflowing(force_upcast: bool, dtype: torch.dtype = torch.float16) -> DiffusionModel:
    """A model whose VAE goes beyond the largest number of float16, 65504, and back; in float32 it does not mind."""
    model = tiny_model("sdxl")
    vae = model.vae
    vae.register_to_config(force_upcast=force_upcast)
    with torch.no_grad():
        vae.encoder.conv_in.weight *= 3e5
        vae.encoder.conv_in.bias *= 3e5
    vae.to(dtype)
    return model


def test_a_vae_that_overflows_in_half_precision_is_named_and_nothing_of_it_kept(
    tmp_path: Path, pairs: PairDataset
) -> None:
    examples = PairExamples(pairs, replace(OPTIONS, time_ids="real"))
    model = overflowing(force_upcast=False)
    with pytest.raises(ModelError, match=r"row \d+, (chosen|rejected): .*float16.*--vae_dtype float32"):
        fill_latents(model, examples, Store(tmp_path / "rows", {}))
    assert len(Store(tmp_path / "rows")) == 0


def test_a_vae_that_asks_for_it_works_in_float32(pairs: PairDataset) -> None:
    examples = PairExamples(pairs, replace(OPTIONS, time_ids="real"))
    model = overflowing(force_upcast=True)
    found = fill_latents(model, examples, Store())
    assert found is not None
    row = found.rows.read(int(found.places[3, 1, 0]))
    assert {tensor.dtype for tensor in row.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in row.values())
    assert model.vae.dtype == torch.float16


def test_the_vae_of_a_run_can_be_kept_in_float32(tmp_path: Path, pairs: PairDataset) -> None:
    config = dpo_config(tmp_path / "run", mixed_precision="bf16", vae_dtype="float32", steps=1)
    trainer = DiffusionDPOTrainer(config, model=tiny_model(), pairs=pairs)
    trainer.train()
    assert trainer.model is not None
    assert trainer.model.vae.dtype == torch.float32
    assert trainer.model.text_encoders[0].dtype == torch.bfloat16


def test_latents_that_are_not_finite_end_a_run_that_encodes_in_the_step(tmp_path: Path, pairs: PairDataset) -> None:
    model = tiny_model()
    model.vae.encoder.conv_in.weight.data *= float("inf")
    config = dpo_config(tmp_path / "run", cache_latents=False, steps=4)
    with pytest.raises(ModelError, match=r"row \d+, chosen and .* row \d+, .*latents are not finite.*--vae_dtype"):
        DiffusionDPOTrainer(config, model=model, pairs=pairs).train()


def test_encoders_leave_while_all_that_they_encode_is_cached(
    tmp_path: Path, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device there are no numbers: a step that touched an encoder there could not go on."""
    monkeypatch.setattr(memory, "AWAY", torch.device("meta"))
    trainer = DiffusionDPOTrainer(dpo_config(tmp_path / "run"), model=tiny_model("sdxl"), pairs=pairs)
    assert trainer.train()["status"] == "done"
    assert trainer.model is not None
    for part in (trainer.model.vae, *trainer.model.text_encoders):
        assert {parameter.device.type for parameter in part.parameters()} == {"meta"}
    assert {parameter.device.type for parameter in trainer.model.unet.parameters()} == {"cpu"}


def test_only_the_encoders_that_are_cached_leave(
    tmp_path: Path, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "AWAY", torch.device("meta"))
    for name, changes, expected in (
        ("latents", {"cache_latents": True, "cache_text": False}, ("meta", "cpu")),
        ("text", {"cache_latents": False, "cache_text": True}, ("cpu", "meta")),
        ("kept", {"cache_latents": True, "cache_text": True, "keep_encoders": True}, ("cpu", "cpu")),
    ):
        config = dpo_config(tmp_path / name, steps=1, **changes)
        trainer = DiffusionDPOTrainer(config, model=tiny_model(), pairs=pairs)
        trainer.train()
        assert trainer.model is not None
        assert (trainer.model.vae.device.type, trainer.model.text_encoders[0].device.type) == expected


def test_encoders_come_back_for_pictures_and_leave_again() -> None:
    model = tiny_model("sdxl")
    parts = (model.vae, *model.text_encoders)
    before = {id(part): part.state_dict() for part in parts}
    with memory.all_here(model):
        assert all(part.device == model.device for part in parts)
    assert all(
        torch.equal(tensor, part.state_dict()[name]) for part in parts for name, tensor in before[id(part)].items()
    )


@pytest.mark.gpu
def test_encoders_are_off_the_gpu_between_pictures(tmp_path: Path, pairs: PairDataset) -> None:
    config = dpo_config(tmp_path / "run", sample_every=1, steps=2, mixed_precision="auto")
    trainer = DiffusionDPOTrainer(config, model=tiny_model("sdxl"), pairs=pairs)
    trainer.train()
    assert trainer.model is not None
    assert {part.device.type for part in (trainer.model.vae, *trainer.model.text_encoders)} == {"cpu"}
    assert trainer.model.device.type == "cuda"
    assert (tmp_path / "run" / "samples" / "step-000002.png").is_file()


def test_the_vae_can_take_one_picture_at_a_time(tmp_path: Path, pairs: PairDataset) -> None:
    trainer = DiffusionDPOTrainer(dpo_config(tmp_path / "run", steps=1, vae_slicing=True), tiny_model(), pairs)
    assert trainer.train()["status"] == "done"
    assert trainer.model is not None
    assert trainer.model.vae.use_slicing


def test_a_run_resumes_with_another_cache(tmp_path: Path, pairs: PairDataset) -> None:
    changes: dict[str, Any] = {"checkpoint_every": 2, "lr_scheduler": "constant"}
    runs = (("whole", 4, "one", None), ("parts", 2, "one", None), ("parts", 4, "two", "latest"))
    for name, steps, cache, resume in runs:
        config = dpo_config(tmp_path / name, steps=steps, cache_dir=tmp_path / cache, resume=resume, **changes)
        DiffusionDPOTrainer(config, model=tiny_model(), pairs=pairs).train()
    mine, theirs = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_a_set_in_buckets_is_cached_in_its_sizes(tmp_path: Path) -> None:
    pairs = colour_pairs(tmp_path / "tall", 3, sizes=((64, 128), (64, 120)))
    changes: dict[str, Any] = {"aspect_buckets": True, "bucket_step": 16, "resolution": 64}
    config = resolve(dpo_config(Path("unused"), cache_dir=tmp_path / "cache", **changes), family="sd15", resolution=64)
    task = PreferenceTask(tiny_model(), pairs, dpo(500), config)
    examples = task.examples
    online = task.encode(batch_of(examples))  # type: ignore[arg-type]
    assert online.shape[-2:] != (8, 8)
    examples.latents = fill_latents(task.model, examples, latent_store(config, task.model))
    cached = batch_of(examples).latents  # type: ignore[arg-type]
    assert cached is not None
    assert torch.equal(cached, online)
