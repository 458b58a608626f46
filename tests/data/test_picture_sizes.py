"""Sizes from headers are those of the decoded pictures, whatever the file says of its orientation."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.pairs import picture
from t2ialign.data.images import open_image, upright_size
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.data.picture_sizes import picture_sizes
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.errors import DataError


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def saved(kind: str, size: tuple[int, int] = (40, 24), **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture((10, 200, 30), 0, size).save(buffer, kind, **options)
    return buffer.getvalue()


def with_late_exif(orientation: int) -> bytes:
    """A PNG whose EXIF data come after the pixels, as the standard allows."""
    png, body = saved("PNG"), exif(orientation).removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + body
    late = len(body).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return png[:-12] + late + png[-12:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "late PNG"])
def test_the_size_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    late = kind == "late PNG"
    data = with_late_exif(orientation) if late else saved(kind, exif=exif(orientation))
    decoded = open_image(data)
    assert decoded.size == ((40, 24) if orientation < 5 else (24, 40))
    assert upright_size(data) == (decoded.height, decoded.width)
    assert upright_size(io.BytesIO(data)) == (decoded.height, decoded.width)


def test_xmp_may_tell_the_orientation_too() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    data = saved("JPEG", xmp=xmp)
    assert upright_size(data) == open_image(data).size[::-1] == (40, 24)


def test_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [{"prompt": "a", "chosen": saved("PNG"), "rejected": saved("JPEG", (8, 9))}]
    pairs = load_pairs(write_pairs(rows, tmp_path / "pairs"))

    def refuse(*_: Any) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(Image.Image, "load", refuse)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert picture_sizes(pairs).tolist() == [[[24, 40], [9, 8]]]


def test_what_can_not_be_read_is_left_at_nothing() -> None:
    for data in (saved("GIF"), b"no picture", saved("PNG")[:20]):
        with pytest.raises(DataError):
            upright_size(data)
    with pytest.raises(DataError, match="960 accepted"):
        upright_size(saved("PNG", (40, 25)), max_pixels=960)


@pytest.mark.parametrize("form", ["parquet", "files"])
def test_the_sizes_of_a_set(form: str, tmp_path: Path) -> None:
    shapes = [((40, 24), (24, 24)), ((16, 90), (64, 32))]
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "chosen": picture((9, 9, 9), 0, one), "rejected": picture((99, 9, 9), 1, two)}
        for one, two in shapes
    ]
    folder = tmp_path / "pairs"
    if form == "parquet":
        write_pairs(rows, folder)
    else:
        folder.mkdir()
        lines = []
        for number, row in enumerate(rows):
            for side in ("chosen", "rejected"):
                row[side].save(folder / f"{number}-{side}.png")
                row[side] = f"{number}-{side}.png"
            lines.append(json.dumps(row))
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    pairs = load_pairs(folder)
    assert picture_sizes(pairs).tolist() == [[[24, 40], [24, 24]], [[90, 16], [32, 64]]]
    assert picture_sizes(pairs.select([1])).tolist() == [[[90, 16], [32, 64]]]
    singles = UnpairedDataset.from_pairs(pairs)
    assert picture_sizes(singles).tolist() == [[[24, 40]], [[24, 24]], [[90, 16]], [[32, 64]]]


def test_a_broken_file_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(saved("PNG"))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [{"prompt": "a", "chosen": "good.png", "rejected": name} for name in ("bad.png", "lost.png", "good.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sizes = picture_sizes(load_pairs(tmp_path))
    assert sizes.dtype == np.int64
    assert sizes.tolist() == [[[24, 40], [0, 0]], [[24, 40], [0, 0]], [[24, 40], [24, 40]]]
