"""Pick-a-Pic v1 and v2: every flag and label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.pair_sets import encoded
from t2ialign.data.importers import import_pairs
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import DataError


def row(number: int = 0, **more: Any) -> dict[str, Any]:
    """A v2 row in which picture 0 beat picture 1."""
    flags = {"has_label": True, "are_different": True, "user_id": 7, "ranking_id": number}
    labels = {"label_0": 1.0, "label_1": 0.0}
    pictures = {"jpg_0": encoded(80 * number, "JPEG"), "jpg_1": encoded(80 * number + 40, "JPEG")}
    return {"caption": f"caption {number}", **pictures, **labels, **flags, "model_0": "a", **more}


def source(tmp_path: Path, rows: list[dict[str, Any]], drop: tuple[str, ...] = ()) -> Path:
    folder = tmp_path / "pick" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows).drop_columns(list(drop))
    half = len(rows) // 2
    pq.write_table(table.slice(0, half), folder / "train-00000-of-00002-0123456789abcdef.parquet")
    pq.write_table(table.slice(half), folder / "train-00001-of-00002-0123456789abcdef.parquet")
    return folder.parent


def test_labels_and_flags(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, label_0=0.0, label_1=1.0),
        row(2, label_0=0.5, label_1=0.5),
        row(3, has_label=False),
        row(4, are_different=False),
        row(5, label_0=None),
        row(6, label_0=float("nan")),
        row(7, label_0=1.0, label_1=1.0),
        row(8, label_0=1.0, label_1=0.5),
        row(9, label_0=0.7),
        row(10, caption="  "),
        row(11, jpg_1=None),
        row(12, jpg_0=b"<html>"),
        row(13, jpg_0=b"same", jpg_1=b"same"),
        row(14, jpg_1=row(14)["jpg_0"]),
        row(15, user_id=8),
    ]
    summary = import_pairs("pickapic", source(tmp_path, rows), tmp_path / "out")
    assert summary.dropped == {
        "tie": 2,
        "no label (has_label is false)": 1,
        "pictures not different (are_different is false)": 1,
        "no label (empty)": 2,
        "labels contradict each other": 1,
        "label not 0, 0.5 or 1": 1,
        "empty prompt": 1,
        "unreadable picture": 3,
        "the same picture on both sides": 1,
    }
    assert (summary.read, summary.written) == (16, 3)
    pairs = load_pairs(tmp_path / "out")
    assert [pairs.encoded(n, "chosen") for n in range(3)] == [rows[0]["jpg_0"], rows[1]["jpg_1"], rows[15]["jpg_0"]]
    assert [pairs.encoded(n, "rejected") for n in range(3)] == [rows[0]["jpg_1"], rows[1]["jpg_0"], rows[15]["jpg_1"]]
    assert pairs.column("user_id") == ["7", "7", "8"]
    assert pairs.column("source") == ["pickapic"] * 3
    stored = json.loads((tmp_path / "out/import.json").read_text())["splits"]["train"]
    assert stored == summary.to_dict()
    card = (tmp_path / "out/README.md").read_text()
    assert "| left out: tie | 2 |" in card
    assert str(tmp_path) not in card + json.dumps(stored)
    assert any("left out, tie: 2 (first: row 2)" in line for line in summary.lines())


def test_v1_without_the_later_columns(tmp_path: Path) -> None:
    rows = [row(0), row(1, label_0=0.0), row(2, label_0=0.5)]
    folder = source(tmp_path, rows, ("label_1", "has_label", "are_different", "user_id", "model_0"))
    summary = import_pairs("pickapic", folder, tmp_path / "out")
    assert (summary.written, summary.dropped) == (2, {"tie": 1})
    pairs = load_pairs(tmp_path / "out")
    assert pairs.encoded(1, "chosen") == rows[1]["jpg_1"]
    assert pairs.column("user_id") == [None, None]


def test_kept_ties_are_ties(tmp_path: Path) -> None:
    folder = source(tmp_path, [row(0), row(1, label_0=0.5, label_1=0.5)])
    summary = import_pairs("pickapic", folder, tmp_path / "out", ties="keep")
    assert summary.notices == {"ties kept": 1}
    assert load_pairs(tmp_path / "out", ties="keep").column("preference_prob") == [None, 0.5]
    assert load_pairs(tmp_path / "out").dropped == {"ties": 1}


def test_swapping_the_labels_swaps_the_pictures(tmp_path: Path) -> None:
    rows = [row(n) for n in range(4)]
    swapped = [{**each, "label_0": each["label_1"], "label_1": each["label_0"]} for each in rows]
    import_pairs("pickapic", source(tmp_path / "a", rows), tmp_path / "x")
    import_pairs("pickapic", source(tmp_path / "b", swapped), tmp_path / "y")
    one, other = load_pairs(tmp_path / "x"), load_pairs(tmp_path / "y")
    for n in range(4):
        assert one.encoded(n, "chosen") == other.encoded(n, "rejected")
        assert one.encoded(n, "rejected") == other.encoded(n, "chosen")


def test_unsafe_prompts(tmp_path: Path) -> None:
    captions = ["a NUDE statue", "a nudes", "blood  bath", "class", "fine", "ｎｕｄｅ wide", "red-blood bath."]
    unsafe = [0.0, 0.0, 0.1, 0.0, 0.9, None, 0.0]
    rows = [row(n, caption=text, nsfw=value) for n, (text, value) in enumerate(zip(captions, unsafe, strict=True))]
    words = tmp_path / "words.txt"
    words.write_text("# comment\nnude\n\nBlood Bath\nass\n")
    folder = source(tmp_path, rows)
    by_words = import_pairs("pickapic", folder, tmp_path / "a", unsafe_words=words)
    assert by_words.dropped == {"unsafe prompt (word list)": 4}
    assert load_pairs(tmp_path / "a").prompts == ["a nudes", "class", "fine"]
    by_column = import_pairs("pickapic", folder, tmp_path / "b", unsafe_column="nsfw")
    assert by_column.dropped == {"unsafe prompt (column)": 1, "unsafe column empty": 1}
    with pytest.raises(DataError, match="has no column 'nope' to tell unsafe prompts by; it has caption"):
        import_pairs("pickapic", folder, tmp_path / "c", unsafe_column="nope")
    words.write_text("# nothing\n")
    with pytest.raises(DataError, match="lists no word"):
        import_pairs("pickapic", folder, tmp_path / "c", unsafe_words=words)


@pytest.mark.parametrize(
    ("value", "unsafe"),
    [(True, True), (False, False), (1, True), (0, False), ("NSFW", True), ("safe", False), ("No", False)],
)
def test_what_an_unsafe_column_says(value: object, unsafe: bool) -> None:
    from t2ialign.data.importers.unsafe import UnsafeFilter

    assert (UnsafeFilter.load(None, "x").reason("a", {"x": value}) is not None) == unsafe


def test_verify_decodes_in_full(tmp_path: Path) -> None:
    half = encoded(3, "JPEG", (64, 64))
    rows = [row(0), row(1, jpg_0=half[: len(half) - 30])]
    folder = source(tmp_path, rows)
    assert import_pairs("pickapic", folder, tmp_path / "a").written == 2
    summary = import_pairs("pickapic", folder, tmp_path / "b", verify=True)
    assert summary.dropped == {"unreadable picture": 1}
    assert "row 1, chosen" in summary.examples["unreadable picture"]


def test_limit_and_further_splits(tmp_path: Path) -> None:
    folder = source(tmp_path, [row(n) for n in range(6)])
    pq.write_table(pa.Table.from_pylist([row(9)]), folder / "data/validation_unique-00000-of-00001.parquet")
    summary = import_pairs("pickapic", folder, tmp_path / "out", limit=2)
    assert (summary.read, summary.written) == (2, 2)
    import_pairs("pickapic", folder, tmp_path / "out", split="validation_unique")
    assert len(load_pairs(tmp_path / "out", split="validation_unique")) == 1
    assert set(json.loads((tmp_path / "out/import.json").read_text())["splits"]) == {"train", "validation_unique"}
    assert "## validation_unique" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(DataError, match="already has the split 'train'"):
        import_pairs("pickapic", folder, tmp_path / "out")
    assert import_pairs("pickapic", folder, tmp_path / "out", overwrite=True).written == 6


def test_a_hub_dataset_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` streams a folder just as it streams a hub id, so a folder stands for one here."""
    from t2ialign.data import sources

    rows = [row(0), row(1, label_0=0.0, label_1=1.0), row(2, label_0=0.5, label_1=0.5)]
    hub = str(source(tmp_path, rows))
    monkeypatch.setattr(sources, "local_path", lambda source: None)
    summary = import_pairs("pickapic", hub, tmp_path / "out")
    monkeypatch.undo()
    assert (summary.written, summary.dropped) == (2, {"tie": 1})
    assert load_pairs(tmp_path / "out").encoded(1, "chosen") == rows[1]["jpg_1"]


