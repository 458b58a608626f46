"""Attribute diversity: entropy by hand, its bias and interval, defaults, files, answers, proposals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.image_sets import write_plain_set
from helpers.scripted_chat import ScriptedChat
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import DataError, ModelError
from t2ialign.eval.attributes import (
    OTHER,
    Attribute,
    ChatAnswers,
    Concept,
    OracleAnswers,
    estimate_entropy,
    measure_attributes,
    mini_concepts,
    propose_concepts,
    read_concepts,
    write_rows,
)
from t2ialign.mini import world

SHAPE = Attribute("shape", "What is the shape of the cookie?", ("round", "square", "heart", "star"))
COOKIE = Concept("cookie", (SHAPE,))


def grey_set(folder: Path, shades: Sequence[int], prompts: int = 1) -> ImageSet:
    """Writes pictures of one grey each, spread over prompts in turn."""
    rows = [
        (
            {"prompt_id": f"p{i % prompts}", "prompt": f"a cookie, {i % prompts}", "sample": i // prompts},
            Image.new("RGB", (4, 4), (shade,) * 3),
        )
        for i, shade in enumerate(shades)
    ]
    return ImageSet(write_plain_set(folder / "set", rows))


def by_shade(images: Sequence[Image.Image], question: str, options: Sequence[str]) -> list[str | None]:
    names = {**dict(enumerate(options)), 90: OTHER, 91: None, 92: "triangular"}
    return [names[int(np.asarray(each)[0, 0, 0])] for each in images]


def test_entropy_by_hand() -> None:
    found = estimate_entropy([[2, 1, 1, 0]])
    assert found.value == pytest.approx(1.5 * math.log(2) / math.log(4))  # H = 1.5 bits of 2
    assert found.miller_madow == pytest.approx((1.5 * math.log(2) + 2 / 8) / math.log(4))
    assert (found.n, found.n_values, found.n_seen, found.over) == (4, 4, 3, "pictures")
    assert estimate_entropy([[5, 5], [5, 5]]).value == pytest.approx(1.0)
    assert estimate_entropy([[5, 5]]).miller_madow == 1.0  # never above 1
    assert estimate_entropy([[3, 0], [0, 3]]).value == pytest.approx(1.0)  # prompts are pooled
    assert estimate_entropy([[3, 0], [0, 3]]).interval is None  # no spread inside prompts: nothing is claimed
    assert estimate_entropy([[1, 0]]).interval is None


def test_one_value_alone_does_not_make_the_interval_a_point() -> None:
    few, many = estimate_entropy([[5, 0, 0]]), estimate_entropy([[500, 0, 0]])
    assert few.value == many.value == 0.0
    assert few.interval is not None
    assert many.interval is not None
    assert few.interval.low == 0.0
    assert few.interval.high > 0.8
    assert 0.01 < many.interval.high < 0.08


def test_plug_in_lies_low_and_the_correction_takes_most_of_it_away() -> None:
    rng = np.random.default_rng(2)
    p = np.array([0.5, 0.3, 0.1, 0.1])
    truth = -float((p * np.log(p)).sum()) / math.log(4)
    found = [estimate_entropy([rng.multinomial(50, p).tolist()], resamples=300, seed=i) for i in range(300)]
    bias = float(np.mean([each.value for each in found])) - truth
    corrected = float(np.mean([each.miller_madow for each in found])) - truth
    assert bias == pytest.approx(-3 / 100 / math.log(4), abs=0.008)  # (K - 1) / 2n
    assert abs(corrected) < 0.008
    inside = sum(each.interval.low <= truth <= each.interval.high for each in found if each.interval)
    assert 270 <= inside <= 297


def test_many_prompts_are_the_unit() -> None:
    rows = [[4, 0]] * 10 + [[0, 4]] * 10  # every prompt is of one mind
    clustered = estimate_entropy(rows)
    single = estimate_entropy([[40, 40]])
    assert clustered.over == "prompts"
    assert single.over == "pictures"
    assert clustered.interval is not None
    assert single.interval is not None
    assert clustered.interval.low < single.interval.low


def test_what_is_no_value_is_counted_and_in_no_distribution(tmp_path: Path) -> None:
    result = measure_attributes(grey_set(tmp_path, [0, 0, 1, 90, 91, 92, 92]), [COOKIE], by_shade)
    score = result.scores[0]
    assert (score.n_pictures, score.n_other, score.n_no_answer) == (7, 3, 1)
    assert score.entropy is not None
    assert score.entropy.n == 3
    assert score.shares["round"][0] == pytest.approx(2 / 3)
    assert score.other[0] == pytest.approx(4 / 7)
    assert [row.said for row in result.rows if row.said] == ["triangular", "triangular"]
    assert result.to_dict()["scores"][0]["other"]["interval"][0] < 4 / 7
    write_rows(tmp_path / "rows.parquet", [row.to_dict() for row in result.rows])
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "rows.parquet").num_rows == 7


def test_a_default_is_one_only_where_its_interval_says_so(tmp_path: Path) -> None:
    few = measure_attributes(grey_set(tmp_path / "few", [0] * 10), [COOKIE], by_shade)
    assert few.scores[0].shares["round"][0] == 1.0
    assert few.defaults == ()  # 10 of 10: Wilson's lower end is 0.72
    many = measure_attributes(grey_set(tmp_path / "many", [0] * 58 + [1] * 2), [COOKIE], by_shade)
    assert [(each.value, each.n) for each in many.defaults] == [("round", 60)]
    assert many.defaults[0].interval.low > 0.8
    # The same pictures, but of four prompts that are of one mind each: no 60 independent pictures.
    shades = [0, 0, 0, 1] * 3 + [0] * 48
    assert measure_attributes(grey_set(tmp_path / "p", shades, prompts=4), [COOKIE], by_shade).defaults == ()


def test_the_mini_world_is_asked_of_its_oracle(tmp_path: Path) -> None:
    thing = world.Thing("ring", "red", "large")
    other = world.Thing("star", "blue", "large")
    rows = [
        (
            {"prompt_id": "r", "prompt": "a ring", "sample": 0},
            world.render(world.Spec("scene", (thing,), background="white")),
        ),
        (
            {"prompt_id": "r", "prompt": "a ring", "sample": 1},
            world.render(world.Spec("scene", (other,), background="black")),
        ),
        ({"prompt_id": "r", "prompt": "a ring", "sample": 2}, Image.effect_noise((64, 64), 90).convert("RGB")),
        ({"prompt_id": "f", "prompt": "a flag", "sample": 0}, world.render(world.Spec("flag", country="france"))),
    ]
    result = measure_attributes(ImageSet(write_plain_set(tmp_path / "set", rows)), mini_concepts(), OracleAnswers())
    said = {(row.concept, row.attribute, row.sample): row.answer for row in result.rows}
    assert said["ring", "color", 0] == "red"
    assert said["ring", "size", 0] == "large"
    assert said["ring", "color", 1] == OTHER  # a star is no ring
    assert said["ring", "background", 1] == "black"
    assert said["ring", "background", 2] is None
    assert said["flag", "continent", 0] == "Europe"
    assert "circle" in result.missing
    with pytest.raises(ValueError, match="does not know the question"):
        OracleAnswers()([Image.new("RGB", (64, 64))], "Is it art?", ("yes", "no"))


def test_a_chat_model_chooses_among_the_options_and_is_asked_again() -> None:
    replies = iter(
        ['{"answer": "Round"}', "round", '{"answer": "oval"}', '{"answer": "none of these"}', '{"answer": "oval"}']
    )
    chat = ScriptedChat(lambda text, images: next(replies))
    answers = ChatAnswers(chat, attempts=2)
    pictures = [Image.new("RGB", (4, 4))] * 3
    assert answers(pictures, SHAPE.question, SHAPE.values) == ["round", OTHER, None]
    assert answers.failures == {"it is none of the options": 1}
    assert chat.seeds == [0, 0, 0, 1, 1]
    assert '"heart"' in chat.asked[0]
    assert SHAPE.question in chat.asked[0]
    with pytest.raises(ModelError, match="captioner"):
        ChatAnswers(ScriptedChat(lambda text, images: "", instructions=False))


def test_a_file_of_concepts_is_read_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "concepts.yaml"
    path.write_text(
        "concepts:\n- concept: cookie\n  prompts: [a cookie]\n  attributes:\n"
        "  - {name: shape, question: 'What shape?', values: [round, square]}\n"
    )
    concepts = read_concepts(path)
    assert concepts[0].has("a  cookie")
    assert not concepts[0].has("a cookie jar")
    (tmp_path / "c.json").write_text(json.dumps([each.to_dict() for each in concepts]))
    assert read_concepts(tmp_path / "c.json") == concepts
    assert Concept("ring", ()).has("A Ring, red")
    assert not Concept("ring", ()).has("a string")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a list of concepts"),
        ("- concept: a\n  attributes: [{name: b, question: c, values: [d]}]", "at least two"),
        ("- concept: a\n  attributes: [{name: b, question: c, values: [d, D]}]", "all different"),
        ("- concept: a\n  attributes: []", "a list is needed"),
        ("{", "can not be read"),
    ],
)
def test_a_wrong_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_concepts(tmp_path / "c.yaml")


def test_a_language_model_proposes_and_what_it_cannot_is_counted(tmp_path: Path) -> None:
    good = json.dumps({"attributes": [{"name": "shape", "question": "What shape?", "values": ["round", "square"]}]})
    chat = ScriptedChat(lambda text, images: good if "cookie" in text else "I would rather not.")
    found = propose_concepts(chat, ["cookie", "cake"], attempts=2)
    assert [each.name for each in found.concepts] == ["cookie"]
    assert list(found.problems) == ["cake"]
    assert len(chat.asked) == 3
    (tmp_path / "c.json").write_text(json.dumps(found.to_dict()))
    assert tuple(read_concepts(tmp_path / "c.json")) == found.concepts
