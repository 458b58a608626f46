"""Sheets: which pictures are shown together, in which order."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.rated_sets import mini_set
from t2ialign.annotation.sheets import Sheet, make_sheets
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import DataError


def sheets(path: Path, **settings: object) -> list[Sheet]:
    return make_sheets(ImageSet(path), **{"seed": 0, **settings})[0]  # type: ignore[arg-type]


def test_the_order_is_a_function_of_seed_and_prompt_id_alone(tmp_path: Path) -> None:
    many = {sheet.prompt_id: sheet.permutation for sheet in sheets(mini_set(tmp_path / "many", prompts=40))}
    few = {sheet.prompt_id: sheet.permutation for sheet in sheets(mini_set(tmp_path / "few", prompts=3, seed=5))}
    assert few.items() <= many.items()
    digests = {n: hashlib.sha256(f"0\x1fp0\x1f{n}".encode()).digest()[:8] for n in range(4)}
    assert many["p0"] == tuple(sorted(range(4), key=lambda n: digests[n])) == (3, 0, 2, 1)
    other = {sheet.prompt_id: sheet.permutation for sheet in sheets(tmp_path / "many", seed=1)}
    assert sum(many[name] != other[name] for name in many) > 30
    first = Counter(order[0] for order in many.values())
    assert set(first) == {0, 1, 2, 3}
    assert max(first.values()) < 20


def test_a_second_pass_shows_the_reverse(tmp_path: Path) -> None:
    found = sheets(mini_set(tmp_path / "s", prompts=2), passes=2)
    assert [(sheet.prompt_id, sheet.order) for sheet in found] == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    assert found[1].permutation == found[0].permutation[::-1]
    assert found[1].images == found[0].images


def test_pictures_are_shown_in_the_order_that_is_recorded(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "s", prompts=1)
    (sheet,) = sheets(path)
    image_set = ImageSet(path)
    for shown, place in zip(sheet.shown(), sheet.permutation, strict=True):
        assert np.array_equal(np.asarray(shown), np.asarray(image_set.open(image_set.records[place])))


def test_more_than_four_are_refused_or_split_evenly(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "s", prompts=2, pictures=5)
    with pytest.raises(DataError, match=r"'p0' has 5 pictures.*--too_many split"):
        sheets(path)
    found = sheets(path, split=True)
    assert [len(sheet.records) for sheet in found] == [2, 3, 2, 3]
    for prompt_id in ("p0", "p1"):
        shown = [name for sheet in found if sheet.prompt_id == prompt_id for name in sheet.images]
        assert shown == [f"images/{prompt_id}/{n:04d}.png" for n in range(5)]
    for pictures in range(2, 14):
        sizes = [len(sheet.records) for sheet in sheets(mini_set(tmp_path / f"{pictures}", 1, pictures), split=True)]
        assert sum(sizes) == pictures
        assert min(sizes) >= 2
        assert max(sizes) <= 4


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "s", prompts=3, pictures=2)
    lines = (path / "metadata.jsonl").read_text().splitlines(keepends=True)
    (path / "metadata.jsonl").write_text("".join(lines[:-1]))  # p2 keeps one picture
    found, left = make_sheets(ImageSet(path), seed=0)
    assert ([sheet.prompt_id for sheet in found], left) == (
        ["p0", "p1"], {"prompts with one picture, which are not compared": 1},
    )  # fmt: skip
    found, left = make_sheets(ImageSet(path), seed=0, limit=1)
    assert ([sheet.prompt_id for sheet in found], left) == (["p0"], {"prompts beyond the limit": 2})
    (path / "metadata.jsonl").write_text(lines[0])
    with pytest.raises(DataError, match="no prompt with 2 pictures or more"):
        make_sheets(ImageSet(path), seed=0)


def test_a_picture_that_is_missing_or_another_is_named(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "s", prompts=1)
    (sheet,) = sheets(path)
    second = path / "images/p0/0001.png"
    second.write_bytes((path / "images/p0/0000.png").read_bytes())
    sheet.open(0)
    with pytest.raises(DataError, match=r"s/images/p0/0001.png is not the picture that the set's metadata names"):
        sheet.open(1)
    second.unlink()
    with pytest.raises(DataError, match=r"0001.png is missing"):
        sheets(path)


def test_a_prompt_id_has_one_text(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "s", prompts=2)
    text = (path / "metadata.jsonl").read_text().replace('"p1"', '"p0"')
    (path / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match="the prompt id 'p0' has two texts"):
        sheets(path)
