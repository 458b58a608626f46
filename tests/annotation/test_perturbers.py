"""Perturbers by model: what it is told, at which strength."""

from __future__ import annotations

import pytest

from helpers.scripted_chat import ScriptedChat
from t2ialign.annotation.dual_options import STRENGTHS as OPTION_STRENGTHS
from t2ialign.annotation.perturbers import STRENGTHS, ChatPerturber, WordPerturber, load_perturber
from t2ialign.annotation.word_perturber import perturb_words
from t2ialign.chat.base import Answer, Question
from t2ialign.errors import ConfigError, ModelError


def test_words_by_rule() -> None:
    perturber = load_perturber("words", "strong", seed=4)
    assert isinstance(perturber, WordPerturber)
    (answer,) = perturber.perturb([Question("k", "a red dog", seed=99)])
    assert answer == Answer("k", perturb_words("a red dog", "strong", 4))
    assert perturber.identity() == {"perturber": "words", "strength": "strong", "share": 0.75}


def test_a_model_is_told_the_strength_in_words() -> None:
    told = []
    for strength in STRENGTHS:
        chat = ScriptedChat(lambda text, images: '"a blue dog"')
        perturber = ChatPerturber(chat, strength)
        (answer,) = perturber.perturb([Question("k", "a {red} dog", seed=3)])
        assert answer == Answer("k", "a blue dog")
        assert chat.asked[0].endswith("Caption: a {red} dog")
        assert chat.seeds == [3]
        told.append(chat.asked[0])
        assert perturber.identity()["strength"] == strength
        perturber.close()
        assert chat.closed == 1
    assert ["a quarter" in told[0], "half" in told[1], "three quarters" in told[2]] == [True] * 3
    assert not [text for text in told if "{share}" in text or "{far}" in text or "{caption}" in text]


def test_words_of_one_s_own() -> None:
    chat = ScriptedChat(lambda text, images: "")
    (answer,) = ChatPerturber(chat, "weak", "paraphrase: {caption}").perturb([Question("k", "a dog")])
    assert (chat.asked, answer.text, answer.reason) == (["paraphrase: a dog"], None, "nothing to say")
    with pytest.raises(ConfigError, match=r"has no place for the caption; write \{caption\}"):
        ChatPerturber(chat, "weak", "paraphrase this")
    with pytest.raises(ConfigError, match="plain captioner and changes no captions"):
        ChatPerturber(ScriptedChat(lambda text, images: "", instructions=False), "weak")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("word", "unknown perturber 'word'.*did you mean 'words'"),
        ("pegasus", "known are words, dipper:MODEL, hf:MODEL, openai:MODEL$"),
        ("dipper:x?temperature=0", "DIPPER draws its words"),
        ("dipper:x?top=1", "unknown setting 'top'"),
    ],
)
def test_wrong_names(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_perturber(spec)


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="strength is 'mild'; it must be one of weak, medium, strong"):
        load_perturber("words", "mild")
    for spec in ("words", "dipper"):
        with pytest.raises(ConfigError, match=f"the perturber '{spec}' takes no instruction"):
            load_perturber(spec, instruction="{caption}")
    assert OPTION_STRENGTHS == STRENGTHS


@pytest.mark.parametrize("spec", ["dipper", "dipper:?device=cpu"])
def test_dipper_is_the_published_one_where_none_is_named(spec: str) -> None:
    with pytest.raises(ModelError, match="hf download kalpeshk2011/dipper-paraphraser-xxl"):
        load_perturber(spec)
