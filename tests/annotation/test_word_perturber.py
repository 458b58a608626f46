"""The word-level perturber: golden values, and what holds for every text."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.annotation import draws
from t2ialign.annotation.word_classes import CLASS_OF, CLASSES, FUNCTION_WORDS
from t2ialign.annotation.word_perturber import SHARES, perturb_words
from t2ialign.mini import world

STRENGTHS = ("weak", "medium", "strong")
TEMPLE = "A young woman with long red hair, standing in front of an ancient stone temple at sunset."


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def unlike(before: str, after: str) -> int:
    """Places where two texts of as many words differ."""
    assert len(words(before)) == len(words(after))
    return sum(a != b for a, b in zip(words(before), words(after), strict=True))


def mini_prompt(seed: int) -> str:
    rng = np.random.default_rng(seed)
    return world.describe(world.forget(world.sample(rng), rng))


def test_draws_are_the_published_digest() -> None:
    """Golden: SHA-256 of `7`, 31, `a`, 31, `b`, computed apart."""
    assert draws.number(7, "a", "b") == 0x993E10801E76708F >> 1
    assert draws.number(7, "ab") != draws.number(7, "a", "b")
    assert sorted(draws.shuffled(range(9), 0, "x")) == list(range(9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a blue circle above a purple triangle on a gray background",
            (
                "a blue ring left of a purple triangle on a gray background",
                "a blue ring left of a pink triangle on a gray background",
                "a brown ring left of a pink ring on a gray background",
            ),
        ),
        ("the flag of France", ("the flag of Somalia",) * 3),
        ("Gandalf", ("Miniature Gandalf", "Miniature green Gandalf", "Miniature green Gandalf")),
    ],
)
def test_golden(text: str, expected: tuple[str, ...]) -> None:
    """Kept so that a caption set can be made again with a later version."""
    assert tuple(perturb_words(text, strength) for strength in STRENGTHS) == expected


@given(text=st.text(min_size=1, max_size=80).filter(lambda text: bool(text.strip())), seed=st.integers(0, 3))
def test_whatever_the_text_it_changes_is_not_empty_and_the_same_again(text: str, seed: int) -> None:
    for strength in STRENGTHS:
        changed = perturb_words(text, strength, seed)
        assert changed != text
        assert changed.split() != text.split()
        assert changed.strip()
        assert perturb_words(text, strength, seed) == changed


@given(
    st.lists(
        st.sampled_from(
            [*CLASS_OF, "the", "of", "a", "an", "with", "Rembrandt", "highly", "glowing", "12", "castle,", "sky."]
        ),
        min_size=1,
        max_size=14,
    )
)
def test_texts_of_english_words_change(chosen: list[str]) -> None:
    text = " ".join(chosen)
    for strength in STRENGTHS:
        changed = perturb_words(text, strength)
        assert changed.lower() != text.lower()
        assert changed.strip()


@given(st.lists(st.sampled_from(["lamp", "lamp", "urn", "Lamp", "it"]), min_size=1, max_size=6), st.integers(0, 9))
def test_words_that_come_twice_are_not_exchanged_with_themselves(chosen: list[str], seed: int) -> None:
    text = " ".join(chosen)
    for strength in STRENGTHS:
        assert perturb_words(text, strength, seed).lower() != text.lower()


@given(st.lists(st.sampled_from([*CLASS_OF, "the", "of", "and", "7"]), min_size=1, max_size=14))
def test_a_stronger_one_keeps_the_changes_of_a_weaker_one_and_adds_to_them(chosen: list[str]) -> None:
    """Words of classes are replaced one for one, so that places can be compared."""
    text = " ".join(chosen)
    if not set(chosen) - FUNCTION_WORDS:
        return
    weak, medium, strong = (words(perturb_words(text, strength)) for strength in STRENGTHS)
    for before, a, b, c in zip(words(text), weak, medium, strong, strict=True):
        assert a in (before, b)
        assert b in (before, c)
    counts = [unlike(text, " ".join(each)) for each in (weak, medium, strong)]
    can = sum(word not in FUNCTION_WORDS for word in words(text))
    assert counts == [max(1, int(share * can + 0.5)) for share in (0.25, 0.5, 0.75)]


@given(st.integers(0, 10**6), st.integers(0, 2))
def test_the_mini_world_stays_in_its_grammar(number: int, seed: int) -> None:
    text = mini_prompt(number)
    known = {*world.captions_vocabulary()}
    asked = world.parse(text)
    before = None
    for strength in STRENGTHS:
        changed = perturb_words(text, strength, seed)
        spec = world.parse(changed)
        assert spec != asked
        assert world.turn_around(spec) != asked  # not the same scene told from the other side
        assert set(changed.lower().split()) <= known
        if asked.kind == "scene":
            assert (spec.kind, len(spec.things)) == ("scene", len(asked.things))
            count = sum(a != b for a, b in zip(_attributes(asked), _attributes(spec), strict=True))
            assert count >= (before or 1)
            before = count


def _attributes(spec: world.Spec) -> list[object]:
    """All attributes, those not asked for too: what is not asked for must stay so."""
    things = [(thing.color, thing.shape, thing.size) for thing in spec.things]
    return [*(value for thing in things for value in thing), spec.relation, spec.background]


def test_a_mini_scene_of_all_attributes_changes_a_quarter_half_and_three_quarters() -> None:
    text = "a red circle left of a blue square on a white background"
    asked = _attributes(world.parse(text))
    for seed in range(20):
        for strength, count in zip(STRENGTHS, (2, 3, 5), strict=True):
            spec = world.parse(perturb_words(text, strength, seed))
            assert sum(a != b for a, b in zip(asked, _attributes(spec), strict=True)) == count


def test_the_same_scene_from_the_other_side_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours and shapes exchanged and the relation turned: other words, same scene. It is made to come up."""
    text = "a red circle left of a blue square"
    picks = {"color 0": "blue", "color 1": "red", "shape 0": "square", "shape 1": "circle", "relation -1": "right of"}
    monkeypatch.setattr(draws, "pick", lambda choices, seed, text, slot: picks[slot])
    monkeypatch.setitem(SHARES, "strong", 1.0)
    assert perturb_words(text, "strong") == "a blue square above a red circle"


