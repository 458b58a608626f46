"""Preparations: equal to the official transforms on every kind of picture, shareable, smooth."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from helpers.zoo import (
    KINDS,
    MEAN,
    STD,
    colours,
    edges,
    letterbox_pixels,
    save_zoo,
    torchvision_pixels,
    transformers_pixels,
)
from t2ialign.errors import ModelError
from t2ialign.reward_models.base import Preparation
from t2ialign.reward_models.preparation import ClipPreparation, Letterbox, LibraryPreparation, PillowPreparation


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_zoo(tmp_path_factory.mktemp("zoo"))


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    values = pixels if pixels.is_floating_point() else pixels.float() / 255
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_official_transforms(zoo: dict[str, Path], kind: str) -> None:
    for size in (32, 50):
        last = PillowPreparation(size, rgb="last", half="even")
        assert last(zoo[kind]).dtype == torch.uint8
        official = torchvision_pixels(zoo[kind], size)
        assert torch.allclose(normalised(last(zoo[kind])), official, atol=1e-6, rtol=0)
        first = PillowPreparation(size)
        assert torch.allclose(normalised(first(zoo[kind])), transformers_pixels(zoo[kind], size), atol=1e-6, rtol=0)
        for antialias in (True, False):
            official = letterbox_pixels(zoo[kind], size, antialias)
            if official.shape[1:] == (size, size):
                ours = normalised(Letterbox(size, antialias)(zoo[kind]))
                assert torch.allclose(ours, official, atol=1e-6, rtol=0)


def test_the_order_of_steps_shows(zoo: dict[str, Path]) -> None:
    """Else the comparison above would not tell the two ways apart."""
    for kind in ("rgba", "palette"):
        first, last = (PillowPreparation(32, rgb=rgb, half="down")(zoo[kind]) for rgb in ("first", "last"))
        assert not torch.equal(first, last), kind
    down, even = (PillowPreparation(32, half=half)(zoo["portrait"]) for half in ("down", "even"))
    assert not torch.equal(down, even)
    assert not torch.allclose(Letterbox(32, True)(zoo["huge"]), Letterbox(32, False)(zoo["huge"]), atol=0.05)


def test_a_frame_where_the_official_code_forgets_it() -> None:
    framed = Letterbox(32)(colours(0, (32, 20)))
    assert framed.shape == (3, 32, 32)
    assert (framed[:, :6] == 0).all()
    assert (framed[:, 26:] == 0).all()
    assert framed[:, 6:26].std() > 0
    assert Letterbox(32)(colours(0, (900, 2))).shape == (3, 32, 32)


def test_sixteen_bits_are_clipped_as_officially_and_said_once(
    zoo: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    from t2ialign.reward_models.base import _warn_clipped

    _warn_clipped.cache_clear()
    for _ in range(2):
        PillowPreparation(32)(zoo["deep"])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "clipped to white" in caplog.text


PREPARATIONS = [
    PillowPreparation(32),
    PillowPreparation(32, rgb="last", half="even"),
    PillowPreparation(32, squash=True),
    PillowPreparation(32, edge=40),
    Letterbox(32),
    Letterbox(32, antialias=False),
]


@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_a_preparation_is_a_key_and_travels(preparation: ClipPreparation) -> None:
    assert isinstance(preparation, Preparation)
    twin = pickle.loads(pickle.dumps(preparation))
    assert twin == preparation
    assert len({twin, preparation, PillowPreparation(33), Letterbox(33)}) == 3
    json.dumps(preparation.info())
    picture = colours(1, (70, 45))
    assert torch.equal(twin(picture), preparation(picture))


def test_a_worker_needs_no_model_library() -> None:
    code = (
        "import sys; from PIL import Image; from t2ialign.reward_models.preparation import *; "
        "[p(Image.new('RGB', (50, 40))) for p in (PillowPreparation(32), Letterbox(32))]; "
        "print([m for m in ('transformers', 'open_clip', 'torchvision', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def tensor_of(picture: Image.Image) -> torch.Tensor:
    from torchvision.transforms.functional import to_tensor

    pixels: torch.Tensor = to_tensor(picture)
    return pixels[None]


@pytest.mark.parametrize("preparation", [PillowPreparation(224), Letterbox(224), PillowPreparation(224, squash=True)])
@pytest.mark.parametrize("size", [(512, 512), (512, 384), (64, 64), (224, 224)])
def test_the_smooth_path_is_the_same_picture(preparation: ClipPreparation, size: tuple[int, int]) -> None:
    """Pillow rounds to 8 bits after each of two passes; the smooth path never."""
    picture = edges(0).resize(size, Image.Resampling.NEAREST)
    plain = preparation(picture)
    plain = plain if plain.is_floating_point() else plain.float() / 255
    smooth = preparation.tensors(tensor_of(picture))[0]
    assert smooth.shape == plain.shape
    assert float((smooth - plain).abs().max()) <= 1.6 / 255
    assert float((smooth - plain).abs().mean()) <= 0.3 / 255


def test_gradients_reach_every_pixel_that_is_seen() -> None:
    white = torch.ones(1, 3, 96, 128, requires_grad=True)
    PillowPreparation(32).tensors(white).sum().backward()
    assert white.grad is not None
    seen = white.grad[0, 0, :, 20:108]
    assert (seen > 0).all()
    assert (white.grad[0, 0, :, :8] == 0).all()
    pixels = torch.rand(1, 3, 12, 9, dtype=torch.float64, requires_grad=True)
    Letterbox(8).tensors(pixels)[0, 1, 4, 4].backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert (pixels.grad[0, 0] == 0).all()


def test_unusual_settings_stay_with_their_library() -> None:
    settings = {"size": {"height": 20, "width": 24}, "do_center_crop": False, "resample": 2}
    ours = LibraryPreparation("transformers", json.dumps(settings))
    assert ours(colours(1, (60, 50))).shape == (3, 20, 24)
    assert pickle.loads(pickle.dumps(ours)) == ours
    with pytest.raises(ModelError, match="no form with gradients"):
        ours.tensors(torch.rand(1, 3, 50, 60))
    long = LibraryPreparation("open_clip", json.dumps({"size": 32, "resize_mode": "longest", "fill_color": 0}))
    assert long(colours(1, (60, 50))).shape == (3, 32, 32)
