"""Small sets of preference pairs and labelled pictures for tests."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def picture(number: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """A picture of one colour, another one for each number below 2**24."""
    return Image.new("RGB", size, (number % 256, number // 256 % 256, number // 65536 % 256))


def encoded(number: int, format: str = "PNG", size: tuple[int, int] = (16, 16)) -> bytes:
    """The same, encoded."""
    buffer = io.BytesIO()
    picture(number, size).save(buffer, format=format)
    return buffer.getvalue()


def pair(number: int, **more: Any) -> dict[str, Any]:
    """A row whose chosen picture is number 2n and whose rejected one is 2n + 1."""
    return {"prompt": f"prompt {number}", "chosen": encoded(2 * number), "rejected": encoded(2 * number + 1), **more}


def labelled(number: int, label: Any = True, **more: Any) -> dict[str, Any]:
    """A row whose picture is number n."""
    return {"prompt": f"prompt {number}", "image": encoded(number), "label": label, **more}
