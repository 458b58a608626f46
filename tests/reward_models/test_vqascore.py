"""VQAScore against one plain forward of transformers a picture, and through an endpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.chat_models import save_blip, save_llava
from helpers.chat_server import ChatServer, Raw, completion, problem, words
from helpers.image_sets import write_plain_set
from helpers.zoo import KINDS, colours, save_zoo
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.base import RewardModel
from t2ialign.reward_models.registry import load_scorer
from t2ialign.reward_models.scoring import score_set
from t2ialign.reward_models.vqascore import TEMPLATE, VQAScore

PROMPTS = ["a red circle", 'a "sign" that says {}', "", "word " * 40, *("a blue star", "two stars") * 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("vqa"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    zoo = save_zoo(tmp_path_factory.mktemp("zoo"))
    return [zoo[kind] for kind in KINDS]


def official(folder: Path, prompts: list[str], files: list[Any], answer: str = "Yes") -> list[list[float]]:
    """Log-probabilities of the answer's tokens after the question, a pair at a time, the prompt written by hand."""
    from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration

    processor = AutoImageProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    told = []
    for prompt, file in zip(prompts, files, strict=True):
        question = f'Does this figure show "{prompt}"? Please answer yes or no.'
        before = tokenizer.encode(f"<s>USER: {'<image>' * 4}\n{question} ASSISTANT:", add_special_tokens=False)
        after = tokenizer.encode(answer, add_special_tokens=False)
        picture = (Image.open(file) if isinstance(file, Path) else file).convert("RGB")
        picture.info.clear()
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([before + after]), pixel_values=pixels).logits[0]
        logs = logits.log_softmax(dim=-1)
        told.append([float(logs[len(before) - 1 + i, token]) for i, token in enumerate(after)])
    return told


def test_equals_the_official_formula(folder: Path, files: list[Path]) -> None:
    """In logarithms, for a tiny model finds no answer likely: 1e-5 of the probability itself would say nothing."""
    told = official(folder, PROMPTS, files)
    total = torch.tensor([math.fsum(each) for each in told])
    assert float(total.std()) > 0.2
    same_picture = official(folder, PROMPTS[:6], files[:1] * 6)
    assert np.std([sum(each) for each in same_picture]) > 0.05, "words matter"
    same_prompt = official(folder, PROMPTS[:1] * 12, files)
    assert np.std([sum(each) for each in same_prompt]) > 0.05, "pictures matter"
    for batch_size in (1, 5):
        scorer = VQAScore(str(folder), device="cpu", batch_size=batch_size)
        assert isinstance(scorer, RewardModel)
        scores = scorer.score(PROMPTS, files)
        assert scores.dtype == torch.float32
        assert torch.allclose(scores.log(), total, atol=1e-5, rtol=0)
        geometric: Any = load_scorer(f"vqascore@hf:{folder}?definition=geometric&batch_size={batch_size}")
        assert torch.allclose(geometric.score(PROMPTS, files).log(), total / 3, atol=1e-5, rtol=0)


def test_an_answer_of_one_token_is_the_same_by_both(folder: Path) -> None:
    pictures = [colours(i, (40, 50)) for i in range(3)]
    prompts = ["a red circle", "a star", "x"]
    expected = torch.tensor([math.exp(each[0]) for each in official(folder, prompts, pictures, answer="h")])
    for definition in ("probability", "geometric"):
        scorer = VQAScore(str(folder), answer="h", definition=definition, device="cpu")
        assert torch.allclose(scorer.score(prompts, pictures), expected, atol=1e-5, rtol=1e-4)


