"""An OpenAI-compatible endpoint: a real server on the loopback that answers well, badly, late or not at all."""

from __future__ import annotations

import base64
import builtins
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.chat_server import ChatServer, Raw, completion, problem, scripted, words
from t2ialign.chat.base import Answer, Endpoint, NoAnswerError, Question, UnreachableError, Usage
from t2ialign.chat.openai_api import LONGEST_PAUSE, OpenAIChat, in_parallel
from t2ialign.chat.options import ChatOptions
from t2ialign.errors import MissingDependencyError, ModelError

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def chat(server: ChatServer | str, pauses: list[float] | None = None, **settings: Any) -> OpenAIChat:
    url = server if isinstance(server, str) else server.url
    options = ChatOptions(**{"base_url": url, "timeout": 5.0, "retries": 3, **settings})
    return OpenAIChat("m", options, sleep=([] if pauses is None else pauses).append)


def gather(keys: list[str], answers: Iterator[Answer]) -> None:
    for answer in answers:
        keys.append(answer.key)


def test_what_is_sent() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    with ChatServer(scripted("  a cat \n")) as server:
        assert chat(server, max_new_tokens=17).ask("what is it?", [image]) == "a cat"
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("m", 17, 0.0)
    assert not {"seed", "top_p"} & set(request)
    (message,) = request["messages"]
    shown, text = message["content"]
    assert (message["role"], text) == ("user", {"type": "text", "text": "what is it?"})
    header, data = shown["image_url"]["url"].split(",")
    assert header == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(image))
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_drawn_answer_has_a_seed() -> None:
    with ChatServer(scripted("a")) as server:
        chat(server, temperature=0.7, top_p=0.9).ask("x", seed=2**62 + 5)
    (request,) = server.requests
    assert (request["temperature"], request["top_p"], request["seed"]) == (0.7, 0.9, 5)


@pytest.mark.parametrize(
    "bad",
    [
        problem(429, "slow down"),
        problem(500, "oops"),
        problem(503, "loading the model"),
        Raw(502, b"<html>bad gateway</html>", kind="text/html"),
        Raw(200, b"<html>please log in</html>", kind="text/html"),
        Raw(200, b'{"id": "c", "choi'),
        Raw(200, {"error": {"message": "out of memory"}}),
        Raw(200, {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}),
        Raw(hang_up=True),
        Raw(200, completion("late").body, delay=2.0),
    ],
    ids=["429", "500", "503", "502 html", "200 html", "cut json", "error in 200", "no choices", "hang up", "slow"],
)
def test_what_may_pass_is_asked_again(bad: Raw) -> None:
    pauses: list[float] = []
    with ChatServer(scripted(bad, bad, "a cat")) as server:
        model = chat(server, pauses, timeout=0.5)
        assert model.ask("x") == "a cat"
    assert len(server.requests) == 3
    assert 0.4 <= pauses[0] <= 0.5 < 0.8 <= pauses[1] <= 1.0  # doubled, less a little
    assert model.info()["asked"] == 1
    assert model.info()["asked_again"] == 2


def test_it_is_asked_again_a_bounded_number_of_times() -> None:
    pauses: list[float] = []
    with ChatServer(scripted(problem(500, "oops"))) as server:
        with pytest.raises(ModelError, match=r"does not answer \(asked 4 times, at last .*oops.*the same command"):
            chat(server, pauses).ask("x")
        assert (len(server.requests), len(pauses)) == (4, 3)
        with pytest.raises(ModelError, match=r"does not answer \(at last"):
            chat(server, retries=0).ask("x")


def test_the_pause_that_is_asked_for_is_kept_within_bounds() -> None:
    pauses: list[float] = []
    slow = (problem(429, "slow", **{"Retry-After": "7"}), problem(429, "slow", **{"Retry-After": "9999"}))
    with ChatServer(scripted(*slow, "a")) as server:
        chat(server, pauses).ask("x")
    assert pauses == [7.0, LONGEST_PAUSE]


def test_the_pause_may_be_asked_for_until_a_date() -> None:
    pauses: list[float] = []
    then = formatdate(time.time() + 20, usegmt=True)
    past = formatdate(time.time() - 20, usegmt=True)
    answers = [problem(429, "slow", **{"Retry-After": when}) for when in (then, past, "soon")]
    with ChatServer(scripted(*answers, "a")) as server:
        chat(server, pauses).ask("x")
    assert 15 < pauses[0] <= 20
    assert pauses[1:] == [pytest.approx(1.8, abs=0.21)]  # none for the past; for what can not be read, its own


