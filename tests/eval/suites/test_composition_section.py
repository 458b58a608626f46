"""The section on composition with GenEval's prompts: what a detector found, judged, compared, kept, or not had."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

from helpers.detectors import tiny_grounding_dino, tiny_owl
from helpers.drawn_eval import drawn_options, drawn_pictures
from t2ialign.errors import ConfigError
from t2ialign.eval.composition import TAGS, coco
from t2ialign.eval.statistics import wilson
from t2ialign.eval.suites.catalogue import find_prompts
from t2ialign.eval.suites.options import EvalOptions
from t2ialign.eval.suites.plan import make_plan
from t2ialign.eval.suites.run import run_suite
from t2ialign.eval.suites.suite import PromptSet

TASKS: list[dict[str, Any]] = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
    {
        "tag": "counting",
        "include": [{"class": "cup", "count": 2}],
        "exclude": [{"class": "cup", "count": 3}],
        "prompt": "a photo of two cups",
    },
    {"tag": "colors", "include": [{"class": "car", "count": 1, "color": "red"}], "prompt": "a photo of a red car"},
    {
        "tag": "position",
        "include": [{"class": "dog", "count": 1}, {"class": "computer mouse", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a computer mouse left of a dog",
    },
]
SAMPLES = 2
LEFT, RIGHT, TOP = [2, 20, 20, 40], [40, 20, 60, 40], [2, 2, 20, 18]
Found = list[tuple[Any, float, list[int], str | None]]
GOOD: list[Found] = [
    [("dog", 0.9, LEFT, None)],
    [(coco.names().index("cat"), 0.9, LEFT, None)],  # COCO's number
    [("cup", 0.95, LEFT, None), ("cup", 0.95, RIGHT, None), ("cup", 0.8, TOP, None)],  # 0.8 is none for counting
    [("car", 0.9, LEFT, "red")],
    [("dog", 0.9, RIGHT, None), ("mouse", 0.9, LEFT, None)],  # COCO's own name
]
BAD: list[Found] = [
    [("dog", 0.29, LEFT, None)],
    [("dog", 0.9, LEFT, None)],
    [("cup", 0.95, LEFT, None), ("cup", 0.95, RIGHT, None), ("cup", 0.95, TOP, None)],
    [("car", 0.9, LEFT, "blue")],
    [("dog", 0.9, LEFT, None), ("mouse", 0.9, RIGHT, None)],
]


@pytest.fixture
def pictures(tmp_path: Path) -> EvalOptions:
    """An evaluation of gray pictures for GenEval's tasks, without a report as yet."""
    file = tmp_path / "evaluation_metadata.jsonl"
    file.write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "description: Mine.\nscorers: [clipscore@mini-clip]\nprompts:\n"
        f"  geneval: {{source: geneval, images_per_prompt: {SAMPLES}}}\n"
        "sections:\n  composition: {}\n  grids: {}\n"
    )
    options = replace(drawn_options(suite, tmp_path / "out", ["base", "tuned"]), data=tmp_path)
    gray = Image.new("RGB", (64, 64), (120, 120, 120))
    drawn_pictures(options, {"base": lambda *_: gray, "tuned": lambda *_: gray})
    return options


def lines(wrong: Callable[[int, int], bool]) -> list[dict[str, Any]]:
    """Detections of every picture, the good or the bad ones."""
    made = []
    for place in range(len(TASKS)):
        for sample in range(SAMPLES):
            found = (BAD if wrong(place, sample) else GOOD)[place]
            keys = ("labels", "scores", "bboxes", "colors")
            columns = {key: [each[i] for each in found] for i, key in enumerate(keys)}
            made.append({"file_name": f"images/{place:06d}/{sample:04d}.png", **columns})
    return made


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def report_of(options: EvalOptions) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((options.output_dir / "report.json").read_text(encoding="utf-8"))
    return content


def section_of(options: EvalOptions) -> dict[str, Any]:
    return dict(report_of(options)["sections"][0])


def judged(options: EvalOptions, base: list[dict[str, Any]], tuned: list[dict[str, Any]]) -> dict[str, Any]:
    folder = options.output_dir.parent / "found"
    write(folder / "geneval" / "base.jsonl", base)
    write(folder / "geneval" / "tuned.jsonl", tuned)
    run_suite(replace(options, detector=f"results:{folder}"))
    return report_of(options)


def test_without_a_detector_it_is_not_measured_and_the_mend_is_said(pictures: EvalOptions) -> None:
    run_suite(pictures)
    section = section_of(pictures)
    assert section["status"] == "not_measured"
    assert "no detector is named" in section["reason"]
    assert "--detector" in section["reason"]
    assert not section["rows"]
    page = (pictures.output_dir / "report.html").read_text(encoding="utf-8")
    assert "Not measured: no detector is named" in page
    assert "Not applicable" not in page


