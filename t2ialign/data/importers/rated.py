"""Ratings of pictures by aspect, whichever of two forms they come in, and the pairs that follow from them.

Law of this file: a rating is a number from 1 to 5, or none; "N/A", an empty text and whatever is no such number are
none and are counted, never filled in. Of two pictures the one rated higher is preferred in that aspect, equal ratings
tie, and the aggregate is the mean over all aspects, where both pictures have every one (VisionPrefer, arXiv
2404.15100).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from t2ialign.data.columns import TIE
from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions, Row
from t2ialign.data.importers.listed import Listed, first_of, open_listed, text_or_none
from t2ialign.errors import DataError

AGGREGATE = "aggregate"
LOWEST, HIGHEST = 1, 5
"""The scale of VisionPrefer's and UltraFeedback's ratings."""
COLUMNS = (
    "prompt",
    "chosen",
    "rejected",
    "user_id",
    "preference_prob",
    "margin",
    "aspect",
    "scores_chosen",
    "scores_rejected",
    "source",
)
PICTURES = ("file_name", "image", "image_path", "path", "image_id")
RATINGS, RATIONALES = ("rating", "score"), ("rationale", "rationale for rating", "reason")


@dataclass
class RatedPicture:
    """A picture and what was said of it.

    Attributes:
        name: Its path as the file gives it.
        place: Where it is; `None` where the path can not be.
        ratings: By aspect; `None` where none was given.
        rationales: By aspect.
        model: Who made it.
        unusable: Values given as ratings that are none.
    """

    name: str
    place: Path | None
    ratings: dict[str, float | None] = field(default_factory=dict)
    rationales: dict[str, str] = field(default_factory=dict)
    model: str = ""
    unusable: int = 0


@dataclass
class RatedPrompt:
    """A prompt with its rated pictures.

    Attributes:
        where: Where it stands in the file.
        prompt_id: Its id; by default its number in the file.
        prompt: The text.
        pictures: Its pictures.
        annotator: Who rated them; empty where unknown.
        entry: The entry as it came.
    """

    where: str
    prompt_id: str
    prompt: str
    pictures: list[RatedPicture]
    annotator: str
    entry: Mapping[str, Any]

    @property
    def aspects(self) -> list[str]:
        """All aspects that any picture has, in the order in which they first come."""
        return list(dict.fromkeys(aspect for picture in self.pictures for aspect in picture.ratings))


def aspect_name(text: object) -> str:
    """Return the name of an aspect as we write it: `Prompt-Following` is `prompt_following`."""
    return re.sub(r"[^a-z0-9.@]+", "_", str(text).lower()).strip("_")


def rating_of(value: Any) -> float | None:
    """Return a rating, or `None` where it is none: `4`, `"4"`, `" 4.0"`, but neither `"N/A"` nor `7`."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return number if LOWEST <= number <= HIGHEST else None


def read_prompts(
    source: str | Path, options: ImportOptions, pictures: Callable[[Mapping[str, Any]], Any], prompts: tuple[str, ...]
) -> Iterator[RatedPrompt | Dropped]:
    """Read rated prompts.

    Args:
        source: JSON lines or a JSON list.
        options: What the importer was told.
        pictures: From an entry to its list of pictures, each a mapping with `marks` put in by the format.
        prompts: Names of the key that holds the prompt.

    Yields:
        Each prompt, or why it is left out.

    Raises:
        DataError: If the file can not be read.
    """
    listed = open_listed(source, options, ("annotations.jsonl", "ratings.jsonl", "data.jsonl"))
    for number, (where, entry) in enumerate(listed.entries):
        prompt, found = first_of(entry, prompts), pictures(entry)
        if not isinstance(prompt, str) or not prompt.strip():
            yield Dropped("empty prompt", where)
        elif not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
            yield Dropped("no list of pictures", where)
        elif len(found) < 2:
            yield Dropped("fewer than two pictures", where)
        else:
            rated = [_picture(listed, each) for each in found]
            prompt_id = text_or_none(first_of(entry, ("prompt_id", "id"))) or f"{listed.path.stem}-{number:06d}"
            who = text_or_none(first_of(entry, ("annotator", "user_id"))) or ""
            yield RatedPrompt(where, prompt_id, prompt, rated, who, entry)


