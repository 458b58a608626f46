"""What commands share for printing: only the first process of a launch speaks, and lines align."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 4000
"""Characters of a message."""


def is_first_process() -> bool:
    """Whether this is the only process, or rank 0 of a launch."""
    return os.environ.get("RANK", "0") == "0"


def fit_to_print(text: str) -> str:
    r"""Return a message that a terminal can take, whatever came into it from a data file.

    Control characters, which a terminal obeys, and halves of characters are written out (`\x1b`), and what is longer
    than `LONGEST` is cut in the middle.
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} [... {len(text) - LONGEST:,} characters ...] {text[-LONGEST // 2 :]}"
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


def say(*lines: str) -> None:
    """Print lines, in the first process only."""
    if is_first_process():
        for line in lines:
            print(line)


def quiet_libraries() -> None:
    """Hide the loading bars and the hints of diffusers and transformers; what matters of them, we say ourselves."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


def figures(values: Mapping[str, Any], names: Iterable[str] | None = None) -> list[str]:
    """Align names and values, a pair a line; floats with four significant digits.

    Args:
        values: What to show.
        names: Which keys, in which order; by default all. Absent and `None` ones are left out.
    """
    chosen = [name for name in (names if names is not None else values) if values.get(name) is not None]
    width = max((len(name) for name in chosen), default=0) + 2
    return [f"  {name:<{width}}{_shown(values[name])}" for name in chosen]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(each) for each in value)
    return str(value)
