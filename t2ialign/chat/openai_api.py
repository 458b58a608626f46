"""An OpenAI-compatible endpoint as a chat model: OpenAI itself, vLLM, SGLang, llama.cpp, Ollama and others.

Law of this file: the key is read from the environment when it is needed and stands in no file, message or log. What
may pass (a busy endpoint, a failing one, a lost connection, an answer that is none) is tried again a bounded number of
times, with growing pauses; what will not pass stops at once.
"""

from __future__ import annotations

import base64
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from t2ialign.chat.base import Answer, NoAnswerError, Question, answered
from t2ialign.chat.likelihood import LISTED, Likelihood, listed_log_probability
from t2ialign.chat.options import ChatOptions
from t2ialign.data.images import encode_png
from t2ialign.errors import MissingDependencyError, ModelError
from t2ialign.problems import short

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

Got = TypeVar("Got")
"""What comes back for a question."""

FIRST_PAUSE = 0.5
"""Seconds before an endpoint is asked a second time; each further pause is twice as long."""
LONGEST_PAUSE = 60.0
"""Seconds that a pause lasts at most, also where the endpoint asks for more."""

REFUSALS = ("content_filter", "content_policy_violation", "invalid_image", "image_parse_error")
"""Codes of an endpoint that will not or can not look at this one picture or text; others may be asked on."""


class OpenAIChat:
    """A model behind an endpoint that speaks OpenAI's chat completions."""

    takes_instructions = True

    def __init__(self, model: str, options: ChatOptions, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Make the client; nothing is sent yet.

        Args:
            model: The model's name at the endpoint.
            options: See `ChatOptions`.
            sleep: Waits for so many seconds.

        Raises:
            MissingDependencyError: If the package `openai` is not installed.
            ModelError: If the environment variable with the key is empty, and the endpoint is OpenAI's own.
        """
        try:
            import openai
        except ImportError as error:
            raise MissingDependencyError("openai", purpose=f"the chat model 'openai:{model}'") from error
        self.name = model
        self.options = options
        self._openai = openai
        self._sleep = sleep
        url = options.base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._key = _key(options.key_env, url)
        self._client = openai.OpenAI(api_key=self._key, base_url=url, timeout=options.timeout, max_retries=0)
        self.endpoint = _without_secrets(str(self._client.base_url))
        self._limit_name = "max_tokens"
        self._lock = threading.Lock()
        self._counts = {"asked": 0, "asked_again": 0, "stopped_at_max_new_tokens": 0}
        self._served: set[str] = set()

    def ask(self, text: str, images: Sequence[Image.Image] = (), *, seed: int = 0) -> str:
        """See `ChatModel`."""
        return self._text(self._tried(self._arguments(text, images, seed)))

    def _arguments(self, text: str, images: Sequence[Image.Image], seed: int) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images
        ]
        content.append({"type": "text", "text": text})
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
            arguments = self._arguments(question.text, question.images, question.seed)
            try:
                completion = self._tried(arguments | {"logprobs": True, "top_logprobs": LISTED})
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
        return in_parallel(lambda question: answered(self, question), questions, self.options.parallel)

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
        """See `ChatModel`; `served` has the names that the endpoint gave itself."""
        with self._lock:
            counts, served = dict(self._counts), sorted(self._served)
        return self.identity() | {
            "endpoint": self.endpoint,
            "served": served,
            "parallel": self.options.parallel,
            **counts,
            "versions": {"openai": version("openai")},
        }

    def _tried(self, arguments: dict[str, Any]) -> Any:
        """Send a request until it is answered, or there is no sense in it."""
        attempt = 0
        self._count("asked")
        while True:
            try:
                return _checked(
                    self._client.chat.completions.create(
                        **arguments, **{self._limit_name: self.options.max_new_tokens}
                    )
                )
            except self._openai.BadRequestError as error:
                if self._limit_name == "max_tokens" and "max_completion_tokens" in str(error):
                    self._limit_name = "max_completion_tokens"  # OpenAI's newer models know only this name
                    continue
                raise self._refused(error) from error
            except (self._openai.OpenAIError, _NoCompletionError, ValueError) as error:
                if not self._may_pass(error) or attempt >= self.options.retries:
                    raise self._failed(error, attempt) from error
                pause = _pause(attempt, error)
                logger.debug("%s: %s; asked again in %.1f s", self.name, self._clean(error), pause)
            self._sleep(pause)
            self._count("asked_again")
            attempt += 1

    def _may_pass(self, error: Exception) -> bool:
        if isinstance(error, self._openai.APIStatusError):
            if getattr(error, "code", None) == "insufficient_quota":
                return False
            return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
        # a lost connection, a time-out, or a body that is no completion
        return isinstance(
            error, self._openai.APIConnectionError | self._openai.APIResponseValidationError | ValueError
        )

    def _refused(self, error: Any) -> ModelError:
        """Tell a refusal of this one question from a request that is wrong as such."""
        code = str(getattr(error, "code", "") or "")
        if any(each in code or each in str(error) for each in REFUSALS):
            return NoAnswerError(f"refused by {self.name}: {self._clean(error)}")
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
        return ModelError(f"{self.endpoint} does not answer ({times}at last {said}); the same command continues")

    def _clean(self, error: Exception) -> str:
        """An error in one line, without the key, should a server repeat it."""
        said = short(error)
        cause = error.__cause__
        if cause is not None and said.rstrip(".") in ("Connection error", "Request timed out"):
            said = f"{said}: {short(cause)}"
        return said.replace(self._key, "***")

    def _text(self, completion: Any) -> str:
        choice = completion.choices[0]
        with self._lock:
            self._served.add(str(completion.model))
            self._counts["stopped_at_max_new_tokens"] += choice.finish_reason == "length"
        text = (choice.message.content or "").strip()
        if text:
            return text
        if choice.finish_reason == "length":
            raise NoAnswerError(f"{self.name} came to max_new_tokens before it said anything; raise it")
        raise NoAnswerError(getattr(choice.message, "refusal", None) or f"an empty answer ({choice.finish_reason})")

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


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


def _pause(attempt: int, error: Exception) -> float:
    """Seconds to wait: what the endpoint asks for, else doubled each time, less a little by chance: clients part."""
    response = getattr(error, "response", None)
    asked = response.headers.get("retry-after", "") if response is not None else ""
    if re.fullmatch(r"\d+(\.\d+)?", asked):
        return min(float(asked), LONGEST_PAUSE)
    pause: float = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
    return pause * random.uniform(0.8, 1.0)


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


def _data_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")
