"""Pictures for scorers: what workers hand over, in which order, and what they say of what cannot be read."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from t2ialign.reward_models import pictures
from t2ialign.reward_models.pictures import Wanted, WholePicture, as_picture, prepare_batch, prepared_batches


@dataclass(frozen=True)
class Corner:
    """The pixel at the top left."""

    def __call__(self, image: Any) -> torch.Tensor:
        return torch.tensor(image.convert("RGB").getpixel((0, 0)))


def files(folder: Path, count: int, size: tuple[int, int] = (6, 4)) -> list[Path]:
    paths = []
    for i in range(count):
        paths.append(folder / f"{i}.png")
        Image.new("RGB", size, (i, 2 * i, 3)).save(paths[-1])
    return paths


def wanted(paths: Sequence[Path], *numbers: int, digest: bool = False) -> list[Wanted]:
    return [Wanted(path, path.name, numbers, digest) for path in paths]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order(tmp_path: Path, workers: int) -> None:
    paths = files(tmp_path, 11)
    batches = [wanted(paths[i : i + 2], 0) for i in range(0, 11, 2)]
    done = list(prepared_batches(batches, [Corner()], workers))
    assert [each.values[0].tolist() for each in done] == [
        [[i, 2 * i, 3] for i in range(k, min(k + 2, 11))] for k in range(0, 11, 2)
    ]
    assert list(prepared_batches([], [Corner()], workers)) == []


def test_a_picture_is_prepared_as_it_is_wanted(tmp_path: Path) -> None:
    paths = files(tmp_path, 3)
    batch = [*wanted(paths[:1], 0, 1), *wanted(paths[1:2], 1), *wanted(paths[2:], 0, digest=True)]
    done = prepare_batch(batch, [Corner(), WholePicture()])
    assert done.rows == {0: [0, 2], 1: [0, 1]}
    assert done.values[0].tolist() == [[0, 0, 3], [2, 4, 3]]
    assert done.values[1].shape == (2, 4, 6, 3)
    assert done.digests == {2: hashlib.sha256(paths[2].read_bytes()).hexdigest()}


def test_pictures_of_several_sizes_stay_a_list_and_whole_ones_come_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    made = [Image.fromarray(generator.integers(0, 256, (n, 5, 3), dtype=np.uint8)) for n in (4, 7)]
    for i, image in enumerate(made):
        image.save(tmp_path / f"{i}.png")
    (done,) = prepared_batches([wanted([tmp_path / "0.png", tmp_path / "1.png"], 0)], [WholePicture()], 1)
    assert isinstance(done.values[0], list)
    for image, value in zip(made, done.values[0], strict=True):
        assert np.array_equal(np.asarray(as_picture(value)), np.asarray(image))


def test_what_cannot_be_read_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Picky:
        def __call__(self, image: Any) -> torch.Tensor:
            if image.width < 3:
                raise ValueError("too thin")
            return torch.zeros(1)

    (cut,) = files(tmp_path, 1, (60, 40))
    cut.write_bytes(cut.read_bytes()[:60])
    Image.new("RGB", (2, 40)).save(tmp_path / "thin.png")
    Image.new("L", (4, 4)).save(tmp_path / "moving.gif")
    Image.new("L", (4, 4)).save(tmp_path / "whole.png")
    names = [cut.name, "gone.png", "thin.png", "moving.gif", "whole.png"]
    for digest in (False, True):
        done = prepare_batch(wanted([tmp_path / name for name in names], 0, digest=digest), [Picky()])
        assert sorted(done.failures) == [0, 1, 2, 3]
        assert done.rows == {0: [4]}
        for place, words in enumerate(("cut short", "no such file", "too thin", "GIF")):
            assert done.failures[place].startswith(names[place])
            assert words in done.failures[place]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="the system shares memory in another way")
def test_small_shared_memory_means_fewer_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A picture is 200 x 300 x 3 bytes and a batch two; 2 batches a worker are ahead, and one is in use."""
    paths = files(tmp_path, 8, (300, 200))
    batches = [wanted(paths[i : i + 2], 0) for i in range(0, 8, 2)]
    one = 2 * 200 * 300 * 3
    for free, workers in ((100 * one, 3), (int(5.0 * one / 0.8) + 8, 2), (int(2.9 * one / 0.8), 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert pictures._that_fit(3, batches, [WholePicture()]) == workers
        assert bool(caplog.records) == (workers < 3)
        assert len(list(prepared_batches(batches, [WholePicture()], 3))) == 4


def test_processes_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    assert [pictures.default_workers(count) for count in (1, 2, 4, 32)] == [8, 8, 4, 1]


def test_what_a_worker_is_given_can_be_sent_to_it(tmp_path: Path) -> None:
    """Where processes are not forked, the batches and the preparations are sent; a model is not among them."""
    given = pictures._Batches([wanted(files(tmp_path, 2), 0, 1)], [Corner(), WholePicture()])
    assert 0 < len(ForkingPickler.dumps(given)) < 10_000
