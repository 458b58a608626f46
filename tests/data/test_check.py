"""`check_pairs` finds every kind of fault, and calls a good set fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.pair_sets import encoded, pair, picture
from t2ialign.data.captions import count_cut
from t2ialign.data.check import EXAMPLES, check_pairs
from t2ialign.data.pairs import write_pairs
from t2ialign.errors import DataError


def raw(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as they are, without the checks of `write_pairs`."""
    names = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in names} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_good_set_is_fit(tmp_path: Path) -> None:
    write_pairs([pair(n, user_id=f"u{n % 2}") for n in range(5)], tmp_path)
    report = check_pairs(tmp_path)
    assert report.fit
    split = report.to_dict()["splits"]["train"]
    cut = split.pop("captions_cut")
    assert split == {
        "pairs": 5,
        "ties": 0,
        "prompts": 5,
        "users": 2,
        "errors": {},
        "warnings": {},
        "sizes": {"16x16": 10},
        "notices": {},
    }
    assert (cut["count"], cut["exact"], cut["limit"]) == (0, False, 77)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert report.lines() == ["train: 5 pairs, 0 ties, 5 prompts, 2 users", "  sizes: 16x16 (10)", "fit for training"]


def test_every_fault_of_a_row(tmp_path: Path) -> None:
    half = encoded(1, "JPEG", (64, 64))
    rows = [
        pair(0, preference_prob=0.9),
        pair(1, prompt=" ", preference_prob=0.9),
        pair(2, prompt=None, preference_prob=0.9),
        pair(3, preference_prob=0.4),
        pair(4, preference_prob=float("nan")),
        pair(5, chosen=None),
        pair(6, rejected=half[:-40]),
        pair(7, chosen=b"GIF89a"),
        {**pair(8), "rejected": encoded(16, "WEBP", (16, 16))},
    ]
    rows[8]["chosen"] = encoded(16)
    report = check_pairs(raw(tmp_path / "x.parquet", rows))
    found = report.splits["train"]
    counts = {kind: finding.count for kind, finding in found.errors.items()}
    same = {"the same picture on both sides": 1} if _lossless(16) else {}
    assert (
        counts
        == {
            "empty prompt": 2,
            "invalid preference_prob": 2,
            "missing picture": 1,
            "unreadable picture": 2,
        }
        | same
    )
    assert found.errors["unreadable picture"].examples[0].startswith("row 6, rejected: damaged or cut short")
    assert "row 7, chosen: a GIF picture" in found.errors["unreadable picture"].examples[1]
    assert not report.fit
    assert report.lines()[-1] == "NOT fit for training"
    assert any(
        line.startswith("  ERROR: empty prompt: row ") and line.endswith("and 1 more") for line in report.lines()
    )


def _lossless(number: int) -> bool:
    """Whether WebP happens to keep the picture of one colour."""
    from t2ialign.data.images import open_image

    return open_image(encoded(number, "WEBP")).tobytes() == picture(number).tobytes()


def test_the_same_pixels_in_another_file_are_the_same_picture(tmp_path: Path) -> None:
    picture(7).save(tmp_path / "other.webp", lossless=True)
    raw(tmp_path / "x.parquet", [pair(0, chosen=encoded(7), rejected=(tmp_path / "other.webp").read_bytes())])
    report = check_pairs(tmp_path / "x.parquet")
    assert report.splits["train"].errors["the same picture on both sides"].count == 1


def test_repeats_contradictions_and_users_who_disagree(tmp_path: Path) -> None:
    def swapped(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}

    first, second = pair(0, user_id="u"), pair(1, user_id="u")
    rows = [first, first, second, swapped(second), swapped({**first, "user_id": "v"}), {**first, "prompt": "other"}]
    rows.append({**swapped(second), "preference_prob": 0.5})
    found = check_pairs(raw(tmp_path / "x.parquet", rows)).splits["train"]
    assert {kind: each.examples for kind, each in found.warnings.items()} == {
        "repeated pair": ["row 1 is row 0 again"],
        "users disagree": ["rows 0 and 4"],
    }
    assert {kind: each.examples for kind, each in found.errors.items()} == {
        "contradiction": ["row 3 prefers what row 2 rejects, on the same pictures"]
    }
    assert found.ties == 1