def _picture(listed: Listed, found: Mapping[str, Any]) -> RatedPicture:
    name = first_of(found, PICTURES)
    picture = RatedPicture(str(name), _place(listed, name), model=str(found.get("model") or ""))
    marks = first_of(found, ("annotations", "ratings", "scores"))
    for title, mark in marks.items() if isinstance(marks, Mapping) else ():
        aspect = aspect_name(title)
        mark = mark[0] if isinstance(mark, list) and len(mark) == 1 else mark
        known = {str(key).lower(): value for key, value in mark.items()} if isinstance(mark, Mapping) else {}
        value = first_of(known, RATINGS) if isinstance(mark, Mapping) else mark
        picture.ratings[aspect] = rating_of(value)
        picture.unusable += value is not None and picture.ratings[aspect] is None
        if text := first_of(known, RATIONALES):
            picture.rationales[aspect] = str(text)
    texts = found.get("rationales")
    for title, text in texts.items() if isinstance(texts, Mapping) else ():
        if text:
            picture.rationales.setdefault(aspect_name(title), str(text))
    return picture


def _place(listed: Listed, name: Any) -> Path | None:
    try:
        return listed.picture(name)
    except DataError:
        return None


def pairs_of(rated: RatedPrompt, options: ImportOptions, source: str) -> Iterator[Candidate]:
    """Yield a pair for every two pictures in every aspect and in the aggregate, or the reason to leave it out.

    Args:
        rated: The prompt.
        options: What the importer was told.
        source: What the column `source` says.
    """
    reason = options.unsafe.reason(rated.prompt, rated.entry)
    aspects = rated.aspects
    for aspect in [*aspects, *([AGGREGATE] if len(aspects) > 1 else [])]:
        for i, j in combinations(range(len(rated.pictures)), 2):
            here = f"{rated.where}, {aspect}, pictures {i} and {j}"
            if reason:
                yield Dropped(reason, here)
            else:
                yield _pair(rated, aspect, (rated.pictures[i], rated.pictures[j]), options, here, source)
    if not aspects:
        yield Dropped("no ratings", rated.where)


def _pair(
    rated: RatedPrompt,
    aspect: str,
    two: tuple[RatedPicture, RatedPicture],
    options: ImportOptions,
    where: str,
    source: str,
) -> Candidate:
    marks = [_mark(picture, aspect, rated.aspects) for picture in two]
    if marks[0] is None or marks[1] is None:
        return Dropped("a rating is missing", where)
    margin = marks[0] - marks[1]
    tie = abs(margin) < 1e-9
    if tie and options.ties == "drop":
        return Dropped("tie", where)
    chosen, rejected = two if margin >= 0 else two[::-1]
    if chosen.place is None or rejected.place is None:
        return Dropped("unreadable picture", where)
    values: dict[str, Any] = {
        "prompt": rated.prompt,
        "chosen": chosen.place,
        "rejected": rejected.place,
        "user_id": rated.annotator or None,
        "preference_prob": TIE if tie else None,
        "margin": abs(margin),
        "aspect": aspect,
        "scores_chosen": _scores(chosen),
        "scores_rejected": _scores(rejected),
        "source": source,
    }
    return Row(values, where, ("ties kept",) if tie else ())


def _mark(picture: RatedPicture, aspect: str, aspects: list[str]) -> float | None:
    if aspect != AGGREGATE:
        return picture.ratings.get(aspect)
    marks = [mark for each in aspects if (mark := picture.ratings.get(each)) is not None]
    return sum(marks) / len(marks) if len(marks) == len(aspects) else None


def _scores(picture: RatedPicture) -> dict[str, float]:
    return {aspect: mark for aspect, mark in picture.ratings.items() if mark is not None}