def test_what_an_answer_took_is_told_by_answer_and_by_cause() -> None:
    busy = problem(429, "slow", **{"Retry-After": "0"})
    with ChatServer(
        scripted(busy, problem(500, "oops"), Raw(hang_up=True), "a", completion(None, refusal="no"))
    ) as server:
        model = chat(server)
        first, second = (model.answer(Question(key, "x")) for key in "12")
    assert (first, first.usage) == (Answer("1", "a"), Usage(4, 1, 1))
    assert (second.text, second.reason, second.refused, second.usage) == (None, "no", True, Usage(1, 1, 1))
    assert model.info()["asked_again_for"] == {"429": 1, "500": 1, "connection": 1}
    assert isinstance(model, Endpoint)


def test_no_token_counts_are_none() -> None:
    body = json.loads(completion("a").body)
    del body["usage"]
    with ChatServer(scripted(Raw(200, body))) as server:
        assert chat(server).answer(Question("1", "x")).usage == Usage(1, None, None)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


def test_an_answer_is_held_to_a_schema_and_each_picture_comes_after_its_name() -> None:
    image = Image.new("RGB", (2, 2))
    with ChatServer(scripted('{"a": 1}')) as server:
        chat(server).answer(Question("1", "rate", (image, image), labels=("one:", "two:"), schema=SCHEMA))
        chat(server).answer(Question("2", "rate"))
    first, second = server.requests
    held = {"name": "answer", "strict": True, "schema": SCHEMA}
    assert first["response_format"] == {"type": "json_schema", "json_schema": held}
    content = first["messages"][0]["content"]
    assert [part.get("text", part["type"]) for part in content] == ["one:", "image_url", "two:", "image_url", "rate"]
    assert "response_format" not in second


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("takes", ["json_object", None])
def test_a_server_that_refuses_the_schema_is_asked_by_what_it_takes(status: int, takes: str | None) -> None:
    def reply(request: dict[str, Any]) -> str | Raw:
        form = request.get("response_format", {}).get("type")
        return "ok" if form == takes else problem(status, f"response_format {form} is not supported")

    with ChatServer(reply) as server:
        model = chat(server, parallel=1)
        answers = list(model.ask_all(Question(str(n), "x", schema=SCHEMA) for n in range(3)))
    assert {answer.text for answer in answers} == {"ok"}
    assert len(server.requests) == (4 if takes else 5)  # what was refused once is not tried again
    assert model.info()["response_format"] == takes or (takes is None and model.info()["response_format"] == "none")


def test_another_problem_with_a_request_is_no_reason_to_drop_the_schema() -> None:
    with ChatServer(scripted(problem(400, "the image is too large"))) as server:
        with pytest.raises(ModelError, match="too large"):
            chat(server).answer(Question("1", "x", schema=SCHEMA))
        assert len(server.requests) == 1


def test_a_question_that_could_not_be_put_is_told_from_an_endpoint_that_will_not() -> None:
    with ChatServer(scripted(problem(503, "loading"))) as server, pytest.raises(UnreachableError):
        chat(server, retries=1).ask("x")
    with ChatServer(scripted(problem(401, "who are you"))) as server, pytest.raises(ModelError) as caught:
        chat(server).ask("x")
    assert not isinstance(caught.value, UnreachableError)


def test_requests_keep_the_rate_also_when_they_are_sent_again() -> None:
    pauses: list[float] = []
    with ChatServer(scripted(problem(429, "slow", **{"Retry-After": "0"}), "a")) as server:
        model = chat(server, pauses, requests_per_minute=6)
        model.ask("x")
        model.ask("x")
    assert [5 < pauses[0] <= 10, 12 < pauses[1] <= 20] == [True, True]  # nobody slept, so the waits add up


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    pauses: list[float] = []
    with pytest.raises(ModelError, match=r"does not answer .*Connection error"):
        chat(url, pauses).ask("x")
    assert len(pauses) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (problem(401, f"Incorrect API key provided: {KEY}"), "does not accept the key .*OPENAI_API_KEY.*key_env"),
        (problem(403, "no"), "does not accept the key"),
        (problem(404, "no such model"), "knows no model 'm'.*check name and base_url"),
        (problem(400, "image too large"), "refuses the request to 'm'.*image too large"),
        (problem(429, "You exceeded your quota", "insufficient_quota"), "does not answer .*quota"),
    ],
)
def test_what_will_not_pass_stops_at_once_and_shows_no_key(answer: Raw, message: str) -> None:
    with ChatServer(scripted(answer)) as server:
        with pytest.raises(ModelError, match=message) as caught:
            chat(server).ask("x")
        assert not isinstance(caught.value, NoAnswerError)
        assert KEY not in str(caught.value)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(None, refusal="I can not help with that"), "I can not help"),
        (completion("  "), r"an empty answer \(stop\)"),
        (completion("", "content_filter"), "content_filter"),
        (completion("", "length"), "came to max_new_tokens"),
        (problem(400, "rejected by our safety system", "content_policy_violation"), "refused by m: .*safety system"),
    ],
)
def test_no_answer_to_one_question_is_no_end(answer: Raw, reason: str) -> None:
    with ChatServer(scripted(answer, "a cat")) as server:
        first, second = chat(server, parallel=1).ask_all([Question("1", "x"), Question("2", "x")])
    assert first.text is None
    assert re.search(reason, first.reason)
    assert second == Answer("2", "a cat")


