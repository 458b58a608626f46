"""An OpenAI-protocol endpoint on the loopback that rates pictures of the mini-world, rightly and wrongly, by a seed.

Law: what is right comes from the oracle's rules; how an answer goes wrong is a function of (seed, question, how often
that question came), so two runs meet the same faults, whatever their order. It reads questions by the protocol alone:
the schema in `response_format`, or the form in the words.

    with RatingServer(Faults(malformed=0.1, bias=0.6), seed=3) as server:
        ...  # server.url; server.asked, server.paid: calls and answered calls by question

A study imports it as the tests do, with the folder `tests` on its path.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from PIL import Image

from helpers.chat_server import ChatServer, Raw, completion, problem

MARKS = ("very poor", "poor", "fair", "good", "excellent")


@dataclass(frozen=True)
class Faults:
    """Shares of calls that go wrong, each in [0, 1]; together at most 1.

    Attributes:
        busy: Status 429, with `Retry-After`.
        failing: Status 500.
        malformed: Answers that are no JSON of the form asked for, in one of several ways.
        refusal: Refusals, by the protocol's own field or in words.
        slow: Right answers that come late.
        delay: Seconds of every right answer.
        slowness: Seconds of a slow one.
        retry_after: Seconds that a busy answer asks for.
        bias: Probability that the picture shown first is rated one mark higher on every aspect.
        deaf: Whether `response_format` is refused (400), as by servers that know none.
        untold: Whether token counts are left out.
    """

    busy: float = 0.0
    failing: float = 0.0
    malformed: float = 0.0
    refusal: float = 0.0
    slow: float = 0.0
    delay: float = 0.0
    slowness: float = 0.2
    retry_after: float = 0.01
    bias: float = 0.0
    deaf: bool = False
    untold: bool = False


MIXED = Faults(busy=0.08, failing=0.06, malformed=0.12, refusal=0.04, slow=0.05, bias=0.5)
"""A bad day."""


class RatingServer:
    """The server. Use it as a context manager.

    Attributes:
        url: To give as `base_url`.
        asked: Calls by question: a digest of all that was sent.
        paid: Calls that were answered with a completion, by question.
        kinds: Answers given, by kind.
    """

    def __init__(self, faults: Faults | None = None, seed: int = 0) -> None:
        self.faults = faults or Faults()
        self.seed = seed
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = ChatServer(self._reply)
        self.url = self._server.url

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @property
    def headers(self) -> list[dict[str, str]]:
        return self._server.headers

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self._server.requests

    @property
    def busiest(self) -> int:
        return self._server.busiest

    def _reply(self, request: dict[str, Any]) -> Raw:
        if self.faults.deaf and "response_format" in request:
            return problem(400, "Unknown parameter: response_format is not supported")
        question = hashlib.sha256(json.dumps(request["messages"], sort_keys=True).encode()).hexdigest()[:20]
        with self._lock:
            time = self.asked[question]
            self.asked[question] += 1
        kind = self._kind(question, time)
        answer = self._answer(kind, question, request)
        with self._lock:
            self.kinds[kind] += 1
            self.paid[question] += answer.status == 200
        return answer

    def _draw(self, *parts: Any) -> float:
        """A number in [0, 1) that is a function of the seed and the parts."""
        digest = hashlib.sha256(repr((self.seed, *parts)).encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def _kind(self, question: str, time: int) -> str:
        drawn = self._draw("kind", question, time)
        for kind in ("busy", "failing", "malformed", "refusal", "slow"):
            drawn -= getattr(self.faults, kind)
            if drawn < 0:
                return kind
        return "right"

    def _answer(self, kind: str, question: str, request: dict[str, Any]) -> Raw:
        faults = self.faults
        if kind == "busy":
            return problem(429, "slow down", **{"Retry-After": str(faults.retry_after)})
        if kind == "failing":
            return problem(500, "out of order")
        if kind == "refusal":
            if self._draw("refusal", question) < 0.5:
                return self._told(completion(None, refusal="I can not rate these"), request, "")
            return self._told(completion("I'm sorry, but I can't help with that."), request, "I'm sorry")
        answer = rated(request, self.faults.bias > self._draw("bias", question))
        text = json.dumps(answer) if kind != "malformed" else spoilt(answer, int(5 * self._draw("spoilt", question)))
        raw = self._told(completion(text), request, text)
        raw.delay = faults.slowness if kind == "slow" else faults.delay
        return raw

    def _told(self, raw: Raw, request: dict[str, Any], text: str) -> Raw:
        """Tell tokens: four letters one, and 85 a picture."""
        body = json.loads(raw.body)
        if self.faults.untold:
            body.pop("usage")
        else:
            read = sum(len(part["text"]) // 4 if part["type"] == "text" else 85 for part in _parts(request))
            written = max(1, len(text) // 4)
            body["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        raw.body = json.dumps(body).encode()
        return raw


def _parts(request: dict[str, Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = request["messages"][0]["content"]
    return parts


def pictures(request: dict[str, Any]) -> dict[str, Image.Image]:
    """The pictures of a question by the names that stand before them."""
    found, name = {}, ""
    for part in _parts(request):
        if part["type"] == "text":
            name = part["text"].rstrip(":")
        else:
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            found[name] = Image.open(io.BytesIO(data)).convert("RGB")
    return found


def prompt(request: dict[str, Any]) -> str:
    """The prompt that a question quotes."""
    quoted = re.search(r"as a JSON string: (.*)", _parts(request)[-1]["text"])
    assert quoted is not None
    text, _ = json.JSONDecoder().raw_decode(quoted[1])
    return str(text)


def aspects(request: dict[str, Any]) -> list[str]:
    """The aspects that a question asks for, by the form in its words."""
    form = re.search(r'"picture_1": \{(.*?)\}\}', _parts(request)[-1]["text"])
    assert form is not None
    return [name for name in re.findall(r'"(\w+)": \{', form[1])]


def rated(request: dict[str, Any], biased: bool) -> dict[str, Any]:
    """The right answer, or one that favours the picture shown first."""
    from t2ialign.annotation.annotators.oracle import rate

    words = any(f"- {MARKS[0]}:" in part.get("text", "") for part in _parts(request))
    answer: dict[str, Any] = {}
    for place, (name, picture) in enumerate(pictures(request).items()):
        right = rate(prompt(request), picture)
        answer[name] = {}
        for aspect in aspects(request):
            rating, rationale = right[aspect]
            rating = min(5, rating + (biased and place == 0))
            answer[name][aspect] = {"rationale": rationale, "rating": MARKS[rating - 1] if words else rating}
    return answer


def spoilt(answer: dict[str, Any], way: int) -> str:
    """An answer that is none, in one of five ways: cut, a picture missing, one too many, out of range, a fraction."""
    first = next(iter(answer))
    aspect = next(iter(answer[first]))
    if way == 0:
        return json.dumps(answer)[:-7]
    if way == 1:
        return json.dumps({name: value for name, value in answer.items() if name != first})
    if way == 2:
        return json.dumps({**answer, f"picture_{len(answer) + 1}": answer[first]})
    answer[first][aspect]["rating"] = 6 if way == 3 else 3.5
    return json.dumps(answer)
