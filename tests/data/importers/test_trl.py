"""TRL's forms: plain, chat messages, pictures in messages or beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.pair_sets import encoded, picture
from t2ialign.data.importers import import_pairs
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import DataError

Row = dict[str, Any]


def cell(number: int) -> dict[str, Any]:
    return {"bytes": encoded(number), "path": None}


def user(*content: Any) -> list[Row]:
    return [{"role": "user", "content": list(content)}]


def assistant(*content: Any) -> list[Row]:
    return [{"role": "assistant", "content": list(content)}]


def text(words: str | None) -> Row:
    return {"type": "text", "text": words, "image": None}


def image(number: int | None) -> Row:
    return {"type": "image", "text": None, "image": None if number is None else cell(number)}


FORMS: dict[str, Row] = {
    "plain": {"prompt": "a cat", "chosen": cell(1), "rejected": cell(2)},
    "lists": {"prompt": "a cat", "chosen": [cell(1)], "rejected": [cell(2)]},
    "chat prompt": {"prompt": user(text("a cat")), "chosen": cell(1), "rejected": cell(2)},
    "chat": {"prompt": user(text("a"), text("cat")), "chosen": assistant(image(1)), "rejected": assistant(image(2))},
    "implicit prompt": {
        "chosen": user(text("a cat")) + assistant(image(1)),
        "rejected": user(text("a cat")) + assistant(image(2)),
    },
    "images beside": {
        "prompt": user(text("a cat")),
        "chosen": assistant(image(None)),
        "rejected": assistant(text("here:"), image(None)),
        "images": [cell(1), cell(2)],
    },
    "a picture in the prompt": {
        "prompt": user(image(None), text("a cat")),
        "chosen": assistant(image(None)),
        "rejected": assistant(image(None)),
        "images": [cell(9), cell(1), cell(2)],
    },
    "images alone": {"prompt": "a cat", "images": [cell(1), cell(2)]},
    "plain messages": {"prompt": [{"role": "user", "content": "a cat"}], "images": [cell(1), cell(2)]},
    "bytes": {"prompt": "a cat", "chosen": encoded(1), "rejected": encoded(2)},
}


def write(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path: Path, form: str) -> None:
    source = write(tmp_path / "x.parquet", [FORMS[form]] * 2)
    summary = import_pairs("trl", source, tmp_path / "out")
    assert (summary.read, summary.written, summary.dropped) == (2, 2, {})
    pairs = load_pairs(tmp_path / "out")
    assert pairs.prompts == ["a cat"] * 2
    assert (pairs.encoded(0, "chosen"), pairs.encoded(0, "rejected")) == (encoded(1), encoded(2))


def test_saved_dataset_and_lines(tmp_path: Path) -> None:
    import datasets

    rows = {"prompt": ["a cat"], "chosen": [picture(1)], "rejected": [picture(2)]}
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "chosen": datasets.Image(), "rejected": datasets.Image()}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    picture(1).save(tmp_path / "1.png")
    picture(2).save(tmp_path / "2.webp", lossless=True)
    line = json.dumps({"prompt": "a cat", "chosen": "1.png", "rejected": "2.webp"})
    (tmp_path / "x.jsonl").write_text(line + "\n")
    for number, source in enumerate((tmp_path / "saved", tmp_path / "x.jsonl")):
        assert import_pairs("trl", source, tmp_path / f"out{number}").written == 1
        pair = load_pairs(tmp_path / f"out{number}")[0]
        assert (pair.chosen.getpixel((0, 0)), pair.rejected.getpixel((0, 0))) == ((1, 0, 0), (2, 0, 0))


def test_our_columns_are_carried_along(tmp_path: Path) -> None:
    row = {**FORMS["plain"], "user_id": "u", "margin": 2.0, "preference_prob": 0.8, "other": 1}
    tie = {**row, "preference_prob": 0.5}
    source = write(tmp_path / "x.parquet", [row, tie])
    summary = import_pairs("trl", source, tmp_path / "out")
    assert summary.dropped == {"tie": 1}
    assert summary.columns == ["prompt", "chosen", "rejected", "user_id", "preference_prob", "margin"]
    pair = load_pairs(tmp_path / "out")[0]
    assert (pair.user_id, pair.margin, pair.preference_prob) == ("u", 2.0, 0.8)
    assert import_pairs("trl", source, tmp_path / "kept", ties="keep").notices == {"ties kept": 1}


def test_what_is_left_out(tmp_path: Path) -> None:
    plain = FORMS["plain"]
    rows = [plain, {**plain, "prompt": " "}, {**plain, "chosen": None}, {**plain, "rejected": plain["chosen"]}]
    rows.append({**plain, "chosen": {"bytes": None, "path": "../secret.png"}})
    words = tmp_path / "words.txt"
    words.write_text("dog\n")
    rows.append({**plain, "prompt": "a dog"})
    summary = import_pairs("trl", write(tmp_path / "x.parquet", rows), tmp_path / "out", unsafe_words=words)
    assert (summary.read, summary.written) == (6, 1)
    assert summary.dropped == {
        "empty prompt": 1,
        "picture missing": 1,
        "the same picture on both sides": 1,
        "unreadable picture": 1,
        "unsafe prompt (word list)": 1,
    }
    assert "climbs out" in summary.examples["unreadable picture"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."},
        {"prompt": user(text("Why?")), "chosen": assistant(text("Because.")), "rejected": assistant(text("No."))},
    ],
)
def test_preferences_of_words_are_refused(tmp_path: Path, row: Row) -> None:
    with pytest.raises(DataError, match=r"row 0, chosen: .*pictures that are preferred are needed, not words"):
        import_pairs("trl", write(tmp_path / "x.parquet", [row]), tmp_path / "out")


def test_other_columns_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "x.parquet", [{"prompt": "a", "completion": "b", "label": True}])
    with pytest.raises(DataError, match="neither chosen and rejected nor prompt and images among prompt, completion"):
        import_pairs("trl", source, tmp_path / "out")
