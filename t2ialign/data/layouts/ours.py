"""Our own layout, written from any other: so a foreign set can be compared, shown in a grid, and kept.

Law of this file: pictures are linked or copied as they are, never encoded anew; lines are complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from t2ialign.data.files import write_json, write_text
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.images import peek
from t2ialign.data.layouts.base import Exported, Target, place, suffix_of


def export(image_set: ImageSet, target: Target) -> Exported:
    """Write `images/{prompt:06d}/{sample:04d}.*`, `metadata.jsonl` and `config.json`."""
    numbers: dict[str, int] = {}
    lines = []
    for record in image_set.records:
        source = image_set.file(record)
        number = numbers.setdefault(record.prompt_id, len(numbers))
        file_name = f"images/{number:06d}/{record.sample:04d}{suffix_of(source)}"
        place(source, target.folder / file_name)
        _, width, height = peek(source)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        line = replace(record, file_name=file_name, width=width, height=height, sha256=digest)
        lines.append(json.dumps(line.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")
    write_text(target.folder / "metadata.jsonl", "".join(lines))
    write_json(target.folder / "config.json", {"label": target.name, "made_from": image_set.config})
    return Exported("t2ialign", target.final, len(lines), 0, {}, "")
