"""Every nasty picture is read to the right pixels or refused by name, through every door of the data room."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.nasty import NASTY, Nasty, encoded, gradient, one_of_each_kind, readable, refused, write_nasty
from t2ialign.data.check import check_set
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.images import decode_image, open_image, peek, upright_size
from t2ialign.data.importers import import_pairs
from t2ialign.data.pairs import load_pairs
from t2ialign.data.unpaired import load_unpaired
from t2ialign.errors import DataError

GOOD = encoded(gradient(), "PNG")


def check_pixels(image: Image.Image, nasty: Nasty) -> None:
    assert nasty.pixels is not None
    assert image.mode == "RGB"
    assert image.size == nasty.pixels.shape[1::-1]
    assert np.abs(np.asarray(image).astype(int) - nasty.pixels.astype(int)).max() <= nasty.within


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", NASTY)
def test_read_rightly_or_refused_by_name(name: str, tmp_path: Path) -> None:
    nasty = NASTY[name]
    path = tmp_path / name
    path.write_bytes(nasty.data)
    looks: list[tuple[Any, Any]] = [(open_image, {"bytes": nasty.data, "path": None})]
    looks += [(look, source) for look in (open_image, decode_image) for source in (path, nasty.data)]
    for look, source in looks:
        if nasty.pixels is not None:
            check_pixels(open_image(source), nasty)
        else:
            with pytest.raises(DataError, match=nasty.words) as caught:
                look(source, name="row 7")
            assert str(caught.value).startswith("row 7: ")
            assert len(str(caught.value)) < 400
            assert ";" in str(caught.value), "the mend stands behind the fault"
    if nasty.pixels is None:
        with contextlib.suppress(DataError):  # the header alone does not always tell
            upright_size(path)
    else:
        peek(path)
        assert upright_size(path) == nasty.pixels.shape[:2]
        assert decode_image(path).size in (nasty.pixels.shape[1::-1], nasty.pixels.shape[:2])


def jsonl_set(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pair_sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All nasty pictures as the rejected side of a pair: bytes in parquet, and files beside a metadata.jsonl."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = tmp_path_factory.mktemp("files")
    write_nasty(files / "images")
    (files / "good.png").write_bytes(GOOD)
    rows = [{"prompt": f"a {name}", "chosen": "good.png", "rejected": f"images/{name}"} for name in NASTY]
    jsonl_set(files, rows)
    parquet = tmp_path_factory.mktemp("parquet")
    columns = {
        "prompt": [row["prompt"] for row in rows],
        "chosen": [GOOD] * len(rows),
        "rejected": [NASTY[name].data for name in NASTY],
    }
    pq.write_table(pa.table(columns), parquet / "train-00000-of-00001.parquet")
    return [files, parquet]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("kind", "streaming"), [(0, False), (1, False), (1, True)])
def test_pairs_name_row_and_side(pair_sets: list[Path], kind: int, streaming: bool) -> None:
    pairs = load_pairs(pair_sets[kind], streaming=streaming)
    for row, nasty in enumerate(NASTY.values()):
        if nasty.pixels is not None:
            check_pixels(pairs[row].rejected, nasty)
            continue
        with pytest.raises(DataError, match=nasty.words) as caught:
            pairs[row]
        assert f"row {row}, rejected: " in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("kind", "workers"), [(0, 0), (1, 2)])
def test_data_check_finds_every_one(pair_sets: list[Path], kind: int, workers: int) -> None:
    report = check_set(pair_sets[kind], workers=workers)
    assert not report.fit
    found = report.splits["train"]
    bad = {row: nasty for row, nasty in enumerate(NASTY.values()) if nasty.pixels is None}
    assert found.errors["unreadable picture"].count == len(bad)
    for text in found.errors["unreadable picture"].examples:
        row = int(text.split(",")[0].removeprefix("row "))
        assert text.startswith(f"row {row}, rejected: ")
        assert row in bad


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_labelled_pictures_and_image_sets(tmp_path: Path) -> None:
    write_nasty(tmp_path / "images")
    rows = [{"prompt": "a", "image": f"images/{name}", "label": True} for name in NASTY]
    pictures = load_unpaired(jsonl_set(tmp_path, rows))
    for row, nasty in enumerate(NASTY.values()):
        if nasty.pixels is not None:
            check_pixels(pictures[row].image, nasty)
        else:
            with pytest.raises(DataError, match=rf"row {row}, image: "):
                pictures[row]
    lines = [
        {"file_name": f"images/{name}", "prompt_id": str(number), "prompt": "a"} for number, name in enumerate(NASTY)
    ]
    images = ImageSet(jsonl_set(tmp_path, lines))
    for record, nasty in zip(images, NASTY.values(), strict=True):
        if nasty.pixels is not None:
            check_pixels(images.open(record), nasty)
        else:
            with pytest.raises(DataError, match=nasty.words) as caught:
                images.open(record)
            assert f"images/{nasty.name}: " in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_importers_leave_them_out_and_say_so(tmp_path: Path) -> None:
    """With --verify all of the refused; without it those whose header tells, and the rest is found by the check."""
    for side in ("chosen", "rejected"):
        (tmp_path / "source" / side).mkdir(parents=True)
    captions = {}
    for number, (kind, nasty) in enumerate(NASTY.items()):
        name = f"{number:03d}-{kind}"
        (tmp_path / "source/chosen" / name).write_bytes(GOOD)
        (tmp_path / "source/rejected" / name).write_bytes(nasty.data)
        captions[name] = "a picture"
    (tmp_path / "source/captions.json").write_text(json.dumps(captions))
    summary = import_pairs("folders", tmp_path / "source", tmp_path / "whole", verify=True)
    assert summary.dropped["unreadable picture"] == len(refused())
    assert summary.written == len(readable())
    pairs = load_pairs(tmp_path / "whole")
    assert [pair.rejected.size for pair in pairs]
    quick = import_pairs("folders", tmp_path / "source", tmp_path / "quick")
    left = check_set(tmp_path / "quick").splits["train"].errors.get("unreadable picture")
    assert quick.dropped["unreadable picture"] + (left.count if left else 0) == len(refused())


def test_a_few_through_every_importer_of_tables(tmp_path: Path) -> None:
    """TRL's rows and Pick-a-Pic's, with pictures as bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad = one_of_each_kind()
    data = [GOOD, *(each.data for each in bad)]
    other = encoded(gradient()[::-1], "PNG")
    count = len(data)
    trl = {"prompt": ["a"] * count, "chosen": [other] * count, "rejected": data}
    pickapic = {
        "caption": ["a"] * count,
        "jpg_0": [other] * count,
        "jpg_1": data,
        "label_0": [1.0] * count,
        "label_1": [0.0] * count,
        "has_label": [True] * count,
        "image_0_uid": [f"x{n}" for n in range(count)],
        "image_1_uid": [f"y{n}" for n in range(count)],
    }
    for name, columns in (("trl", trl), ("pickapic", pickapic)):
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(pa.table(columns), folder / "train.parquet")
        summary = import_pairs(name, folder, tmp_path / f"{name}-out", verify=True)
        assert summary.dropped == {"unreadable picture": len(bad)}
        assert summary.written == 1
        assert "row 1, rejected: " in summary.examples["unreadable picture"]