def test_tasks_are_judged_by_geneval_s_rules_with_intervals_and_differences(pictures: EvalOptions) -> None:
    report = judged(
        pictures, lines(lambda place, sample: False), lines(lambda place, sample: sample == 0 or place == 3)
    )
    figures = report["figures"]
    for tag in ("single_object", "counting", "colors", "position"):
        assert figures[f"composition/geneval/base/{tag}/right"]["value"] == 1
        assert figures[f"composition/geneval/base/{tag}/right"]["low"] < 1
        wanted = 0 if tag == "colors" else 0.5
        assert figures[f"composition/geneval/tuned/{tag}/right"]["value"] == wanted
        assert figures[f"composition/geneval/tuned/{tag}/right_difference"]["value"] == wanted - 1
    assert figures["composition/geneval/base/overall/right"]["value"] == 1
    assert figures["composition/geneval/tuned/overall/right"]["value"] == pytest.approx((0.5 + 0.5 + 0 + 0.5) / 4)
    assert figures["composition/geneval/tuned/single_object/any_right"]["value"] == 1
    assert figures["composition/geneval/tuned/colors/any_right"]["value"] == 0
    # all alike: from Wilson's intervals of 2, 1, 1 and 1 prompts, added in squares
    lows = [1 - wilson(n, n).low for n in (2, 1, 1, 1)]
    base = figures["composition/geneval/base/overall/right"]
    assert base["low"] == pytest.approx(1 - sum(each**2 for each in lows) ** 0.5 / 4)
    assert base["high"] == 1
    overall = figures["composition/geneval/tuned/overall/right_difference"]
    assert overall["n"] == 5
    assert overall["p"] == pytest.approx(2 * 0.5**5)  # five prompts of five, all worse
    assert overall["p_holm"] == pytest.approx(min(1, 5 * overall["p"]))
    assert overall["against"] == "base"
    (said,) = [each["text"] for each in report["summary"] if each["section"] == "composition"]
    assert said.startswith("No difference in composition is shown: 100 % of base's pictures and 38 % of tuned's")
    notes = " ".join(block["text"] for block in section_of(pictures)["blocks"] if block["kind"] == "note")
    assert "no prompts of two_object, color_attr" in notes
    rows = parquet.read_table(pictures.output_dir / "rows.parquet").to_pylist()
    assert {row["group"] for row in rows if row["section"] == "composition"} == {"overall", *TAGS} - {
        "two_object",
        "color_attr",
    }
    kept = pictures.output_dir / "composition" / "geneval" / "tuned"
    wrong = [row for row in parquet.read_table(kept / "pictures.parquet").to_pylist() if not row["correct"]]
    reasons = {row["prompt"]: row["reason"] for row in wrong}
    assert reasons["a photo of a dog"] == "expected dog>=1, found 0"
    assert reasons["a photo of two cups"] == "expected cup<3, found 3"
    assert reasons["a photo of a red car"] == "expected red car>=1, found blue"
    assert reasons["a photo of a computer mouse left of a dog"] == (
        "expected computer mouse left of target, found right of"
    )


def test_a_detector_may_come_later_and_only_its_section_is_measured_then(pictures: EvalOptions) -> None:
    first = run_suite(pictures)
    assert set(first.measured) == {"composition", "grids"}
    good = lines(lambda place, sample: False)
    one = pictures.output_dir.parent / "one.jsonl"
    both = [
        row | {"file_name": f"sets/geneval/{label}/{row['file_name']}"} for label in ("base", "tuned") for row in good
    ]
    write(one, both)
    told = replace(pictures, detector=f"results:{one}")
    assert run_suite(told).measured == ("composition",)
    assert section_of(pictures)["status"] == "measured"
    assert run_suite(told).measured == ()
    assert str(pictures.output_dir.parent) not in (pictures.output_dir / "report.json").read_text()
    write(one, [*both[:-1], both[-1] | {"labels": [], "scores": [], "bboxes": [], "colors": []}])
    assert run_suite(told).measured == ("composition",)
    assert report_of(pictures)["figures"]["composition/geneval/tuned/position/right"]["value"] == 0.5


def test_what_results_lack_is_said(pictures: EvalOptions) -> None:
    folder = pictures.output_dir.parent / "found"
    good = lines(lambda place, sample: False)
    write(folder / "geneval" / "base.jsonl", good)
    run_suite(replace(pictures, detector=f"results:{folder}"))
    assert "found/geneval/tuned.jsonl" in section_of(pictures)["reason"]
    write(folder / "geneval" / "tuned.jsonl", good[:-1])
    run_suite(replace(pictures, detector=f"results:{folder}"))
    section = section_of(pictures)
    assert section["status"] == "not_measured"
    assert "no detections of 'images/000004/0001.png'" in section["reason"]
    assert str(folder.parent) not in section["reason"]


