"""GenEval's rules, by hand, a case or more for each task; thresholds; colours on cut-out objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from t2ialign.eval.composition.check import check
from t2ialign.eval.composition.colors import COLORS, ClipColors, KnownColors, cut_out
from t2ialign.eval.composition.detections import Detection, Thresholds, overlap
from t2ialign.eval.composition.position import Box
from t2ialign.eval.composition.tasks import Task

PICTURE = Image.new("RGB", (100, 100), (10, 20, 30))


def thing(x: float = 0, y: float = 0, score: float = 0.95, color: str | None = None) -> Detection:
    return Detection(Box(x, y, x + 10, y + 10), score, color=color)


def task(tag: str, include: list[dict[str, Any]], exclude: list[dict[str, Any]] | None = None) -> Task:
    return Task.from_dict({"tag": tag, "prompt": "p", "include": include, "exclude": exclude or []})


SINGLE = task("single_object", [{"class": "dog", "count": 1}])
TWO = task("two_object", [{"class": "dog", "count": 1}, {"class": "cat", "count": 1}])
COUNT = task("counting", [{"class": "dog", "count": 2}], [{"class": "dog", "count": 3}])
COLOR = task("colors", [{"class": "dog", "count": 1, "color": "red"}])
BOTH = task(
    "color_attr", [{"class": "dog", "count": 1, "color": "red"}, {"class": "cat", "count": 1, "color": "black"}]
)
PLACE = task("position", [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["right of", 0]}])


@pytest.mark.parametrize(
    ("asked", "found", "reasons"),
    [
        (SINGLE, {"dog": [thing()]}, ()),
        (SINGLE, {"dog": [thing(), thing(50)]}, ()),  # more than asked for is right, outside counting
        (SINGLE, {"cat": [thing()]}, ("expected dog>=1, found 0",)),
        (TWO, {"dog": [thing()], "cat": [thing(50)]}, ()),
        (TWO, {"dog": [thing()]}, ("expected cat>=1, found 0",)),
        (TWO, {}, ("expected dog>=1, found 0", "expected cat>=1, found 0")),
        (COUNT, {"dog": [thing(), thing(30)]}, ()),
        (COUNT, {"dog": [thing()]}, ("expected dog>=2, found 1",)),
        (COUNT, {"dog": [thing(), thing(30), thing(60)]}, ("expected dog<3, found 3",)),
        (COLOR, {"dog": [thing(color="red")]}, ()),
        (COLOR, {"dog": [thing(color="blue")]}, ("expected red dog>=1, found blue",)),
        # Of a class the surest alone is looked at, whatever the second one's colour.
        (COLOR, {"dog": [thing(color="blue"), thing(color="red")]}, ("expected red dog>=1, found blue",)),
        (BOTH, {"dog": [thing(color="red")], "cat": [thing(color="black")]}, ()),
        (
            BOTH,  # colours exchanged
            {"dog": [thing(color="black")], "cat": [thing(color="red")]},
            ("expected red dog>=1, found black", "expected black cat>=1, found red"),
        ),
        (PLACE, {"dog": [thing()], "cat": [thing(50)]}, ()),
        (PLACE, {"dog": [thing(50)], "cat": [thing()]}, ("expected cat right of target, found left of",)),
        (PLACE, {"dog": [thing()], "cat": [thing(2)]}, ("expected cat right of target, found none",)),
        (PLACE, {"cat": [thing(50)]}, ("expected dog>=1, found 0", "no target for cat to be right of")),
    ],
)
def test_by_hand(asked: Task, found: dict[str, list[Detection]], reasons: tuple[str, ...]) -> None:
    verdict = check(asked, found, PICTURE, KnownColors())
    assert verdict.reasons == reasons
    assert verdict.correct is (not reasons)


def test_every_object_must_stand_right_to_every_target() -> None:
    asked = task("position", [{"class": "dog", "count": 2}, {"class": "cat", "count": 1, "position": ["right of", 0]}])
    assert check(asked, {"dog": [thing(0), thing(20)], "cat": [thing(60)]}).correct
    assert not check(asked, {"dog": [thing(0), thing(80)], "cat": [thing(60)]}).correct


def test_a_colour_needs_somebody_to_name_it() -> None:
    with pytest.raises(ValueError, match="red is asked of dog"):
        check(COLOR, {"dog": [thing()]}, PICTURE)


def test_thresholds_are_geneval_s() -> None:
    found = {"dog": [thing(score=0.5), thing(score=0.95), thing(score=0.3)], "cat": [thing(score=0.1)]}
    kept = Thresholds().kept(found, "single_object")
    assert [each.score for each in kept["dog"]] == [0.95, 0.5]  # 0.3 is not above 0.3; the surest first
    assert "cat" not in kept
    assert [each.score for each in Thresholds().kept(found, "counting")["dog"]] == [0.95]
    crowd = {"dog": [thing(score=0.5 + i / 100) for i in range(20)]}
    assert len(Thresholds().kept(crowd, "two_object")["dog"]) == 16


def test_overlapping_ones_are_one_where_that_is_asked() -> None:
    found = {"dog": [thing(0), thing(1), thing(40)]}
    assert overlap(Box(0, 0, 10, 10), Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert len(Thresholds(overlap=0.5).kept(found, "x")["dog"]) == 2
    assert len(Thresholds().kept(found, "x")["dog"]) == 3


def test_an_object_is_cut_out_and_its_surroundings_are_grey() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[0:5, 0:10] = True
    cut = cut_out(PICTURE, Detection(Box(0, 0, 9.2, 10), 1.0, mask))
    assert cut.size == (10, 10)
    assert cut.getpixel((3, 2)) == (10, 20, 30)
    assert cut.getpixel((3, 7)) == (153, 153, 153)
    assert cut_out(PICTURE, Detection(Box(99.9, 99.9, 120, 120), 1.0)).size == (1, 1)


class _Pixels:
    """An embedder whose features are mean colours, and whose words are those colours' own."""

    rgb: ClassVar[dict[str, tuple[int, int, int]]] = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}

    def embed_images(self, images: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(np.stack([np.asarray(each, dtype=np.float32).mean((0, 1)) for each in images]))

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        named = [next((c for c in COLORS if f"a {c}" in prompt), "") for prompt in prompts]
        return torch.tensor([self.rgb.get(name, (1, 1, 1)) for name in named], dtype=torch.float32)

    def score_matrix(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        raise NotImplementedError


def test_clip_names_the_colour_of_the_object_and_not_of_the_picture() -> None:
    picture = Image.new("RGB", (60, 20), (0, 255, 0))
    picture.paste((255, 0, 0), (0, 0, 10, 20))
    picture.paste((0, 0, 255), (50, 0, 60, 20))
    objects = [Detection(Box(0, 0, 10, 20), 1.0), Detection(Box(50, 0, 60, 20), 1.0)]
    namer = ClipColors(_Pixels())
    assert namer.colors(picture, objects, "dog") == ["red", "blue"]
    assert namer.colors(picture, [], "dog") == []