def test_question_and_answer_are_recorded(folder: Path) -> None:
    scorer = VQAScore(str(folder), device="cpu")
    info = scorer.info()
    assert info["template"] == TEMPLATE
    assert (info["answer"], info["answer_tokens"], info["definition"]) == ("Yes", ["Y", "e", "s"], "probability")
    assert len(info["model"]["weights"]) >= 32, "two models of one name are told apart"
    assert str(folder.parent) not in json.dumps(info)
    assert scorer.version.startswith("probability:tiny-llava@")
    assert VQAScore(str(folder), device="cpu").version == scorer.version
    changed: list[dict[str, Any]] = [{"answer": "No"}, {"template": "Is this {}?"}, {"dtype": "bfloat16"}]
    others = [VQAScore(str(folder), device="cpu", **settings) for settings in changed]
    assert len({scorer.version, *(other.version for other in others)}) == 4
    picture, prompt = colours(0, (40, 50)), "a {} in a frame"
    expected = VQAScore(str(folder), template="{}", device="cpu").score([f"Is this {prompt}?"], [picture])
    assert torch.equal(others[1].score([prompt], [picture]), expected)


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"vqascore needs a vision-language model: vqascore@hf:MODEL"):
        load_scorer("vqascore")
    with pytest.raises(ModelError, match=r"tiny-blip is a plain captioner and reads no words"):
        VQAScore(str(save_blip(tmp_path)))
    with pytest.raises(ConfigError, match=r"must have \{\} once"):
        VQAScore(str(folder), template="Is this it?")
    with pytest.raises(ConfigError, match=r"unknown VQAScore definition 'x'; choose one of probability, geometric"):
        VQAScore(str(folder), definition="x")
    with pytest.raises(ValueError, match="1 prompts for 2 pictures"):
        VQAScore(str(folder)).score(["a"], [colours(0, (40, 40))] * 2)


def answering(request: dict[str, Any]) -> Raw:
    """P(Yes) by the prompt; a refusal for one of them; another answer for a third."""
    text = words(request)
    if "refused" in text:
        return problem(400, "no", "content_filter")
    tops = [("No", 0.9)] if "unlisted" in text else [("Yes", 0.75 if "red" in text else 0.125), ("No", 0.1)]
    content = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in tops]
    body = json.loads(completion(tops[0][0]).body)
    body["choices"][0]["logprobs"] = {"content": [content[0] | {"top_logprobs": content}], "refusal": None}
    return Raw(200, body)


def test_through_an_endpoint(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-key")
    prompts = ["a red circle", "refused", "unlisted", "a star"]
    with ChatServer(answering) as server:
        scorer: Any = load_scorer(f"vqascore@openai:vlm?base_url={server.url}&key_env=SOME_KEY")
        scores = scorer.score(prompts, [colours(i, (40, 50)) for i in range(4)])
        assert server.headers[0]["authorization"] == "Bearer secret-key"
        asked = {words(request) for request in server.requests}
    assert asked == {f'Does this figure show "{prompt}"? Please answer yes or no.' for prompt in prompts}
    assert [float(x) for x in scores[[0, 2, 3]]] == pytest.approx([0.75, 0.0, 0.125])
    assert math.isnan(float(scores[1]))
    assert scorer.not_listed == 1
    assert sum(scorer.unanswered.values()) == 1
    assert "vqascore: no score for 1 of 4 pictures (refused by vlm" in caplog.text
    assert "secret-key" not in json.dumps(scorer.info()) + caplog.text
    assert scorer.aggregate([float(x) for x in scores]) == pytest.approx(0.875 / 3)


def test_a_picture_without_a_score_has_no_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is counted, and asked about again by the next run; a scorer that may not abstain stops the run."""
    from t2ialign.errors import DataError
    from t2ialign.reward_models.score_files import ScoreTable

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    target = tmp_path / "set"
    fields = [
        {"prompt_id": str(i), "prompt": prompt, "sample": 0, "seed": i, "model": "m"}
        for i, prompt in enumerate(["a red circle", "refused", "a star"])
    ]
    write_plain_set(target, [(each, colours(i, (40, 50))) for i, each in enumerate(fields)])
    with ChatServer(answering) as server:
        spec = f"vqascore@openai:vlm?base_url={server.url}"
        done = score_set(target, [spec], workers=0, progress=False)
        (summary,) = done.scorers
        assert (summary.scored, summary.kept) == (2, 0)
        assert summary.aggregate == pytest.approx(0.4375)
        assert done.notices == {"pictures that vqascore gave no score": 1}
        assert sorted(row.score for row in ScoreTable.read(done.output).rows.values()) == [0.125, 0.75]
        before = len(server.requests)
        again = score_set(target, [spec], workers=0, progress=False)
        assert (again.scorers[0].scored, again.scorers[0].kept) == (0, 2)
        assert len(server.requests) == before + 1
        scorer: Any = load_scorer(spec)
        scorer.may_abstain = False
        with pytest.raises(DataError, match="vqascore gives nan"):
            score_set(target, [scorer], workers=0, progress=False)
