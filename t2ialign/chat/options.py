"""How a chat model is named and set: `hf:MODEL`, `openai:MODEL`, with settings after a question mark.

Law of this file: no heavy library is imported when it is loaded, for the command line reads it to print its help; the
key of an endpoint is never an option, only the name of the environment variable that holds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from t2ialign.config import nearest, option, options_of
from t2ialign.config.convert import check_choice, convert
from t2ialign.errors import ConfigError

if TYPE_CHECKING:
    from t2ialign.chat.base import ChatModel

BACKENDS = {
    "hf": "a model of transformers: a folder or a hub id",
    "openai": "a model behind an OpenAI-compatible endpoint",
}
"""Backends and a line on each."""


@dataclass
class ChatOptions:
    """How chat models answer. A setting in the model's name (`hf:MODEL?dtype=float16`) wins over the one here."""

    max_new_tokens: int = option(256, "The longest answer, in tokens.")
    temperature: float = option(
        0.0, "0 takes the likeliest word each time; above, words are drawn, with a seed of its own for each question."
    )
    top_p: float = option(1.0, "Where words are drawn: only from the likeliest that make up this share; in (0, 1].")
    revision: str | None = option(None, "hf: branch, tag or commit of the model on the hub.")
    tokenizer: str | None = option(None, "hf: where the tokenizer or processor is, if not with the model.")
    device: str = option("auto", "hf: auto, cpu, cuda, cuda:1, mps; auto is a CUDA GPU where there is one.")
    dtype: str = option(
        "auto",
        "hf: number format; auto is bfloat16 on a GPU, else float32.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    batch_size: int = option(8, "hf: questions answered at once, where words are not drawn.")
    base_url: str | None = option(None, "openai: address of the endpoint. Default: OPENAI_BASE_URL, or OpenAI's own.")
    key_env: str = option("OPENAI_API_KEY", "openai: name of the environment variable that holds the key.")
    timeout: float = option(120.0, "openai: seconds to wait for an answer.")
    retries: int = option(6, "openai: how often a busy or failing endpoint is asked again, with growing pauses.")
    parallel: int = option(4, "openai: questions under way at once.")
    requests_per_minute: float | None = option(
        None, "openai: the most requests a minute, repeated ones among them. Default: as many as go."
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name, lowest in (("max_new_tokens", 1), ("batch_size", 1), ("parallel", 1), ("retries", 0)):
            if getattr(self, name) < lowest:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {lowest}")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise ConfigError(f"requests_per_minute is {self.requests_per_minute}; it must be above 0")
        if self.timeout <= 0:
            raise ConfigError(f"timeout is {self.timeout} s; it must be above 0")
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_env):  # it may be a key by mistake, so it is not repeated
            raise ConfigError(
                "key_env is no name of an environment variable in capitals; name the variable, not the key itself"
            )


def is_chat_spec(spec: str) -> bool:
    """Whether a name begins with one of `BACKENDS` and a colon."""
    return spec.strip().partition(":")[0] in BACKENDS and ":" in spec


def parse_spec(spec: str, options: ChatOptions | None = None) -> tuple[str, str, ChatOptions]:
    """Split `BACKEND:MODEL?key=value&key=value` into backend, model, and the options with these settings.

    Args:
        spec: The name; settings may be absent.
        options: What holds where the name says nothing.

    Raises:
        ConfigError: If the backend or a setting is unknown, or no model is named.
    """
    head, _, query = spec.strip().partition("?")
    backend, colon, model = head.partition(":")
    if backend not in BACKENDS or not colon:
        raise ConfigError(f"{spec!r} names no chat model; write hf:MODEL or openai:MODEL")
    if not model:
        raise ConfigError(f"{spec!r} names no model after the colon")
    return backend, model, with_settings(options or ChatOptions(), query, spec)


def with_settings(options: ChatOptions, query: str, spec: str) -> ChatOptions:
    """Return the options with the settings of a name, `key=value&key=value`.

    Raises:
        ConfigError: If one is unknown or does not fit.
    """
    known = options_of(ChatOptions)
    named = spec.strip().partition("?")[0]  # settings are not repeated: somebody may have put a key there
    settings: dict[str, Any] = {}
    if not all("=" in part for part in query.split("&") if part):
        raise ConfigError(f"cannot read the settings of {named!r} after the question mark; write key=value&key=value")
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise ConfigError(f"{named!r}: unknown setting {key!r}{nearest(key, known)}")
        settings[key] = convert(value, known[key].annotation, key)
        check_choice(settings[key], known[key].choices, key)
    if query and not settings:
        raise ConfigError(f"cannot read the settings of {named!r} after the question mark; write key=value&key=value")
    return replace(options, **settings)


def load_chat(spec: str, options: ChatOptions | None = None) -> ChatModel:
    """Load a chat model.

    Args:
        spec: `hf:MODEL` (a folder or a hub id) or `openai:MODEL`, with settings of `ChatOptions` after a question
            mark: `hf:llava-hf/llava-1.5-7b-hf?dtype=float16&batch_size=4`,
            `openai:qwen2-vl?base_url=http://localhost:8000/v1`.
        options: What holds where the name says nothing.

    Raises:
        ConfigError: If the name can not be read.
        MissingDependencyError: If the endpoint's client is not installed.
        ModelError: If the model can not be loaded.
    """
    backend, model, settings = parse_spec(spec, options)
    if backend == "openai":
        from t2ialign.chat.openai_api import OpenAIChat

        return OpenAIChat(model, settings)
    from t2ialign.chat.hf import load_hf

    return load_hf(model, settings)
