"""`check_unpaired` finds every kind of fault of labelled pictures, and `check_set` tells them from pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.pair_sets import encoded, labelled, pair, picture
from t2ialign.cli.main import main
from t2ialign.data.check import EXAMPLES, check_pairs, check_set, check_unpaired
from t2ialign.data.pairs import write_pairs
from t2ialign.data.unpaired import write_unpaired
from t2ialign.errors import DataError


def raw(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as they are, without the checks of `write_unpaired`."""
    names = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in names} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_good_set_is_fit(tmp_path: Path) -> None:
    write_unpaired([labelled(n, n < 2, user_id=f"u{n % 2}") for n in range(5)], tmp_path)
    report = check_unpaired(tmp_path)
    assert report.fit
    split = report.to_dict()["splits"]["train"]
    cut = split.pop("captions_cut")
    assert split == {
        "pictures": 5,
        "positives": 2,
        "negatives": 3,
        "positive_share": 0.4,
        "prompts": 5,
        "users": 2,
        "errors": {},
        "warnings": {},
        "sizes": {"16x16": 5},
        "notices": {},
    }
    assert (cut["count"], cut["exact"], cut["limit"]) == (0, False, 77)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    told = ["train: 5 pictures, 2 labelled true (40.0 %), 5 prompts, 2 users", "  sizes: 16x16 (5)"]
    assert report.lines() == [*told, "fit for training"]
    assert check_set(tmp_path).to_dict() == report.to_dict()


def test_every_fault_of_a_row(tmp_path: Path) -> None:
    half = encoded(1, "JPEG", (64, 64))
    rows = [
        labelled(0, 1.0),
        labelled(1, 0.0),
        labelled(2, 1.0, prompt=" "),
        labelled(3, 1.0, prompt=None),
        labelled(4, None),
        labelled(5, float("nan")),
        labelled(6, 0.3),
        labelled(7, 1.0, image=None),
        labelled(8, 1.0, image=half[:-40]),
        labelled(9, 1.0, image=b"GIF89a"),
        labelled(10, 1.0, weight=-1.0),
    ]
    report = check_set(raw(tmp_path / "x.parquet", rows))
    found = report.splits["train"]
    assert {kind: finding.count for kind, finding in found.errors.items()} == {
        "empty prompt": 2,
        "invalid label": 3,
        "missing picture": 1,
        "unreadable picture": 2,
        "invalid weight": 1,
    }
    assert found.errors["unreadable picture"].examples[0].startswith("row 8, image: damaged or cut short")
    assert "row 9, image: a GIF picture" in found.errors["unreadable picture"].examples[1]
    assert (
        found.errors["invalid label"].examples[0] == "row 4, label: missing; write true or false, or leave the row out"
    )
    assert (found.pictures, found.positives, found.negatives) == (11, 3, 1)
    assert not report.fit
    assert report.lines()[-1] == "NOT fit for training"


def test_repeats_and_both_labels(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "one.webp", lossless=True)
    again = (tmp_path / "one.webp").read_bytes()
    rows = [
        labelled(1, True, user_id="u"),
        labelled(1, True, user_id="u", image=again),
        labelled(1, True, user_id="v"),
        labelled(1, False, user_id="u"),
        labelled(1, False, user_id="u", prompt="other"),
        labelled(2, False, user_id="u", prompt="prompt 1"),
        labelled(2, False, user_id="u", prompt="prompt 1"),
    ]
    report = check_unpaired(raw(tmp_path / "x.parquet", rows))
    assert {kind: each.examples for kind, each in report.splits["train"].warnings.items()} == {
        "repeated picture": ["row 1 is row 0 again", "row 6 is row 5 again"],
        "a picture with both labels": ["rows 0 and 3"],
    }
    assert report.fit


@pytest.mark.parametrize(("label", "word"), [(True, "true"), (False, "false")])
def test_one_label_alone_is_told(tmp_path: Path, label: bool, word: str) -> None:
    write_unpaired([labelled(n, label) for n in range(3)], tmp_path)
    report = check_unpaired(tmp_path)
    assert report.splits["train"].warnings["one label alone"].examples == [f"all 3 are {word}; kto compares the two"]
    assert report.fit
    assert report.splits["train"].positive_share == float(label)


