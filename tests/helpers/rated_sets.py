"""Small image sets of the mini-world in which pictures differ in what they get right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.image_sets import write_plain_set
from t2ialign.mini.world import OBJECT_COLORS, describe, render, sample_single


def mini_set(path: Path, prompts: int = 4, pictures: int = 4, seed: int = 0) -> Path:
    """Writes a set: sample 0 is right, in the middle; 1 has another colour; 2 stands aside; 3 is noise; then again."""
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(prompts):
        spec = sample_single(rng)
        thing = replace(spec.things[0], x=32.0, y=32.0)
        spec = replace(spec, things=(thing,))
        other = next(color for color in OBJECT_COLORS if color != thing.color)
        aside = replace(thing, x=thing.x + 6.0, y=thing.y + 5.0)
        drawn = [
            render(spec),
            render(replace(spec, things=(replace(thing, color=other),))),
            render(replace(spec, things=(aside,))),
            Image.fromarray(rng.integers(90, 160, (64, 64, 3), dtype=np.uint8)),
        ]
        for sample in range(pictures):
            picture = drawn[sample % 4].copy()
            picture.putpixel((0, 0), (number, sample, 7))  # no two files alike
            fields = {"prompt_id": f"p{number}", "prompt": describe(spec), "sample": sample, "seed": 0}
            lines.append((fields, picture))
    return write_plain_set(path, lines)
