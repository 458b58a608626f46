"""Secrets: taken out of whatever is written or said.

Law of this file: three things are secret, wherever they stand: what an environment variable of a telling name holds
(`HF_TOKEN`, `OPENAI_API_KEY`), the user and password of an address and the keys in its query, and what has the form of
a well-known token. Names of environment variables are no secrets, and neither is a hub id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "<redacted>"
"""Stands for a secret in what is written; read back from a configuration, it counts as not given."""

_SHORTEST = 8
"""Characters from which the value of an environment variable is taken for a secret, and not for a word."""
_LONG = 16
"""Characters from which it is looked for inside of words too."""
_WORDS = r"token|secret|password|passphrase|api_?key|access_?key|credentials?"
_SECRET = re.compile(rf"(^|_)({_WORDS})(_|$)", re.IGNORECASE)
_VARIABLE = re.compile(rf"(^|_)({_WORDS})s?(_|$)|(^|_)(keys?|pat)$|passw(or)?d$", re.IGNORECASE)
"""Names of environment variables that hold a secret; `key` alone is a secret there and not in our options."""
_NO_SECRET = re.compile(r"_(env|path|file|dir)$", re.IGNORECASE)
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"]+@")
_QUERY = re.compile(rf"([?&](?:[\w-]*[_-])?(?:{_WORDS}|key|sig|signature)=)[^&\s'\"#]+", re.IGNORECASE)
_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-(?=[\w-]{20})[\w-]*[A-Za-z0-9]{16}[\w-]*|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[abp]-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,})"
)
_BEARER = re.compile(r"(\bBearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)


def is_secret(key: str) -> bool:
    """Whether a value under this name is a secret: `hub_token`, `api_key`; but not `api_key_env`, which names one."""
    return bool(_SECRET.search(key)) and not key.lower().endswith("_env")


def without_secrets(text: str) -> str:
    """Return a text with `<redacted>` for every secret in it."""
    for value in _held():
        if len(value) >= _LONG:
            text = text.replace(value, REDACTED)
        elif value in text:  # short ones may be a part of a word
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", REDACTED, text)
    text = _USER.sub(rf"\g<1>{REDACTED}@", text)
    text = _QUERY.sub(rf"\g<1>{REDACTED}", text)
    text = _BEARER.sub(rf"\g<1>{REDACTED}", text)
    return _TOKENS.sub(REDACTED, text)


def redacted(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy without secrets: texts under keys such as `hub_token`, and what stands in any other text."""
    return {
        key: REDACTED if isinstance(value, str) and value and is_secret(str(key)) else _clean(value)
        for key, value in data.items()
    }


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return redacted(value)
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value


def _held() -> list[str]:
    """Return what environment variables of telling names hold, longest first."""
    names = (name for name in os.environ if _VARIABLE.search(name) and not _NO_SECRET.search(name))
    held = {value for value in map(os.environ.__getitem__, names) if len(value) >= _SHORTEST}
    # A word of small letters, the `postgres` of many a container, says nothing and stands in paths.
    return sorted((value for value in held if not re.fullmatch("[a-z]{1,15}", value)), key=len, reverse=True)
