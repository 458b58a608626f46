"""Image sets, annotations and scores of them, written plainly; and pairs read back as numbers of pictures.

Law: nothing of t2ialign has a hand in what is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from helpers.pair_sets import encoded
from t2ialign.annotation.pair_rules import REASONS
from t2ialign.data.pairs import load_pairs

Ratings = dict[str, list[float | None]]


def name_of(prompt: int, sample: int) -> str:
    return f"images/{prompt:06d}/{sample:04d}.png"


def image_set(path: Path, prompts: int = 3, samples: int = 4) -> Path:
    """An image set, written plainly; picture s of prompt p is number 100 p + s."""
    lines = []
    for prompt in range(prompts):
        for sample in range(samples):
            file = path / name_of(prompt, sample)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(100 * prompt + sample))
            line = {"file_name": name_of(prompt, sample), "prompt_id": f"p{prompt}", "prompt": f"prompt {prompt}"}
            lines.append(json.dumps({**line, "sample": sample}) + "\n")
    (path / "metadata.jsonl").write_text("".join(lines))
    return path


def line(prompt: int, ratings: Ratings, samples: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """An annotation of the pictures of a prompt."""
    places = samples if samples is not None else list(range(len(next(iter(ratings.values())))))
    made = {"prompt_id": f"p{prompt}", "prompt": f"prompt {prompt}", "images": [name_of(prompt, s) for s in places]}
    return {**made, "permutation": list(range(len(places))), "ratings": ratings, "annotator": "x", **more}


def annotated(path: Path, lines: list[dict[str, Any]], root: Path) -> Path:
    """A folder of annotations."""
    path.mkdir(parents=True)
    (path / "annotations.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (path / "config.json").write_text(json.dumps({"image_set": os.path.relpath(root, path)}))
    return path


def scored(root: Path, scores: dict[str, dict[str, float]], path: Path | None = None, **infos: Any) -> Path:
    """A score file: scorer, then picture, then score."""
    path = path or root / "scores.parquet"
    rows = [(name, scorer, score) for scorer, each in scores.items() for name, score in each.items()]
    base = os.path.relpath(root, path.parent)
    columns = {
        "file_name": [os.path.normpath(f"{base}/{name}") for name, _, _ in rows],
        "prompt_id": [f"p{int(name.split('/')[1])}" for name, _, _ in rows],
        "sample": [int(Path(name).stem) for name, _, _ in rows],
        "scorer": [scorer for _, scorer, _ in rows],
        "version": ["1"] * len(rows),
        "score": [score for _, _, score in rows],
    }
    pq.write_table(pa.table(columns), path)
    for scorer, info in infos.items():
        (path.parent / f"{path.stem}.{scorer}.json").write_text(
            json.dumps({"scorer": scorer, "versions": {"1": info}})
        )
    return path


def number(data: bytes) -> int:
    """Which picture of the set this is."""
    return NUMBERS[hashlib.sha256(data).hexdigest()]


NUMBERS = {hashlib.sha256(encoded(n)).hexdigest(): n for n in range(1000)}


def told(path: Path, split: str = "train") -> set[tuple[str, int, int]]:
    """(prompt, chosen, rejected) of each pair."""
    pairs = load_pairs(path, split=split, ties="keep")
    sides = [[number(pairs.encoded(n, side)) for n in range(len(pairs))] for side in ("chosen", "rejected")]
    return set(zip(pairs.prompts, *sides, strict=True))


def adds_up(content: dict[str, Any]) -> None:
    """Candidates are those written and those dropped, in all, by aspect and by user."""
    assert content["candidates"] == content["written"] + sum(content["dropped"].values())
    for group in (content["by_aspect"], content["by_user"]):
        for each in group.values():
            assert each["candidates"] == each["written"] + sum(each["dropped"].values())
        if group:
            for name in ("candidates", "written"):
                assert sum(each[name] for each in group.values()) == content[name]
    assert set(content["dropped"]) <= set(REASONS)
    assert sum(each["pairs"] for each in content["splits"].values()) == content["written"]
