"""A vision-language model of transformers as an annotator: a tiny one of the real class, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.chat_models import save_blip
from helpers.rated_sets import mini_set
from helpers.vlm import save_vlm
from t2ialign.annotation.annotate import annotate
from t2ialign.annotation.annotate_options import AnnotateOptions, RatingChatOptions
from t2ialign.annotation.annotations import ASPECTS, read_annotations
from t2ialign.annotation.annotators import load_annotator
from t2ialign.annotation.annotators.chat import ChatAnnotator
from t2ialign.annotation.annotators.questions import WORDS
from t2ialign.annotation.sheets import make_sheets
from t2ialign.chat.base import Answer, Question
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError


def options(path: Path, model: Path, **settings: Any) -> AnnotateOptions:
    chat = RatingChatOptions(max_new_tokens=12, batch_size=2)
    return AnnotateOptions(
        image_set=path, annotator=f"hf:{model}", chat=chat, **{"output_dir": path.parent / "out", **settings}
    )


def test_a_model_that_says_nothing_of_use_rates_nothing(tmp_path: Path) -> None:
    path, model = mini_set(tmp_path / "set", prompts=1, pictures=2), save_vlm(tmp_path)
    report = annotate(options(path, model, repeats=1), progress=False).report
    found = read_annotations(tmp_path / "out")
    assert [(each.annotator, each.problem, len(each.raw)) for each in found] == [("hf:tiny-vlm", "unreadable", 2)]
    assert all(rating is None for each in found for marks in each.ratings.values() for rating in marks)
    assert report["questions"]["unreadable"] == 1
    lines = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert report["usage"]["completion_tokens"] == 24
    assert report["usage"]["prompt_tokens"] == sum(line["usage"]["prompt_tokens"] for line in lines) > 2 * 1000
    assert report["usage"]["requests"] == 0
    again = annotate(options(path, model, repeats=1), progress=False).report
    assert again["this_run"]["answers"] == 0
    assert str(tmp_path) not in (tmp_path / "out/annotations.jsonl").read_text()


def test_its_answers_are_read_as_those_of_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real loading and asking in batches; only what the random weights write is replaced by something of use."""
    path, model = mini_set(tmp_path / "set", prompts=3, pictures=2), save_vlm(tmp_path)
    wanted = options(path, model, calls="per_aspect", scale="words")
    annotator = load_annotator(wanted)
    assert isinstance(annotator, ChatAnnotator)
    sizes = []

    def written(questions: list[Question]) -> list[Answer]:
        sizes.append(len(questions))
        answers = []
        for question in questions:
            one = {}
            for name, picture in zip(("picture_1", "picture_2"), question.images, strict=True):
                sample = picture.getpixel((0, 0))[1]  # type: ignore[index]
                aspect = next(iter(question.schema["properties"]["picture_1"]["properties"]))  # type: ignore[index]
                one[name] = {aspect: {"rationale": f"sample {sample}", "rating": WORDS[sample]}}
            answers.append(Answer(question.key, json.dumps(one)))
        return answers

    monkeypatch.setattr(annotator.chat, "_answers", written)
    report = annotate(wanted, annotator=annotator, progress=False).report
    assert sizes == [2] * 6
    for each in read_annotations(tmp_path / "out"):
        assert each.ratings == {aspect: [1, 2] for aspect in ASPECTS}
        assert each.rationales["fidelity"] == ["sample 0", "sample 1"]
    assert {tuple(sheet.permutation) for sheet in make_sheets(ImageSet(path), seed=0)[0]} == {(0, 1), (1, 0)}
    assert report["questions"]["answered"] == 12


def test_a_plain_captioner_rates_nothing(tmp_path: Path) -> None:
    path, model = mini_set(tmp_path / "set", prompts=1, pictures=2), save_blip(tmp_path)
    with pytest.raises(ConfigError, match="plain captioner and reads no words"):
        annotate(options(path, model if isinstance(model, Path) else tmp_path / "tiny-blip"), progress=False)
