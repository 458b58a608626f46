"""Draws: what is random about a text is a function of (seed, text) alone.

Law of this file: pure arithmetic on SHA-256; the same values on every machine and in every version of Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def number(seed: int, *parts: str) -> int:
    r"""Return a whole number in [0, 2**63): the first 63 bits of SHA-256 over the parts, joined by the byte 31."""
    joined = "\x1f".join((str(int(seed)), *parts))
    return int.from_bytes(hashlib.sha256(joined.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def pick(choices: Sequence[T], seed: int, *parts: str) -> T:
    """Return one of the choices; there must be one."""
    return choices[number(seed, *parts) % len(choices)]


def shuffled(items: Sequence[T], seed: int, *parts: str) -> list[T]:
    """Return the items in an order of chance."""
    order = sorted(range(len(items)), key=lambda index: (number(seed, *parts, str(index)), index))
    return [items[index] for index in order]
