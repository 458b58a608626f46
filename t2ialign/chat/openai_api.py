"""An OpenAI-compatible endpoint as a chat model: OpenAI itself, vLLM, SGLang, llama.cpp, Ollama and others.

Law of this file: the key is read from the environment when it is needed and stands in no file, message or log. What
may pass (a busy endpoint, a failing one, a lost connection, an answer that is none) is tried again a bounded number of
times, with growing pauses; what will not pass stops at once. An answer is held to a JSON schema where one is asked for
and the endpoint can; where it can not, it is asked for JSON, or for words alone.
"""

from __future__ import annotations

import base64
import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from PIL import Image

from t2ialign.chat.base import Answer, NoAnswerError, Question, UnreachableError, Usage
from t2ialign.chat.likelihood import LISTED, Likelihood, listed_log_probability
from t2ialign.chat.options import ChatOptions
from t2ialign.chat.pace import Pace
from t2ialign.data.images import encode_png
from t2ialign.errors import ConfigError, MissingDependencyError, ModelError
from t2ialign.problems import short

logger = logging.getLogger(__name__)

Got = TypeVar("Got")
"""What comes back for a question."""

FIRST_PAUSE = 0.5
"""Seconds before an endpoint is asked a second time; each further pause is twice as long."""
SHORTEST_KEY = 16
"""Characters from which what stands for a key is taken for one, and not for a word in its place."""
LONGEST_PAUSE = 60.0
"""Seconds that a pause lasts at most, also where the endpoint asks for more."""

REFUSALS = ("content_filter", "content_policy_violation", "invalid_image", "image_parse_error")
"""Codes of an endpoint that will not or can not look at this one picture or text; others may be asked on."""

FORMATS = ("json_schema", "json_object", "none")
"""How an answer is held to a schema, strictest first; an endpoint that refuses one is asked by the next."""
NO_FORMAT = ("response_format", "json_schema", "json_object", "schema", "grammar", "guided", "structured")
"""What the error of an endpoint that can not hold answers to a schema speaks of."""