def test_leaks_between_splits(tmp_path: Path) -> None:
    write_unpaired([labelled(n, n == 0) for n in range(3)], tmp_path)
    write_unpaired([labelled(9, True, prompt="prompt 1"), labelled(8, False)], tmp_path, split="test")
    report = check_unpaired(tmp_path)
    assert report.fit
    assert report.splits["test"].warnings["prompt in two splits"].examples == ["'prompt 1', also in train"]
    write_unpaired([labelled(8, True), labelled(2, True), labelled(7, False)], tmp_path, split="validation")
    report = check_unpaired(tmp_path)
    assert not report.fit
    assert report.splits["validation"].errors["picture in two splits"].examples == [
        "row 1 is row 2 of train",
        "row 0 is row 1 of test",
    ]
    assert list(check_unpaired(tmp_path, split="test").splits) == ["test"]


def test_nothing_usable_is_unfit(tmp_path: Path) -> None:
    report = check_set(raw(tmp_path / "x.parquet", [labelled(n, prompt="") for n in range(9)]))
    found = report.splits["train"]
    assert found.errors["no label"].examples == ["none of 9 rows can be used"]
    assert len(found.errors["empty prompt"].examples) == EXAMPLES
    assert found.to_dict()["positive_share"] is None
    assert report.lines()[0] == "train: 9 pictures, 0 labelled true, 0 prompts"


def test_cut_captions_and_notices(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    picture(0, (32, 16)).convert("L").save(grey)
    write_unpaired([labelled(0, image=grey), labelled(1, False, prompt="a " * 90)], tmp_path / "set")
    report = check_unpaired(tmp_path / "set")
    found = report.splits["train"]
    assert (found.sizes, found.notices) == ({"32x16": 1, "16x16": 1}, {"L brought to RGB": 1})
    assert any("captions cut at 77 tokens: 1, 1 certainly" in line for line in report.lines())


def test_workers_find_the_same(tmp_path: Path) -> None:
    rows = [labelled(n, n % 2 == 0) for n in range(5)] + [labelled(6, image=b"\xff\xd8no")]
    source = raw(tmp_path / "x.parquet", rows)
    assert check_unpaired(source, workers=1).to_dict() == check_unpaired(source).to_dict()
    with pytest.raises(DataError, match="workers must be 0 or more, not -1"):
        check_set(source, workers=-1)


def test_pairs_are_told_from_pictures(tmp_path: Path) -> None:
    write_pairs([pair(0)], tmp_path / "pairs")
    write_unpaired([labelled(0)], tmp_path / "pictures")
    assert check_set(tmp_path / "pairs").to_dict() == check_pairs(tmp_path / "pairs").to_dict()
    with pytest.raises(DataError, match="these are preference pairs"):
        check_unpaired(tmp_path / "pairs")
    with pytest.raises(DataError, match="these are labelled pictures"):
        check_pairs(tmp_path / "pictures")
    with pytest.raises(DataError, match="neither labelled pictures"):
        check_set(raw(tmp_path / "x.parquet", [{"prompt": "a"}]))


def test_names_of_labels_are_refused(tmp_path: Path) -> None:
    import datasets

    kinds = {"prompt": datasets.Value("string"), "image": datasets.Value("binary")}
    features = datasets.Features({**kinds, "label": datasets.ClassLabel(names=["good", "bad"])})
    rows = {"prompt": ["a"], "image": [encoded(0)], "label": [0]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="stand for the names good, bad"):
        check_set(tmp_path / "x.parquet")


def test_exit_codes_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_unpaired([labelled(0), labelled(1, False)], tmp_path / "good")
    assert main(["data", "check", str(tmp_path / "good"), "--output", str(tmp_path / "found.json")]) == 0
    assert "fit for training" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["splits"]["train"]["positive_share"] == 0.5
    source = raw(tmp_path / "x.parquet", [labelled(0, 1), labelled(1, 3)])
    assert main(["data", "check", str(source)]) == 1
    assert "ERROR: invalid label: row 1, label: 3 is no label" in capsys.readouterr().out
