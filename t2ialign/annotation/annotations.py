"""Annotations on disk: what an annotator says of the pictures of each prompt, one line a prompt and pass.

Law of this file: a mark that was not given is null, never filled in; places are places in `images`, whatever the
order in which the pictures were shown.

A folder of annotations holds `annotations.jsonl` (lines as `Annotation.to_dict`), `config.json` (who was asked what,
and `image_set`, the set's path relative to the folder) and `report.json` (counts).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from t2ialign.data.files import read_json_lines
from t2ialign.errors import DataError

FILE = "annotations.jsonl"
ASPECTS = ("prompt_following", "aesthetic", "fidelity", "harmlessness")
"""VisionPrefer's four aspects (arXiv 2404.15100), each rated 1 to 5, 5 being best."""
LOWEST, HIGHEST = 1, 5


@dataclass(frozen=True)
class Annotation:
    """What an annotator said of the k pictures of a prompt, in one pass.

    Attributes:
        prompt_id: Id of the prompt in its image set.
        prompt: Its text.
        images: File names relative to the image set, [k], in the set's order.
        sha256: Of each picture file, [k]; empty strings where unknown.
        permutation: [k]; `permutation[j]` is the place in `images` of the picture that was shown j-th.
        ratings: For each aspect [k] numbers from 1 to 5, or null where none was given. Chat models give whole
            numbers; scorers and averages of passes may give others.
        rationales: For each aspect [k] texts; empty where none was given.
        annotator: Who it was: `oracle`, `openai:MODEL`, `hf:MODEL`, `scorers:a,b`, or a person's user id.
        order: Number of the pass: 0, or 1 for the one in reversed order.
        ok: Whether every aspect of every picture has a rating.
        problem: Why not: `refused`, `unreadable`, `no answer`, ...; empty where ok.
        raw: The answers as they came, of every attempt.
        params: What else the answers depend on: scale, calls, template, temperature, ...
        usage: `calls`, `prompt_tokens`, `completion_tokens`, `cost`; absent keys are unknown.
    """

    prompt_id: str
    prompt: str
    images: list[str]
    permutation: list[int]
    ratings: dict[str, list[float | None]]
    sha256: list[str] = field(default_factory=list)
    rationales: dict[str, list[str]] = field(default_factory=dict)
    annotator: str = ""
    order: int = 0
    ok: bool = True
    problem: str = ""
    raw: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that all lists belong to the same pictures and that ratings lie on the scale."""
        k = len(self.images)
        if sorted(self.permutation) != list(range(k)):
            raise DataError(f"prompt {self.prompt_id!r}: permutation {self.permutation} does not order {k} pictures")
        for aspect, marks in self.ratings.items():
            if len(marks) != k:
                raise DataError(f"prompt {self.prompt_id!r}: {len(marks)} ratings of {aspect} for {k} pictures")
            wrong = [mark for mark in marks if mark is not None and (mark is True or not LOWEST <= mark <= HIGHEST)]
            if wrong:
                raise DataError(f"prompt {self.prompt_id!r}: {aspect} is {wrong[0]}, not from {LOWEST} to {HIGHEST}")

    def to_dict(self) -> dict[str, Any]:
        """Return the line."""
        return asdict(self)

    @classmethod
    def from_dict(cls, line: Mapping[str, Any], where: str = FILE) -> Self:
        """Make an annotation of a line.

        Args:
            line: The parsed line; unknown keys are passed over.
            where: What to call it in an error.

        Raises:
            DataError: If a key is missing or of another type, or the lists do not fit each other.
        """
        known = {each.name for each in fields(cls)}
        try:
            return cls(**{key: value for key, value in line.items() if key in known})
        except (TypeError, AttributeError) as error:
            raise DataError(f"{where}: no annotation ({error})") from error
        except DataError as error:
            raise DataError(f"{where}: {error}") from error


def read_annotations(folder: str | Path) -> list[Annotation]:
    """Read all annotations of a folder, in the file's order.

    Raises:
        DataError: If there is no such file, or a line is no annotation.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise DataError(f"{Path(folder)} holds no annotations: {FILE} is missing")
    return [Annotation.from_dict(line, f"{path}, line {number}") for number, line in read_json_lines(path)]


def image_set_of(folder: str | Path) -> Path:
    """Return the folder of the image set that was annotated, by `config.json`.

    Raises:
        DataError: If it is not written there.
    """
    path = Path(folder) / "config.json"
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["image_set"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not say which image set was annotated; name it") from error
    return Path(os.path.normpath(Path(folder) / name))
