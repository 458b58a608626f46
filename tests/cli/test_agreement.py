"""`agreement`, and ratings in and out by `data import` and `data export`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.annotated import fair, first_first, write_annotations, write_set
from t2ialign.cli import agreement, data_export, data_import
from t2ialign.cli.main import main
from t2ialign.data import exporters
from t2ialign.eval.accuracy import POLICIES


def test_the_choices_are_the_library_s() -> None:
    assert tuple(POLICIES) == agreement.POLICIES
    assert tuple(exporters.FORMATS) == data_export.PAIRS
    from t2ialign.annotation import exchange

    assert exchange.FORMATS == data_export.RATINGS == data_import.RATED


def test_from_ratings_out_and_in_to_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = write_set(tmp_path / "set")
    mine = write_annotations(tmp_path / "mine", records, first_first, passes=2)
    people = write_annotations(tmp_path / "people", records, fair, seed=2)
    out, back = tmp_path / "out", tmp_path / "back"
    assert main(["data", "export", str(people), "--to", "ultrafeedback", "--output_dir", str(out)]) == 0
    words = ["data", "import", "ultrafeedback", str(out), "--output_dir", str(back)]
    assert main([*words, "--to", "annotations"]) == 0
    assert "40 annotations, 120 pictures" in capsys.readouterr().out
    results = []
    for against in (people, back):
        target = tmp_path / f"agreement-{against.name}"
        call = ["agreement", str(mine), "--against", str(against), "--output_dir", str(target), "--resamples", "1000"]
        assert main(call) == 0
        told = capsys.readouterr().out
        assert "Bias by position: found" in told
        assert str(target / "agreement.html") in told
        results.append(json.loads((target / "agreement.json").read_text()))
    assert results[0]["comparisons"] == results[1]["comparisons"]
    assert main([*words[:-1], str(tmp_path / "pairs")]) == 0
    capsys.readouterr()
    call = ["agreement", str(mine), "--against", str(tmp_path / "pairs"), "--output_dir", str(tmp_path / "by_pairs")]
    assert main([*call, "--resamples", "500", "--policy", "imagereward"]) == 0
    found = json.loads((tmp_path / "by_pairs/agreement.json").read_text())
    decided = [
        {(each["aspect"], each["against"]): each["verdicts"]["decided"] for each in result["comparisons"]}
        for result in (found, results[0])
    ]
    for aspect, asked in (("fidelity", "fidelity"), ("aggregate", "overall")):
        by_pairs, by_ratings = decided[0][aspect, asked], decided[1][aspect, aspect]
        assert by_pairs["value"] == pytest.approx(by_ratings["value"])
        assert by_pairs["n_pairs"] == by_ratings["n_pairs"]


def test_pairs_out_by_their_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "export", "mini-pairs", "--split", "test", "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--to", "imagereward"]) == 0
    assert "pairs: " in capsys.readouterr().out
    assert (tmp_path / "out/test.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["agreement", "a", "--against", "b", "--output_dir", "c", "--resamples", "9"], "fewer than 100"),
        (["agreement", "a", "--against", "b", "--output_dir", "c", "--shown", "-1"], "shown is -1"),
        (["agreement", "a", "--against", "b", "--output_dir", "c", "--policy", "x"], "policy"),
        (["data", "import", "trl", "a", "--output_dir", "c", "--to", "annotations"], "trl holds no ratings"),
        (
            ["data", "import", "visionprefer", "a", "--output_dir", "c", "--to", "annotations", "--ties", "keep"],
            "--ties is for pairs",
        ),
    ],
)
def test_wrong_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_no_annotations_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agreement", str(tmp_path), "--against", "b", "--output_dir", str(tmp_path / "c")]) == 1
    assert "holds no annotations" in capsys.readouterr().err
