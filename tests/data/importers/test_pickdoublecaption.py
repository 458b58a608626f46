"""Pick-Double-Caption: captions go with their pictures, and everything else is Pick-a-Pic."""

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
    """A row in which picture 0 won; each caption names its picture."""
    pictures = {"jpg_0": encoded(80 * number, "JPEG"), "jpg_1": encoded(80 * number + 40, "JPEG")}
    captions = {"caption_0": f"picture 0 of {number}", "caption_1": f"picture 1 of {number}"}
    return {"caption": f"prompt {number}", **pictures, "label_0": 1.0, "label_1": 0.0, **captions, **more}


def source(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    folder = tmp_path / "double"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    return folder


def test_captions_change_sides_with_their_pictures(tmp_path: Path) -> None:
    labels = [(1.0, 0.0, True), (0.0, 1.0, True), (0.5, 0.5, True), (1.0, 0.0, False)]
    rows = [row(n, label_0=a, label_1=b, has_label=has) for n, (a, b, has) in enumerate(labels)]
    summary = import_pairs("pickdoublecaption", source(tmp_path, rows), tmp_path / "out")
    assert (summary.written, summary.dropped) == (2, {"tie": 1, "no label (has_label is false)": 1})
    pairs = load_pairs(tmp_path / "out")
    assert pairs.prompts == ["prompt 0", "prompt 1"]
    assert pairs.column("chosen_prompt") == ["picture 0 of 0", "picture 1 of 1"]
    assert pairs.column("rejected_prompt") == ["picture 1 of 0", "picture 0 of 1"]
    assert [pairs.encoded(n, "chosen") for n in range(2)] == [rows[0]["jpg_0"], rows[1]["jpg_1"]]
    assert pairs.column("source") == ["pickdoublecaption"] * 2
    assert json.loads((tmp_path / "out/import.json").read_text())["splits"]["train"]["format"] == "pickdoublecaption"


def test_kept_ties_keep_the_captions_of_their_pictures(tmp_path: Path) -> None:
    folder = source(tmp_path, [row(0, label_0=0.5, label_1=0.5)])
    summary = import_pairs("pickdoublecaption", folder, tmp_path / "out", ties="keep")
    assert summary.notices == {"ties kept": 1}
    pairs = load_pairs(tmp_path / "out", ties="keep")
    assert (pairs.column("chosen_prompt"), pairs.encoded(0, "chosen")) == (["picture 0 of 0"], row(0)["jpg_0"])


def test_a_missing_caption_is_null_and_counted(tmp_path: Path) -> None:
    rows = [row(0, caption_0=None, label_0=0.0, label_1=1.0), row(1, caption_1="  ", caption_0=None), row(2)]
    summary = import_pairs("pickdoublecaption", source(tmp_path, rows), tmp_path / "out")
    assert (summary.written, summary.notices) == (3, {"captions missing": 3})
    pairs = load_pairs(tmp_path / "out")
    assert pairs.column("chosen_prompt") == ["picture 1 of 0", None, "picture 0 of 2"]
    assert pairs.column("rejected_prompt") == [None, None, "picture 1 of 2"]


def test_other_names_of_the_caption_columns_can_be_given(tmp_path: Path) -> None:
    rows = [{**row(0, label_0=0.0, label_1=1.0), "left": "l", "right": "r"}]
    folder = source(tmp_path, [{k: v for k, v in each.items() if not k.startswith("caption_")} for each in rows])
    with pytest.raises(
        DataError,
        match=r"no column caption_0, caption_1 among caption, .*, left, right; .*--caption_columns NAME_0,NAME_1",
    ):
        import_pairs("pickdoublecaption", folder, tmp_path / "no")
    assert not (tmp_path / "no" / "data").exists()
    import_pairs("pickdoublecaption", folder, tmp_path / "out", caption_columns=("left", "right"))
    pairs = load_pairs(tmp_path / "out")
    assert (pairs.column("chosen_prompt"), pairs.column("rejected_prompt")) == (["r"], ["l"])


def test_what_is_not_it_is_refused(tmp_path: Path) -> None:
    folder = source(tmp_path, [{"caption_0": "a", "caption_1": "b", "caption": "c", "jpg_0": b"x"}])
    with pytest.raises(DataError, match="no column jpg_1, label_0"):
        import_pairs("pickdoublecaption", folder, tmp_path / "out")
    with pytest.raises(DataError, match="--caption_columns is for pickdoublecaption, not for pickapic"):
        import_pairs("pickapic", folder, tmp_path / "out", caption_columns=("a", "b"))


def test_through_the_command_line(tmp_path: Path) -> None:
    from t2ialign.cli.main import main

    call = ["data", "import", "pickdoublecaption", str(source(tmp_path, [row(0)])), "--output_dir"]
    assert main([*call, str(tmp_path / "out"), "--caption_columns", "caption_1,caption_0"]) == 0
    assert load_pairs(tmp_path / "out").column("chosen_prompt") == ["picture 1 of 0"]
