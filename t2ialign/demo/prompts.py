"""The demo's prompts: from one split of the mini-world's prompts, mostly of two objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from t2ialign.mini.world import SAMPLERS, Spec, describe, split_of

SHARES = {"double": 0.8, "single": 0.1, "flag": 0.1}
"""Shares of the kinds of prompts; two objects are where mini-SD has the most to learn."""


def held_out_prompts(count: int, seed: int, split: str = "test") -> list[str]:
    """Draw distinct, fully specified prompts of one split.

    Args:
        count: How many prompts.
        seed: Another seed draws other prompts.
        split: `"test"` for what is reported, `"validation"` for choosing settings. A prompt's split is a
            function of its words (`world.split_of`).

    Returns:
        The prompts in the order of `SHARES`. The flags of a split are few: where they run out, prompts
        of two objects take their places.
    """
    rng = np.random.default_rng((seed, 404))
    chosen: list[str] = []
    for kind, share in reversed(SHARES.items()):
        wanted = count - len(chosen) if kind == "double" else round(count * share)
        found: dict[str, None] = {}
        for _ in range(200 * max(1, wanted)):
            if len(found) == wanted:
                break
            spec: Spec = SAMPLERS[kind](rng)
            text = describe(spec)
            if split_of(text) == split:
                found[text] = None
        chosen = [*found, *chosen]
    return chosen


def write_prompts(prompts: list[str], file: Path) -> Path:
    """Write prompts as a jsonl file whose ids are numbers."""
    lines = [json.dumps({"prompt_id": f"demo-{i:04d}", "prompt": p}) for i, p in enumerate(prompts)]
    file.write_text("\n".join(lines) + "\n")
    return file
