"""Small pair sets made in the test: noisy pictures of one colour against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs

RED, BLUE = (200, 30, 30), (30, 30, 200)


def picture(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A noisy picture of one colour; `size` is (width, height)."""
    noise = np.random.default_rng(seed).integers(-30, 31, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def colour_pairs(
    folder: Path,
    count: int = 8,
    *,
    chosen: tuple[int, int, int] = RED,
    rejected: tuple[int, int, int] = BLUE,
    sizes: Sequence[tuple[int, int]] = ((64, 64), (64, 64)),
    first: int = 0,
    **columns: Callable[[int], Any],
) -> PairDataset:
    """Writes and opens `count` pairs on three prompts; further columns are functions of a pair's number."""
    rows: list[dict[str, Any]] = [
        {
            "prompt": f"a picture {number % 3}",
            "chosen": picture(chosen, 2 * number, sizes[0]),
            "rejected": picture(rejected, 2 * number + 1, sizes[1]),
            **{name: value(number) for name, value in columns.items()},
        }
        for number in range(first, first + count)
    ]
    return load_pairs(write_pairs(rows, folder))
