"""From pairs to batches: what is shared inside a pair, what is not, and the law of randomness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from helpers.caches import of_value
from helpers.pairs import colour_pairs, picture
from helpers.training import tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.randomness import Draws
from t2ialign.trainers.caches.latents import fill_latents
from t2ialign.trainers.caches.store import Store
from t2ialign.trainers.examples import ExampleOptions, PairExamples
from t2ialign.trainers.pictures import prepare_picture

OPTIONS = ExampleOptions(resolution=64, latent_shape=(4, 8, 8), timesteps=1000)


def test_a_batch_has_the_chosen_sides_first(pairs: PairDataset) -> None:
    examples = PairExamples(pairs, OPTIONS)
    batch = examples.collate([examples.read(index, Draws(0, index)) for index in range(3)])
    assert batch.pixels is not None
    assert batch.posterior is not None
    assert batch.pixels.shape == (6, 3, 64, 64)
    assert (batch.pixels[:3, 0].mean(), batch.pixels[3:, 0].mean()) == pytest.approx((0.56, -0.76), abs=0.05)
    assert batch.timesteps.shape == (3,)
    assert batch.noise.shape == (3, 4, 8, 8)
    assert not torch.equal(batch.posterior[:3], batch.posterior[3:])
    assert batch.time_ids is None
    assert len(batch) == 3


def test_an_example_is_a_function_of_its_entry_and_its_draws(pairs: PairDataset) -> None:
    options = replace(OPTIONS, crop="random", flip="independent", caption_dropout=0.5)
    first = PairExamples(pairs, options).read(3, Draws(7, 11))
    examples = PairExamples(pairs, options)
    examples.read(2, Draws(7, 10))
    again = examples.read(3, Draws(7, 11))
    assert (again.timestep, again.prompts) == (first.timestep, first.prompts)
    assert again.pixels is not None
    assert first.pixels is not None
    assert torch.equal(again.pixels, first.pixels)
    assert torch.equal(again.noise, first.noise)


def test_the_noise_does_not_depend_on_the_options(pairs: PairDataset) -> None:
    plain = PairExamples(pairs, OPTIONS).read(0, Draws(1, 5))
    rich = PairExamples(pairs, replace(OPTIONS, crop="random", flip="joint", caption_dropout=0.9)).read(0, Draws(1, 5))
    assert torch.equal(plain.noise, rich.noise)
    assert plain.timestep == rich.timestep


def test_the_caption_is_dropped_for_the_pair_as_often_as_asked(pairs: PairDataset) -> None:
    examples = PairExamples(pairs, replace(OPTIONS, caption_dropout=0.2))
    examples.latents = of_value(8, 2, mean=0.0, std=0.0)
    prompts = [examples.read(0, Draws(0, n)).prompts for n in range(500)]
    assert 70 < prompts.count(("", "")) < 130
    assert set(prompts) == {("", ""), (pairs.prompts[0],) * 2}


@pytest.mark.parametrize(("flip", "joint"), [("joint", True), ("independent", False)])
def test_mirroring(tmp_path: Path, flip: str, joint: bool) -> None:
    examples = PairExamples(colour_pairs(tmp_path / "pairs", 1), replace(OPTIONS, flip=flip))
    pair = examples.pairs[0]
    straight = [prepare_picture(side, 64).pixels for side in (pair.chosen, pair.rejected)]
    seen = set()
    for n in range(40):
        sides = examples.pictures(0, Draws(0, n))
        seen.add(
            tuple(bool(torch.equal(side.pixels, plain.flip(2))) for side, plain in zip(sides, straight, strict=True))
        )
    assert seen == (
        {(True, True), (False, False)} if joint else {(a, b) for a in (True, False) for b in (True, False)}
    )


def test_both_pictures_of_a_pair_are_cut_at_the_same_relative_place(tmp_path: Path) -> None:
    pairs = colour_pairs(tmp_path / "pairs", 1, sizes=((128, 64), (384, 128)))
    examples = PairExamples(pairs, replace(OPTIONS, crop="random"))
    lefts = []
    for n in range(20):
        one, two = examples.pictures(0, Draws(0, n))
        assert one.crop[0] == two.crop[0] == 0
        assert one.crop[1] / 64 == pytest.approx(two.crop[1] / 128, abs=0.01)
        lefts.append(one.crop[1])
    assert min(lefts) < 16
    assert max(lefts) > 48


def test_sdxl_is_told_the_real_sizes_or_the_fixed_ones(tmp_path: Path) -> None:
    pairs = colour_pairs(tmp_path / "pairs", 1, sizes=((128, 64), (100, 200)))
    real = PairExamples(pairs, replace(OPTIONS, time_ids="real")).read(0, Draws(0, 0)).time_ids
    assert real is not None
    assert real.tolist() == [[64, 128, 0, 32, 64, 64], [200, 100, 32, 0, 64, 64]]
    fixed = PairExamples(pairs, replace(OPTIONS, time_ids="fixed")).read(0, Draws(0, 0)).time_ids
    assert fixed is not None
    assert fixed.tolist() == [[64, 64, 0, 0, 64, 64]] * 2
    shared = PairExamples(pairs, replace(OPTIONS, time_ids="shared")).read(0, Draws(0, 0)).time_ids
    assert shared is not None
    assert shared.tolist() == [[64, 128, 0, 32, 64, 64]] * 2


def test_the_cache_keeps_the_sizes_of_each_side(tmp_path: Path) -> None:
    pairs = colour_pairs(tmp_path / "pairs", 3, sizes=((128, 64), (100, 200)))
    examples = PairExamples(pairs, replace(OPTIONS, time_ids="real"))
    straight = examples.read(1, Draws(0, 0)).time_ids
    examples.latents = fill_latents(tiny_model("sdxl"), examples, Store())
    cached = examples.read(1, Draws(0, 0))
    assert cached.latents is not None
    assert straight is not None
    assert cached.time_ids is not None
    assert torch.equal(cached.time_ids, straight)


def test_a_cached_latent_is_the_posterior_sampled_by_the_draws(pairs: PairDataset) -> None:
    examples = PairExamples(pairs, OPTIONS)
    examples.latents = of_value(8, 2, mean=3.0, std=0.5)
    read = examples.read(2, Draws(0, 9))
    assert read.latents is not None
    unit = (read.latents - 3.0) / 0.5
    assert abs(unit.mean().item()) < 0.15
    assert abs(unit.std().item() - 1) < 0.1
    assert not torch.equal(read.latents[0], read.latents[1])


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (50, 70), (300, 200)])
def test_pictures_are_prepared_as_torchvision_does(size: tuple[int, int]) -> None:
    image = picture((120, 60, 200), 1, size)
    expected = center_crop(resize(image, 64), [64, 64])
    ours = prepare_picture(image, 64)
    assert ours.original_size == (size[1], size[0])
    assert ours.pixels.shape == (3, 64, 64)
    back = ((ours.pixels + 1) * 127.5).round().to(torch.uint8)
    difference = (back.int() - pil_to_tensor(expected).int()).abs()
    assert difference.float().mean() < 2


def test_a_mirrored_cut_says_where_it_lies_in_the_mirrored_picture() -> None:
    image = Image.new("RGB", (128, 64))
    straight = prepare_picture(image, 64, position=(0.5, 0.25))
    mirrored = prepare_picture(image, 64, position=(0.5, 0.25), flip=True)
    assert (straight.crop, mirrored.crop) == ((0, 16), (0, 48))
