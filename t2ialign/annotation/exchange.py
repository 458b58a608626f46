"""Annotations from and to the files of others: VisionPrefer-style and UltraFeedback-style JSON lines.

Law of this file: what is exported and imported again is the same annotation, its order of showing and its pass
included; a rating that is none stays null; a prompt that can not be taken over is counted, with the reason.

An import is a folder of annotations with its own image set:

    OUT/annotations.jsonl  OUT/config.json  OUT/report.json  OUT/set/metadata.jsonl  OUT/set/images/000000/0000.png

An export is `annotations.jsonl` in the other form, and `images/`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2ialign.annotation.annotations import FILE, Annotation, image_set_of, read_annotations
from t2ialign.config.fields import nearest
from t2ialign.data.files import inside, write_json
from t2ialign.data.image_sets import ImageRecord
from t2ialign.data.images import peek
from t2ialign.data.importers.base import Dropped, ImportOptions
from t2ialign.data.importers.rated import RatedPrompt
from t2ialign.data.importers.unsafe import UnsafeFilter
from t2ialign.data.layouts.base import new_folder, place, suffix_of
from t2ialign.errors import ConfigError, DataError

FORMATS = ("visionprefer", "ultrafeedback")
SET = "set"


@dataclass
class RatingsSummary:
    """What an import or an export of annotations did.

    Attributes:
        output_dir: The folder.
        annotations: Lines written.
        pictures: Picture files written.
        missing: Ratings that are null.
        unusable: Values given as ratings that are none, such as "N/A" or 7; they are null.
        left_out: Prompts left out, by reason.
        examples: For each reason the first.
    """

    output_dir: Path
    annotations: int = 0
    pictures: int = 0
    missing: int = 0
    unusable: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """Count a prompt that is left out."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, where)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        names = ("annotations", "pictures", "missing", "unusable", "examples")
        return {name: getattr(self, name) for name in names} | {"left_out": dict(self.left_out)}

    def lines(self) -> list[str]:
        """Say it for people."""
        told = [f"{self.annotations:,} annotations, {self.pictures:,} pictures: {self.output_dir}"]
        told += [f"  ratings that are missing: {self.missing:,}"] if self.missing else []
        told += [f"  of these, values that are no rating from 1 to 5: {self.unusable:,}"] if self.unusable else []
        return told + [
            f"  left out, {reason}: {count:,} (first: {self.examples[reason]})"
            for reason, count in self.left_out.most_common()
        ]


def import_ratings(
    format: str,
    source: str | Path,
    output_dir: str | Path,
    *,
    split: str = "train",
    images: str | Path | None = None,
    annotator: str = "",
) -> RatingsSummary:
    """Bring ratings of another form into a folder of annotations.

    Args:
        format: One of `FORMATS`.
        source: The JSON lines (or a JSON list), or a folder with them.
        output_dir: A folder that is not there yet, or empty.
        split: Which file of a folder.
        images: The folder that paths of pictures are relative to; by default that of the file.
        annotator: Who rated, where the lines do not say; by default the format's name.

    Raises:
        ConfigError: If the format is not known.
        DataError: If the source can not be read, or nothing is left.
    """
    if format not in FORMATS:
        raise ConfigError(
            f"ratings are not read from {format!r}{nearest(format, FORMATS)}; choose {', '.join(FORMATS)}"
        )
    reader = importlib.import_module(f"t2ialign.data.importers.{format}")
    options = ImportOptions(split, None, "drop", UnsafeFilter(), images=None if images is None else Path(images))
    summary = RatingsSummary(Path(output_dir))
    with new_folder(Path(output_dir)) as folder:
        taken = _Taken(folder / SET, {})
        with (folder / FILE).open("w", encoding="utf-8", newline="\n") as lines:
            for rated in reader.rated(source, options):
                line = _annotation(rated, taken, annotator or format, summary)
                if line is not None:
                    lines.write(json.dumps(line.to_dict(), ensure_ascii=False) + "\n")
        if not summary.annotations:
            raise DataError("\n".join([f"no annotation of {Path(source).name} is left", *summary.lines()[1:]]))
        taken.write()
        summary.pictures = len(taken.records)
        write_json(folder / "config.json", {"image_set": SET, "imported": format, "source": Path(source).name})
        write_json(folder / "report.json", summary.to_dict())
    return summary


