"""ImageReward's benchmark: all pictures of a model in one folder, named `<id>_<k>.png`, and a file of prompts.

    ROOT/<id>_0.png <id>_1.png ...          a folder a model
    PROMPTS                                 [{"id": ..., "prompt": ...}, ...]

An export holds `images/<model>/` and `prompts.json`: `--img_dir` and `--prompts_path` of its `test-benchmark.py`.

Law of this file: every prompt has as many pictures as the one with the most; those that are not there are missed by
name.
"""

from __future__ import annotations

import json
from pathlib import Path

from t2ialign.data.files import write_text
from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.layouts.base import Exported, Target, pictures_in, place, plain_name
from t2ialign.data.prompts import read_prompts
from t2ialign.errors import DataError

PROMPT_FILES = ("benchmark-prompts.json", "prompts.json")


def looks_so(root: Path, prompts: Path | None) -> bool:
    """Whether a file of prompts is at hand, and every picture is named by one of its ids and a number."""
    path = _prompt_file(root, prompts)
    pictures = pictures_in(root)
    if path is None or not pictures:
        return False
    try:
        ids = {prompt.prompt_id for prompt in read_prompts(path)}
    except DataError:
        return False
    return all((parts := _parts(picture)) is not None and parts[0] in ids for picture in pictures)


def read(root: Path, prompts: Path | None) -> list[ImageRecord]:
    """Return a record for every sample of every prompt.

    Raises:
        DataError: If there is no file of prompts, or a picture is not named by one of its ids and a number.
    """
    path = _prompt_file(root, prompts)
    if path is None:
        raise DataError(f"{root}: no file of prompts; name the one with the ids: --prompts benchmark-prompts.json")
    listed = read_prompts(path)
    ids = {prompt.prompt_id for prompt in listed}
    found: dict[tuple[str, int], str] = {}
    for picture in pictures_in(root):
        parts = _parts(picture)
        if parts is None or parts[0] not in ids:
            raise DataError(f"{root}: {picture.name} is not named <id>_<number>.png with an id of {path.name}")
        if parts in found:
            raise DataError(f"{root}: {found[parts]} and {picture.name} are the same sample; remove one")
        found[parts] = picture.name
    if not found:
        raise DataError(f"{root}: no pictures in it; name the folder of one model")
    samples = 1 + max(number for _, number in found)
    return [
        ImageRecord(
            found.get((prompt.prompt_id, number), f"{prompt.prompt_id}_{number}.png"),
            prompt.prompt_id,
            prompt.prompt,
            sample=number,
            model=root.resolve().name,
            set=prompt.set,
            category=prompt.category,
            extra=prompt.extra,
        )
        for prompt in listed
        for number in range(samples)
    ]


def _prompt_file(root: Path, prompts: Path | None) -> Path | None:
    if prompts is not None:
        return prompts
    folders = (root, root.parent, root.parent.parent)
    paths = (folder / name for folder in folders for name in PROMPT_FILES)
    return next((path for path in paths if path.is_file()), None)


def _parts(picture: Path) -> tuple[str, int] | None:
    prompt_id, _, number = picture.stem.rpartition("_")
    return (prompt_id, int(number)) if prompt_id and number.isascii() and number.isdigit() else None


def export(image_set: ImageSet, target: Target) -> Exported:
    """Write `images/<name>/<id>_<k>.png` and `prompts.json`.

    Raises:
        DataError: If an id can not be part of a file name.
    """
    model = plain_name(target.name, "name of the set")
    prompts: dict[str, str] = {}
    encoded = 0
    for record in image_set.records:
        prompts.setdefault(plain_name(record.prompt_id, "prompt id"), record.prompt)
        file_name = f"{record.prompt_id}_{record.sample}.png"
        encoded += place(image_set.file(record), target.folder / "images" / model / file_name)
    listed = [{"id": prompt_id, "prompt": text} for prompt_id, text in prompts.items()]
    write_text(target.folder / "prompts.json", json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
    hint = f"test-benchmark.py --img_dir images --prompts_path prompts.json --model {model}"
    return Exported("imagereward", target.final, len(image_set.records), encoded, {}, hint)
