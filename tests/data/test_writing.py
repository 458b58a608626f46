"""Writing pairs: what is stored, what is refused, and that nothing is left half done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.pair_sets import encoded, pair, picture
from t2ialign.data import writing
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.errors import DataError


def test_encoded_pictures_are_stored_as_they_are(tmp_path: Path) -> None:
    jpeg = encoded(5, "JPEG")
    (tmp_path / "cat.jpeg").write_bytes(jpeg)
    rows = [
        {"prompt": "a", "chosen": jpeg, "rejected": tmp_path / "cat.jpeg"},
        {"prompt": "b", "chosen": {"bytes": None, "path": str(tmp_path / "cat.jpeg")}, "rejected": picture(3)},
        {"prompt": "c", "chosen": {"bytes": jpeg, "path": "x/y.png"}, "rejected": picture(300).convert("L")},
    ]
    pairs = load_pairs(write_pairs(rows, tmp_path / "set"))
    assert [pairs.encoded(n, "chosen") for n in range(3)] == [jpeg] * 3
    assert [cell["path"] for cell in pairs.column("chosen")] == [None, "cat.jpg", "y.jpg"]
    assert pairs[1].rejected.getpixel((0, 0)) == (3, 0, 0)
    assert not [p for p in (tmp_path / "set").rglob("*") if p.name.startswith(".")]


def test_datasets_reads_it_with_its_splits(tmp_path: Path) -> None:
    import datasets

    write_pairs([pair(0)], tmp_path / "set", split="test")
    write_pairs([pair(1)], tmp_path / "set", card="# Mine\n\nText.")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 1, "test": 1}
    assert loaded["train"][0]["chosen"].getpixel((0, 0)) == (2, 0, 0)
    card = (tmp_path / "set/README.md").read_text()
    assert card.endswith("# Mine\n\nText.\n")
    assert card.index("split: train") < card.index("split: test")
    write_pairs([pair(2)], tmp_path / "set", split="validation")
    card = (tmp_path / "set/README.md").read_text()
    assert card.endswith("# Mine\n\nText.\n")
    assert "path: data/validation-*.parquet" in card


def test_shards_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(writing, "SHARD_BYTES", 3 * 2 * len(encoded(0)))
    write_pairs((pair(n) for n in range(11)), tmp_path)
    files = sorted((tmp_path / "data").iterdir())
    assert [file.name for file in files] == [f"train-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))]
    assert len(files) > 1
    assert all(pq.ParquetFile(f).metadata.row_group(0).num_rows <= 2 for f in files)
    assert load_pairs(tmp_path).prompts == [f"prompt {n}" for n in range(11)]


def test_rows_are_taken_one_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_ROWS", 4)
    sizes: list[int] = []
    write_table = pq.ParquetWriter.write_table

    def spy(self: Any, table: Any, *args: Any, **kwargs: Any) -> None:
        sizes.append(len(table))
        assert taken[0] == sum(sizes)
        write_table(self, table, *args, **kwargs)

    taken = [0]

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(10):
            taken[0] += 1
            yield pair(number)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", spy)
    write_pairs(rows(), tmp_path)
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"promt": "x"}, "unknown column 'promt'; did you mean 'prompt'"),
        ({"chosen": b"GIF89a"}, "row 0, chosen: a GIF picture"),
        ({"chosen": b""}, "row 0, chosen: the file is empty"),
        ({"chosen": 3}, "row 0, chosen: the picture is int"),
        ({"chosen": None}, "row 0, chosen: the picture is NoneType"),
        ({"prompt": " "}, "row 0, prompt: empty"),
        ({"prompt": 5}, "rows 0 to 0"),
        ({"preference_prob": 0.2}, r"row 0, preference_prob: 0\.2 is outside"),
        ({"margin": float("nan")}, "row 0, margin: nan"),
        ({"scores_chosen": {"a": float("inf")}}, "row 0: the score 'a' is inf"),
    ],
)
def test_bad_rows_leave_nothing_behind(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        write_pairs([{**pair(0), **row}], tmp_path / "set")
    assert not list((tmp_path / "set").rglob("*"))


def test_the_right_row_is_named_across_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_ROWS", 2)
    with pytest.raises(DataError, match="row 3, prompt: empty"):
        write_pairs([pair(0), pair(1), pair(2), pair(3, prompt="")], tmp_path)
    with pytest.raises(DataError, match="row 1: column 'margin' was not in the first row"):
        write_pairs([pair(0), pair(1, margin=1.0)], tmp_path)
    write_pairs([pair(0), pair(1, margin=1.0)], tmp_path, columns=("prompt", "chosen", "rejected", "margin"))
    assert load_pairs(tmp_path).column("margin") == [None, 1.0]


def test_what_is_there_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs([pair(n) for n in range(3)], tmp_path)
    with pytest.raises(DataError, match="already has the split 'train'"):
        write_pairs([pair(9)], tmp_path)
    with pytest.raises(DataError, match="there is no pair to write"):
        write_pairs([], tmp_path, overwrite=True)
    assert len(load_pairs(tmp_path)) == 3
    write_pairs([pair(9)], tmp_path, overwrite=True)
    assert load_pairs(tmp_path).prompts == ["prompt 9"]
    with pytest.raises(DataError, match="letters, digits and underscores"):
        write_pairs([pair(9)], tmp_path, split="../x")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: text.strip())
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "prompt": TEXT,
                "user_id": st.none() | TEXT,
                "preference_prob": st.none() | st.floats(0.5, 1.0),
                "margin": st.none() | NUMBER,
                "scores_chosen": st.none() | st.dictionaries(st.text(max_size=5).filter(str.isprintable), NUMBER),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_round_trip(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    write_pairs([{**pair(n), **row} for n, row in enumerate(rows)], tmp_path, overwrite=True)
    pairs = load_pairs(tmp_path, ties="keep")
    for name in rows[0]:
        assert pairs.column(name) == [row[name] for row in rows]
        assert [getattr(each, name) for each in pairs] == [row[name] for row in rows]


def test_import_json_is_not_a_split(tmp_path: Path) -> None:
    write_pairs([pair(0)], tmp_path)
    (tmp_path / "import.json").write_text(json.dumps({"splits": {}}))
    assert len(load_pairs(tmp_path)) == 1