def test_what_can_not_be_imported(tmp_path: Path) -> None:
    folder = source(tmp_path, [row(0, label_0=0.5, label_1=0.5), row(1, has_label=False)])
    with pytest.raises(DataError, match="no pair of pick is left\n  left out, tie: 1"):
        import_pairs("pickapic", folder, tmp_path / "out")
    assert not (tmp_path / "out/data").exists()
    bare = source(tmp_path / "bare", [row(0, image_0_url="x"), row(1, image_0_url="y")], ("jpg_0", "jpg_1"))
    with pytest.raises(DataError, match=r"no column jpg_0, jpg_1 .* take the variant with pictures"):
        import_pairs("pickapic", bare, tmp_path / "out")
    with pytest.raises(DataError, match=r"format 'pick' is not known; the formats are folders, pickapic, trl"):
        import_pairs("pick", folder, tmp_path / "out")
    with pytest.raises(DataError, match="hf download --repo-type dataset yuvalkirstain/pickapic_v2"):
        import_pairs("pickapic", "yuvalkirstain/pickapic_v2", tmp_path / "out")
    with pytest.raises(DataError, match="has no split 'test'; it has train"):
        import_pairs("pickapic", folder, tmp_path / "out", split="test")
    with pytest.raises(DataError, match="limit 1 or more"):
        import_pairs("pickapic", folder, tmp_path / "out", limit=0)