def test_a_folder_with_a_file_a_picture_is_read(pictures: EvalOptions) -> None:
    folder = pictures.output_dir.parent / "preds"
    for label in ("base", "tuned"):
        for row in lines(lambda place, sample: False):
            file = folder / label / Path(row["file_name"]).with_suffix(".json")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({key: value for key, value in row.items() if key != "file_name"}))
    run_suite(replace(pictures, detector=f"results:{folder}"))
    assert report_of(pictures)["figures"]["composition/geneval/tuned/overall/right"]["value"] == 1


@pytest.mark.parametrize("make", [tiny_owl, tiny_grounding_dino])
def test_a_zero_shot_detector_judges_and_what_it_found_is_kept(
    pictures: EvalOptions, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(pictures.output_dir.parent / "model")
    suite = Path(pictures.suite)
    options = "{score: 0.05, colors: clipscore@mini-clip}"
    suite.write_text(suite.read_text().replace("composition: {}", f"composition: {options}"))
    told = replace(pictures, detector=f"zero_shot:{model}")
    run_suite(told)
    section = section_of(pictures)
    assert section["status"] == "measured", section["reason"]
    found = sorted((pictures.output_dir / "detections" / "geneval").iterdir())
    assert [file.name.split(".")[0] for file in found] == ["base", "tuned"]
    assert all(len(file.read_text().splitlines()) == len(TASKS) * SAMPLES for file in found)
    assert str(model.parent) not in (pictures.output_dir / "report.json").read_text()
    before = report_of(pictures)["figures"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a picture was looked at again")

    whole = found[0].read_text()
    monkeypatch.setattr("t2ialign.eval.composition.detectors.ZeroShotDetector._boxes", refuse)
    run_suite(replace(told, redo=["composition"]))
    assert report_of(pictures)["figures"] == before
    monkeypatch.undo()
    found[0].write_text(whole[: len(whole) // 2])  # torn by a stop
    run_suite(replace(told, redo=["composition"]))
    assert report_of(pictures)["figures"] == before
    assert found[0].read_text() == whole


def test_a_detector_that_cannot_be_had_leaves_the_rest_of_the_report(pictures: EvalOptions) -> None:
    run_suite(replace(pictures, detector=f"zero_shot:{pictures.output_dir.parent / 'nothing'}"))
    sections = report_of(pictures)["sections"]
    assert [each["status"] for each in sections] == ["not_measured", "measured"]
    assert "no zero-shot detector can be loaded" in sections[0]["reason"]
    assert "--redo composition" in sections[0]["reason"]


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        ("results", "cannot be read"),
        ("oracle:x", "cannot be read"),
        ("zeroshot:x", "zero_shot"),
        ("results:/nowhere/found.jsonl", "no file or folder of detections"),
    ],
)
def test_a_wrong_detector_is_refused_before_anything_is_made(pictures: EvalOptions, detector: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_plan(replace(pictures, detector=detector))


def test_a_suite_that_asks_for_no_detector_refuses_one(tmp_path: Path) -> None:
    options = EvalOptions(
        suite="quick", model=["a=mini-sd", "b=mini-sd"], output_dir=tmp_path / "out", detector="oracle"
    )
    with pytest.raises(ConfigError, match="no section of the suite quick"):
        make_plan(options)


def test_own_prompts_are_eight_of_each_task_and_say_what_must_be_seen() -> None:
    from t2ialign.eval.composition import Task

    prompts = find_prompts(PromptSet(source="composition"))
    tasks = [Task.from_dict({"prompt": each.prompt, **each.extra}) for each in prompts]
    assert [sum(task.tag == tag for task in tasks) for tag in TAGS] == [8] * 6
    assert {name for task in tasks for name in task.classes} <= set(coco.names())
    for task in tasks:
        words = task.prompt.removeprefix("a photo of ")
        for wanted in task.include:
            assert wanted.name in words
            assert wanted.color is None or f"{wanted.color} {wanted.name}" in words
            if wanted.relation is not None and wanted.target is not None:
                target = task.include[wanted.target].name
                assert words in {
                    f"{a} {wanted.name} {wanted.relation} {b} {target}" for a in ("a", "an") for b in ("a", "an")
                }
        assert (task.tag == "counting") == bool(task.exclude)
        if task.exclude:
            assert task.exclude[0].count == task.include[0].count + 1
            assert {"two": 2, "three": 3, "four": 4}[words.split()[0]] == task.include[0].count


@pytest.mark.usefixtures("real_data")
def test_coco_s_names_are_geneval_s(real_data: Path) -> None:
    from t2ialign.eval.composition import read_tasks

    tasks = read_tasks(real_data / "geneval_evaluation_metadata.jsonl")
    assert {name for task in tasks for name in task.classes} == set(coco.names())
    assert len(coco.names()) == 80
