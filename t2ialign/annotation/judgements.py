"""Judgements: marks of pictures, brought to one form from folders of annotations or from scores of image sets.

Law of this file: a picture is known by the SHA-256 of its file, wherever it lies and whatever it is called; what is
read does not depend on the order of lines or of folders; a mark that is not there is `None`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from t2ialign.annotation.annotations import ASPECTS, Annotation, image_set_of, read_annotations
from t2ialign.data.files import inside
from t2ialign.errors import DataError

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord

UNNAMED = "unnamed"
"""Stands for an annotator without a name."""
SCORES = "scores"
"""The kind of source, and the name of the annotator, where marks are scores."""
RATINGS = "ratings"


@dataclass(frozen=True)
class Judgement:
    """What an annotator said of the pictures of a prompt in one pass.

    Attributes:
        prompt_id: Id of the prompt.
        prompt: Its text.
        voice: The annotator.
        order: Number of the pass.
        pictures: SHA-256 of each picture, [k]; `missing:NAME` where the file is not there.
        marks: For each aspect the marks, [k].
    """

    prompt_id: str
    prompt: str
    voice: str
    order: int
    pictures: tuple[str, ...]
    marks: Mapping[str, tuple[float | None, ...]]

    def of(self, place: int) -> dict[str, float | None]:
        """Return the marks of one picture by aspect."""
        return {aspect: marks[place] for aspect, marks in self.marks.items()}

    def key(self) -> str:
        """Return all of it as text, the same whatever the order of the pictures."""
        order = sorted(range(len(self.pictures)), key=lambda place: (self.pictures[place], place))
        rows = [[self.pictures[place], sorted(self.of(place).items())] for place in order]
        return json.dumps([self.prompt_id, self.prompt, self.voice, self.order, rows], ensure_ascii=False)


@dataclass
class Judgements:
    """All that was read.

    Attributes:
        kind: `ratings` or `scores`.
        found: The judgements, sorted.
        files: A file of each picture that is there, by SHA-256.
        twice: Annotators that were asked in two orders.
        lower_is_better: Aspects of which less is better.
        repeated: Lines that say again what another line of the same folder says.
        names: What the sources are called, sorted.
    """

    kind: str
    found: list[Judgement] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    twice: frozenset[str] = frozenset()
    lower_is_better: frozenset[str] = frozenset()
    repeated: int = 0
    names: list[str] = field(default_factory=list)

    @property
    def aspects(self) -> list[str]:
        """The aspects that have a mark anywhere, sorted; VisionPrefer's four first."""
        given = {aspect for each in self.found for aspect, marks in each.marks.items() if set(marks) - {None}}
        known = [aspect for aspect in ASPECTS if aspect in given]
        return known + sorted(given - set(known))

    @property
    def voices(self) -> list[str]:
        """The annotators, sorted."""
        return sorted({each.voice for each in self.found})

    def fingerprint(self) -> str:
        """Return a digest of all marks and pictures, whatever the order in which they were read."""
        digest = hashlib.sha256()
        for key in sorted(each.key() for each in self.found):
            digest.update(key.encode("utf-8", "surrogatepass") + b"\n")
        digest.update(json.dumps([sorted(self.lower_is_better), sorted(self.files)]).encode())
        return digest.hexdigest()

    def file(self, picture: str) -> Path:
        """Return the file of a picture."""
        return self.files[picture]

    def read(self, picture: str) -> bytes:
        """Read a picture's file.

        Raises:
            DataError: If it is not the one that was judged.
        """
        path = self.files[picture]
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != picture:
            raise DataError(f"{path} is not the picture that was judged: it changed since; judge it again")
        return data


def read_ratings(folders: Sequence[Path], image_set: Path | None = None) -> Judgements:
    """Read folders of annotations.

    Args:
        folders: One or more.
        image_set: The set that was annotated; by default what each folder's `config.json` says.

    Raises:
        DataError: If a folder can not be read, or says two things of the same pictures in the same pass.
    """
    result = Judgements(RATINGS, names=sorted(folder.resolve().name for folder in folders))
    twice: set[str] = set()
    for folder in folders:
        root = image_set if image_set is not None else image_set_of(folder)
        if not root.is_dir():
            raise DataError(f"the image set {root} of {folder} is not there; say where it is with --image_set")
        known: dict[str, str] = {}
        orders: dict[str, set[int]] = {}
        there: dict[str, Judgement] = {}
        for line in read_annotations(folder):
            judgement = _rated(line, root, known, result.files)
            orders.setdefault(judgement.voice, set()).add(judgement.order)
            place = json.dumps([judgement.prompt_id, judgement.voice, judgement.order, sorted(judgement.pictures)])
            other = there.setdefault(place, judgement)
            if other is not judgement:
                result.repeated += 1
                if other.key() != judgement.key():
                    raise DataError(
                        f"{folder}: {judgement.voice} says two things of prompt {judgement.prompt_id!r} in pass "
                        f"{judgement.order}; remove one of the lines"
                    )
        result.found += there.values()
        twice |= {voice for voice, seen in orders.items() if len(seen) > 1}
    result.twice = frozenset(twice)
    result.found.sort(key=Judgement.key)
    return result


