"""DIPPER: the control string of the published script, its windows, and its draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.chat_models import save_t5
from helpers.scripted_chat import ScriptedChat
from t2ialign.annotation import draws
from t2ialign.annotation.dipper import DipperPerturber, sentences
from t2ialign.annotation.perturbers import load_perturber
from t2ialign.chat.base import Answer, Question
from t2ialign.errors import ModelError

FIVE = "A cat sits.  A dog runs! Is it\nday? Yes, it is. The sun shines."


def test_the_control_strings_are_the_published_ones() -> None:
    """Golden, by the published script: lexical = 100 - 60, order = 100 - 0; the prefix grows by what was written."""
    replies = iter(["ONE", "TWO"])
    chat = ScriptedChat(lambda text, images: next(replies))
    (answer,) = DipperPerturber(chat, "medium").perturb([Question("k", FIVE, seed=1)])
    assert chat.asked == [
        "lexical = 40, order = 100 Paraphrase and perturb the following image caption. "
        "<sent> A cat sits. A dog runs! Is it day? </sent>",
        "lexical = 40, order = 100 Paraphrase and perturb the following image caption. ONE "
        "<sent> Yes, it is. The sun shines. </sent>",
    ]
    assert answer == Answer("k", "ONE TWO")


@pytest.mark.parametrize(("strength", "code"), [("weak", 60), ("medium", 40), ("strong", 20)])
def test_the_lexical_code_is_100_less_the_diversity(strength: str, code: int) -> None:
    chat = ScriptedChat(lambda text, images: "x")
    list(DipperPerturber(chat, strength).perturb([Question("k", "a cat")]))
    assert chat.asked[0].startswith(f"lexical = {code}, order = 100 Paraphrase")


def test_draws_are_seeded_by_caption_and_window() -> None:
    chat = ScriptedChat(lambda text, images: "x")
    perturber = DipperPerturber(chat, "weak")
    list(perturber.perturb([Question("a", FIVE, seed=1), Question("b", "a cat", seed=1), Question("c", FIVE, seed=1)]))
    assert chat.seeds[:2] == chat.seeds[3:]
    assert len(set(chat.seeds)) == 3


def test_silence_in_one_window_is_passed_over_and_in_all_is_no_answer() -> None:
    replies = iter(["", "TWO", "", ""])
    chat = ScriptedChat(lambda text, images: next(replies))
    first, second = DipperPerturber(chat, "weak").perturb([Question("a", FIVE), Question("b", FIVE)])
    assert (first.text, second.text) == ("TWO", None)


def test_it_draws_as_the_published_script_does(tmp_path: Path) -> None:
    """Twin on a random T5: the script's own call of `generate` (sampling, top_p 0.75, max_length 256)."""
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    folder = save_t5(tmp_path)
    model: Any = T5ForConditionalGeneration.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    prefix, expected = "Paraphrase and perturb the following image caption.", ""
    for start, window in ((0, "A cat sits. A dog runs! Is it day?"), (3, "Yes, it is. The sun shines.")):
        torch.manual_seed(draws.number(5, FIVE, str(start)))
        given = tokenizer([f"lexical = 20, order = 100 {prefix} <sent> {window} </sent>"], return_tensors="pt")
        with torch.inference_mode():
            written = model.generate(**given, do_sample=True, top_p=0.75, top_k=None, max_length=256)
        text = tokenizer.batch_decode(written, skip_special_tokens=True)[0].strip()
        prefix += " " + text
        expected += " " + text
    perturber = load_perturber(f"dipper:{folder}", "strong")
    (answer,) = perturber.perturb([Question("k", FIVE, seed=5)])
    assert answer.text == " ".join(expected.split())
    info = perturber.info()
    assert (info["lex_diversity"], info["order_diversity"]) == (80, 0)
    assert (info["perturber"]["temperature"], info["perturber"]["top_p"]) == (1.0, 0.75)


def test_the_tokenizer_is_looked_for_where_the_published_model_keeps_it(tmp_path: Path) -> None:
    folder = save_t5(tmp_path)
    other = tmp_path / "tokenizer"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(other / name)
    with pytest.raises(ModelError, match="hf download google/t5-v1_1-xxl"):
        load_perturber(f"dipper:{folder}")
    perturber = load_perturber(f"dipper:{folder}?tokenizer={other}&max_new_tokens=4")
    assert next(iter(perturber.perturb([Question("k", "a cat", seed=1)]))).text


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("a cat", ["a cat"]),
        ("", []),
        ("Dr. Who and Mr. Spock meet. They talk.", ["Dr. Who and Mr. Spock meet.", "They talk."]),
        ("By J. R. R. Tolkien. A map.", ["By J. R. R. Tolkien.", "A map."]),
        ("It costs 3.50 at no. 7. See e.g. this. Done.", ["It costs 3.50 at no. 7.", "See e.g. this.", "Done."]),
        ('He says "Go!" Then he goes.', ['He says "Go!"', "Then he goes."]),
        ("Wait... What? a small letter goes on. End", ["Wait...", "What? a small letter goes on.", "End"]),
        ("So am I. We go.", ["So am I.", "We go."]),
        ("Eine Katze. Ärger im Wald.", ["Eine Katze.", "Ärger im Wald."]),
    ],
)
def test_where_sentences_end(text: str, split: list[str]) -> None:
    assert sentences(text) == split
