"""Grids: what stands where, to the pixel; gaps; sets that do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2ialign.data.image_sets import ImageSetWriter
from t2ialign.errors import ConfigError, DataError
from t2ialign.generation.grid import GAP, PADDING, TEXT_WIDTH, _wrap, fit, make_grid

COLORS = {"base": (200, 30, 30), "tuned": (30, 60, 200)}
TEXTS = ["a red circle", "a blue star left of a large yellow cross on a white background, " * 4, "Überzähl\nig"]


def write_set(path: Path, model: str, side: int = 64, seed: int = 0, **change: Any) -> Path:
    skip = change.get("skip", ())
    texts = change.get("texts", TEXTS)
    with ImageSetWriter(path, {"model": model}) as writer:
        for i, text in enumerate(texts):
            for sample in range(2):
                if (i, sample) in skip:
                    continue
                color = tuple(min(255, part + 20 * i + 7 * sample) for part in COLORS.get(model, (9, 9, 9)))
                fields = {"prompt_id": f"p{i}", "prompt": text, "sample": sample, "model": model}
                picture = Image.new("RGB", change.get("size", (side, side)), color)
                writer.add({**fields, "seed": 100 * seed + 10 * i + sample}, picture, prompt_index=i)
    return path


def grid(path: Path) -> Any:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
        return np.asarray(picture)


def test_every_picture_is_in_its_place(tmp_path: Path) -> None:
    sets = [write_set(tmp_path / name, name) for name in COLORS]
    shown = grid(make_grid(sets, tmp_path / "grid.png", samples=2, cell=64))
    rows = [np.all(shown == color, axis=-1) for color in (COLORS["base"], COLORS["tuned"])]
    lefts = [int(np.argwhere(found)[:, 1].min()) for found in rows]
    assert lefts == [TEXT_WIDTH + 2 * PADDING, TEXT_WIDTH + 2 * PADDING + 2 * (64 + PADDING) + PADDING]
    for model, base in COLORS.items():
        for i in range(3):
            for sample in range(2):
                color = tuple(min(255, part + 20 * i + 7 * sample) for part in base)
                assert np.all(shown == color, axis=-1).sum() == 64 * 64, (model, i, sample)
    tops = [int(np.argwhere(np.all(shown == (200 + 20 * i, 30 + 20 * i, 30 + 20 * i), axis=-1))[0, 0]) for i in (0, 1)]
    assert tops[1] - tops[0] == 64 + PADDING


def test_text_is_beside_its_row_and_never_over_the_pictures(tmp_path: Path) -> None:
    sets = [write_set(tmp_path / name, name) for name in COLORS]
    shown = grid(make_grid(sets, tmp_path / "grid.png", cell=64))
    top = int(np.argwhere(np.all(shown == COLORS["base"], axis=-1))[0, 0])
    for i in range(3):
        row = shown[top + i * (64 + PADDING) : top + i * (64 + PADDING) + 64, : TEXT_WIDTH + PADDING]
        assert (row < 128).any(), i
    assert (shown[:, TEXT_WIDTH + PADDING + 2 : TEXT_WIDTH + 2 * PADDING] == 255).all()
    assert (shown[:top] < 128).any()


def test_tiny_pictures_are_enlarged_by_whole_pixels(tmp_path: Path) -> None:
    make_grid([write_set(tmp_path / "base", "base")], tmp_path / "grid.png", max_prompts=1)
    assert np.all(grid(tmp_path / "grid.png") == COLORS["base"], axis=-1).sum() == 128 * 128
    checks = Image.fromarray(np.indices((4, 4)).sum(0).astype(np.uint8) % 2 * 255)
    enlarged = np.asarray(fit(checks, 16))
    assert set(np.unique(enlarged)) == {0, 255}
    assert np.array_equal(enlarged[::4, ::4], np.asarray(checks))


def test_large_and_oblong_pictures_are_reduced_in_proportion(tmp_path: Path) -> None:
    make_grid([write_set(tmp_path / "base", "base", size=(512, 256))], tmp_path / "grid.png", max_prompts=1)
    assert np.all(grid(tmp_path / "grid.png") == COLORS["base"], axis=-1).sum() == 256 * 128


def test_missing_pictures_are_marked(tmp_path: Path) -> None:
    sets = [
        write_set(tmp_path / "base", "base"),
        write_set(tmp_path / "tuned", "tuned", skip={(1, 0), (2, 0), (2, 1)}),
    ]
    shown = grid(make_grid(sets, tmp_path / "grid.png", samples=2, cell=64))
    assert np.all(shown == GAP, axis=-1).sum() > 3 * 0.6 * 64 * 64
    whole = grid(make_grid(sets[:1], tmp_path / "one.png", samples=2, cell=64))
    assert not np.all(whole == GAP, axis=-1).any()


def test_sets_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    base = write_set(tmp_path / "base", "base")
    seeds = write_set(tmp_path / "seeds", "seeds", seed=1)
    with pytest.raises(DataError, match=r"prompt p0, sample 0 has seed 0 in .*base but 100 in .*seeds"):
        make_grid([base, seeds], tmp_path / "grid.png")
    texts = write_set(tmp_path / "texts", "texts", texts=["another", *TEXTS[1:]])
    with pytest.raises(DataError, match=r"'a red circle' in .*base but 'another' in .*texts"):
        make_grid([base, texts], tmp_path / "grid.png")
    none = write_set(tmp_path / "none", "none", skip={(i, s) for i in range(2) for s in range(2)})
    rest = write_set(tmp_path / "rest", "rest", skip={(2, s) for s in range(2)})
    with pytest.raises(DataError, match=r"none.*rest have no prompt in common"):
        make_grid([none, rest], tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()


def test_arguments(tmp_path: Path) -> None:
    base = write_set(tmp_path / "base", "base")
    with pytest.raises(ConfigError, match="samples is 0"):
        make_grid([base], tmp_path / "grid.png", samples=0)
    with pytest.raises(ConfigError, match="no image set"):
        make_grid([], tmp_path / "grid.png")
    with pytest.raises(DataError, match="give each set one"):
        make_grid([base], tmp_path / "grid.png", labels=["a", "b"])


def test_wrapping_keeps_words_and_cuts_with_an_ellipsis() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(14)
    text = "one two three four five six seven eight nine ten"
    lines = _wrap(text, font, 80, 100)
    assert " ".join(lines) == text
    assert all(font.getlength(line) <= 80 for line in lines)
    cut = _wrap(text, font, 80, 2)
    assert len(cut) == 2
    assert cut[1].endswith("…")
    assert font.getlength(cut[1]) <= 80
    assert "".join(_wrap("x" * 60, font, 80, 100)) == "x" * 60
    assert _wrap("", font, 80, 3) == [""]
