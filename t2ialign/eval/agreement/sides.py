"""The two sides of an agreement: what an annotator said, and what it is held against, by prompt and picture file.

Law of this file: a picture is known by its prompt's text and the digest of its file, never by its place or name; what
finds no partner is counted.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from t2ialign.annotation.annotations import FILE, Annotation, image_set_of, read_annotations
from t2ialign.data.files import inside
from t2ialign.errors import DataError

AGGREGATE = "aggregate"
"""The mean of all aspects of a picture; it has none where an aspect is missing."""
OVERALL = "overall"
"""What pairs judge that name no aspect."""


class Key(NamedTuple):
    """A picture: the prompt it was made for, blanks folded, and the sha256 of its file."""

    prompt: str
    digest: str


Ratings = dict[str, dict[Key, float]]
"""Aspect to picture to rating."""


def fold(prompt: str) -> str:
    """Return a prompt with single blanks."""
    return " ".join(prompt.split())


@dataclass
class Rated:
    """A folder of annotations.

    Attributes:
        name: Name of the folder.
        annotations: All of its lines that could be used.
        keys: The pictures of each line, in the order of its `images`.
        ratings: Means over passes and annotators.
        by_annotator: Means over passes.
        rationales: Texts by aspect and picture, in the order of the lines.
        files: Where the picture files are, as far as they are there.
        unknown: Pictures without a digest, whose file is not there either.
    """

    name: str
    annotations: list[Annotation] = field(default_factory=list)
    keys: list[list[Key | None]] = field(default_factory=list)
    ratings: Ratings = field(default_factory=dict)
    by_annotator: dict[str, Ratings] = field(default_factory=dict)
    rationales: dict[str, dict[Key, list[str]]] = field(default_factory=dict)
    files: dict[Key, Path] = field(default_factory=dict)
    unknown: int = 0

    @property
    def aspects(self) -> list[str]:
        """The aspects that were rated, without the aggregate."""
        return [aspect for aspect in self.ratings if aspect != AGGREGATE]


def read_rated(
    folder: str | Path, *, images: Path | None = None, annotator: str | None = None, first_pass: bool = False
) -> Rated:
    """Read a folder of annotations.

    Args:
        folder: With `annotations.jsonl`.
        images: The image set; by default the one that `config.json` names.
        annotator: Take the lines of this annotator alone.
        first_pass: Leave out later passes.

    Raises:
        DataError: If there are no annotations, or none of that annotator, or nothing was rated.
    """
    path = Path(folder)
    found = read_annotations(path)
    lines = [a for a in found if annotator in (None, a.annotator) and not (first_pass and a.order)]
    if annotator is not None and not lines:
        known = sorted({each.annotator for each in found})
        raise DataError(f"{path} has nothing of the annotator {annotator!r}; it has {', '.join(known) or 'none'}")
    rated = Rated(path.resolve().name, lines)
    root = _root(path, images)
    digests: dict[str, str] = {}
    for line in lines:
        rated.keys.append([_key(line, place, root, rated, digests) for place in range(len(line.images))])
    _fill(rated)
    if not rated.ratings:
        raise DataError(f"{path}: no picture has a rating; nothing can be compared")
    return rated


def _root(folder: Path, images: Path | None) -> Path | None:
    if images is not None:
        if not images.is_dir():
            raise DataError(f"there is no image set {images}")
        return images
    try:
        root = image_set_of(folder)
    except DataError:
        return None
    return root if root.is_dir() else None


def _key(line: Annotation, place: int, root: Path | None, rated: Rated, digests: dict[str, str]) -> Key | None:
    """Return a picture's key, and note where its file is."""
    name = line.images[place]
    path = None if root is None else inside(root, name)
    there = path if path is not None and path.is_file() else None
    digest = line.sha256[place] if place < len(line.sha256) else ""
    if not digest and there is not None:
        digest = digests.setdefault(name, "") or hashlib.sha256(there.read_bytes()).hexdigest()
        digests[name] = digest
    if not digest:
        rated.unknown += 1
        return None
    key = Key(fold(line.prompt), digest)
    if there is not None:
        rated.files[key] = there
    return key


def _fill(rated: Rated) -> None:
    """Take the means over passes, then over annotators, and the aggregates."""
    passes: dict[tuple[str, str, Key], list[float]] = defaultdict(list)
    aspects: dict[str, None] = {}
    for line, keys in zip(rated.annotations, rated.keys, strict=True):
        for aspect, marks in line.ratings.items():
            aspects[aspect] = None
            for key, mark in zip(keys, marks, strict=True):
                if key is not None and mark is not None:
                    passes[line.annotator, aspect, key].append(float(mark))
        for aspect, texts in line.rationales.items():
            for key, text in zip(keys, texts, strict=False):
                if key is not None and text:
                    rated.rationales.setdefault(aspect, {}).setdefault(key, []).append(text)
    several: dict[tuple[str, Key], list[float]] = defaultdict(list)
    for (who, aspect, key), values in passes.items():
        mean = sum(values) / len(values)
        rated.by_annotator.setdefault(who, {}).setdefault(aspect, {})[key] = mean
        several[aspect, key].append(mean)
    for (aspect, key), values in several.items():
        rated.ratings.setdefault(aspect, {})[key] = sum(values) / len(values)
    rated.ratings = {aspect: rated.ratings[aspect] for aspect in aspects if aspect in rated.ratings}
    rated_aspects = list(rated.ratings)
    for ratings in (rated.ratings, *rated.by_annotator.values()):
        _aggregate(ratings, rated_aspects)


