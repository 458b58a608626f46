"""The two packaged pair sets: mini-SD's own pictures, judged by the oracle and by synthetic users."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image

from mini_sd.pictures import caption
from mini_sd.sampling import sample_pictures
from t2ialign.mini.oracle import judge, read
from t2ialign.mini.users import taste, user_ids
from t2ialign.mini.world import Spec, describe, sample, split_of

Row = dict[str, Any]
SPLITS = {"train": 1000, "validation": 120, "test": 120}
"""Pairs of mini-pairs, by split; a prompt's split is a function of its words."""
PER_PROMPT = 3
"""Pictures made for a prompt, of which the best and the worst become the pair."""
USER_PROMPTS = (
    "a circle",
    "a square",
    "a triangle",
    "a star",
    "a ring",
    "a cross",
    "a small star",
    "a large circle",
    "a large square",
    "a small ring",
    "a flag",
    "the flag of a country in Europe",
)
PER_USER_PROMPT = 40
PAIRS_A_USER = 25
MIN_DIFFERENCE = 0.3
"""Least difference in utility for which a user is asked."""


def encode(picture: Image.Image) -> bytes:
    """Encode a picture as lossless WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def _image(picture: Image.Image, name: str) -> Row:
    return {"bytes": encode(picture), "path": f"{name}.webp"}


def _prompts(rng: np.random.Generator) -> Iterator[str]:
    seen: set[str] = set()
    while True:
        text = caption(sample(rng, flags=0.05, doubles=0.8), rng)[0]
        if text not in seen:
            seen.add(text)
            yield text


def mini_pairs(
    pipeline: StableDiffusionPipeline, seed: int, steps: int = 16, chunk: int = 100
) -> dict[str, list[Row]]:
    """Make mini-pairs: for each prompt the best and the worst of a few pictures, by the oracle.

    A prompt gives a pair when one of its pictures is entirely right and another, readable one is not.
    """
    rows: dict[str, list[Row]] = {name: [] for name in SPLITS}
    source, made = _prompts(np.random.default_rng((seed, 5))), 0
    while any(len(rows[name]) < count for name, count in SPLITS.items()):
        prompts: list[str] = []
        while len(prompts) < chunk:
            text = next(source)
            if len(rows[split_of(text)]) < SPLITS[split_of(text)]:
                prompts.append(text)
        asked = [p for p in prompts for _ in range(PER_PROMPT)]
        pictures = sample_pictures(pipeline, asked, seed * 100_003 + made, steps=steps, half=True)
        made += 1
        for i, prompt in enumerate(prompts):
            row = _pair(prompt, pictures[i * PER_PROMPT : (i + 1) * PER_PROMPT], f"{made:03d}-{i:03d}")
            name = split_of(prompt)
            if row and len(rows[name]) < SPLITS[name]:
                rows[name].append(row)
    return rows


def _pair(prompt: str, pictures: list[Image.Image], name: str) -> Row | None:
    verdicts = [(judge(prompt, p), p) for p in pictures]
    readable = sorted((v for v in verdicts if v[0].reading.spec), key=lambda v: v[0].score)
    if len(readable) < 2 or not readable[-1][0].right or readable[0][0].right:
        return None
    (worst, rejected), (best, chosen) = readable[0], readable[-1]
    assert best.reading.spec is not None
    assert worst.reading.spec is not None
    return {
        "prompt": prompt,
        "chosen": _image(chosen, f"{name}-chosen"),
        "rejected": _image(rejected, f"{name}-rejected"),
        "chosen_prompt": describe(best.reading.spec),
        "rejected_prompt": describe(worst.reading.spec),
        "margin": best.score - worst.score,
        "scores_chosen": {"oracle": best.score},
        "scores_rejected": {"oracle": worst.score},
        "source": "mini-sd judged by the oracle",
    }


def mini_user_pairs(pipeline: StableDiffusionPipeline, seed: int, steps: int = 16) -> dict[str, list[Row]]:
    """Make mini-user-pairs: users with different tastes choose between pictures of the same prompt."""
    asked = [p for p in USER_PROMPTS for _ in range(PER_USER_PROMPT)]
    pool: dict[str, list[tuple[Spec, Row]]] = {}
    for i, (prompt, picture) in enumerate(
        zip(asked, sample_pictures(pipeline, asked, seed + 17, steps=steps, half=True), strict=True)
    ):
        verdict = judge(prompt, picture)
        if verdict.right and (spec := read(picture).spec):
            pool.setdefault(prompt, []).append((spec, _image(picture, f"{i:04d}")))
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for split in rows:
        for user in user_ids(split):
            rows[split] += list(_choices(user, pool, seed))
    return rows


def _choices(user: str, pool: dict[str, list[tuple[Spec, Row]]], seed: int) -> Iterator[Row]:
    rng, likes, made = np.random.default_rng((seed, int(user[-2:]), 9)), taste(user), 0
    for _ in range(200 * PAIRS_A_USER):
        if made == PAIRS_A_USER:
            return
        prompt = list(pool)[int(rng.integers(len(pool)))]
        pictures = pool[prompt]
        first, second = (pictures[int(i)] for i in rng.choice(len(pictures), 2, replace=False))
        difference = likes.utility(first[0]) - likes.utility(second[0])
        if abs(difference) < MIN_DIFFERENCE:
            continue
        if rng.random() >= likes.prefers(first[0], second[0]):
            first, second = second, first
        made += 1
        yield {
            "prompt": prompt,
            "chosen": first[1],
            "rejected": second[1],
            "chosen_prompt": describe(first[0]),
            "rejected_prompt": describe(second[0]),
            "user_id": user,
            "margin": abs(difference),
            "source": "mini-sd chosen by synthetic users",
        }


PAIRS_CARD = """# mini-pairs

Preference pairs by prompt following. mini-SD made {per} pictures for each prompt ({steps} DDIM steps, guidance 4);
the oracle judged them; where one was entirely right and another readable one was not, the best and the worst by its
graded score make a pair. `chosen_prompt` and `rejected_prompt` are the oracle's captions of the two pictures. A
prompt's split is a function of its words alone. Licence: Apache-2.0.

| split | pairs |
|---|---|
{rows}
"""
USERS_CARD = """# mini-user-pairs

Preference pairs by taste: {users} synthetic users chose between pictures that mini-SD made for under-specified
prompts, each picture right by the oracle. A user's taste is `t2ialign.mini.users.taste(user_id)`: what colours,
backgrounds, sizes and continents are worth to them; a choice follows a logistic law of the difference with slope
{slope}, so some choices go against the taste. The {test} users of the test split are in no other split. Licence:
Apache-2.0.

| split | pairs |
|---|---|
{rows}
"""


def write_sets(pipeline: StableDiffusionPipeline, output: Path, seed: int, steps: int = 16) -> None:
    """Make both sets and write them beside the weights."""
    from t2ialign.data.pairs import write_pairs
    from t2ialign.mini.users import COUNT, STEEPNESS, TEST_COUNT

    made = {
        "mini-pairs": mini_pairs(pipeline, seed, steps),
        "mini-user-pairs": mini_user_pairs(pipeline, seed, steps),
    }
    for name, splits in made.items():
        table = "\n".join(f"| {split} | {len(rows)} |" for split, rows in splits.items())
        template = PAIRS_CARD if name == "mini-pairs" else USERS_CARD
        card = template.format(per=PER_PROMPT, steps=steps, users=COUNT, slope=STEEPNESS, test=TEST_COUNT, rows=table)
        for split, rows in splits.items():
            write_pairs(rows, output / name, split=split, card=card)
