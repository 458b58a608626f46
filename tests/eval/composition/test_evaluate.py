"""Whole sets: the mini-world judged by its oracle, GenEval's layout and files, the summary, detectors."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.detectors import tiny_grounding_dino, tiny_owl
from helpers.image_sets import write_plain_set
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.layouts import geneval
from t2ialign.errors import DataError, ModelError
from t2ialign.eval.composition import (
    TAGS,
    Task,
    evaluate_composition,
    mini_task,
    read_results,
    read_tasks,
    summarize,
)
from t2ialign.eval.composition.colors import KnownColors
from t2ialign.eval.composition.detectors import OracleDetector, ResultsDetector, ZeroShotDetector
from t2ialign.eval.composition.kept import KeptDetector
from t2ialign.eval.composition.summary import ResultLine
from t2ialign.mini import world

REAL = Path(os.environ.get("T2IALIGN_REAL_DATA", "")) / "geneval_evaluation_metadata.jsonl"


def scene(prompt: str) -> Image.Image:
    """Draws what a complete prompt says."""
    spec = world.parse(prompt)
    places = {"left of": ((15, 32), (49, 32)), "right of": ((49, 32), (15, 32))}
    places |= {"above": ((32, 15), (32, 49)), "below": ((32, 49), (32, 15))}
    where = places[spec.relation] if spec.relation else ((32, 32),)
    radius = 22.0 if len(where) == 1 else 12.5
    things = tuple(
        world.Thing(t.shape, t.color or "red", t.size, x, y, radius)
        for t, (x, y) in zip(spec.things, where, strict=True)
    )
    return world.render(world.Spec("scene", things, spec.relation, spec.background or "white"))


PAIR = "a red star left of a blue ring"
ONE = "a green circle"


def mini_set(folder: Path) -> ImageSet:
    pictures = [
        (PAIR, scene(PAIR)),
        (PAIR, scene("a red star right of a blue ring")),
        (PAIR, scene("a blue star left of a red ring")),
        (PAIR, Image.effect_noise((64, 64), 90).convert("RGB")),
        (ONE, scene(ONE)),
        (ONE, scene("a green square")),
        ("the flag of France", world.render(world.Spec("flag", country="france"))),
    ]
    taken: Counter[str] = Counter()
    rows = []
    for prompt, picture in pictures:
        rows.append(({"prompt_id": prompt.replace(" ", "-"), "prompt": prompt, "sample": taken[prompt]}, picture))
        taken[prompt] += 1
    return ImageSet(write_plain_set(folder / "set", rows))


def test_the_mini_world_is_judged_by_its_oracle(tmp_path: Path) -> None:
    result = evaluate_composition(mini_set(tmp_path), OracleDetector(), KnownColors(), tasks=mini_task)
    assert [row.correct for row in result.pictures] == [True, False, False, False, True, False]
    reasons = [row.reason.splitlines() for row in result.pictures]
    assert reasons[1] == ["expected ring right of target, found left of"]
    assert reasons[2][0] == "expected red star>=1, found blue"
    assert reasons[3][0] == "expected star>=1, found 0"  # unreadable: nothing is there
    assert result.left_out == {"no task for the prompt": 1}
    assert result.summary.tasks["position"].images == 0.25
    assert result.summary.tasks["colors"].images == 0.5
    assert result.summary.overall == 0.375
    assert result.summary.missing == ("single_object", "two_object", "counting", "color_attr")
    assert mini_task("a red star left of a blue star") is None


def test_files_are_geneval_s_and_give_the_same_figures(tmp_path: Path) -> None:
    from pyarrow import parquet

    result = evaluate_composition(mini_set(tmp_path), OracleDetector(), KnownColors(), tasks=mini_task)
    result.write(tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert set(lines[0]) == {"filename", "tag", "prompt", "correct", "reason", "metadata", "details"}
    assert json.loads(lines[0]["metadata"])["include"][0] == {"class": "star", "count": 1, "color": "red"}
    again = summarize(read_results(tmp_path / "out" / "results.jsonl"))
    assert again.to_dict() == result.summary.to_dict()
    assert parquet.read_table(tmp_path / "out" / "pictures.parquet").num_rows == 6
    written = json.loads((tmp_path / "out" / "composition.json").read_text())
    assert written["summary"]["overall"] == 0.375
    assert written["info"]["thresholds"]["counting"] == 0.9


def _line(tag: str, prompt: str, correct: bool) -> ResultLine:
    return ResultLine("f", tag, prompt, correct, "", json.dumps({"prompt": prompt}), "{}")


def test_the_summary_is_geneval_s() -> None:
    rng = np.random.default_rng(0)
    lines = [
        _line(tag, f"{tag}{prompt}", bool(rng.random() < share))
        for tag, share in zip(TAGS, (0.95, 0.5, 0.4, 0.8, 0.1, 0.2), strict=True)
        for prompt in range(30 if tag != "colors" else 7)
        for _ in range(4)
    ]
    found = summarize(lines, resamples=2000)
    means = {tag: np.mean([line.correct for line in lines if line.tag == tag]) for tag in TAGS}
    for tag in TAGS:
        score = found.tasks[tag]
        assert score.images == score.value == pytest.approx(means[tag])
        assert score.wilson.low <= score.value <= score.wilson.high
        right = {line.prompt for line in lines if line.tag == tag and line.correct}
        assert score.any_correct == pytest.approx(len(right) / (30 if tag != "colors" else 7))
    assert found.overall == pytest.approx(np.mean(list(means.values())))  # tasks weigh alike, whatever their size
    assert found.every.images == pytest.approx(np.mean([line.correct for line in lines]))
    assert found.overall != pytest.approx(found.every.images, abs=1e-3)
    assert found.overall_interval is not None
    assert found.overall_interval.low < found.overall < found.overall_interval.high
    assert found.every.n_prompts == 157
    assert found.every.n_images == 628
    assert not found.missing


def test_the_interval_of_the_mean_over_tasks_covers() -> None:
    rng = np.random.default_rng(5)
    truth = np.array([0.9, 0.5, 0.3])
    inside = 0
    for repeat in range(200):
        lines = [
            _line(TAGS[task], str(prompt), bool(right))
            for task in range(3)
            for prompt in range(40)
            for right in rng.random(2) < truth[task]
        ]
        interval = summarize(lines, resamples=400, seed=repeat).overall_interval
        assert interval is not None
        inside += interval.low <= truth.mean() <= interval.high
    assert 178 <= inside <= 199  # 95 % of 200, three standard errors down


def test_prompts_weigh_alike_where_they_have_different_numbers_of_pictures() -> None:
    lines = [_line("colors", "a", True)] * 1 + [_line("colors", "b", False)] * 3
    score = summarize(lines).tasks["colors"]
    assert (score.images, score.value, score.n_prompts, score.n_images) == (0.25, 0.5, 2, 4)


def test_all_alike_still_has_an_interval() -> None:
    score = summarize([_line("colors", str(i), True) for i in range(10)]).tasks["colors"]
    assert score.bootstrap is None
    assert score.wilson.high == 1.0
    assert score.wilson.low == pytest.approx(0.7224672001371107)  # Wilson, 10 of 10


def test_geneval_s_folders_are_read_with_their_tasks(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "00000"
    (folder / "samples").mkdir(parents=True)
    asked = {"tag": "single_object", "include": [{"class": "star", "count": 1}], "prompt": "a photo of a star"}
    (folder / "metadata.jsonl").write_text(json.dumps(asked))
    scene("a red star").save(folder / "samples" / "0000.png")
    scene("a red ring").save(folder / "samples" / "0001.png")
    records = geneval.read(tmp_path / "images", None)
    lines = "".join(json.dumps(record.to_dict()) + "\n" for record in records)
    (tmp_path / "images" / "metadata.jsonl").write_text(lines)
    result = evaluate_composition(ImageSet(tmp_path / "images"), OracleDetector())
    assert [row.correct for row in result.pictures] == [True, False]
    assert json.loads(result.pictures[0].metadata) == asked


@pytest.mark.skipif(not REAL.is_file(), reason="T2IALIGN_REAL_DATA has no geneval_evaluation_metadata.jsonl")
def test_geneval_s_own_file_is_read_and_given_back() -> None:
    tasks = read_tasks(REAL)
    assert Counter(task.tag for task in tasks) == dict(zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True))
    assert [task.to_dict() for task in tasks] == [json.loads(line) for line in REAL.read_text().splitlines()]
    assert len({name for task in tasks for name in task.classes}) == 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"include": []}, "include is"),
        ({"include": [{"count": 1}]}, "needs a 'class'"),
        ({"include": [{"class": "dog", "count": 0}]}, "count is 0"),
        ({"include": [{"class": "dog", "position": ["left of", 0]}]}, "only earlier ones"),
        ({"include": [{"class": "a"}, {"class": "b", "position": ["near", 0]}]}, "position is"),
        ({"prompt": " "}, "both must be texts"),
    ],
)
def test_a_wrong_task_is_an_error_that_names_its_place(change: dict[str, Any], message: str) -> None:
    line = {"tag": "colors", "prompt": "p", "include": [{"class": "dog", "count": 1}]} | change
    with pytest.raises(DataError, match=f"line 7.*{message}"):
        Task.from_dict(line, "line 7")


def test_results_of_mmdet_are_looked_up(tmp_path: Path) -> None:
    sets = mini_set(tmp_path)
    names = [record.file_name for record in sets]
    boxes: list[dict[str, Any]] = [{"file_name": name, "labels": [], "scores": [], "bboxes": []} for name in names]
    boxes[4] = {
        "file_name": names[4],
        "labels": [1, "star"],
        "scores": [0.9, 0.8],
        "bboxes": [[1, 2, 3, 4], [0, 0, 5, 5]],
    }
    lines = tmp_path / "found.jsonl"
    lines.write_text("".join(json.dumps(each) + "\n" for each in boxes))
    asked = Task.from_dict({"tag": "single_object", "prompt": ONE, "include": [{"class": "circle"}]})
    result = evaluate_composition(sets, ResultsDetector(lines, ["ring", "circle"]), tasks=[asked])
    assert [row.correct for row in result.pictures] == [True, False]
    assert json.loads(result.pictures[0].details)["circle"] == [[1.0, 2.0, 3.0, 4.0, 0.9]]

    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": 9, "name": "circle"}],
        "annotations": [{"image_id": 4, "category_id": 9, "bbox": [1, 2, 2, 2], "score": 0.9}],
    }
    whole = tmp_path / "coco.json"
    whole.write_text(json.dumps(coco))
    same = evaluate_composition(sets, ResultsDetector(whole), tasks=[asked])
    assert [row.correct for row in same.pictures] == [True, False]
    assert json.loads(same.pictures[0].details)["circle"] == [[1.0, 2.0, 3.0, 4.0, 0.9]]

    lines.write_text(json.dumps(boxes[0]) + "\n")
    with pytest.raises(DataError, match="no detections of"):
        evaluate_composition(sets, ResultsDetector(lines), tasks=[asked])
    lines.write_text('{"file_name": "a", "labels": [3], "scores": [1], "bboxes": [[0, 0, 1, 1]]}')
    with pytest.raises(DataError, match="label 3"):
        ResultsDetector(lines)


@pytest.mark.parametrize("kind", ["Owlv2", "OwlViT"])
def test_a_zero_shot_detector_of_transformers_is_asked(tmp_path: Path, kind: str) -> None:
    detector = ZeroShotDetector.load(str(tiny_owl(tmp_path / "owl", kind=kind)), least=0.0, distractors=("cat",))
    picture = Image.effect_noise((80, 60), 80).convert("RGB")
    found = detector.detect(picture, ["dog", "bench"])
    assert set(found) <= {"dog", "bench"}  # what was only offered beside is not handed out
    every = [each for all_of in found.values() for each in all_of]
    assert every
    assert all(0 <= e.box.left <= e.box.right <= 80 and 0 <= e.box.top <= e.box.bottom <= 60 for e in every)
    again = detector.detect(picture, ["dog", "bench"])
    assert {k: [e.score for e in v] for k, v in again.items()} == {k: [e.score for e in v] for k, v in found.items()}
    alone = detector.detect(picture, ["dog"])
    assert set(alone) <= {"dog"}
    assert detector.info()["detector"] == f"{kind}ForObjectDetection"


def test_grounding_dino_is_asked_for_one_class_at_a_time(tmp_path: Path) -> None:
    detector = ZeroShotDetector.load(str(tiny_grounding_dino(tmp_path / "dino")), least=0.0)
    picture = Image.effect_noise((80, 60), 80).convert("RGB")
    found = detector.detect(picture, ["dog", "bench"])
    every = [each for all_of in found.values() for each in all_of]
    assert every
    assert all(0 <= e.box.left <= e.box.right <= 80 and 0 <= e.box.top <= e.box.bottom <= 60 for e in every)
    alone = detector.detect(picture, ["bench"])
    assert [e.score for e in alone["bench"]] == [e.score for e in found["bench"]]  # whoever is asked for beside
    with pytest.raises(ValueError, match="one class at a time"):
        ZeroShotDetector(detector.model, detector.processor, distractors=("cat",))


def test_what_was_found_is_kept_and_a_torn_line_is_found_again(tmp_path: Path) -> None:
    sets = mini_set(tmp_path)
    kept = KeptDetector(OracleDetector(), tmp_path / "kept", "base")
    first = evaluate_composition(sets, kept, KnownColors(), tasks=mini_task)
    whole = kept.file.read_text()
    assert len(whole.splitlines()) == 6
    for there in (whole, whole[:-20], whole.replace('"found"', '"lost"', 1), ""):
        kept.file.write_text(there)
        again = KeptDetector(OracleDetector(), tmp_path / "kept", "base")
        assert evaluate_composition(sets, again, KnownColors(), tasks=mini_task).pictures == first.pictures
        assert kept.file.read_text() == whole


def test_a_detector_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no zero-shot detector"):
        ZeroShotDetector.load(str(tmp_path / "nothing"))