def _rated(line: Annotation, root: Path, known: dict[str, str], files: dict[str, Path]) -> Judgement:
    digests = line.sha256 if len(line.sha256) == len(line.images) else [""] * len(line.images)
    pictures = tuple(
        _digest_of(root, name, digest, known, files) for name, digest in zip(line.images, digests, strict=True)
    )
    marks = {aspect: tuple(given) for aspect, given in line.ratings.items()}
    return Judgement(line.prompt_id, line.prompt, line.annotator or UNNAMED, line.order, pictures, marks)


def _digest_of(root: Path, name: str, digest: str, known: dict[str, str], files: dict[str, Path]) -> str:
    """Return what a picture is known by; its file is looked at once, and read where its digest is not known."""
    key = f"{name}\0{digest}"
    if key not in known:
        path = inside(root, name)
        if not path.is_file():
            known[key] = f"missing:{root.resolve().name}/{name}"
        else:
            known[key] = digest or hashlib.sha256(path.read_bytes()).hexdigest()
            files[known[key]] = min(files.get(known[key], path), path)
    return known[key]


def read_scores(sets: Sequence[Path], scores: Path | None = None) -> Judgements:
    """Read image sets with the scores of their pictures; the pictures of one prompt of all sets are judged together.

    Args:
        sets: Image sets in any layout.
        scores: Their score file; by default `scores.parquet` in each.

    Returns:
        One judgement a prompt. An aspect is a scorer's name; `NAME:VERSION` where there are several versions.

    Raises:
        DataError: If a set or its scores are absent, or a picture changed since it was scored.
    """
    from t2ialign.data.layouts import open_set

    result = Judgements(SCORES, names=sorted(folder.resolve().name for folder in sets))
    prompts: dict[tuple[str, str], list[tuple[str, dict[Kind, float]]]] = {}
    lower: set[Kind] = set()
    for folder in sets:
        records = open_set(folder).records
        given = _scores_of(folder, records, scores or folder / "scores.parquet", lower)
        known: dict[str, str] = {}
        for record in records:
            picture = _digest_of(folder, record.file_name, record.sha256, known, result.files)
            prompts.setdefault((record.prompt_id, record.prompt), []).append((picture, given[record.file_name]))
    kinds = {kind for rows in prompts.values() for _, found in rows for kind in found}
    names = _names(kinds)
    result.lower_is_better = frozenset(names[kind] for kind in lower & kinds)
    for (prompt_id, prompt), rows in prompts.items():
        pictures = tuple(picture for picture, _ in rows)
        marks = {names[kind]: tuple(found.get(kind) for _, found in rows) for kind in kinds}
        result.found.append(Judgement(prompt_id, prompt, SCORES, 0, pictures, marks))
    result.found.sort(key=Judgement.key)
    return result


Kind = tuple[str, str]
"""A scorer and its version."""


def _names(kinds: Iterable[Kind]) -> dict[Kind, str]:
    """Name each scorer; with its version where there are several."""
    ordered = sorted(kinds)
    named: dict[Kind, str] = {}
    for scorer, versions in groupby(ordered, key=lambda kind: kind[0]):
        each = list(versions)
        named |= {kind: scorer if len(each) == 1 else f"{scorer}:{kind[1]}" for kind in each}
    return named


def _scores_of(
    folder: Path, records: Sequence[ImageRecord], path: Path, lower: set[Kind]
) -> dict[str, dict[Kind, float]]:
    """Return the scores of each picture of a set by file name; add to `lower` the scorers of which less is better."""
    from t2ialign.reward_models.score_files import ScoreTable, read_infos

    if not path.is_file():
        raise DataError(f"there is no score file {path}; run: t2ialign score {folder} --with clipscore")
    table = ScoreTable.read(path)
    names = table.names_in(folder, (record.file_name for record in records))
    ours = {name: record for record in records for name in [names[record.file_name]]}
    found: dict[str, dict[Kind, float]] = {record.file_name: {} for record in records}
    for (name, scorer, version), row in table.rows.items():
        record = ours.get(name)
        if record is None or row.score is None or not math.isfinite(row.score):
            continue
        scored = table.digests.get(name, "")
        if scored and record.sha256 and scored != record.sha256:
            raise DataError(f"{folder}/{record.file_name} changed since it was scored; run t2ialign score again")
        found[record.file_name][scorer, version] = row.score
    if not any(found.values()):
        raise DataError(f"{path} has no score of any picture of {folder}; run: t2ialign score {folder}")
    for scorer, version in {kind for each in found.values() for kind in each}:
        if not read_infos(path, scorer).get(version, {}).get("higher_is_better", True):
            lower.add((scorer, version))
    return found
