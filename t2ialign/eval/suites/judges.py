"""Who looks at pictures for a section: nobody, the mini-world's oracle, a vision-language model, annotations in files.

Law of this file: nothing is loaded to tell who is meant. A judge is told apart by content where it lies here; settings
after a question mark enter by their digest alone, for an address or a name in them is nobody's business.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from t2ialign.errors import ConfigError

ANNOTATIONS = "annotations"
FORMS = "oracle, hf:MODEL or openai:MODEL"


def check_judge(spec: str, *, annotations: bool = False) -> None:
    """Refuse what names no judge.

    Raises:
        ConfigError: If it is none.
    """
    from t2ialign.chat.options import is_chat_spec, parse_spec

    kind, _, place = spec.partition(":")
    if spec in ("auto", "oracle") or (annotations and kind == ANNOTATIONS and place):
        return
    if not is_chat_spec(spec):
        forms = f"{FORMS}, or annotations:FOLDER" if annotations else FORMS
        raise ConfigError(f"{spec.partition('?')[0]!r} names no judge; write {forms}")
    parse_spec(spec)


def judge_identity(spec: str) -> dict[str, Any]:
    """Say which judge it is; empty for `auto`.

    Raises:
        ConfigError: If a folder of annotations is named that is not there.
    """
    from t2ialign.data.sources import content_hash

    if spec == "auto":
        return {}
    head, _, settings = spec.partition("?")
    kind, _, place = head.partition(":")
    path = Path(place).expanduser()
    found: dict[str, Any] = {"judge": f"{kind}:{path.name if place and path.exists() else place}".rstrip(":")}
    if settings:
        found["settings"] = hashlib.sha256(settings.encode()).hexdigest()[:16]
    if kind == ANNOTATIONS:
        if not path.is_dir():
            raise ConfigError(f"there is no folder of annotations {place!r}")
        found["content"] = content_hash(sorted(path.rglob("*.jsonl")))
    elif kind == "hf" and path.is_dir():
        found["content"] = content_hash(sorted(path.rglob("*.safetensors")))
    return found


def without_folder(text: str, spec: str) -> str:
    """Return a message about a judge without the folder of this machine that its name has."""
    path = Path(spec.partition("?")[0].partition(":")[2]).expanduser()
    return text.replace(f"{path.parent}/", "") if path.is_absolute() else text
