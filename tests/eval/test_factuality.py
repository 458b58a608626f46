"""Facts with and without a diversity intervention, by hand; and prompts rewritten by facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.image_sets import write_plain_set
from helpers.scripted_chat import ScriptedChat
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import DataError
from t2ialign.eval.factuality import Instance, measure_factuality, read_instances, rewrite_by_facts

# A picture's red says whether men are to be seen, its green women; blue of 255 means that nobody can tell.
MEN, WOMEN, BOTH, DARK = (255, 0, 0), (0, 255, 0), (255, 255, 0), (0, 0, 255)


def said(images: Sequence[Image.Image], question: str, options: Sequence[str]) -> list[str | None]:
    channel = 1 if "women" in question else 0
    found: list[str | None] = []
    for image in images:
        pixel = np.asarray(image)[0, 0]
        found.append(None if pixel[2] else "yes" if pixel[channel] else "no")
    return found


def pictures(folder: Path, seen: dict[str, list[tuple[int, int, int]]]) -> ImageSet:
    rows = [
        ({"prompt_id": name, "prompt": name, "sample": i}, Image.new("RGB", (4, 4), color))
        for name, colors in seen.items()
        for i, color in enumerate(colors)
    ]
    return ImageSet(write_plain_set(folder, rows))


def event(name: str, men: bool, women: bool) -> Instance:
    return Instance(name, f"a picture of {name}", {"men": men, "women": women}, (f"{name} is known",))


def test_the_tax_by_hand(tmp_path: Path) -> None:
    instances = [
        event("march", False, True),
        event("senate", True, False),
        event("fair", True, True),
        event("x", True, True),
    ]
    plain = pictures(tmp_path / "plain", {"march": [WOMEN, WOMEN], "senate": [MEN, BOTH], "fair": [MEN, BOTH, DARK]})
    other = pictures(
        tmp_path / "other", {"march": [BOTH, MEN], "senate": [BOTH, BOTH], "fair": [BOTH, BOTH], "x": [BOTH]}
    )
    result = measure_factuality(plain, other, instances, said)
    # accuracy by instance, plain: 1, .75, .75; with the intervention: .25, .5, 1
    assert result.plain.value == pytest.approx(2.5 / 3)
    assert result.intervention.value == pytest.approx(1.75 / 3)
    assert result.tax.value == pytest.approx((0.75 + 0.25 - 0.25) / 3)
    assert result.tax.interval is not None
    assert result.tax.interval.low <= result.tax.value <= result.tax.interval.high
    # exact, plain: 1, .5, .5; intervention: 0, 0, 1
    assert result.exact_tax.value == pytest.approx((1 + 0.5 - 0.5) / 3)
    assert (result.tax.n, result.plain.n_pictures) == (3, 6)
    assert result.unanswered == {"plain": 1, "intervention": 0}
    assert result.unpaired == ("x",)
    assert (result.test.statistic, result.test.n) == (2.0, 3)
    assert json.loads(result.rows[0].seen) == {"men": "no", "women": "yes"}
    assert result.to_dict()["tax"]["n"] == 3


def test_it_costs_nothing_where_nothing_changes(tmp_path: Path) -> None:
    one = pictures(tmp_path / "a", {"march": [WOMEN], "fair": [BOTH]})
    result = measure_factuality(one, one, [event("march", False, True), event("fair", True, True)], said)
    assert result.tax.value == 0.0
    assert result.tax.interval is None
    assert result.test.p_value == 1.0
    assert result.plain.interval is not None
    assert result.plain.interval.high == 1.0
    assert result.plain.interval.low < 0.5  # two instances, all right: Wilson's, and no point


def test_names_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    one = pictures(tmp_path / "a", {"march": [WOMEN]})
    with pytest.raises(DataError, match="no instance has an answered picture"):
        measure_factuality(one, one, [event("senate", True, False)], said)


def test_a_prompt_is_rewritten_by_its_facts_or_stays_as_it_was() -> None:
    def reply(text: str, images: Sequence[Image.Image]) -> str:
        if "march" in text:
            assert "- march is known" in text
            return json.dumps({"reflection": "women marched", "prompt": "a  march of women"})
        return "I cannot help with that." if "senate" in text else ""

    bare = Instance("bare", "a bare prompt", {"men": True})
    chat = ScriptedChat(reply)
    instances = [event("march", False, True), event("senate", True, False), event("fair", True, True), bare]
    found = rewrite_by_facts(chat, instances, attempts=2)
    march, senate, fair, none = found.rewrites
    assert (march.prompt, march.changed, march.reflection) == ("a march of women", True, "women marched")
    assert march.facts == ("march is known",)
    assert march.original == "a picture of march"
    assert (senate.prompt, senate.changed) == ("a picture of senate", False)
    assert "no JSON object" in senate.problem
    assert fair.problem == "nothing to say"
    assert none.problem == "no facts"
    assert found.failed[:2] == (3, 0.75)
    assert len(chat.asked) == 1 + 2 + 2  # the march once, the others twice, without facts never
    assert found.to_dict()["failed"]["interval"][0] < 0.75


def test_facts_are_no_place_holders() -> None:
    asked = []
    chat = ScriptedChat(lambda text, images: asked.append(text) or "")  # type: ignore[func-returns-value]
    rewrite_by_facts(chat, [Instance("a", "draw {facts}", {"men": True}, ("{prompt} is a fact",))], attempts=1)
    assert '"draw {facts}"' in asked[0]
    assert "- {prompt} is a fact" in asked[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"name": "a", "prompt": "b", "composition": {}}', "composition is"),
        ('{"name": "a", "prompt": "b", "composition": {"men": 1}}', "true or false"),
        ('{"name": "a", "composition": {"men": true}}', "both must be texts"),
        ("[]", "a JSON object"),
        ("{", "can not be read"),
        ("", "0 instances"),
    ],
)
def test_a_wrong_file_is_an_error(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "i.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        read_instances(tmp_path / "i.jsonl")


def test_a_file_is_read(tmp_path: Path) -> None:
    line = {"name": "a", "prompt": "b", "composition": {"men": True}, "facts": ["c"]}
    (tmp_path / "i.jsonl").write_text(json.dumps(line) + "\n")
    assert read_instances(tmp_path / "i.jsonl") == [Instance("a", "b", {"men": True}, ("c",))]
