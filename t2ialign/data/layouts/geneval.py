"""GenEval: a numbered folder a prompt, with what the prompt asks for, and its samples.

    ROOT/00000/metadata.jsonl               one JSON object: tag, include, exclude, prompt
    ROOT/00000/samples/0000.png ...         any number of digits

Law of this file: only numbered folders are prompts, as in GenEval's own reader; every picture in `samples` is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_text
from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.layouts.base import Exported, Target, folders_in, pictures_in, place
from t2ialign.errors import DataError

_NUMBER = re.compile(r"[0-9]+")
KEYS = ("tag", "include", "exclude", "prompt")
"""What GenEval's evaluation reads of a prompt."""


def looks_so(root: Path, prompts: Path | None) -> bool:
    """Whether there are numbered folders in it, all with metadata and samples."""
    folders = _folders(root)
    return bool(folders) and all(
        (each / "metadata.jsonl").is_file() and (each / "samples").is_dir() for each in folders
    )


def read(root: Path, prompts: Path | None) -> list[ImageRecord]:
    """Return a record for every sample.

    Raises:
        DataError: If a folder lacks its metadata or its samples, or a sample is not numbered.
    """
    if prompts is not None:
        raise DataError(f"{root}: GenEval's folders hold their own prompts; leave --prompts {prompts} out")
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root}: no folder named by a number (00000, 00001, ...) in it")
    records = []
    for folder in folders:
        metadata = _metadata(folder)
        samples = folder / "samples"
        pictures = pictures_in(samples) if samples.is_dir() else []
        if not pictures:
            raise DataError(f"{folder}: no pictures in samples/; generate them, or remove the folder")
        extra = {key: value for key, value in metadata.items() if key != "prompt"}
        for picture in pictures:
            if not _NUMBER.fullmatch(picture.stem):
                raise DataError(f"{picture}: a sample is named by its number (0000.png); rename it, or move it")
            records.append(
                ImageRecord(
                    picture.relative_to(root).as_posix(),
                    folder.name,
                    metadata["prompt"],
                    sample=int(picture.stem),
                    model=root.resolve().name,
                    set="geneval",
                    category=metadata.get("tag"),
                    extra=extra,
                )
            )
    return records


def _folders(root: Path) -> list[Path]:
    return [folder for folder in folders_in(root) if _NUMBER.fullmatch(folder.name)]


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.jsonl"
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: one JSON object with the prompt is needed: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str) or not value["prompt"].strip():
        raise DataError(f"{path}: a JSON object with a text 'prompt' is needed")
    return value


def export(image_set: ImageSet, target: Target) -> Exported:
    """Write a numbered folder a prompt, in the order of the set, samples as PNG.

    Raises:
        DataError: If a prompt does not say what GenEval checks; it names the prompt.
    """
    numbers: dict[str, int] = {}
    encoded = 0
    taken: Counter[str] = Counter()
    for record in image_set.records:
        number = numbers.setdefault(record.prompt_id, len(numbers))
        where = target.folder / f"{number:05d}"
        if not taken[record.prompt_id]:
            write_text(where / "metadata.jsonl", json.dumps(_asked(record, image_set.path), ensure_ascii=False) + "\n")
        taken[record.prompt_id] += 1
        encoded += place(image_set.file(record), where / "samples" / f"{record.sample:04d}.png")
    hint = "GenEval's evaluation/evaluate_images.py takes the folder"
    return Exported("geneval", target.final, sum(taken.values()), encoded, {}, hint)


def _asked(record: ImageRecord, where: Path) -> dict[str, Any]:
    known = {"tag": record.category, "prompt": record.prompt, **record.extra}
    if not isinstance(known.get("include"), list) or not known["tag"]:
        raise DataError(
            f"{where}: prompt {record.prompt_id} ({record.prompt!r}) does not say what must be seen (tag, include); "
            "GenEval's layout is for pictures of GenEval's own prompt file"
        )
    return {key: known[key] for key in KEYS if key in known}
