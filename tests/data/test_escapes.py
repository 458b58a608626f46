"""No reader of metadata follows a name out of its folder: each is refused, with the row and the name."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.nasty import encoded, gradient
from t2ialign.data.check import check_set
from t2ialign.data.files import downloaded, inside
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.importers import import_pairs
from t2ialign.data.layouts import open_set
from t2ialign.data.pairs import load_pairs
from t2ialign.data.unpaired import load_unpaired
from t2ialign.errors import DataError

GOOD = encoded(gradient(), "PNG")
SECRET = encoded(gradient(8, 8), "PNG")
OUTSIDE = "secret.png"

ESCAPES = (
    f"../{OUTSIDE}",
    f"images/../../{OUTSIDE}",
    f"/tmp/{OUTSIDE}",
    f"//host/{OUTSIDE}",
    f"C:\\{OUTSIDE}",
    f"c:{OUTSIDE}",
    f"\\\\host\\share\\{OUTSIDE}",
    f"..\\{OUTSIDE}",
    f"file:///tmp/{OUTSIDE}",
    f"http://127.0.0.1:9/{OUTSIDE}",
    f"hf://datasets/a/b/{OUTSIDE}",
    "data:image/png;base64,AAAA",
    f"link/{OUTSIDE}",
    "linked.png",
    "a\0b.png",
    "a" * 300 + ".png",
    "a/" * 3000 + "b.png",
    "\ud800.png",
    "   ",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set's folder with a good picture, and links to what lies beside it."""
    (tmp_path / OUTSIDE).write_bytes(SECRET)
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "images/good.png").write_bytes(GOOD)
    (root / "images/other.png").write_bytes(encoded(gradient()[::-1], "PNG"))
    (root / "link").symlink_to(tmp_path)
    (root / "linked.png").symlink_to(tmp_path / OUTSIDE)
    return root


def lines(folder: Path, rows: list[dict[str, Any]], name: str = "metadata.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def pairs_of_lines(folder: Path, name: str) -> Any:
    good = {"prompt": "a", "chosen": "images/good.png"}
    pairs = load_pairs(lines(folder, [good | {"rejected": "images/other.png"}, good | {"rejected": name}]))
    assert pairs[0].rejected.size == (24, 16)
    return pairs[1]


def pairs_of_parquet(folder: Path, name: str) -> Any:
    table = {"prompt": ["a", "b"], "chosen": ["images/good.png"] * 2, "rejected": ["images/other.png", name]}
    pq.write_table(pa.table(table), folder / "train.parquet")
    pairs = load_pairs(folder)
    assert pairs[0].rejected.size == (24, 16)
    return pairs[1]


def pairs_of_structs(folder: Path, name: str) -> Any:
    """As `datasets` stores pictures, the bytes left out."""
    cells = [{"bytes": GOOD, "path": "x.png"}, {"bytes": None, "path": name}]
    pq.write_table(pa.table({"prompt": ["a", "b"], "chosen": cells, "rejected": cells[::-1]}), folder / "a.parquet")
    pairs = load_pairs(folder, split="a")
    return pairs[1]


def pictures(folder: Path, name: str) -> Any:
    rows = [{"prompt": "a", "image": each, "label": True} for each in ("images/good.png", name)]
    return load_unpaired(lines(folder, rows))[1]


def encoded_bytes(folder: Path, name: str) -> Any:
    rows = [{"prompt": "a", "image": each, "label": True} for each in ("images/good.png", name)]
    return load_unpaired(lines(folder, rows)).encoded(1)


def image_set(folder: Path, name: str) -> Any:
    names = ("images/good.png", name)
    rows = [{"file_name": each, "prompt_id": str(n), "prompt": "a"} for n, each in enumerate(names)]
    images = ImageSet(lines(folder, rows))
    return images.open(images.records[1])


READERS = (pairs_of_lines, pairs_of_parquet, pairs_of_structs, pictures, encoded_bytes, image_set)


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_it_with_row_and_name(reader: Callable[[Path, str], Any], name: str, folder: Path) -> None:
    if reader in (pairs_of_parquet, pairs_of_structs) and "\ud800" in name:
        pytest.skip("parquet holds no lone surrogates")
    with pytest.raises(DataError) as caught:
        reader(folder, name)
    message = str(caught.value)
    assert "row 1" in message or "picture 2" in message or "line 2" in message, message
    assert ascii(name)[1:6] in message or repr(name)[1:20] in message or not name.strip()
    assert len(message) < 700
    message.encode("utf-8")  # it can be printed


@pytest.mark.parametrize("name", ESCAPES)
def test_importers_count_it_or_refuse_it(name: str, folder: Path, tmp_path: Path) -> None:
    trl = [{"prompt": "a", "chosen": "images/good.png", "rejected": each} for each in ("images/other.png", name)]
    ranked = [
        {"prompt": "a", "images": ["images/good.png", each], "ranks": [1, 2]} for each in ("images/other.png", name)
    ]
    lines(folder, trl)
    lines(tmp_path, ranked, "rankings.jsonl")
    with (tmp_path / "kto.csv").open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        writer = csv.writer(file)
        writer.writerows([["file_name", "caption", "label"], ["images/good.png", "a", "1"], [name, "a", "0"]])
    for format, source, images in (
        ("trl", folder, None),
        ("rankings", tmp_path / "rankings.jsonl", folder),
        ("kto", tmp_path / "kto.csv", folder),
    ):
        try:
            summary = import_pairs(format, source, tmp_path / f"out-{format}", images=images)
        except DataError:
            continue
        assert (summary.written, sum(summary.dropped.values())) == (1, 1), (format, summary)
    for written in tmp_path.glob("out-*/**/*.parquet"):
        assert SECRET not in written.read_bytes()


def test_the_check_and_links_in_folders(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "a", "chosen": "images/good.png", "rejected": name} for name in ESCAPES[:-2]]
    rows.append({"prompt": "a", "chosen": "images/good.png", "rejected": "images/other.png"})
    report = check_set(lines(folder, rows))
    assert report.splits["train"].errors["unreadable picture"].count == len(rows) - 1
    for side in ("chosen", "rejected"):
        (tmp_path / "two" / side).mkdir(parents=True)
        (tmp_path / "two" / side / "b.png").write_bytes(GOOD if side == "chosen" else encoded(gradient()[::-1], "PNG"))
        (tmp_path / "two" / side / "a.png").symlink_to(tmp_path / OUTSIDE)
        (tmp_path / "two" / side / "c").symlink_to(tmp_path)
    (tmp_path / "two/captions.json").write_text(json.dumps({"a": "x", "b": "y", "c/secret": "z"}))
    summary = import_pairs("folders", tmp_path / "two", tmp_path / "two-out")
    assert summary.written == 1
    assert summary.dropped["the file lies outside the folder"] >= 1


