"""Pictures inside the page, as data URIs.

Law of this file: a picture is embedded no larger than it is shown; small ones keep their pixels.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from t2ialign.data.files import inside
from t2ialign.data.images import open_image

LARGEST = 320
"""Longer side, in pixels, to which larger pictures are reduced."""
LOSSLESS = 128
"""Pictures up to this side are kept as they are, as PNG; others are WebP."""
QUALITY = 82
"""Of WebP."""


def embed(folder: Path, file: str) -> tuple[str, int, int]:
    """Return a picture as a data URI, with its width and height as embedded.

    Args:
        folder: The output folder.
        file: The picture, relative to it.

    Raises:
        DataError: If it cannot be read, or its path leaves the folder.
    """
    from PIL import Image

    image = open_image(inside(folder, file), name=file)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    kind = "png" if max(image.size) <= LOSSLESS else "webp"
    image.save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": QUALITY, "method": 6}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", image.width, image.height
