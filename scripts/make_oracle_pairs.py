"""More of mini-SD's pairs by the oracle than are packaged, for training a scorer and for a test set of its own.

    python scripts/make_oracle_pairs.py --output_dir runs/oracle-pairs

Made as the packaged `mini-pairs` (`mini_sd/make_pairs.py`): three pictures a prompt, best against worst. A prompt's
split is a function of its words, and prompts of the packaged set are passed over, so nothing in the new test split
was ever trained or chosen on. `--drawn` adds pairs to the train split that cost next to nothing: drawings of the
world, one as the prompt asks and one with a mistake, softened a little and judged by the oracle as the others. It
saves as it goes and continues where it was stopped; only prompts of a split that is not full yet are drawn, so other
counts give other pictures.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageFilter

from mini_sd.make_pairs import PER_PROMPT, Row, _pair, _prompts
from mini_sd.pictures import caption
from mini_sd.sampling import load, sample_pictures
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.mini import ASSETS
from t2ialign.mini.world import Spec, render, sample, split_of

SPLITS = {"train": 800, "validation": 200, "test": 400}
CHUNK = 100
CARD = """# Pairs of mini-SD by the oracle

Made by `scripts/make_oracle_pairs.py --seed {seed}`: as the packaged mini-pairs, from other prompts, and {drawn}
of the train split from drawings of the world.
"""
logger = logging.getLogger(__name__)


def chunks(seed: int) -> Iterator[list[str]]:
    """Prompts that the packaged set does not have, for ever, in chunks; a prompt comes once."""
    known = {text for split in SPLITS for text in load_pairs("mini-pairs", split=split).column("prompt")}
    fresh = (text for text in _prompts(np.random.default_rng((seed, 5))) if text not in known)
    while True:
        yield list(itertools.islice(fresh, CHUNK))


def make(output: Path, seed: int, counts: dict[str, int], more: int, steps: int = 16) -> None:
    """Make chunk after chunk until every split is full, then write the set."""
    parts = output / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    pipeline = load(str(ASSETS / "mini-sd"))
    rows: dict[str, list[Row]] = {name: [] for name in counts}
    for number, prompts in enumerate(chunks(seed)):
        if all(len(rows[name]) >= count for name, count in counts.items()):
            break
        wanted = [text for text in prompts if len(rows[split_of(text)]) < counts[split_of(text)]]
        for row in part(parts / f"{number:05d}.parquet", pipeline, wanted, seed * 100_003 + number, steps):
            rows[split_of(row["prompt"])].append(row)
        logger.info("%d: %s", number, {name: len(each) for name, each in rows.items()})
    rows["train"] = rows["train"][: counts["train"]] + list(drawn(more, seed))
    for name, count in (counts | {"train": counts["train"] + more}).items():
        write_pairs(rows[name][:count], output / "pairs", split=name, card=CARD.format(seed=seed, drawn=more))


def part(file: Path, pipeline: StableDiffusionPipeline, prompts: list[str], seed: int, steps: int) -> list[Row]:
    """Read the pairs of a chunk, made first where they are not there yet."""
    if not file.is_file():
        asked = [text for text in prompts for _ in range(PER_PROMPT)]
        pictures = sample_pictures(pipeline, asked, seed, steps=steps, half=True)
        spans = [pictures[i * PER_PROMPT : (i + 1) * PER_PROMPT] for i in range(len(prompts))]
        made = [
            _pair(text, each, f"{file.stem}-{i:03d}")
            for i, (text, each) in enumerate(zip(prompts, spans, strict=True))
        ]
        aside = file.with_suffix(".aside")
        pq.write_table(pa.Table.from_pylist([row for row in made if row]), aside)
        aside.replace(file)
    return list(pq.read_table(file).to_pylist())


def mistaken(spec: Spec, rng: np.random.Generator) -> Spec:
    """Tell a scene with one mistake: the relation turned round, the colours exchanged, or one attribute another."""
    if spec.relation is not None and rng.random() < 2 / 3:
        first, second = spec.things
        if rng.random() < 0.5:
            return replace(
                spec, things=(replace(first, x=second.x, y=second.y), replace(second, x=first.x, y=first.y))
            )
        return replace(spec, things=(replace(first, color=second.color), replace(second, color=first.color)))
    which = int(rng.integers(len(spec.things)))
    thing, other = spec.things[which], sample(rng, flags=0.0, doubles=float(len(spec.things) == 2))
    kind = ("shape", "color", "size", "background")[int(rng.integers(4))]
    if kind == "background":
        return replace(spec, background=other.background)
    changed = replace(thing, **{kind: getattr(other.things[which], kind)})
    return replace(spec, things=tuple(changed if i == which else each for i, each in enumerate(spec.things)))


def drawn(count: int, seed: int, chunk: int = 200) -> Iterator[Row]:
    """Draw pairs for train prompts; the law of a pair is that of `mini_sd.make_pairs`: one entirely right, one not."""
    made, rng = 0, np.random.default_rng((seed, 11))
    while made < count:
        specs = [sample(rng, flags=0.0, doubles=0.8) for _ in range(chunk)]
        asked = [caption(spec, rng)[0] for spec in specs]
        told = [(text, (render(spec), render(mistaken(spec, rng)))) for text, spec in zip(asked, specs, strict=True)]
        for text, sides in told:
            kept = split_of(text) == "train" and made < count
            row = _pair(text, [worn(side, rng) for side in sides], f"drawn-{made:05d}") if kept else None
            if row:
                made += 1
                yield row | {"source": "drawn by the world, judged by the oracle"}


def worn(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Soften a drawing a little, as an autoencoder does."""
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.7))))


def main() -> None:
    """Parse and make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    for name, count in SPLITS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help="pairs")
    parser.add_argument("--drawn", type=int, default=6000, help="pairs of drawings in the train split")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(given.threads)
    make(given.output_dir, given.seed, {name: getattr(given, name) for name in SPLITS}, given.drawn)


if __name__ == "__main__":
    main()
