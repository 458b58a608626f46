"""Image sets written plainly, file by file, without the package's writer (and without its care for the disk).

Law: nothing of t2ialign has a hand in what is written.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image


def write_plain_set(path: Path, pictures: Iterable[tuple[dict[str, Any], Image.Image]]) -> Path:
    """Writes `metadata.jsonl` and a PNG for each (fields, picture); fields hold prompt_id, prompt, sample, ..."""
    lines = []
    for fields, picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", compress_level=1)
        name = f"images/{fields['prompt_id']}/{fields['sample']:04d}.png"
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        size = {"width": picture.width, "height": picture.height, "sha256": digest}
        lines.append(json.dumps({"file_name": name, **fields, **size}) + "\n")
    path.mkdir(parents=True, exist_ok=True)
    (path / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return path
