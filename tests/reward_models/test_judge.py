"""The judge: strict reading, both orders, nothing filled in; through an endpoint and through transformers."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from helpers.chat_models import save_blip, save_llava
from helpers.chat_server import ChatServer, Raw, problem, words
from helpers.image_sets import write_plain_set
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.base import RewardModel
from t2ialign.reward_models.judge import Judge
from t2ialign.reward_models.judge_answers import (
    PAIRWISE,
    POINTWISE,
    Preference,
    count_preferences,
    read_choice,
    read_rating,
)
from t2ialign.reward_models.registry import load_scorer
from t2ialign.reward_models.scoring import score_set

RED, BLUE = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))


def shown(request: dict[str, Any]) -> list[str]:
    """What the pictures of a request are, in order."""
    urls = [part["image_url"]["url"] for part in request["messages"][0]["content"] if part["type"] == "image_url"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
    return ["red" if picture.convert("RGB").getpixel((0, 0))[0] > 128 else "blue" for picture in pictures]  # type: ignore[index]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Judge]:
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def load(server: ChatServer, **settings: Any) -> Judge:
        return Judge("openai:vlm", base_url=server.url, **settings)

    return load


@pytest.mark.parametrize("score", [1, 2, 3, 4, 5])
def test_answers_of_the_form_asked_for(score: int) -> None:
    answer = json.dumps({"reason": "weil „es“ passt", "score": score})
    for text in (answer, f"```json\n{answer}\n```", f"```\n{answer}\n```", f"  {answer}\n"):
        read = read_rating(text)
        assert (read.score, read.reason, read.problem) == (score, "weil „es“ passt", "")
    assert read_rating(f'{{"score": {score}}}').score == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "I give it 4.",
        '{"score": 0}',
        '{"score": 6}',
        '{"score": 4.0}',
        '{"score": "4"}',
        '{"score": true}',
        '{"score": null}',
        '{"score": NaN}',
        '{"score": 4, "score": 5}',
        '{"score": 4} and more',
        'Here it is: {"score": 4}',
        '[{"score": 4}]',
        '{"score": 4, "mood": 1}',
        '{"reason": "fine"}',
        '{"score": 4, "reason": 1}',
        "{'score': 4}",
        '{"score": 4',
        '```json\n{"score": 4}\n``` done',
        "[" * 100000,
    ],
)
def test_any_other_answer_is_none(text: str) -> None:
    read = read_rating(text)
    assert read.score is None
    assert read.problem
    assert read.raw == text


@pytest.mark.parametrize("better", ["A", "B", "tie"])
def test_choices(better: str) -> None:
    assert read_choice(json.dumps({"reason": "r", "better": better})) == (better, "r", "")


@pytest.mark.parametrize("better", ["a", "C", "", "A ", "Tie", 1, None, ["A"]])
def test_no_choices(better: Any) -> None:
    choice, _, why = read_choice(json.dumps({"better": better}))
    assert choice is None
    assert "none of A, B and tie" in why


def test_marks_through_an_endpoint(judge: Callable[..., Judge]) -> None:
    def reply(request: dict[str, Any]) -> str | Raw:
        assert POINTWISE.partition("{prompt}")[0] in words(request)
        if '"refused"' in words(request):
            return problem(400, "no", "content_filter")
        if '"rambling"' in words(request):
            return "I think it deserves a 5."
        return json.dumps({"reason": "x", "score": 5 if shown(request) == ["red"] else 2})

    prompts = ['a "red" circle\n{prompt}', "b", "rambling", "refused", "c"]
    with ChatServer(reply) as server:
        scorer = judge(server, batch_size=3)
        assert isinstance(scorer, RewardModel)
        scores = scorer.score(prompts, [RED, BLUE, RED, RED, BLUE])
        asked = [words(request) for request in server.requests]
    assert scores.dtype == torch.float32
    assert [float(x) for x in scores[[0, 1, 4]]] == [5, 2, 2]
    assert torch.isnan(scores[[2, 3]]).all()
    assert sum(scorer.unanswered.values()) == 2
    assert len([text for text in asked if '"rambling"' in text]) == 3, "asked three times, then given up"
    assert sum(json.dumps(prompts[0]) in text for text in asked) == 1, "the prompt stands there as one JSON string"
    assert scorer.aggregate([float(x) for x in scores]) == 3
    assert math.isnan(scorer.aggregate([math.nan]))


def test_asked_again_until_it_can_be_read(judge: Callable[..., Judge]) -> None:
    answers = iter(["well", '{"score": 9}', '{"score": 3}', "late"])
    with ChatServer(lambda request: next(answers)) as server:
        scorer = judge(server, temperature=0.5, seed=7)
        assert scorer.score(["a"], [RED]).tolist() == [3]
        assert [request["seed"] for request in server.requests] == [7, 8, 9]
    assert not scorer.unanswered


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda order: "A" if order == ["red", "blue"] else "B", "first"),
        (lambda order: "B" if order == ["red", "blue"] else "A", "second"),
        (lambda order: "tie", "tie"),
        (lambda order: "A", "inconsistent"),
        (lambda order: "B", "inconsistent"),
        (lambda order: "tie" if order == ["red", "blue"] else "A", "inconsistent"),
        (lambda order: "A" if order == ["red", "blue"] else "neither", None),
        (lambda order: "neither" if order == ["red", "blue"] else "A", None),
    ],
)
def test_pairs_are_asked_in_both_orders(
    judge: Callable[..., Judge], answer: Callable[[list[str]], str], verdict: str | None
) -> None:
    def reply(request: dict[str, Any]) -> str:
        order = shown(request)
        return json.dumps({"reason": " ".join(order), "better": answer(order)})

    with ChatServer(reply) as server:
        (found,) = judge(server, attempts=1).prefer(["a red circle"], [RED], [BLUE])
        orders = sorted(shown(request) for request in server.requests)
        assert all(PAIRWISE.partition("{prompt}")[0] in words(request) for request in server.requests)
    assert orders == [["blue", "red"], ["red", "blue"]]
    assert found.verdict == verdict
    assert bool(found.problem) == (verdict is None)
    if verdict is not None:
        assert found.reasons == ("red blue", "blue red")


def test_many_pairs_keep_their_places(judge: Callable[..., Judge]) -> None:
    def reply(request: dict[str, Any]) -> str:
        order = shown(request)
        better = "tie" if order[0] == order[1] else "AB"[order.index("red")]
        return json.dumps({"reason": "", "better": better})

    first, second = [RED, BLUE, RED, BLUE, RED], [BLUE, RED, RED, BLUE, BLUE]
    with ChatServer(reply) as server:
        found = judge(server, batch_size=2, parallel=3).prefer(list("abcde"), first, second)
        assert judge(server).prefer([], [], []) == []
        with pytest.raises(ValueError, match="1 prompts for 2 pictures"):
            judge(server).prefer(["a"], [RED], [RED, BLUE])
    assert [each.verdict for each in found] == ["first", "second", "tie", "tie", "first"]


def test_counts() -> None:
    def made(verdict: Any, forward: str | None, swapped: str | None, times: int) -> list[Preference]:
        return [Preference(verdict, forward, swapped)] * times

    found = [
        *made("first", "first", "first", 2),
        *made("second", "second", "second", 4),
        *made("tie", "tie", "tie", 1),
        *made("inconsistent", "first", "second", 3),  # the first place both times
        *made("inconsistent", "second", "first", 1),
        *made("inconsistent", "tie", "first", 1),
        *made(None, "first", None, 5),
    ]
    counts = count_preferences(found)
    assert (counts.first, counts.second, counts.tie, counts.inconsistent, counts.unanswered) == (2, 4, 1, 5, 5)
    assert counts.consistency == pytest.approx(7 / 12)
    assert counts.first_shown == pytest.approx(3 / 4)
    assert counts.win_rate == pytest.approx((4 + 0.5 * 6) / 12)
    nothing = count_preferences(made(None, None, None, 2))
    assert (nothing.unanswered, nothing.consistency, nothing.first_shown, nothing.win_rate) == (2, None, None, None)


def test_a_set_is_marked_and_what_is_missing_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    fields = [{"prompt_id": str(i), "prompt": f"p{i}", "sample": 0, "seed": i, "model": "m"} for i in range(3)]
    write_plain_set(tmp_path / "set", [(each, RED) for each in fields])
    with ChatServer(lambda request: "no" if '"p1"' in words(request) else '{"score": 4}') as server:
        done = score_set(
            tmp_path / "set", [f"judge@openai:vlm?base_url={server.url}&attempts=1"], workers=0, progress=False
        )
    assert (done.scorers[0].scored, done.scorers[0].aggregate) == (2, 4.0)
    assert done.notices == {"pictures that judge gave no score": 1}
    told = json.loads((tmp_path / "set/scores.judge.json").read_text(encoding="utf-8"))
    (info,) = told["versions"].values()
    assert (info["template"], info["attempts"], info["model"]["model"]) == (POINTWISE, 1, "vlm")
    assert info["pair_template"] == PAIRWISE


def test_through_transformers(tmp_path: Path) -> None:
    """A random model writes no JSON: its answers are none, it is asked once, and nothing is made of it."""
    folder = save_llava(tmp_path)
    scorer: Any = load_scorer(f"judge@hf:{folder}?max_new_tokens=5", device="cpu")
    assert scorer.attempts == 1, "without drawing it would only repeat itself"
    assert torch.isnan(scorer.score(["a red circle", "b"], [RED, BLUE])).all()
    assert scorer.rate(["a"], [RED])[0].raw == scorer.chat.ask(POINTWISE.replace("{prompt}", '"a"'), [RED])
    assert [each.verdict for each in scorer.prefer(["a"], [RED], [BLUE])] == [None]
    assert Judge(str(folder), temperature=0.5).attempts == 3
    assert str(tmp_path) not in json.dumps(scorer.info())
    assert scorer.version == load_scorer(f"judge@{folder}?max_new_tokens=5").version
    assert scorer.version != load_scorer(f"judge@{folder}?max_new_tokens=6").version
    with pytest.raises(ModelError, match="tiny-blip is a plain captioner"):
        Judge(str(save_blip(tmp_path)))


def test_what_is_wrong_is_named(judge: Callable[..., Judge]) -> None:
    with pytest.raises(ModelError, match=r"judge needs a vision-language model: judge@hf:MODEL"):
        Judge()
    with ChatServer(lambda request: "x") as server:
        for settings in ({"template": "Is it good?"}, {"pair_template": "{prompt} {prompt}"}):
            with pytest.raises(ConfigError, match=r"must have \{prompt\} once"):
                judge(server, **settings)
        with pytest.raises(ConfigError, match="attempts is 0"):
            judge(server, attempts=0)
        assert not server.requests