def test_layouts_follow_no_link(tmp_path: Path) -> None:
    """GenEval's: a folder a prompt, found by looking, one of whose pictures is a link to another place."""
    (tmp_path / OUTSIDE).write_bytes(SECRET)
    root = tmp_path / "geneval"
    (root / "00000/samples").mkdir(parents=True)
    (root / "00000/metadata.jsonl").write_text(json.dumps({"tag": "single_object", "prompt": "a photo of a bench"}))
    (root / "00000/samples/0000.png").write_bytes(GOOD)
    assert len(open_set(root)) == 1
    (root / "00000/samples/0001.png").symlink_to(tmp_path / OUTSIDE)
    with pytest.raises(DataError, match="leaves 'geneval' through a symbolic link"):
        open_set(root)


def test_of_a_data_set_on_the_hub_only_its_own_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    from datasets import config
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    (cache / "hub/blobs").mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", cache / "datasets")
    monkeypatch.setattr(config, "DOWNLOADED_DATASETS_PATH", cache / "datasets/downloads")
    (cache / "hub/blobs/x").write_bytes(GOOD)
    (cache / "hub/a.png").symlink_to("blobs/x")
    (cache / "hub/evil.png").symlink_to(tmp_path / OUTSIDE)
    assert downloaded(str(cache / "hub/a.png")) == (cache / "hub/blobs/x").resolve()
    for name in (
        str(tmp_path / OUTSIDE),
        str(cache / "hub/evil.png"),
        "/etc/hostname",
        f"{cache}/hub/../../{OUTSIDE}",
        3,
        "",
        *ESCAPES,
    ):
        with pytest.raises(DataError):
            downloaded(name)


def test_archives_are_no_source(tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "a.png").write_bytes(GOOD)
    for name in ("shard-0000.tar", "shards.tar.gz", "set.zip"):
        (tmp_path / "tars").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "tars" / name, "w") as archive:
            archive.add(tmp_path / "a.png", "../../a.png")
        with pytest.raises(DataError, match="archives and webdataset shards are not read"):
            load_pairs(tmp_path / "tars" / name)
    with pytest.raises(DataError, match=r"webdataset shards \(\.tar\) are not read"):
        load_pairs(tmp_path / "tars")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "tars"]


PART = st.one_of(st.sampled_from(["..", ".", "", "images", "link", "C:", "~", "file:", "%2e%2e"]), st.text(max_size=6))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(parts=st.lists(PART, min_size=1, max_size=5), separator=st.sampled_from(["/", "\\", "//"]))
def test_whatever_is_accepted_lies_inside(folder: Path, parts: list[str], separator: str) -> None:
    name = separator.join(parts)
    try:
        path = inside(folder, name)
    except DataError as error:
        str(error).encode("utf-8", "strict")
        return
    top = os.path.realpath(folder)
    assert os.path.commonpath([top, os.path.realpath(path)]) == top
    path.is_file()  # no error of the file system
