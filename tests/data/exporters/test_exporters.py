"""Pairs out and in again: the same preferences, ties and users, or counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from helpers.pair_sets import encoded
from t2ialign.data.exporters import FORMATS, export_pairs
from t2ialign.data.exporters.imagereward import whole_ranking
from t2ialign.data.importers import import_pairs
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.errors import ConfigError, DataError


def row(prompt: str, chosen: int, rejected: int, user: Any = None, tie: bool = False) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "chosen": encoded(chosen),
        "rejected": encoded(rejected, "JPEG") if rejected > 90 else encoded(rejected),
        "user_id": user,
        "preference_prob": 0.5 if tie else None,
    }


ROWS = [
    row("one ranking", 0, 1, "u1"),
    row("one ranking", 1, 2, "u1"),
    row("one ranking", 0, 2, "u1"),
    row("one ranking", 2, 0, "u2"),
    row("a cycle", 3, 4),
    row("a cycle", 4, 5),
    row("a cycle", 5, 3),
    row("a tie in it", 6, 7, "7", tie=True),
    row("a tie in it", 6, 8, "7"),
    row("a tie in it", 7, 8, "7"),
    row("not all pairs", 9, 10),
    row("not all pairs", 10, 11),
    row("twice", 12, 13, "u1"),
    row("twice", 12, 13, "u1"),
    row("a jpeg", 14, 91),
]


def preferences(folder: Path, *, users: bool = True, ties: bool = True) -> Counter[Any]:
    """What a set says; of a tie, neither side first."""
    pairs = load_pairs(folder, ties="keep" if ties else "drop")
    said: Counter[Any] = Counter()
    columns = zip(pairs.prompts, pairs.column("user_id"), pairs.column("preference_prob"), strict=True)
    for number, (prompt, user, likely) in enumerate(columns):
        sides = (pairs.encoded(number, "chosen"), pairs.encoded(number, "rejected"))
        order = tuple(sorted(sides)) if likely == 0.5 else sides
        said[prompt, order, user if users else None, likely == 0.5] += 1
    return said


@pytest.mark.parametrize("format", FORMATS)
def test_out_and_in_again(tmp_path: Path, format: str) -> None:
    write_pairs(ROWS, tmp_path / "pairs")
    summary = export_pairs(tmp_path / "pairs", format, tmp_path / "out")
    ties = format != "hpdv2"
    assert summary.left_out == ({} if ties else {"tie": 1})
    assert summary.pairs == len(ROWS) - (not ties)
    assert summary.not_kept == {}
    back = import_pairs(format, tmp_path / "out", tmp_path / "back", ties="keep")
    assert back.dropped == {}
    assert preferences(tmp_path / "back") == preferences(tmp_path / "pairs", ties=ties)


def test_pickapic_has_its_columns_and_whole_numbers_as_users(tmp_path: Path) -> None:
    write_pairs([row("a", 0, 1, 7), row("a", 2, 3, "-8"), row("b", 4, 5, None, tie=True)], tmp_path / "pairs")
    export_pairs(tmp_path / "pairs", "pickapic", tmp_path / "out", split="train")
    table = pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet")
    assert set(table.column_names) == {
        *("are_different", "best_image_uid", "caption", "created_at", "has_label", "ranking_id", "user_id"),
        *("image_0_uid", "image_0_url", "image_1_uid", "image_1_url", "jpg_0", "jpg_1", "label_0", "label_1"),
        *("model_0", "model_1", "num_example_per_prompt"),
    }
    assert table["user_id"].to_pylist() == [7, -8, None]
    assert table["num_example_per_prompt"].to_pylist() == [2, 2, 1]
    assert str(table.schema.field("user_id").type) == "int64"
    assert str(table.schema.field("jpg_0").type) == "binary"
    for number, (chosen, _) in enumerate([(0, 1), (2, 3)]):
        line = table.slice(number, 1).to_pylist()[0]
        assert line["label_0"] + line["label_1"] == 1
        side = 0 if line["label_0"] else 1
        assert line[f"jpg_{side}"] == encoded(chosen)
        assert line["best_image_uid"] == line[f"image_{side}_uid"]
    assert table["label_0"].to_pylist()[2] == table["label_1"].to_pylist()[2] == 0.5


@pytest.mark.parametrize("users", [["07"], ["7", "someone"], [str(2**70)], ["٣"]])
def test_users_that_are_no_plain_numbers_stay_as_they_are(tmp_path: Path, users: list[str]) -> None:
    rows = [row("a", 2 * n, 2 * n + 1, user) for n, user in enumerate(users)]
    write_pairs(rows, tmp_path / "pairs")
    export_pairs(tmp_path / "pairs", "pickapic", tmp_path / "out")
    import_pairs("pickapic", tmp_path / "out", tmp_path / "back")
    assert load_pairs(tmp_path / "back").column("user_id") == users


def test_the_first_place_says_nothing(tmp_path: Path) -> None:
    write_pairs([row("a", 2 * n, 2 * n + 1) for n in range(40)], tmp_path / "pairs")
    export_pairs(tmp_path / "pairs", "hpdv2", tmp_path / "out")
    entries = json.loads((tmp_path / "out/train.json").read_text())
    assert 8 < sum(entry["human_preference"] == [1, 0] for entry in entries) < 32
    for number, entry in enumerate(entries):
        best = entry["file_path"][entry["human_preference"].index(1)]
        assert (tmp_path / "out/train" / best).read_bytes() == encoded(2 * number)


def test_imagereward_merges_what_is_one_ranking_and_nothing_else(tmp_path: Path) -> None:
    write_pairs(ROWS, tmp_path / "pairs")
    export_pairs(tmp_path / "pairs", "imagereward", tmp_path / "out", split="train")
    entries = json.loads((tmp_path / "out/train.json").read_text())
    shapes = Counter((entry["prompt"], tuple(sorted(entry["ranking"]))) for entry in entries)
    assert shapes == {
        ("one ranking", (1, 2, 3)): 1,
        ("one ranking", (1, 2)): 1,
        ("a cycle", (1, 2)): 3,
        ("a tie in it", (1, 1, 3)): 1,
        ("not all pairs", (1, 2)): 2,
        ("twice", (1, 2)): 2,
        ("a jpeg", (1, 2)): 1,
    }
    assert len({entry["id"] for entry in entries}) == len(entries)
    assert all((tmp_path / "out" / name).is_file() for entry in entries for name in entry["generations"])


def test_a_whole_ranking() -> None:
    assert whole_ranking([("a", "b", 1.0)]) == {"a": 1, "b": 2}
    assert whole_ranking([("a", "b", 0.5), ("a", "c", 0.0), ("b", "c", 0.0)]) == {"a": 2, "b": 2, "c": 1}
    assert whole_ranking([("a", "b", 1.0), ("b", "c", 1.0), ("a", "c", 0.5)]) is None
    assert whole_ranking([("a", "b", 0.5), ("b", "c", 0.5), ("a", "c", 1.0)]) is None


def test_what_is_not_kept_is_counted(tmp_path: Path) -> None:
    more = {"margin": 2.0, "aspect": "fidelity", "chosen_prompt": "x", "preference_prob": 0.8, "source": "s"}
    write_pairs([row("a", 0, 1) | more, row("b", 2, 3) | dict.fromkeys(more)], tmp_path / "pairs")
    summary = export_pairs(tmp_path / "pairs", "pickapic", tmp_path / "out")
    assert summary.not_kept == {"margin": 1, "aspect": 1, "chosen_prompt": 1, "preference_prob": 1}
    assert "  not kept, aspect: 1" in summary.lines()


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    write_pairs([row("a", 0, 1, tie=True)], tmp_path / "ties")
    with pytest.raises(DataError, match="no pair can be written as hpdv2"):
        export_pairs(tmp_path / "ties", "hpdv2", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ties"]
    with pytest.raises(ConfigError, match="did you mean 'hpdv2'"):
        export_pairs(tmp_path / "ties", "hpdv3", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(DataError, match="is there already"):
        export_pairs(tmp_path / "ties", "pickapic", tmp_path / "full")
