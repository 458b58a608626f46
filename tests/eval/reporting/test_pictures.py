"""Embedded pictures: small ones keep their pixels, large ones become small, and none leaves its folder."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2ialign.errors import DataError
from t2ialign.eval.reporting.pictures import LARGEST, embed


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_small_picture_keeps_its_pixels(tmp_path: Path) -> None:
    picture = noise(64, 48)
    picture.save(tmp_path / "a.png")
    uri, width, height = embed(tmp_path, "a.png")
    assert uri.startswith("data:image/png;base64,")
    assert (width, height) == (64, 48)
    assert np.array_equal(np.asarray(decoded(uri).convert("RGB")), np.asarray(picture))


def test_a_large_picture_is_reduced_in_proportion(tmp_path: Path) -> None:
    noise(1024, 512).save(tmp_path / "a.png")
    uri, width, height = embed(tmp_path, "a.png")
    assert uri.startswith("data:image/webp;base64,")
    assert (width, height) == (LARGEST, LARGEST // 2)
    assert decoded(uri).size == (width, height)


def test_a_picture_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise(8, 8).save(tmp_path / "out.png")
    with pytest.raises(DataError):
        embed(tmp_path / "in", "../out.png")