def _aggregate(ratings: Ratings, aspects: Sequence[str]) -> None:
    if not aspects or any(aspect not in ratings for aspect in aspects):
        return
    whole = set.intersection(*(set(ratings[aspect]) for aspect in aspects))
    if whole:
        ordered = [key for key in ratings[aspects[0]] if key in whole]
        ratings[AGGREGATE] = {key: sum(ratings[a][key] for a in aspects) / len(aspects) for key in ordered}


@dataclass(frozen=True)
class Verdict:
    """What somebody prefers of two pictures.

    Attributes:
        first: One picture; its digest is the lower one.
        second: The other, of the same prompt.
        label: 1 where the first is preferred, 0 the second, 0.5 neither.
        aspect: What was judged.
        user: By whom; empty where unknown.
    """

    first: Key
    second: Key
    label: float
    aspect: str
    user: str = ""


def rated_verdicts(ratings: dict[Key, float], aspect: str) -> Iterator[Verdict]:
    """Yield a verdict for every two rated pictures of a prompt."""
    prompts: dict[str, list[Key]] = defaultdict(list)
    for key in ratings:
        prompts[key.prompt].append(key)
    for keys in prompts.values():
        for first, second in combinations(sorted(keys), 2):
            yield Verdict(first, second, sign_label(ratings[first] - ratings[second]), aspect)


def sign_label(margin: float) -> float:
    """Return 1, 0 or 0.5 for a margin above, below or at 0; differences of rounding are ties."""
    return 0.5 if abs(margin) < 1e-9 else float(margin > 0)


@dataclass
class Judged:
    """A set of preference pairs.

    Attributes:
        name: What it is called.
        verdicts: Its pairs, ties included.
        same: Pairs of a picture with itself, which were left out.
        pairs: The set, for its pictures.
        places: Row and side of a picture.
    """

    name: str
    verdicts: list[Verdict] = field(default_factory=list)
    same: int = 0
    pairs: Any = None
    places: dict[Key, tuple[int, str]] = field(default_factory=dict)


def read_judged(source: str | Path, *, split: str = "train", user: str | None = None) -> Judged:
    """Read preference pairs; pictures are hashed, not decoded.

    Args:
        source: What `load_pairs` reads.
        split: Which split.
        user: Take the pairs of this user alone.

    Raises:
        DataError: If it can not be read, or has no pair of that user.
    """
    from t2ialign.data.pairs import load_pairs

    pairs = load_pairs(source, split=split, ties="keep")
    judged = Judged(Path(str(source)).name, pairs=pairs)
    columns = [pairs.column(name) for name in ("user_id", "preference_prob", "aspect")]
    for number, (prompt, who, likely, aspect) in enumerate(zip(pairs.prompts, *columns, strict=True)):
        if user is not None and who != user:
            continue
        sides = [
            Key(fold(prompt), hashlib.sha256(pairs.encoded(number, s)).hexdigest()) for s in ("chosen", "rejected")
        ]
        for key, side in zip(sides, ("chosen", "rejected"), strict=True):
            judged.places.setdefault(key, (number, side))
        if sides[0] == sides[1]:
            judged.same += 1
            continue
        label = 0.5 if likely == 0.5 else float(sides[0] < sides[1])
        first, second = sorted(sides)
        what = OVERALL if aspect in (None, "", OVERALL, AGGREGATE) else str(aspect)
        judged.verdicts.append(Verdict(first, second, label, what, who or ""))
    if not judged.verdicts:
        whose = f" of the user {user!r}" if user is not None else ""
        raise DataError(f"{judged.name} has no pair{whose}")
    return judged


def is_annotations(source: str | Path) -> bool:
    """Tell whether a source is a folder of annotations."""
    return (Path(source) / FILE).is_file()


def codes(values: Iterable[float]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return ratings as codes 0 to 4; what lies between two whole numbers goes to the nearer, halves up."""
    return np.floor(np.array(list(values), dtype=np.float64) + 0.5).astype(np.int64) - 1


def verdict_code(label: float) -> int:
    """Return 0, 1, 2 for: the second is preferred, neither, the first."""
    return round(2 * label)


__all__ = [
    "AGGREGATE",
    "OVERALL",
    "Judged",
    "Key",
    "Rated",
    "Ratings",
    "Verdict",
    "codes",
    "fold",
    "is_annotations",
    "rated_verdicts",
    "read_judged",
    "read_rated",
    "sign_label",
    "verdict_code",
]