class OpenAIChat:
    """A model behind an endpoint that speaks OpenAI's chat completions."""

    takes_instructions = True

    def __init__(self, model: str, options: ChatOptions, *, sleep: Callable[[float], object] | None = None) -> None:
        """Make the client; nothing is sent yet.

        Args:
            model: The model's name at the endpoint.
            options: See `ChatOptions`.
            sleep: Waits for so many seconds; by default until `halt`.

        Raises:
            MissingDependencyError: If the package `openai` is not installed.
            ConfigError: If `base_url` is no address.
            ModelError: If the environment variable with the key is empty, and the endpoint is OpenAI's own.
        """
        try:
            import openai
        except ImportError as error:
            raise MissingDependencyError("openai", purpose=f"the chat model 'openai:{model}'") from error
        self.name = model
        self.options = options
        self._openai = openai
        self.parallel = options.parallel
        self._pace = Pace(options.requests_per_minute, sleep=sleep)
        url = options.base_url or os.environ.get("OPENAI_BASE_URL") or None
        if url is not None and not re.match(r"https?://[^/]", url):  # it may hold a password, so it is not repeated
            raise ConfigError("base_url is no address; write it as http://HOST:PORT/v1 or https://HOST/v1")
        self._key = _key(options.key_env, url)
        self._client = openai.OpenAI(api_key=self._key, base_url=url, timeout=options.timeout, max_retries=0)
        self.endpoint = _without_secrets(str(self._client.base_url))
        self._limit_name = "max_tokens"
        self._format = FORMATS[0]
        self._lock = threading.Lock()
        self._counts = Counter({"asked": 0, "asked_again": 0, "stopped_at_max_new_tokens": 0})
        self._again: Counter[str] = Counter()
        self._served: set[str] = set()

    def ask(self, text: str, images: Sequence[Image.Image] = (), *, seed: int = 0) -> str:
        """See `ChatModel`."""
        answer = self.answer(Question("", text, tuple(images), seed))
        if answer.text is None:
            raise NoAnswerError(answer.reason)
        return answer.text

    def answer(self, question: Question) -> Answer:
        """See `Endpoint`."""
        try:
            completion, requests = self._tried(self._arguments(question), question)
        except _RefusedError as error:
            return Answer(question.key, None, str(error), refused=True, usage=Usage(error.requests))
        return self._read(question.key, completion, requests)

    def halt(self) -> None:
        """See `Endpoint`."""
        self._pace.end()

    def _arguments(self, question: Question) -> dict[str, Any]:
        content = [_part(part) for part in question.parts()]
        seed = question.seed
        arguments: dict[str, Any] = {"model": self.name, "messages": [{"role": "user", "content": content}]}
        arguments["temperature"] = self.options.temperature
        if self.options.top_p < 1:
            arguments["top_p"] = self.options.top_p
        if self.options.temperature:
            arguments["seed"] = seed % 2**31  # what C++ servers take
        return arguments

    def likelihoods(self, questions: Iterable[Question], answer: str) -> Iterator[Likelihood]:
        """See `TellsLikelihood`; the answer must be one token. Up to `parallel` questions are under way at once."""

        def likelihood(question: Question) -> Likelihood:
            arguments = self._arguments(question) | {"logprobs": True, "top_logprobs": LISTED}
            try:
                completion, _ = self._tried(arguments, question)
            except NoAnswerError as error:
                return Likelihood(question.key, None, str(error))
            with self._lock:
                self._served.add(str(completion.model))
            who = f"{self.name} at {self.endpoint}"
            return Likelihood(question.key, (listed_log_probability(completion, answer, who),))

        return in_parallel(likelihood, questions, self.options.parallel)

    def answer_tokens(self, answer: str) -> list[str]:
        """See `TellsLikelihood`."""
        return [answer]

    def ask_all(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """See `ChatModel`. Up to `parallel` questions are under way at once."""
        return in_parallel(self.answer, questions, self.options.parallel)

    def close(self) -> None:
        """See `ChatModel`; there is nothing to give back."""

    def identity(self) -> dict[str, Any]:
        """See `ChatModel`. The address is no part of it: a model may move."""
        return {
            "backend": "openai",
            "model": self.name,
            "max_new_tokens": self.options.max_new_tokens,
            "temperature": self.options.temperature,
            "top_p": self.options.top_p,
        }

    def info(self) -> dict[str, Any]:
        """See `ChatModel`; `served` has the names that the endpoint gave itself, `asked_again_for` the causes."""
        with self._lock:
            counts, served, again = dict(self._counts), sorted(self._served), dict(self._again)
        return self.identity() | {
            "endpoint": self.endpoint,
            "served": served,
            "parallel": self.options.parallel,
            "requests_per_minute": self.options.requests_per_minute,
            "response_format": self._format,
            **counts,
            "asked_again_for": again,
            "versions": {"openai": version("openai")},
        }

    def _tried(self, arguments: dict[str, Any], question: Question) -> tuple[Any, int]:
        """Send a request until it is answered, or there is no sense in it; returns the completion, and how often."""
        attempt = requests = 0
        self._count("asked")
        while True:
            self._pace.turn()
            used = self._limit_name, self._format
            requests += 1
            try:
                return _checked(
                    self._client.chat.completions.create(**arguments, **_dressed(question, *used, self.options))
                ), requests
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                if self._adapted(error, *used, question):
                    continue
                raise self._refused(error, requests) from error
            except (self._openai.OpenAIError, _NoCompletionError, ValueError) as error:
                if not self._may_pass(error) or attempt >= self.options.retries or self._pace.ended:
                    raise self._failed(error, attempt) from error
                pause = _pause(attempt, error)
                logger.debug("%s: %s; asked again in %.1f s", self.name, self._clean(error), pause)
                self._count("asked_again", _cause(error))
            self._pace.pause(pause)
            attempt += 1

    def _adapted(self, error: Exception, limit_name: str, form: str, question: Question) -> bool:
        """Whether the endpoint takes the request in another dress: the limit's newer name, or a looser format."""
        said = str(error)
        if limit_name == "max_tokens" and "max_completion_tokens" in said:
            self._limit_name = "max_completion_tokens"  # OpenAI's newer models know only this name
            return True
        if question.schema is None or form == FORMATS[-1] or not any(word in said for word in NO_FORMAT):
            return False
        with self._lock:
            if self._format == form:  # another thread may have met it first
                self._format = FORMATS[FORMATS.index(form) + 1]
                logger.info("%s takes no %s; answers are asked for by %s", self.endpoint, form, self._format)
        return True

    def _may_pass(self, error: Exception) -> bool:
        if isinstance(error, self._openai.APIStatusError):
            if getattr(error, "code", None) == "insufficient_quota":
                return False
            return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
        # a lost connection, a time-out, or a body that is no completion
        return isinstance(
            error, self._openai.APIConnectionError | self._openai.APIResponseValidationError | ValueError
        )

    def _refused(self, error: Any, requests: int) -> ModelError:
        """Tell a refusal of this one question from a request that is wrong as such."""
        code = str(getattr(error, "code", "") or "")
        if any(each in code or each in str(error) for each in REFUSALS):
            return _RefusedError(f"refused by {self.name}: {self._clean(error)}", requests)
        return ModelError(f"{self.endpoint} refuses the request to {self.name!r}: {self._clean(error)}")

    def _failed(self, error: Exception, attempt: int) -> ModelError:
        status = getattr(error, "status_code", None)
        said = self._clean(error)
        if status in (401, 403):
            return ModelError(
                f"{self.endpoint} does not accept the key ({status}: {said}); set the environment variable "
                f"{self.options.key_env}, or name another with key_env"
            )
        if status == 404:
            return ModelError(f"{self.endpoint} knows no model {self.name!r} (404: {said}); check name and base_url")
        times = f"asked {attempt + 1} times, " if attempt else ""
        kind = UnreachableError if self._may_pass(error) else ModelError
        return kind(f"{self.endpoint} does not answer ({times}at last {said}); the same command continues")

    def _clean(self, error: Exception) -> str:
        """An error in one line, without the key, should a server repeat it."""
        said = self._short(error)
        cause = error.__cause__
        if cause is not None and said.rstrip(".") in ("Connection error", "Request timed out"):
            said = f"{said}: {self._short(cause)}"
        return said

    def _short(self, error: BaseException) -> str:
        said = str(error)  # the key goes before the text is cut, or a part of it might stay
        return short(Exception(said.replace(self._key, "***"))) if self._key in said else short(error)

    def _without_key(self, text: str) -> str:
        """What was said, without the key, should a server repeat it; words such as `EMPTY` in its place are none."""
        return text.replace(self._key, "***") if len(self._key) >= SHORTEST_KEY else text

    def _read(self, key: str, completion: Any, requests: int) -> Answer:
        choice, usage = completion.choices[0], _usage(completion, requests)
        with self._lock:
            self._served.add(str(completion.model))
            self._counts["stopped_at_max_new_tokens"] += choice.finish_reason == "length"
        text = self._without_key((choice.message.content or "").strip())
        if text:
            return Answer(key, text, usage=usage)
        if choice.finish_reason == "length":
            reason = f"{self.name} came to max_new_tokens before it said anything; raise it"
            return Answer(key, None, reason, usage=usage)
        said = getattr(choice.message, "refusal", None)
        refused = bool(said) or choice.finish_reason == "content_filter"
        reason = self._without_key(said) if said else f"an empty answer ({choice.finish_reason})"
        return Answer(key, None, reason, refused, usage)

    def _count(self, what: str, cause: str | None = None) -> None:
        with self._lock:
            self._counts[what] += 1
            if cause is not None:
                self._again[cause] += 1


class _RefusedError(NoAnswerError):
    """The endpoint will not answer this question; `requests` were sent."""

    def __init__(self, message: str, requests: int) -> None:
        super().__init__(message)
        self.requests = requests


class _NoCompletionError(ValueError):
    """The endpoint answered with something that is no completion."""


def _checked(completion: Any) -> Any:
    """Refuse a body that is JSON or not, but no completion: a proxy's page, an error sent with status 200."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices or getattr(choices[0], "message", None) is None:
        raise _NoCompletionError("an answer that is no chat completion")
    if not isinstance(getattr(choices[0].message, "content", None), str | None):
        raise _NoCompletionError("a message that is no text")
    return completion


def in_parallel(work: Callable[[Question], Got], questions: Iterable[Question], parallel: int) -> Iterator[Got]:
    """Work on several questions at once and hand out answers as they come.

    At most `parallel` questions are taken ahead of the answers. After an error, or a stop from the keyboard, no
    further question is begun; those under way are waited for and handed out, then the first error is raised.
    """
    waiting: set[Future[Got]] = set()
    failed: BaseException | None = None
    source = iter(questions)
    with ThreadPoolExecutor(parallel) as pool:
        while True:
            while failed is None and len(waiting) < parallel:
                question = next(source, None)
                if question is None:
                    break
                waiting.add(pool.submit(work, question))
            if not waiting:
                break
            try:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as stop:
                if isinstance(failed, KeyboardInterrupt):
                    raise
                failed = stop
                continue
            for future in done:
                if (error := future.exception()) is not None:
                    failed = failed or error
                else:
                    yield future.result()
    if failed is not None:
        raise failed


def _dressed(question: Question, limit_name: str, form: str, options: ChatOptions) -> dict[str, Any]:
    """What endpoints call differently, or take or do not take: the limit of the answer, and its format."""
    dress: dict[str, Any] = {limit_name: options.max_new_tokens}
    if question.schema is not None and form == "json_schema":
        held = {"name": "answer", "strict": True, "schema": question.schema}
        dress["response_format"] = {"type": form, "json_schema": held}
    elif question.schema is not None and form == "json_object":
        dress["response_format"] = {"type": form}
    return dress


def _usage(completion: Any, requests: int) -> Usage:
    told = getattr(completion, "usage", None)
    counts = [getattr(told, name, None) for name in ("prompt_tokens", "completion_tokens")]
    return Usage(requests, *(count if type(count) is int and count >= 0 else None for count in counts))


def _cause(error: Exception) -> str:
    """Name in a word why a question is asked again: the status, or what happened to the connection."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return str(status)
    if "Timeout" in type(error).__name__:
        return "time-out"
    return "connection" if "Connection" in type(error).__name__ else "no completion"


def _pause(attempt: int, error: Exception) -> float:
    """Seconds to wait: what the endpoint asks for, else doubled each time, less a little by chance: clients part."""
    asked = _asked_pause(getattr(error, "response", None))
    if asked is not None:
        return min(max(asked, 0.0), LONGEST_PAUSE)
    pause: float = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
    return pause * random.uniform(0.8, 1.0)


def _asked_pause(response: Any) -> float | None:
    """Seconds that an endpoint asks for: as a number, or until a date (RFC 9110, 10.2.3)."""
    asked = response.headers.get("retry-after", "") if response is not None else ""
    if re.fullmatch(r"\d+(\.\d+)?", asked):
        return float(asked)
    try:
        return parsedate_to_datetime(asked).timestamp() - time.time()
    except ValueError:
        return None


def _key(variable: str, url: str | None) -> str:
    key = os.environ.get(variable, "")
    if key:
        return key
    if url is None:
        raise ModelError(
            f"the environment variable {variable} with the key is empty; set it, or name a server of your own with "
            "base_url (or OPENAI_BASE_URL)"
        )
    return "no-key"  # servers of one's own mostly want none, but the client wants some


def _without_secrets(url: str) -> str:
    """Take user, password and query out of an address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, host + (f":{parts.port}" if parts.port else ""), parts.path, "", ""))


def _part(part: str | Image.Image) -> dict[str, Any]:
    """A part of a message, as the protocol has it."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = "data:image/png;base64," + base64.b64encode(encode_png(part)).decode("ascii")
    return {"type": "image_url", "image_url": {"url": url}}
