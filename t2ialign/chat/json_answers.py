"""Reading the JSON object that a model was asked for.

Law of this file: an answer is one JSON object or it is none. What a model thought aloud before it, and a code fence
around it, are taken off, because models put them there; nothing else is repaired, searched for or guessed.
"""

from __future__ import annotations

import json
import re
from typing import Any

_THOUGHT = re.compile(r"^\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


def read_object(text: str) -> dict[str, Any]:
    """Read an answer.

    Raises:
        ValueError: If it is no JSON object, a key stands twice, or a number is none of JSON's; the message is a phrase
            that can be told to the model.
    """
    bare = _THOUGHT.sub("", text).strip()
    fenced = _FENCE.fullmatch(bare)
    try:
        found = json.loads(fenced[1] if fenced else bare, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON object ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict):
        raise ValueError(f"it is JSON, but a {type(found).__name__} and no object")
    return found


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
