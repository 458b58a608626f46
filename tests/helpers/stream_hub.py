"""Opens and reads sets of a hub in a process of its own; a line of its input is a JSON list [what, arguments...].

open NAME [REVISION [SPLIT]] opens a set; read INDEX... gives the digests of pictures; each answer is a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from typing import Any

from t2ialign.data import shards
from t2ialign.data.pairs import PairDataset, load_pairs
from t2ialign.errors import T2IAlignError


def main() -> None:
    shards.WAITS = (0.01,) * 4
    opened: PairDataset | None = None

    def open_set(name: str, revision: str | None = None, split: str = "train") -> Any:
        nonlocal opened
        opened = load_pairs(name, split=split, revision=revision, streaming=True, buffer_mib=1)
        return {
            "name": opened.name,
            "count": len(opened),
            "dropped": opened.dropped,
            "prompts": opened.prompts,
            "streamed": opened.streamed,
        }

    def read(*indices: int) -> Any:
        assert opened is not None
        return [hashlib.sha256(opened.encoded(each, "chosen")).hexdigest() for each in indices]

    def fingerprint() -> Any:
        assert opened is not None
        return opened.fingerprint

    commands: dict[str, Callable[..., Any]] = {"open": open_set, "read": read, "fingerprint": fingerprint}
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        try:
            answer = commands[what](*arguments)
        except T2IAlignError as error:
            answer = f"{type(error).__name__}: {error}"
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
