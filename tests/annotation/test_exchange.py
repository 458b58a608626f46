"""Annotations out and in again, and foreign ratings in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.annotated import fair, write_annotations, write_set
from helpers.pair_sets import encoded
from t2ialign.annotation.annotations import Annotation, image_set_of, read_annotations
from t2ialign.annotation.exchange import FORMATS, export_ratings, import_ratings
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError, DataError


def essence(line: Annotation) -> Annotation:
    """A line without what depends on where its pictures lie."""
    return replace(line, images=["" for _ in line.images])


@pytest.mark.parametrize("format", FORMATS)
def test_out_and_in_again(tmp_path: Path, format: str) -> None:
    records = write_set(tmp_path / "set", prompts=5)

    def change(line: dict[str, Any]) -> None:
        line["rationales"]["fidelity"][1] = ""
        if line["prompt_id"] == "p2":
            line["ratings"]["aesthetic"][0] = None
            line |= {"ok": False, "problem": "refused"}
        if line["prompt_id"] == "p3":
            line["ratings"]["harmlessness"] = [1.25, 4.75, 3.1]

    folder = tmp_path / "mine"
    for who in ("one", "two"):
        write_annotations(
            folder, records, fair, passes=2, annotator=who, rationale=lambda m: f'"{m}" é\n<b>', change=change
        )
    out = export_ratings(folder, format, tmp_path / "out")
    assert (out.annotations, out.pictures, out.missing) == (20, 15, 4)
    back = import_ratings(format, tmp_path / "out", tmp_path / "back")
    assert (back.annotations, back.pictures, back.missing, back.left_out) == (20, 15, 4, {})
    before, after = read_annotations(folder), read_annotations(tmp_path / "back")
    assert [essence(line) for line in after] == [essence(line) for line in before]
    image_set = ImageSet(image_set_of(tmp_path / "back"))
    assert [record.sha256 for record in image_set.records] == [record["sha256"] for record in records]
    assert all(image_set.file(record).is_file() for record in image_set.records)


def test_foreign_ratings(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))

    def entry(first: str, **more: Any) -> dict[str, Any]:
        said = [{"Fidelity": {"Rating": first, "Rationale": "why"}}, {"Fidelity": {"Rating": "2"}}]
        completions = [{"file_name": f"{n}.png", "model": "sd", "annotations": said[n]} for n in range(2)]
        return {"instruction": "a cat", "completions": completions, **more}

    entries = [entry("4", id="a"), entry("N/A", id="b"), entry("9", id="c"), entry("3", id="a")]
    entries += [{"instruction": "d", "completions": [{"file_name": "0.png"}, {"file_name": "1.png"}]}]
    gone = entry("4", id="e")
    gone["completions"][0]["file_name"] = "gone.png"
    other = entry("4", id="a")
    other["completions"] = other["completions"][::-1]
    (tmp_path / "u.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*entries, gone, other]))
    summary = import_ratings("ultrafeedback", tmp_path / "u.jsonl", tmp_path / "out")
    assert summary.left_out == {"no ratings": 1, "unreadable picture": 1, "an id of a prompt with other pictures": 1}
    assert (summary.annotations, summary.missing, summary.unusable, summary.pictures) == (4, 2, 2, 6)
    lines = read_annotations(tmp_path / "out")
    assert [line.ratings["fidelity"] for line in lines] == [[4, 2], [None, 2], [None, 2], [3, 2]]
    assert [line.ok for line in lines] == [True, False, False, True]
    assert lines[0].rationales == {"fidelity": ["why", ""]}
    assert lines[0].annotator == "ultrafeedback"
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["left_out"] == dict(summary.left_out)
    assert report["unusable"] == 2
    assert any("left out, no ratings: 1 (first: line 5)" in line for line in summary.lines())


def test_what_can_not_be_done_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "u.jsonl").write_text('{"instruction": "a", "completions": []}\n')
    with pytest.raises(DataError, match=r"no annotation of u\.jsonl is left"):
        import_ratings("ultrafeedback", tmp_path / "u.jsonl", tmp_path / "out")
    with pytest.raises(ConfigError, match="choose visionprefer, ultrafeedback"):
        import_ratings("kto", tmp_path / "u.jsonl", tmp_path / "out")
    records = write_set(tmp_path / "set", prompts=2)
    folder = write_annotations(tmp_path / "mine", records, fair)
    (tmp_path / "set" / records[0]["file_name"]).unlink()
    with pytest.raises(DataError, match=r"has no picture images/000/0\.png"):
        export_ratings(folder, "visionprefer", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "set", "u.jsonl"]
