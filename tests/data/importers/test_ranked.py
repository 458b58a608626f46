"""HPDv2, ImageRewardDB and plain rankings: every preference, every tie, every reason to leave one out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.pair_sets import encoded
from t2ialign.data.importers import import_pairs
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import DataError


def pictures(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(encoded(number))
    return [f"{number}.png" for number in range(count)]


def preferences(folder: Path) -> list[tuple[Any, ...]]:
    """(prompt, chosen, rejected, user, tie) of each pair, pictures by their numbers."""
    pairs = load_pairs(folder, ties="keep")
    number = {encoded(n): n for n in range(20)}
    sides = [[number[pairs.encoded(i, side)] for side in ("chosen", "rejected")] for i in range(len(pairs))]
    columns = zip(pairs.prompts, sides, pairs.column("user_id"), pairs.column("preference_prob"), strict=True)
    return [(prompt, *two, user, likely == 0.5) for prompt, two, user, likely in columns]


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_hpdv2_train(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 6)
    entries: list[dict[str, Any]] = [
        {"human_preference": [1, 0], "prompt": "a", "file_path": ["0.png", "1.png"], "user_hash": "h1"},
        {"human_preference": [0, 1], "prompt": "b", "file_path": ["2.png", "3.png"]},
        {"human_preference": [1, 1], "prompt": "c", "file_path": ["4.png", "5.png"], "user_hash": "h2"},
        {"human_preference": [0.7, 0.3], "prompt": "d", "file_path": ["0.png", "1.png"]},
        {"human_preference": [1, 0], "prompt": "e", "file_path": ["0.png"]},
        {"human_preference": [1, 0], "prompt": " ", "file_path": ["0.png", "1.png"]},
        {"human_preference": [1, 0], "prompt": "f", "file_path": ["0.png", "../1.png"]},
        {"human_preference": [1, 0], "prompt": "g", "file_path": ["0.png", "9.png"]},
        {"human_preference": [1, 0], "prompt": "h", "file_path": ["0.png", "0.png"]},
        {"prompt": "i"},
    ]
    written(tmp_path / "train.json", entries)
    summary = import_pairs("hpdv2", tmp_path, tmp_path / "out")
    assert preferences(tmp_path / "out") == [("a", 0, 1, "h1", False), ("b", 3, 2, None, False)]
    assert summary.dropped == {
        "tie": 1,
        "human_preference not 0 or 1": 1,
        "not two pictures with a mark each": 1,
        "empty prompt": 1,
        "unreadable picture": 2,
        "the same picture on both sides": 1,
        "neither human_preference nor rank": 1,
    }
    kept = import_pairs("hpdv2", tmp_path / "train.json", tmp_path / "kept", ties="keep")
    assert kept.notices == {"ties kept": 1}
    assert preferences(tmp_path / "kept")[2] == ("c", 4, 5, "h2", True)


def test_hpdv2_test(tmp_path: Path) -> None:
    names = pictures(tmp_path / "elsewhere", 3)
    raw = [{"rank": [1, 2, 3], "user_hash": "h"}]
    entry = {"prompt": "a", "image_path": names, "rank": [2.5, 1.0, 2.5], "raw_annotations": raw}
    written(tmp_path / "test.json", [entry])
    summary = import_pairs(
        "hpdv2", tmp_path, tmp_path / "out", split="test", images=tmp_path / "elsewhere", ties="keep"
    )
    assert (summary.read, summary.written) == (3, 3)
    pairs = load_pairs(tmp_path / "out", split="test", ties="keep")
    assert pairs.column("margin") == [1.5, 0.0, 1.5]
    assert pairs.encoded(0, "chosen") == encoded(1)
    assert pairs.encoded(2, "chosen") == encoded(1)
    assert pairs.column("user_id") == [None] * 3


def test_imagereward(tmp_path: Path) -> None:
    names = pictures(tmp_path, 4)
    entries = [
        {"id": "1-2", "prompt": "a", "generations": names, "ranking": [1, 2, 5, 2]},
        {"id": "1-3", "prompt": "b", "generations": names[:2], "ranking": [1]},
        {"id": "1-4", "prompt": "c", "generations": names[:1], "ranking": [1]},
        {"id": "1-5", "prompt": "d", "image_path": names, "rank": [1, 2, 3, 4]},
        {"id": "1-6", "prompt": "e", "generations": names[:2], "ranking": [1, None]},
    ]
    summary = import_pairs("imagereward", written(tmp_path / "test.json", entries), tmp_path / "out")
    found = [(prompt, one, two) for prompt, one, two, _, _ in preferences(tmp_path / "out")]
    assert found == [("a", 0, 1), ("a", 0, 2), ("a", 0, 3), ("a", 1, 2), ("a", 3, 2)]
    assert summary.dropped == {
        "tie": 1,
        "not a rank for each picture": 2,
        "a single picture": 1,
        "no generations and ranking": 1,
    }
    assert load_pairs(tmp_path / "out").column("margin") == [1.0, 4.0, 1.0, 3.0, 3.0]


def test_plain_rankings_with_and_without_ranks(tmp_path: Path) -> None:
    names = pictures(tmp_path / "pics", 3)
    lines = [
        {"caption": "a", "images": names, "user_id": 7},
        {"prompt": "b", "images": names[:2], "ranks": [2, 1]},
        {"prompt": "c", "images": "0.png"},
    ]
    path = tmp_path / "rankings.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = import_pairs("rankings", tmp_path, tmp_path / "out", images=tmp_path / "pics", limit=4)
    found = preferences(tmp_path / "out")
    assert found[:3] == [("a", 0, 1, "7", False), ("a", 0, 2, "7", False), ("a", 1, 2, "7", False)]
    assert found[3:] == [("b", 1, 0, None, False)]
    assert summary.written == 4
    words = tmp_path / "words.txt"
    words.write_text("a\n")
    safe = import_pairs("rankings", path, tmp_path / "safe", images=tmp_path / "pics", unsafe_words=words)
    assert safe.dropped == {"unsafe prompt (word list)": 3, "no list of pictures": 1}


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        import_pairs("rankings", "someone/something", tmp_path / "out")
    with pytest.raises(DataError, match=r"holds none of train\.json, train\.jsonl"):
        import_pairs("hpdv2", tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="a JSON list is needed"):
        import_pairs("imagereward", written(tmp_path / "a.json", {"prompt": "a"}), tmp_path / "out")
    (tmp_path / "b.json").write_text("[{")
    with pytest.raises(DataError, match="can not be read as JSON"):
        import_pairs("imagereward", tmp_path / "b.json", tmp_path / "out")
    with pytest.raises(DataError, match="no folder of pictures"):
        import_pairs("imagereward", written(tmp_path / "a.json", []), tmp_path / "out", images=tmp_path / "none")
    with pytest.raises(DataError, match="--images is for formats that keep pictures elsewhere, not for pickapic"):
        import_pairs("pickapic", tmp_path, tmp_path / "out", images=tmp_path)


def test_the_real_test_file_gives_the_pairs_that_it_ranks(tmp_path: Path) -> None:
    """Its pictures are not at hand: one stands for each of the first prompts' generations."""
    data = os.environ.get("T2IALIGN_REAL_DATA")
    if not data or not (Path(data) / "imagereward_test.json").is_file():
        pytest.skip("imagereward_test.json is not there; name its folder in T2IALIGN_REAL_DATA")
    entries = json.loads((Path(data) / "imagereward_test.json").read_text())
    number = 0
    for entry in entries[:20]:
        for name in entry["generations"]:
            (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "pics" / name).write_bytes(encoded(number))
            number += 1
    summary = import_pairs(
        "imagereward", Path(data) / "imagereward_test.json", tmp_path / "out", images=tmp_path / "pics"
    )
    ranks = [entry["ranking"] for entry in entries]
    untied = [sum(a != b for i, a in enumerate(r) for b in r[i + 1 :]) for r in ranks]
    every = sum(len(r) * (len(r) - 1) // 2 for r in ranks)
    assert summary.written == sum(untied[:20])
    assert summary.dropped["tie"] == every - sum(untied)
    assert summary.dropped["unreadable picture"] == sum(untied[20:])
    pairs = load_pairs(tmp_path / "out")
    assert pairs.prompts == [p for e, n in zip(entries[:20], untied[:20], strict=True) for p in [e["prompt"]] * n]
