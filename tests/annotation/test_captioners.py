"""Captioners: what a model is told, and what is left of what it says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from helpers.scripted_chat import ScriptedChat
from t2ialign.annotation.captioners import ChatCaptioner, OracleCaptioner, cleaned, load_captioner
from t2ialign.chat.base import Answer, Question
from t2ialign.errors import ConfigError
from t2ialign.mini import world

RED = Image.new("RGB", (8, 8), (255, 0, 0))


def test_the_oracle_says_what_it_sees_and_nothing_else() -> None:
    spec = world.sample_double(np.random.default_rng(3))
    questions = [
        Question("scene", "a prompt", (world.render(spec),)),
        Question("noise", "a prompt", (Image.effect_noise((64, 64), 90).convert("RGB"),)),
    ]
    scene, noise = OracleCaptioner().captions(questions)
    # the oracle begins with the object that it meets first, so the scene may be told from either side
    assert world.parse(scene.text or "") in (world.parse(world.describe(s)) for s in (spec, world.turn_around(spec)))
    assert (noise.key, noise.text) == ("noise", None)
    assert noise.reason


def test_the_prompt_enters_the_instruction_as_it_is() -> None:
    chat = ScriptedChat(lambda text, images: "a caption")
    captioner = ChatCaptioner(chat)
    assert captioner.uses_prompt
    (answer,) = captioner.captions([Question("k", 'a {cat} "here" {prompt}', (RED,), seed=5)])
    assert answer == Answer("k", "a caption")
    assert 'from the prompt "a {cat} "here" {prompt}", which' in chat.asked[0]
    assert (chat.images[0], chat.seeds[0]) == ((RED,), 5)


def test_without_the_prompt_it_is_not_told() -> None:
    chat = ScriptedChat(lambda text, images: "a caption")
    captioner = ChatCaptioner(chat, with_prompt=False)
    list(captioner.captions([Question("k", "SECRET", (RED,))]))
    assert not captioner.uses_prompt
    assert "SECRET" not in chat.asked[0]
    assert "caption" in chat.asked[0]


def test_words_of_one_s_own() -> None:
    chat = ScriptedChat(lambda text, images: "a caption")
    own = ChatCaptioner(chat, instruction="Is this {prompt}?")
    list(own.captions([Question("k", "a cat", (RED,))]))
    assert chat.asked == ["Is this a cat?"]
    assert own.uses_prompt
    assert not ChatCaptioner(chat, instruction="What?").uses_prompt
    assert own.identity() == {
        "captioner": {"backend": "scripted", "model": "scripted"},
        "instruction": "Is this {prompt}?",
    }
    assert own.info()["captioner"]["asked"] == 1


def test_a_plain_captioner_is_told_nothing() -> None:
    chat = ScriptedChat(lambda text, images: "a caption", instructions=False)
    captioner = ChatCaptioner(chat)
    list(captioner.captions([Question("k", "a cat", (RED,))]))
    assert chat.asked == [""]
    assert not captioner.uses_prompt
    for settings in ({"with_prompt": True}, {"instruction": "Look!"}):
        with pytest.raises(ConfigError, match="scripted is a plain captioner: it takes no instruction and no prompt"):
            ChatCaptioner(chat, **settings)
    assert not ChatCaptioner(chat, with_prompt=False).uses_prompt


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("a red\n circle  here", "a red circle here"),
        ('"A red circle."', "A red circle."),
        ("“a red circle”", "a red circle"),
        ("Caption: a red circle", "a red circle"),
        ('**Caption:** "a cat"', '** "a cat"'),
        ('<think>Hm, "red"?\nYes.</think>\n\na red circle', "a red circle"),
        ('"stop" says the sign "go"', '"stop" says the sign "go"'),
        ("it's a dog's ball'", "it's a dog's ball'"),
        ("half \ud83d cut", "half  cut"),
        ('""', None),
        ("<think>no end of it</think>", None),
    ],
)
def test_what_is_around_a_caption_is_taken_off(said: str, left: str | None) -> None:
    assert cleaned(Answer("k", said)).text == left


def test_no_answer_stays_none() -> None:
    assert cleaned(Answer("k", None, "why")) == Answer("k", None, "why")


def test_wrong_names_and_options() -> None:
    with pytest.raises(ConfigError, match="unknown captioner 'blip'; known are oracle, hf:MODEL and openai:MODEL"):
        load_captioner("blip")
    with pytest.raises(ConfigError, match="the oracle takes no instruction and no prompt"):
        load_captioner("oracle", with_prompt=True)
    chat = ScriptedChat(lambda text, images: "x")
    with pytest.raises(ConfigError, match=r"with_prompt is true, but the instruction holds no \{prompt\}"):
        ChatCaptioner(chat, with_prompt=True, instruction="What?")
    with pytest.raises(ConfigError, match=r"with_prompt is false, but the instruction holds \{prompt\}"):
        ChatCaptioner(chat, with_prompt=False, instruction="{prompt}?")
    with pytest.raises(ConfigError, match="the instruction is empty"):
        ChatCaptioner(chat, instruction=" ")
