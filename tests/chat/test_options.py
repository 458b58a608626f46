"""How chat models are named and set."""

from __future__ import annotations

import pytest

from t2ialign.chat.options import ChatOptions, is_chat_spec, load_chat, parse_spec
from t2ialign.errors import ConfigError


def test_a_name_is_split_and_its_settings_win() -> None:
    options = ChatOptions(temperature=0.5, batch_size=2)
    backend, model, settings = parse_spec("hf:org/name?dtype=float16&batch_size=16&revision=refs/pr/1", options)
    assert (backend, model) == ("hf", "org/name")
    assert settings == ChatOptions(temperature=0.5, batch_size=16, dtype="float16", revision="refs/pr/1")
    assert options == ChatOptions(temperature=0.5, batch_size=2)  # left as it was


def test_an_address_with_port_and_path_is_a_setting() -> None:
    _, model, settings = parse_spec("openai:qwen2:7b?base_url=http://127.0.0.1:8000/v1&parallel=16")
    assert model == "qwen2:7b"
    assert (settings.base_url, settings.parallel) == ("http://127.0.0.1:8000/v1", 16)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gpt-4o", "names no chat model; write hf:MODEL or openai:MODEL"),
        ("gguf:x", "names no chat model"),
        ("hf:", "names no model after the colon"),
        ("hf:x?temprature=1", "unknown setting 'temprature'; did you mean 'temperature'"),
        ("hf:x?batch_size=many", "batch_size: 'many' is not a whole number"),
        ("hf:x?dtype=int8", "dtype: 'int8' is not one of auto, float32"),
        ("hf:x?fast", "write key=value&key=value|unknown setting 'fast'"),
        ("hf:x?top_p=0", r"top_p is 0.0; it must lie in \(0, 1\]"),
        ("openai:x?timeout=0", "timeout is 0.0 s"),
        ("openai:x?requests_per_minute=0", "requests_per_minute is 0.0; it must be above 0"),
        ("openai:x?retries=-1", "retries is -1; it must be at least 0"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_chat(spec)


def test_a_key_given_as_the_name_of_its_variable_is_refused_and_not_repeated() -> None:
    for key in ("sk-proj-abc123", "skabc123"):
        with pytest.raises(ConfigError, match="name the variable, not the key itself") as caught:
            ChatOptions(key_env=key)
        assert key not in str(caught.value)


def test_what_is_a_chat_model() -> None:
    assert [is_chat_spec(spec) for spec in ("hf:x", "openai:x", "oracle", "words", "dipper:x", "hf")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
