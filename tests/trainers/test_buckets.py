"""Which bucket a pair gets, what is cut off its pictures, and what a batch of a bucket looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.pairs import picture
from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.randomness import Draws
from t2ialign.errors import ConfigError, DataError
from t2ialign.trainers.buckets import assign, bucket_sizes, log_report
from t2ialign.trainers.examples import ExampleOptions, PairExamples, SingleExamples

# SDXL (arXiv 2307.01952), appendix I: heights by width of the upright sizes and the square.
SDXL_UPRIGHT = {
    512: (2048, 1984, 1920, 1856),
    576: (1792, 1728, 1664),
    640: (1600, 1536),
    704: (1472, 1408),
    768: (1344, 1280),
    832: (1216, 1152),
    896: (1152, 1088),
    960: (1088, 1024),
    1024: (1024,),
}
SMALL = bucket_sizes(64, 8, 4.0)
OPTIONS = ExampleOptions(64, (4, 8, 8), 1000, buckets=SMALL, bucket_group=2)

side = st.integers(1, 3000)


def shaped_pairs(folder: Path, shapes: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> PairDataset:
    """Pairs whose pictures have these sizes, (width, height)."""
    rows: list[dict[str, Any]] = [
        {
            "prompt": f"a picture {number}",
            "chosen": picture((200, 30, 30), 2 * number, chosen),
            "rejected": picture((30, 30, 200), 2 * number + 1, rejected),
        }
        for number, (chosen, rejected) in enumerate(shapes)
    ]
    return load_pairs(write_pairs(rows, folder))


def bucket_of(*shapes: tuple[int, int], sizes: tuple[tuple[int, int], ...] = SMALL) -> tuple[int, int]:
    """The bucket of an entry with pictures of these (height, width)."""
    return assign(np.array([shapes]), sizes, 64).size(0)


def test_the_sizes_at_1024_are_those_of_sdxl() -> None:
    upright = {(height, width) for width, heights in SDXL_UPRIGHT.items() for height in heights}
    published = upright | {(width, height) for height, width in upright} | {(704, 1344)}
    ours = bucket_sizes(1024, 64, 4.0)
    assert len(ours) == len(set(ours))
    assert set(ours) == published | {(1344, 704)}


@given(st.integers(4, 40), st.sampled_from([8, 16, 64]), st.floats(1, 5))
def test_sizes_keep_step_area_and_ratio_and_come_both_ways(steps: int, step: int, ratio: float) -> None:
    resolution = steps * step
    sizes = bucket_sizes(resolution, step, ratio)
    assert (resolution, resolution) in sizes
    for height, width in sizes:
        assert height % step == width % step == 0
        assert 0.9 * resolution**2 <= height * width <= resolution**2
        assert max(height, width) <= ratio * min(height, width)
        assert (width, height) in sizes


def test_a_step_too_coarse_for_the_area_is_refused() -> None:
    with pytest.raises(ConfigError, match="bucket_step"):
        bucket_sizes(72, 64, 4.0)


@given(st.lists(st.tuples(side, side), min_size=1, max_size=2))
def test_no_other_bucket_would_cut_less_of_the_picture_that_is_cut_most(shapes: list[tuple[int, int]]) -> None:
    """Against a plain search over what covering and cutting leaves of each picture."""

    def worst(size: tuple[int, int]) -> float:
        kept = []
        for height, width in shapes:
            scale = max(size[0] / height, size[1] / width)
            kept.append(size[0] * size[1] / (scale * height * scale * width))
        return min(kept)

    assert worst(bucket_of(*shapes)) == pytest.approx(max(worst(size) for size in SMALL), abs=1e-8)


def test_a_pair_is_between_its_pictures_and_does_not_depend_on_which_is_preferred() -> None:
    assert bucket_of((64, 64), (64, 64)) == (64, 64)
    assert bucket_of((128, 32)) == (128, 32)
    assert bucket_of((100, 300), (300, 100)) == (64, 64)
    assert bucket_of((64, 64), (32, 128)) == (48, 80)
    assert bucket_of((32, 128), (64, 64)) == (48, 80)
    assert bucket_of((1, 3000)) == (32, 128)


def test_of_like_buckets_the_larger_is_taken() -> None:
    assert bucket_of((500, 500), sizes=((56, 56), (64, 64), (60, 60))) == (64, 64)


def test_an_entry_that_can_not_be_read_goes_with_the_next_one() -> None:
    entries = np.array([[[0, 0], [64, 64]], [[32, 128]] * 2, [[64, 64]] * 2, [[128, 32], [0, 0]]])
    bucketing = assign(entries, SMALL, 64)
    assert [bucketing.size(index) for index in range(4)] == [(32, 128), (32, 128), (64, 64), (32, 128)]
    assert bucketing.report(1)["unread"] == 2
    assert bucketing.report(1)["pictures"] == 4
    with pytest.raises(DataError, match="no picture"):
        assign(np.zeros((2, 2, 2), dtype=np.int64), SMALL, 64)


def test_the_report_counts_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    entries = np.array([[[64, 64], [64, 64]], [[128, 32], [128, 32]], [[64, 64], [32, 128]], [[20, 20], [640, 640]]])
    report = assign(entries, SMALL, 64).report(4)
    assert report["table"] == [
        {"height": 128, "width": 32, "entries": 1, "share": 0.25, "examples": 4},
        {"height": 64, "width": 64, "entries": 2, "share": 0.5, "examples": 4},
        {"height": 48, "width": 80, "entries": 1, "share": 0.25, "examples": 4},
    ]
    assert (report["examples_per_epoch"], report["pictures"], report["unread"]) == (12, 8, 0)
    assert report["repeated"] == pytest.approx(8 / 12)
    # Of the eight, 64 x 64 in 48 x 80 is enlarged by 80 / 64, 32 x 128 in it by 48 / 32, and 20 x 20 by 64 / 20.
    assert report["upscaled"] == {"count": 3, "share": 3 / 8, "largest": 3.2}
    assert report["upscaled_as_squares"] == {"count": 4, "share": 0.5, "largest": 3.2}
    lost = (1 - 48 / 80) + (1 - 80 / 48 / 4)
    assert report["cut"] == {"mean": pytest.approx(lost / 8), "largest": pytest.approx(1 - 80 / 48 / 4)}
    assert report["cut_as_squares"] == {"mean": pytest.approx(3 * 0.75 / 8), "largest": 0.75}
    with caplog.at_level("INFO", logger="t2ialign"):
        log_report(report)
    assert "128 x 32: 1 (25.0%), 64 x 64: 2 (50.0%)" in caplog.text
    assert "67% of an epoch's examples come a second time" in caplog.text


def test_both_sides_of_a_pair_and_its_noise_have_the_shape_of_its_bucket(tmp_path: Path) -> None:
    shapes = [((128, 32), (256, 70)), ((64, 64), (90, 64)), ((50, 200), (50, 190)), ((64, 64), (128, 32))]
    examples = PairExamples(shaped_pairs(tmp_path / "pairs", shapes), replace(OPTIONS, time_ids="real"))
    assert [examples.target(index) for index in range(4)] == [(32, 120), (56, 72), (128, 32), (48, 80)]
    for index in range(4):
        height, width = examples.target(index)
        read = examples.read(index, Draws(0, index))
        assert read.pixels is not None
        assert read.posterior is not None
        assert read.pixels.shape == (2, 3, height, width)
        assert read.noise.shape == (4, height // 8, width // 8)
        assert read.posterior.shape == (2, 4, height // 8, width // 8)
        batch = examples.collate([read, read])
        assert batch.pixels is not None
        assert batch.pixels.shape == (4, 3, height, width)
    with pytest.raises(RuntimeError, match="equal size"):
        examples.collate([examples.read(index, Draws(0, index)) for index in (0, 1)])


def test_a_pair_of_the_square_is_as_without_buckets(tmp_path: Path) -> None:
    pairs = shaped_pairs(tmp_path / "pairs", [((64, 64), (96, 96)), ((128, 32), (128, 32))])
    plain = PairExamples(pairs, ExampleOptions(64, (4, 8, 8), 1000, crop="random", flip="joint", time_ids="real"))
    bucketed = PairExamples(pairs, replace(plain.options, buckets=SMALL))
    assert plain.buckets is None
    assert bucketed.buckets is not None
    for n in range(5):
        one, two = plain.read(0, Draws(3, n)), bucketed.read(0, Draws(3, n))
        for name in ("pixels", "noise", "posterior", "time_ids"):
            assert torch.equal(getattr(one, name), getattr(two, name))
        assert one.timestep == two.timestep


def test_what_is_left_is_the_middle_of_the_picture_in_its_own_proportions(tmp_path: Path) -> None:
    """Of a 128 x 32 gradient nothing is cut in its own bucket; a square would have kept a quarter of it."""
    gradient = Image.fromarray(np.repeat(np.tile(np.arange(128, dtype=np.uint8), (32, 1))[:, :, None], 3, axis=2))
    row = {"prompt": "a", "chosen": gradient, "rejected": gradient}
    examples = PairExamples(load_pairs(write_pairs([row], tmp_path / "pairs")), OPTIONS)
    left, right = (((examples.pictures(0)[0].pixels[0, 0, place] + 1) * 127.5).item() for place in (0, -1))
    assert (left, right) == pytest.approx((0, 127), abs=1e-3)


def test_sdxl_is_told_original_size_cut_and_bucket(tmp_path: Path) -> None:
    pairs = shaped_pairs(tmp_path / "pairs", [((64, 64), (128, 32))])
    for told, expected in {
        "real": [[64, 64, 16, 0, 48, 80], [32, 128, 0, 56, 48, 80]],
        "fixed": [[48, 80, 0, 0, 48, 80]] * 2,
        "shared": [[64, 64, 16, 0, 48, 80]] * 2,
    }.items():
        ids = PairExamples(pairs, replace(OPTIONS, time_ids=told)).read(0, Draws(0, 0)).time_ids
        assert ids is not None
        assert ids.tolist() == expected


def test_single_pictures_have_a_bucket_each(tmp_path: Path) -> None:
    pairs = shaped_pairs(tmp_path / "pairs", [((64, 64), (128, 32)), ((32, 128), (72, 56))])
    examples = SingleExamples(UnpairedDataset.from_pairs(pairs), OPTIONS)
    assert [examples.target(index) for index in range(4)] == [(64, 64), (32, 128), (128, 32), (56, 72)]
    assert examples.read(1, Draws(0, 0)).noise.shape == (4, 4, 16)