@dataclass
class _Taken:
    """The image set of an import, as far as it is made: records by (prompt id, sample)."""

    folder: Path
    records: dict[tuple[str, int], ImageRecord]
    names: dict[str, list[str]] = field(default_factory=dict)

    def take(self, rated: RatedPrompt) -> list[ImageRecord] | str:
        """Put the pictures of a prompt into the set, or say why that can not be.

        A prompt that comes again (by another annotator, or in another pass) has its pictures already.
        """
        names = [picture.name for picture in rated.pictures]
        if rated.prompt_id in self.names:
            if self.names[rated.prompt_id] != names:
                return "an id of a prompt with other pictures"
            return [self.records[rated.prompt_id, sample] for sample in range(len(names))]
        for picture in rated.pictures:
            try:
                if picture.place is None:
                    return "unreadable picture"
                peek(picture.place)
            except DataError:
                return "unreadable picture"
        number = len(self.names)
        self.names[rated.prompt_id] = names
        records = [self._record(rated, number, sample) for sample in range(len(names))]
        self.records |= {(rated.prompt_id, record.sample): record for record in records}
        return records

    def _record(self, rated: RatedPrompt, number: int, sample: int) -> ImageRecord:
        picture = rated.pictures[sample]
        assert picture.place is not None
        name = f"images/{number:06d}/{sample:04d}{suffix_of(picture.place)}"
        place(picture.place, self.folder / name)
        _, width, height = peek(self.folder / name)
        digest = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
        return ImageRecord(
            name, rated.prompt_id, rated.prompt, sample, None, picture.model, width=width, height=height, sha256=digest
        )

    def write(self) -> None:
        """Write the set's metadata."""
        lines = [json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in self.records.values()]
        (self.folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def _annotation(
    rated: RatedPrompt | Dropped, taken: _Taken, annotator: str, summary: RatingsSummary
) -> Annotation | None:
    """Make the line of a prompt, or count why there is none."""
    if isinstance(rated, Dropped):
        summary.drop(rated.reason, rated.where)
        return None
    aspects = rated.aspects
    if not aspects:
        summary.drop("no ratings", rated.where)
        return None
    records = taken.take(rated)
    if isinstance(records, str):
        summary.drop(records, rated.where)
        return None
    ratings = {aspect: [picture.ratings.get(aspect) for picture in rated.pictures] for aspect in aspects}
    told = dict.fromkeys(aspect for picture in rated.pictures for aspect in picture.rationales)
    missing = sum(mark is None for marks in ratings.values() for mark in marks)
    summary.annotations += 1
    summary.missing += missing
    summary.unusable += sum(picture.unusable for picture in rated.pictures)
    return Annotation(
        prompt_id=rated.prompt_id,
        prompt=rated.prompt,
        images=[record.file_name for record in records],
        permutation=_permutation(rated.entry, len(records)),
        ratings=ratings,
        sha256=[record.sha256 for record in records],
        rationales={aspect: [picture.rationales.get(aspect, "") for picture in rated.pictures] for aspect in told},
        annotator=rated.annotator or annotator,
        order=1 if rated.entry.get("order") == 1 else 0,
        ok=not missing,
        problem="" if not missing else str(rated.entry.get("problem") or "a rating is missing"),
    )


def _permutation(entry: Mapping[str, Any], k: int) -> list[int]:
    """Return the order of showing where the line says it, else the order of the line."""
    given = entry.get("permutation")
    whole = isinstance(given, list) and all(type(each) is int for each in given) and sorted(given) == list(range(k))
    return list(given) if whole and isinstance(given, list) else list(range(k))


def export_ratings(
    folder: str | Path, format: str, output_dir: str | Path, *, images: str | Path | None = None
) -> RatingsSummary:
    """Write a folder of annotations in another form, with its pictures.

    Args:
        folder: The annotations.
        format: One of `FORMATS`.
        output_dir: A folder that is not there yet, or empty.
        images: The image set; by default the one that the annotations name.

    Raises:
        ConfigError: If the format is not known.
        DataError: If the annotations, or a picture of them, can not be read.
    """
    if format not in FORMATS:
        raise ConfigError(
            f"ratings can not be written as {format!r}{nearest(format, FORMATS)}; choose {', '.join(FORMATS)}"
        )
    lines = read_annotations(folder)
    if not lines:
        raise DataError(f"{folder} holds no annotation; there is nothing to export")
    root = Path(images) if images is not None else image_set_of(folder)
    write: Callable[[Annotation, list[str]], dict[str, Any]] = {
        "visionprefer": _visionprefer,
        "ultrafeedback": _ultrafeedback,
    }[format]
    summary = RatingsSummary(Path(output_dir))
    with new_folder(Path(output_dir)) as target:
        names: dict[str, str] = {}
        with (target / FILE).open("w", encoding="utf-8", newline="\n") as out:
            for line in lines:
                shown = [_put(root, name, target, names) for name in line.images]
                more = {"annotator": line.annotator, "order": line.order, "permutation": line.permutation}
                more |= {"problem": line.problem} if line.problem else {}
                out.write(json.dumps(write(line, shown) | more, ensure_ascii=False) + "\n")
                summary.annotations += 1
                summary.missing += sum(mark is None for marks in line.ratings.values() for mark in marks)
        summary.pictures = len(names)
    return summary


def _put(root: Path, name: str, target: Path, names: dict[str, str]) -> str:
    """Put a picture into the export, once, and return its path there."""
    if name not in names:
        source = inside(root, name)
        if not source.is_file():
            raise DataError(f"{root} has no picture {name}; name the image set that was annotated")
        names[name] = f"images/{len(names):06d}{suffix_of(source)}"
        place(source, target / names[name])
    return names[name]


def _visionprefer(line: Annotation, shown: list[str]) -> dict[str, Any]:
    pictures = [
        {
            "image_id": f"{line.prompt_id}-{k}",
            "file_name": name,
            "ratings": {aspect: marks[k] for aspect, marks in line.ratings.items()},
            "rationales": {aspect: texts[k] for aspect, texts in line.rationales.items()},
        }
        for k, name in enumerate(shown)
    ]
    return {"prompt_id": line.prompt_id, "prompt": line.prompt, "images": pictures}


def _ultrafeedback(line: Annotation, shown: list[str]) -> dict[str, Any]:
    completions = []
    for k, name in enumerate(shown):
        said = {}
        for aspect, marks in line.ratings.items():
            mark = marks[k]
            texts = line.rationales.get(aspect)
            rating = "N/A" if mark is None else str(int(mark)) if mark == int(mark) else repr(mark)
            said[aspect.replace("_", " ").title()] = {"Rating": rating, "Rationale": texts[k] if texts else ""}
        completions.append({"file_name": name, "annotations": said})
    return {"prompt_id": line.prompt_id, "instruction": line.prompt, "completions": completions}
