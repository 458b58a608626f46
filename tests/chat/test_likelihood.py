"""How likely an answer is: led through by `generate`, against plain forwards; an endpoint's list of first tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.chat_models import save_blip, save_llama, save_llava, save_t5
from helpers.chat_server import ChatServer, Raw, completion, problem, scripted
from t2ialign.chat.base import Question
from t2ialign.chat.likelihood import TellsLikelihood
from t2ialign.chat.options import load_chat
from t2ialign.errors import ModelError

TEXTS = ["a red circle?", "x", "what is in this picture, and is it a star? " * 3]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("likelihood")
    for save in (save_llava, save_llama, save_t5, save_blip):
        save(folder)
    return folder


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def tell(chat: Any, questions: list[Question], answer: str) -> list[Any]:
    assert isinstance(chat, TellsLikelihood)
    told = {each.key: each.values for each in chat.likelihoods(questions, answer)}
    return [told[question.key] for question in questions]


@pytest.mark.parametrize("answer", ["Yes", "n"])
def test_a_language_model_against_one_forward(place: Path, answer: str) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(place / "tiny-llama").eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "tiny-llama")
    tokens = [tokenizer.convert_tokens_to_ids(letter) for letter in answer]
    expected = []
    for text in TEXTS:
        ids = tokenizer.encode(f"<s>USER: {text} ASSISTANT:", add_special_tokens=False) + tokens
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        expected.append([float(logs[len(ids) - len(tokens) - 1 + i, token]) for i, token in enumerate(tokens)])
    for size in (1, 3):
        chat = load_chat(f"hf:{place / 'tiny-llama'}?batch_size={size}")
        assert chat.answer_tokens(answer) == list(answer)  # type: ignore[attr-defined]
        told = tell(chat, [Question(str(i), text) for i, text in enumerate(TEXTS)], answer)
        assert np.allclose(told, expected, atol=1e-4, rtol=0)
    assert np.std(expected) > 0.1


def test_an_encoder_and_decoder_against_one_forward(place: Path) -> None:
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(place / "tiny-t5").eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "tiny-t5")
    labels = tokenizer("Yes", add_special_tokens=False, return_tensors="pt")["input_ids"]
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            logs = model(**tokenizer(text, return_tensors="pt"), labels=labels).logits[0].log_softmax(dim=-1)
        expected.append([float(logs[i, token]) for i, token in enumerate(labels[0])])
    told = tell(load_chat(f"hf:{place / 'tiny-t5'}"), [Question(str(i), text) for i, text in enumerate(TEXTS)], "Yes")
    assert np.allclose(told, expected, atol=1e-4, rtol=0)


def test_whatever_the_model_is_set_to_generate_like(place: Path, tmp_path: Path) -> None:
    """Settings of `generate` that a checkpoint brings do not reach the probabilities."""
    import shutil

    from transformers import GenerationConfig

    question = [Question("0", TEXTS[0])]
    plain = tell(load_chat(f"hf:{place / 'tiny-llama'}"), question, "Yes")
    shutil.copytree(place / "tiny-llama", tmp_path / "set")
    own = GenerationConfig.from_pretrained(tmp_path / "set")
    own.update(do_sample=True, temperature=0.3, top_k=2, repetition_penalty=3.0, num_beams=2)
    own.save_pretrained(tmp_path / "set")
    assert np.allclose(tell(load_chat(f"hf:{tmp_path / 'set'}"), question, "Yes"), plain, atol=1e-5, rtol=0)


def test_pictures_come_along_and_captioners_are_refused(place: Path) -> None:
    chat = load_chat(f"hf:{place / 'tiny-llava'}")
    questions = [Question(str(i), "is it?", (picture(i),)) for i in range(2)] + [Question("2", "is it?")]
    values = [each[0] for each in tell(chat, questions, "Yes")]
    assert len({round(each, 4) for each in values}) == 3
    blip: Any = load_chat(f"hf:{place / 'tiny-blip'}")
    with pytest.raises(ModelError, match="plain captioner"):
        list(blip.likelihoods(questions[:1], "Yes"))


def listed(tokens: dict[str, float], first: str = "Yes") -> Raw:
    """A completion with the probabilities of its first token."""
    tops = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in tokens.items()]
    chosen = {"token": first, "logprob": math.log(tokens.get(first, 0.5)), "bytes": None, "top_logprobs": tops}
    import json

    raw = completion(first)
    body = json.loads(raw.body)
    body["choices"][0]["logprobs"] = {"content": [chosen], "refusal": None}
    return Raw(200, body)


def endpoint(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return load_chat(f"openai:some-model?base_url={server.url}&max_new_tokens=1&retries=0")


def test_an_endpoint_is_asked_for_its_likeliest_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(scripted(listed({"Yes": 0.5, "No": 0.25, " Yes": 0.125, "yes": 0.0625}))) as server:
        chat = endpoint(server, monkeypatch)
        (values,) = tell(chat, [Question("0", "is it?", (picture(0),))], "Yes")
        request = server.requests[0]
        assert (request["logprobs"], request["top_logprobs"], request["max_tokens"]) == (True, 20, 1)
        assert request["temperature"] == 0
    assert math.exp(values[0]) == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("reply", "values"),
    [(listed({"No": 0.9, "no": 0.1}, "No"), (-math.inf,)), (problem(400, "no", "content_filter"), None)],
)
def test_what_an_endpoint_does_not_tell_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, reply: Raw, values: Any
) -> None:
    with ChatServer(scripted(reply)) as server:
        assert tell(endpoint(server, monkeypatch), [Question("0", "is it?")], "Yes") == [values]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (completion("Yes"), "some-model at .* tells no log-probabilities"),
        (listed({"Y": 0.9, "N": 0.1}, "Y"), "writes 'Yes' in several tokens, the first of them 'Y'"),
    ],
)
def test_endpoints_that_can_not_do_it_are_named(monkeypatch: pytest.MonkeyPatch, reply: Raw, message: str) -> None:
    with ChatServer(scripted(reply)) as server, pytest.raises(ModelError, match=message):
        tell(endpoint(server, monkeypatch), [Question("0", "is it?")], "Yes")
