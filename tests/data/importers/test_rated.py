"""VisionPrefer- and UltraFeedback-style ratings: every form of a rating, and the pairs that follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.pair_sets import encoded
from t2ialign.data.importers import import_pairs
from t2ialign.data.importers.rated import aspect_name, rating_of
from t2ialign.data.pairs import load_pairs


@pytest.mark.parametrize(
    ("given", "rating"),
    [
        ("4", 4.0),
        (" 4.0 ", 4.0),
        (3, 3.0),
        (2.5, 2.5),
        ("N/A", None),
        ("", None),
        (None, None),
        (True, None),
        (0, None),
        ("7", None),
        ("nan", None),
        ("inf", None),
        (["4"], None),
        ("five", None),
    ],
)
def test_what_is_a_rating(given: Any, rating: float | None) -> None:
    assert rating_of(given) == rating


def test_names_of_aspects() -> None:
    assert aspect_name("Prompt-Following") == aspect_name("prompt following") == "prompt_following"
    assert aspect_name("Visual Faithfulness") == "visual_faithfulness"
    assert aspect_name("hpsv2.1") == "hpsv2.1"


def lines(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def pictures(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(encoded(number))


def found(folder: Path, aspect: str) -> set[tuple[int, int]]:
    """(chosen, rejected) of the pairs of an aspect."""
    pairs = load_pairs(folder)
    number = {encoded(n): n for n in range(20)}
    return {
        (number[pairs.encoded(i, "chosen")], number[pairs.encoded(i, "rejected")])
        for i, what in enumerate(pairs.column("aspect"))
        if what == aspect
    }


def test_visionprefer(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    entry = {
        "prompt_id": "p",
        "prompt": "a cat",
        "images": [
            {"file_name": "0.png", "model": "sd", "ratings": {"Prompt-Following": 5, "Aesthetic": {"Rating": "2"}}},
            {"image_id": "1", "ratings": {"Prompt-Following": "3", "Aesthetic": {"score": 4, "reason": "x"}}},
            {"image": "2.png", "ratings": {"Prompt-Following": "N/A", "Aesthetic": {"Rating": "2"}}},
        ],
    }
    path = lines(tmp_path / "train.jsonl", entry, {"prompt": "b", "images": []}, {"prompt": "", "images": [{}, {}]})
    summary = import_pairs("visionprefer", path, tmp_path / "out")
    assert found(tmp_path / "out", "prompt_following") == {(0, 1)}
    assert found(tmp_path / "out", "aesthetic") == {(1, 0), (1, 2)}
    assert found(tmp_path / "out", "aggregate") == set()  # 3.5 and 3.5 tie, the third has no prompt following
    assert summary.dropped == {
        "tie": 2,
        "a rating is missing": 4,
        "fewer than two pictures": 1,
        "empty prompt": 1,
    }
    pairs = load_pairs(tmp_path / "out")
    assert pairs.column("margin") == [2.0, 2.0, 2.0]
    assert pairs[0].scores_chosen == {"prompt_following": 5.0, "aesthetic": 2.0}
    assert pairs.column("source") == ["visionprefer"] * 3


def test_ultrafeedback(tmp_path: Path) -> None:
    pictures(tmp_path, 2)

    def completion(name: str, *ratings: str) -> dict[str, Any]:
        aspects = zip(("Helpfulness", "Ethical Considerations", "Visual Faithfulness"), ratings, strict=True)
        return {
            "file_name": name,
            "annotations": {aspect: {"Rating": rating, "Rationale": "because"} for aspect, rating in aspects},
        }

    entry = {
        "instruction": "draw a cat",
        "completions": [completion("0.png", "4", "5", "N/A"), completion("1.png", "2", "5", "1")],
    }
    summary = import_pairs("ultrafeedback", lines(tmp_path / "u.jsonl", entry), tmp_path / "out", ties="keep")
    assert found(tmp_path / "out", "helpfulness") == {(0, 1)}
    assert summary.notices == {"ties kept": 1}
    assert summary.dropped == {"a rating is missing": 2}
    pairs = load_pairs(tmp_path / "out", ties="keep")
    assert pairs.column("aspect") == ["helpfulness", "ethical_considerations"]
    assert pairs.column("preference_prob") == [None, 0.5]


def test_the_aggregate_is_the_mean_of_all_aspects(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    images = [{"file_name": "0.png", "ratings": {"a": 5, "b": 1, "c": 3}}]
    images += [{"file_name": "1.png", "ratings": {"a": 3, "b": 4, "c": 3}}]
    path = lines(tmp_path / "v.jsonl", {"prompt": "x", "images": images, "annotator": "me"})
    import_pairs("visionprefer", path, tmp_path / "out")
    assert found(tmp_path / "out", "aggregate") == {(1, 0)}
    pairs = load_pairs(tmp_path / "out")
    assert pairs.column("margin")[-1] == pytest.approx(1 / 3)
    assert set(pairs.column("user_id")) == {"me"}