def test_newer_models_are_told_the_limit_by_its_newer_name() -> None:
    def reply(request: dict[str, Any]) -> str | Raw:
        if "max_tokens" in request:
            return problem(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return "a"

    with ChatServer(reply) as server:
        model = chat(server, max_new_tokens=9)
        assert [model.ask("x"), model.ask("y")] == ["a", "a"]
    assert [request.get("max_completion_tokens") for request in server.requests] == [None, 9, 9]


def test_several_are_under_way_and_each_answer_belongs_to_its_question() -> None:
    taken: list[int] = []

    def questions() -> Iterator[Question]:
        for number in range(12):
            taken.append(number)
            yield Question(str(number), f"n {number}")

    def reply(request: dict[str, Any]) -> Raw:
        answer = completion(words(request).upper())
        answer.delay = 0.05
        return answer

    with ChatServer(reply) as server:
        answers = chat(server, parallel=3).ask_all(questions())
        first = next(answers)
        assert len(taken) <= 3  # pictures of later questions are not yet in memory
        found = {answer.key: answer.text for answer in [first, *answers]}
    assert found == {str(n): f"N {n}" for n in range(12)}
    assert server.busiest == 3


def test_after_a_failure_the_answers_under_way_are_still_handed_out() -> None:
    begun = threading.Barrier(3, timeout=5)

    def reply(request: dict[str, Any]) -> str | Raw:
        if int(words(request)) < 3:
            begun.wait()
        if words(request) == "1":
            return problem(404, "gone")
        answer = completion("ok")
        answer.delay = 0.2
        return answer

    got: list[str] = []
    with ChatServer(reply) as server:
        with pytest.raises(ModelError, match="knows no model"):
            gather(got, chat(server, parallel=3).ask_all(Question(str(n), str(n)) for n in range(20)))
        assert sorted(got) == ["0", "2"]
        assert len(server.requests) == 3


def test_a_stop_from_the_keyboard_hands_out_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import wait

    from t2ialign.chat import openai_api

    calls = []

    def interrupted(waiting: Any, return_when: Any) -> Any:
        calls.append(len(waiting))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return wait(waiting, return_when=return_when)

    monkeypatch.setattr(openai_api, "wait", interrupted)
    got: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        gather(got, in_parallel(lambda q: Answer(q.key, "a"), (Question(str(n), "") for n in range(9)), 2))
    assert sorted(got) in (["0", "1", "2"], ["0", "1", "2", "3"])  # begun before the stop, and not one more


def test_the_key_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "other-key")
    with ChatServer(scripted("a")) as server:
        chat(server, key_env="MY_KEY").ask("x")
        assert server.headers[0]["authorization"] == "Bearer other-key"
        monkeypatch.delenv("OPENAI_API_KEY")
        assert chat(server).ask("x") == "a"  # a server of one's own wants none
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert OpenAIChat("m", ChatOptions()).ask("x") == "a"
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ModelError, match="the environment variable OPENAI_API_KEY with the key is empty"):
        OpenAIChat("m", ChatOptions())


def test_what_is_recorded_has_no_secret() -> None:
    with ChatServer(scripted("a", completion("b", "length"))) as server:
        url = server.url.replace("//", "//user:password@") + "?token=abc"
        model = OpenAIChat("m", ChatOptions(base_url=url))
        assert model.endpoint.rstrip("/") == server.url
        plain = chat(server)
        plain.ask("x")
        plain.ask("x")
    info = plain.info()
    shown = json.dumps(info) + json.dumps(model.info())
    assert not [word for word in (KEY, "password", "token") if word in shown.replace("max_new_tokens", "")]
    assert (info["served"], info["stopped_at_max_new_tokens"]) == (["served"], 1)
    assert "endpoint" not in plain.identity()  # a server may move to another port without losing answers


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"openai is needed .* pip install 't2ialign\[openai\]'"):
        OpenAIChat("m", ChatOptions())