def test_leaks_between_splits(tmp_path: Path) -> None:
    write_pairs([pair(0), pair(1), pair(2)], tmp_path)
    write_pairs([{**pair(9), "prompt": "prompt 1"}, pair(8)], tmp_path, split="test")
    report = check_pairs(tmp_path)
    assert report.fit
    assert report.splits["test"].warnings["prompt in two splits"].examples == ["'prompt 1', also in train"]
    write_pairs([pair(2)], tmp_path, split="validation")
    report = check_pairs(tmp_path)
    assert not report.fit
    assert report.splits["validation"].errors["pair in two splits"].examples == ["row 0 is row 2 of train"]
    assert list(check_pairs(tmp_path, split="test").splits) == ["test"]


def test_near_duplicate_prompts_in_two_splits(tmp_path: Path) -> None:
    base = "a small red circle left of a large blue square"
    write_pairs([{**pair(0), "prompt": base}, pair(1)], tmp_path)
    write_pairs([{**pair(2), "prompt": base.replace("circle", "circles")}, pair(3)], tmp_path, split="test")
    report = check_pairs(tmp_path)
    assert report.fit
    finding = report.splits["test"].warnings["near-duplicate prompt in two splits"]
    assert (finding.count, finding.examples) == (
        1,
        ["'a small red circles left of a large blue square' is much like "
         "'a small red circle left of a large blue square' of train"],
    )  # fmt: skip


def test_sizes_notices_and_shapes(tmp_path: Path) -> None:
    grey = picture(0, (32, 16)).convert("L")
    grey.save(tmp_path / "grey.png")
    write_pairs([pair(0), pair(1, chosen=tmp_path / "grey.png")], tmp_path / "set")
    found = check_pairs(tmp_path / "set").splits["train"]
    assert found.sizes == {"16x16": 3, "32x16": 1}
    assert found.notices == {"L brought to RGB": 1}
    expected = ["row 1: chosen 32x16, rejected 16x16"]
    assert found.warnings["chosen and rejected of different shape"].examples == expected


def test_nothing_but_ties_or_faults_is_unfit(tmp_path: Path) -> None:
    report = check_pairs(raw(tmp_path / "x.parquet", [pair(0, preference_prob=0.5)]))
    assert report.splits["train"].errors["no preference"].examples == ["all 1 rows are ties"]
    report = check_pairs(raw(tmp_path / "x.parquet", [pair(n, prompt="") for n in range(9)]))
    assert report.splits["train"].errors["no preference"].count == 1
    assert report.splits["train"].errors["empty prompt"].count == 9
    assert len(report.splits["train"].errors["empty prompt"].examples) == EXAMPLES


def test_files_beside_the_metadata(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    rows = [{"prompt": "x", "chosen": "a.png", "rejected": name} for name in ("b.png", "../c.png")]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = check_pairs(tmp_path).splits["train"]
    assert found.errors["unreadable picture"].count == 2
    assert "climbs out" in found.errors["unreadable picture"].examples[1]


def test_workers_find_the_same(tmp_path: Path) -> None:
    rows = [pair(n) for n in range(5)] + [pair(6, chosen=b"\xff\xd8no")]
    source = raw(tmp_path / "x.parquet", rows)
    assert check_pairs(source, workers=1).to_dict() == check_pairs(source).to_dict()
    with pytest.raises(DataError, match="workers must be 0 or more, not -1"):
        check_pairs(source, workers=-1)


def test_estimate_of_cut_captions() -> None:
    cut = count_cut(["a cat", "a " * 75, "a " * 76, "a " * 76, "extraordinarily " * 40])
    assert (cut.count, cut.certain, cut.exact, cut.longest) == (3, 2, False, 122)
    assert count_cut([]).longest == 0


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A CLIP tokenizer that knows single letters alone."""
    letters = [chr(n) for n in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path / "pipeline" / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
    return folder.parent


def test_exact_count_of_cut_captions(tokenizer: Path, tmp_path: Path) -> None:
    cut = count_cut(["a" * 75, "a" * 76, "abc"], tokenizer)
    assert (cut.count, cut.certain, cut.longest, cut.exact) == (1, 1, 78, True)
    assert cut.method == "tokenizer tokenizer"
    write_pairs([pair(0, prompt="a" * 90, chosen_prompt=None), pair(1, chosen_prompt="b" * 90)], tmp_path / "set")
    report = check_pairs(tmp_path / "set", tokenizer=tokenizer)
    assert report.fit
    assert any("captions cut at 77 tokens: 2 (tokenizer" in line for line in report.lines())
    with pytest.raises(DataError, match=r"the tokenizer .* can not be loaded"):
        count_cut(["a"], tmp_path / "none")