def test_the_seed_and_the_text_decide() -> None:
    assert len({perturb_words(TEMPLE, "medium", seed) for seed in range(20)}) == 20
    texts = [f"a photo of {noun}" for noun in ("clouds", "stars", "rocks", "waves", "sand", "snow", "ice", "fire")]
    assert len({perturb_words(text).split()[1] for text in texts}) > 2


def test_words_give_way_to_their_like() -> None:
    for seed in range(30):
        before, after = words(TEMPLE), words(perturb_words(TEMPLE, "weak", seed))
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b and {a, b} != {"a", "an"}]
        assert changed
        assert all(CLASS_OF[a] == CLASS_OF[b] for a, b in changed)


def test_articles_capitals_numbers_and_marks_follow() -> None:
    for seed in range(30):
        after = perturb_words("An old castle and 3 Red apples, 4k, 16:9 (masterpiece:1.2)", "strong", seed)
        assert re.match(r"An? [a-z]", after)
        assert (after.startswith("An ")) == (after.split()[1][0] in "aeiou")
        number, colour = re.search(r" and (\d+) ([A-Z][a-z]+) ", after).groups()  # type: ignore[union-attr]
        assert number != "3" or colour != "Red"
        assert after.endswith(", 4k, 16:9 (masterpiece:1.2)") or "masterpiece" not in after.split("(")[-1]
        assert re.search(r"4k, 16:9 \(\w+:1\.2\)$", after)
    assert perturb_words("A CAT", seed=0).isupper()


def test_words_without_a_class_change_places_with_their_like() -> None:
    text = "astronauts chasing lamps, hovering over Rembrandt and Vermeer"
    found = Counter(perturb_words(text, "weak", seed) for seed in range(40))
    assert set(found) == {
        "lamps chasing astronauts, hovering over Rembrandt and Vermeer",
        "astronauts hovering lamps, chasing over Rembrandt and Vermeer",
        "astronauts chasing lamps, hovering over Vermeer and Rembrandt",
    }
    assert perturb_words(text, "strong", 0) == "lamps hovering astronauts, chasing over Vermeer and Rembrandt"


def test_a_word_before_another_may_be_dropped_with_one_blank() -> None:
    assert perturb_words("in it, sculpted filigree!") == "in it, filigree!"
    assert perturb_words("Vividly sculpted filigree", "strong") == "filigree"
    assert {perturb_words("an ivory-like, vividly sculpted urn", "weak", seed) for seed in range(20)} == {
        "an urn, vividly sculpted ivory-like",  # the two plain ones change places
        "an ivory-like, sculpted urn",
        "an ivory-like, vividly urn",
    }
    assert perturb_words("a sculpted urn of it") == "an urn of it"


@pytest.mark.parametrize(
    "text", ["Gandalf", "a portrait of Gandalf", "日本の風景", "!!!", "of the", "very very very", "8k"]
)
def test_where_nothing_can_be_changed_a_word_is_added(text: str) -> None:
    changed = perturb_words(text, "weak")
    if "portrait" not in text:
        assert len(changed.split()) == len(text.split()) + 1
    assert changed.lower() != text.lower()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="strength is 'mild'; it must be one of weak, medium, strong"):
        perturb_words("a cat", "mild")
    with pytest.raises(ValueError, match="blank"):
        perturb_words("  ")


def test_the_classes_do_not_overlap() -> None:
    listed = [word for members in CLASSES.values() for word in members]
    assert len(listed) == len(set(listed))
    assert not set(listed) & FUNCTION_WORDS
    assert all(len(members) > 1 and word.islower() for members in CLASSES.values() for word in members)
