"""Models of transformers: tiny ones of the real classes, against plain twins that use transformers alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.chat_models import save_blip, save_git, save_llama, save_llava, save_t5, save_vit_gpt2
from t2ialign.chat.base import Question, Usage
from t2ialign.chat.hf import HFChat
from t2ialign.chat.options import ChatOptions, load_chat
from t2ialign.errors import ModelError

TOKENS = 12
OPTIONS = ChatOptions(max_new_tokens=TOKENS)
CAPTIONERS = {
    "tiny-blip": "BlipForConditionalGeneration",
    "tiny-git": "GitForCausalLM",
    "tiny-vit-gpt2": "VisionEncoderDecoderModel",
}
"""Plain captioners, and their classes."""


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30 + seed, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    save_llava(folder)
    save_blip(folder, seed=1)
    save_llama(folder)
    save_t5(folder)
    save_vit_gpt2(folder)
    save_git(folder)
    return folder


def load(place: Path, name: str, **settings: Any) -> HFChat:
    query = "&".join(f"{key}={value}" for key, value in settings.items())
    chat = load_chat(f"hf:{place / name}" + (f"?{query}" if query else ""), OPTIONS)
    assert isinstance(chat, HFChat)
    return chat


def test_a_vision_language_model_is_asked_by_its_template(place: Path) -> None:
    """Twin: the prompt written out by hand, one question at a time."""
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    model: Any = LlavaForConditionalGeneration.from_pretrained(place / "tiny-llava")
    processor: Any = LlavaProcessor.from_pretrained(place / "tiny-llava")
    expected = []
    for number in range(3):
        inputs = processor(
            text=f"<s>USER: <image>\nwhat is {number}? ASSISTANT:",
            images=picture(number),
            return_tensors="pt",
            add_special_tokens=False,
        )
        with torch.inference_mode():
            written = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        tail = written[0, inputs["input_ids"].shape[1] :]
        expected.append(processor.tokenizer.decode(tail, skip_special_tokens=True).strip())
    chat = load(place, "tiny-llava")
    assert [chat.ask(f"what is {number}?", [picture(number)]) for number in range(3)] == expected
    assert len(set(expected)) == 3


@pytest.mark.parametrize("name", ["tiny-llava", *CAPTIONERS, "tiny-llama", "tiny-t5"])
def test_many_at_once_are_answered_as_one_by_one(place: Path, name: str) -> None:
    chat = load(place, name, batch_size=3)
    seeing = name in ("tiny-llava", *CAPTIONERS)
    questions = [
        Question(str(n), "why" + "?" * n if chat.takes_instructions else "", (picture(n),) if seeing else ())
        for n in range(5)
    ]
    together = {answer.key: answer.text for answer in chat.ask_all(iter(questions))}
    alone = {question.key: chat.ask(question.text, question.images) for question in questions}
    assert together == alone
    assert len(set(alone.values())) >= 4


def test_questions_with_and_without_pictures_mix(place: Path) -> None:
    chat = load(place, "tiny-llava")
    questions = [Question("a", "one"), Question("b", "two", (picture(1),)), Question("c", "two", (picture(1),) * 2)]
    answers = {answer.key: answer.text for answer in chat.ask_all(questions)}
    assert answers == {q.key: chat.ask(q.text, q.images) for q in questions}


@pytest.mark.parametrize(("name", "kind"), CAPTIONERS.items())
def test_a_plain_captioner_is_given_the_picture_alone(place: Path, name: str, kind: str) -> None:
    """Twin: the model's own class with the pixels alone."""
    import transformers

    model: Any = getattr(transformers, kind).from_pretrained(place / name)
    prepare: Any = transformers.AutoImageProcessor.from_pretrained(place / name)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place / name)
    with torch.inference_mode():
        pixels = prepare(images=picture(2), return_tensors="pt")["pixel_values"]
        written = model.generate(pixel_values=pixels, max_new_tokens=TOKENS, do_sample=False)
    expected = tokenizer.decode(written[0], skip_special_tokens=True).strip()
    chat = load(place, name)
    assert not chat.takes_instructions
    assert chat.ask("", [picture(2)]) == expected
    assert chat.ask("", [picture(0)]) != expected


def test_a_plain_captioner_reads_no_words(place: Path) -> None:
    chat = load(place, "tiny-blip")
    with pytest.raises(ModelError, match="tiny-blip is a plain captioner and reads no words"):
        chat.ask("what is this?", [picture(2)])
    with pytest.raises(ModelError, match="takes one picture a question"):
        chat.ask("", [])


def test_a_text_to_text_model_is_given_the_words_as_they_are(place: Path) -> None:
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    model: Any = T5ForConditionalGeneration.from_pretrained(place / "tiny-t5")
    tokenizer: Any = AutoTokenizer.from_pretrained(place / "tiny-t5")
    with torch.inference_mode():
        written = model.generate(
            **tokenizer("lexical = 40, order = 100", return_tensors="pt"), max_new_tokens=TOKENS, do_sample=False
        )
    expected = tokenizer.decode(written[0], skip_special_tokens=True).strip()
    assert load(place, "tiny-t5").ask("lexical = 40, order = 100") == expected


