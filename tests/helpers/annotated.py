"""Annotated image sets with planted habits, written plainly: nothing of t2ialign has a hand in what is written."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ASPECTS = ("prompt_following", "aesthetic", "fidelity", "harmlessness")
PROMPTS, PICTURES = 40, 3


def png(level: int, number: int) -> bytes:
    """A grey picture of that level, with one pixel that tells it from the others."""
    pixels = np.full((8, 8), level, dtype=np.uint8)
    pixels[number // 8 % 8, number % 8] ^= 3
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


def write_set(folder: Path, seed: int = 0, prompts: int = PROMPTS) -> list[dict[str, Any]]:
    """Write pictures of random brightness and return a record for each: prompt, file, sha256, quality, brightness."""
    rng = np.random.default_rng(seed)
    records = []
    for p in range(prompts):
        for k in range(PICTURES):
            level = int(rng.integers(20, 235))
            data = png(level, p * PICTURES + k)
            name = f"images/{p:03d}/{k}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            records.append(
                {
                    "prompt_id": f"p{p}",
                    "prompt": " ".join(["a", "grey", "picture", *["indeed"] * (p % 7), str(p)]),
                    "file_name": name,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "quality": float(rng.normal(3, 1)),
                    "brightness": level / 255,
                }
            )
    return records


Habit = Callable[[dict[str, Any], int, np.random.Generator], float]
"""From a picture and the place at which it is shown to its rating, before rounding."""


def write_annotations(
    folder: Path,
    records: list[dict[str, Any]],
    habit: Habit,
    *,
    seed: int = 1,
    passes: int = 1,
    annotator: str = "someone",
    shuffled: bool = True,
    rationale: Callable[[float], str] | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write a folder of annotations beside the set `set`; `change` may change each line. Appends if it is there."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"image_set": "../set"}))
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_prompt.setdefault(record["prompt_id"], []).append(record)
    lines = []
    for prompt_id, mine in by_prompt.items():
        shown = [int(i) for i in rng.permutation(len(mine))] if shuffled else list(range(len(mine)))
        for order in range(passes):
            now = shown[::-1] if order else shown
            ratings = {
                aspect: [int(np.clip(round(habit(record, now.index(i), rng)), 1, 5)) for i, record in enumerate(mine)]
                for aspect in ASPECTS
            }
            line = {
                "prompt_id": prompt_id,
                "prompt": mine[0]["prompt"],
                "images": [record["file_name"] for record in mine],
                "sha256": [record["sha256"] for record in mine],
                "permutation": now,
                "ratings": ratings,
                "rationales": {a: [rationale(m) for m in marks] for a, marks in ratings.items()} if rationale else {},
                "annotator": annotator,
                "order": order,
            }
            if change is not None:
                change(line)
            lines.append(json.dumps(line) + "\n")
    with (folder / "annotations.jsonl").open("a", encoding="utf-8") as handle:
        handle.writelines(lines)
    return folder


def fair(record: dict[str, Any], place: int, rng: np.random.Generator) -> float:
    """The quality with some noise."""
    return float(record["quality"] + rng.normal(0, 0.4))


def first_first(record: dict[str, Any], place: int, rng: np.random.Generator) -> float:
    """Likes what is shown first."""
    return fair(record, place, rng) + 1.5 * (place == 0)


def likes_light(record: dict[str, Any], place: int, rng: np.random.Generator) -> float:
    """Likes bright pictures."""
    return fair(record, place, rng) + 4 * (float(record["brightness"]) - 0.5)