def test_a_drawn_answer_is_a_function_of_its_seed(place: Path) -> None:
    chat = load(place, "tiny-t5", temperature=1, top_p=0.9)
    state = torch.get_rng_state()
    first = chat.ask("why?", seed=2**62 + 3)
    assert torch.equal(torch.get_rng_state(), state)  # others' draws are left alone
    chat.ask("else", seed=7)
    assert chat.ask("why?", seed=2**62 + 3) == first
    assert len({chat.ask("why?", seed=seed) for seed in range(6)}) > 3
    questions = [Question(str(seed), "why?", seed=seed) for seed in range(4)]
    assert [a.text for a in chat.ask_all(questions)] == [chat.ask("why?", seed=seed) for seed in range(4)]


def test_a_small_top_p_draws_what_is_likeliest(place: Path) -> None:
    greedy = load(place, "tiny-t5").ask("why?")
    narrow = load(place, "tiny-t5", temperature=1, top_p=1e-6)
    assert {narrow.ask("why?", seed=seed) for seed in range(3)} == {greedy}


def test_special_tokens_in_a_question_do_not_steer(place: Path) -> None:
    """A prompt out of a data set may hold the mark of a picture; it must not break the count of pictures."""
    chat = load(place, "tiny-llava")
    assert chat.ask("what</s> <image>?", [picture(1)]) == chat.ask("what   ?", [picture(1)])


def test_memory_can_be_given_back_and_weights_come_when_asked(place: Path) -> None:
    chat = load(place, "tiny-t5")
    assert chat._loaded is None
    identity = chat.identity()
    first = chat.ask("why?")
    chat.close()
    assert chat._loaded is None
    assert chat.ask("why?") == first
    assert chat.identity() == identity


def test_folders_of_one_name_are_told_apart_by_their_weights(place: Path, tmp_path: Path) -> None:
    other = load(tmp_path, save_t5(tmp_path, seed=1).name)
    assert other.name == load(place, "tiny-t5").name
    assert other.identity() != load(place, "tiny-t5").identity()
    assert load(place, "tiny-t5").identity() == load(place, "tiny-t5", batch_size=3, device="cpu").identity()


def test_what_is_recorded_names_no_place(place: Path) -> None:
    chat = load(place, "tiny-t5", batch_size=2)
    list(chat.ask_all([Question("a", "why?"), Question("b", "how?")]))
    info = chat.info()
    assert str(place) not in str(info)
    assert info["model"] == "tiny-t5"
    assert info["dtype"] == "float32"
    assert info["stopped_at_max_new_tokens"] == 2  # random weights rarely end by themselves within 12 tokens
    assert set(chat.identity()) <= set(info)
    assert "batch_size" not in chat.identity()


def test_a_missing_model_comes_with_the_command_that_downloads_it() -> None:
    with pytest.raises(ModelError, match="`hf download nobody/nothing --revision v1`"):
        load_chat("hf:nobody/nothing?revision=v1")


def test_pickled_weights_are_not_read(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(place / "tiny-t5", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled has no safetensors weights"):
        load_chat(f"hf:{folder}")


def test_other_kinds_of_model_are_refused(place: Path, tmp_path: Path) -> None:
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ModelError, match="vit is a vit model, which writes no text"):
        load_chat(f"hf:{tmp_path / 'vit'}")
    with pytest.raises(ModelError, match="tiny-llama has no chat template"):
        load_chat(f"hf:{save_llama(tmp_path, template=False)}")
    with pytest.raises(ModelError, match="tiny-llama reads no pictures"):
        load(place, "tiny-llama").ask("what?", [picture(0)])


def test_code_of_a_repository_is_not_run(place: Path, tmp_path: Path) -> None:
    import json

    folder = tmp_path / "remote"
    shutil.copytree(place / "tiny-t5", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    with pytest.raises(ModelError, match="remote can not be loaded"):
        load_chat(f"hf:{folder}")


def test_names_stand_before_their_pictures_and_tokens_are_counted(tmp_path: Path) -> None:
    """Twin: the prompt written out by hand; two pictures, in one question."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from helpers.vlm import save_vlm

    where = save_vlm(tmp_path)
    processor: Any = AutoProcessor.from_pretrained(where)
    model: Any = AutoModelForImageTextToText.from_pretrained(where)
    text = "<|im_start|>user\none:<image>two:<image>which?<|im_end|>\n<|im_start|>assistant\n"
    inputs = processor(text=[text], images=[[picture(0), picture(1)]], return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    tail = written[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(tail, skip_special_tokens=True).strip()
    chat = load_chat(f"hf:{where}", OPTIONS)
    question = Question("1", "which?", (picture(0), picture(1)), labels=("one:", "two:"), schema={"type": "object"})
    short, plain = Question("2", "which?", (picture(0),)), Question("3", "which?", (picture(0), picture(1)))
    found = {answer.key: answer for answer in chat.ask_all([question, short, plain])}
    assert found["1"].text == expected
    assert found["3"].text != expected
    assert found["1"].usage == Usage(0, inputs["input_ids"].shape[1], len(tail))
    assert found["2"].usage is not None
    assert found["1"].usage is not None
    assert (found["2"].usage.prompt_tokens or 0) < (found["1"].usage.prompt_tokens or 0)
