"""HPSv2's benchmark: a folder a style, a picture a prompt, numbered like the prompts of the style.

    ROOT/{style}/00000.jpg ...              what `hpsv2.evaluate(ROOT)` reads; it takes every entry of ROOT for a style
    PROMPTS/{style}.json                    a JSON list of strings; styles are anime, concept-art, paintings, photo

A benchmark without styles (HPSv2's DrawBench) has its pictures in ROOT itself, and one prompt file. An export holds
`images/` (the ROOT above) and `prompts/`, and is read back as a whole.

Law of this file: every prompt has a picture; one that is missing is missed by name. (HPSv2's own reader takes the next
picture instead.)
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from t2ialign.data.files import write_text
from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.layouts.base import Exported, Target, folders_in, pictures_in, place, plain_name
from t2ialign.data.prompts import read_rows
from t2ialign.errors import DataError

STYLES = ("anime", "concept-art", "paintings", "photo")
_NAME = re.compile(r"\d{5}")


def looks_so(root: Path, prompts: Path | None) -> bool:
    """Whether every folder in it is one of the four styles and holds numbered JPEG pictures."""
    folders = folders_in(_images(root))
    return bool(folders) and all(
        folder.name in STYLES and any(_NAME.fullmatch(p.stem) for p in folder.glob("*.jpg")) for folder in folders
    )


def read(root: Path, prompts: Path | None) -> list[ImageRecord]:
    """Return a record for every prompt of every style that has a folder.

    Raises:
        DataError: If a style has no prompts, or a picture has no prompt.
    """
    images = _images(root)
    folders = folders_in(images)
    if not folders and prompts is not None and prompts.is_file() and pictures_in(images):
        return _style(root, images, prompts.stem, prompts)
    if not folders:
        raise DataError(f"{root}: no folder of a style in it ({', '.join(STYLES)}), and no prompt file was named")
    return [
        record
        for folder in folders
        for record in _style(root, folder, folder.name, _prompt_file(root, folder.name, prompts))
    ]


def _images(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() and (root / "prompts").is_dir() else root


def _prompt_file(root: Path, style: str, prompts: Path | None) -> Path:
    folders = [prompts] if prompts is not None else [root / "prompts", root]
    for folder in folders:
        if (folder / f"{style}.json").is_file():
            return folder / f"{style}.json"
    raise DataError(
        f"{root}: no prompts for the style {style!r}; name the folder with {style}.json (a JSON list of strings): "
        "--prompts FOLDER"
    )


def _style(root: Path, folder: Path, style: str, prompt_file: Path) -> list[ImageRecord]:
    texts = [row.get("prompt") for _, row in read_rows(prompt_file)]
    found: dict[int, str] = {}
    for picture in pictures_in(folder):
        where = picture.relative_to(root).as_posix()
        if not _NAME.fullmatch(picture.stem):
            raise DataError(f"{root}: {where} is not named by a number of five digits; move it elsewhere")
        number = int(picture.stem)
        if number in found:
            raise DataError(f"{root}: {found[number]} and {where} are for the same prompt; remove one")
        if number >= len(texts):
            raise DataError(f"{root}: {where} has no prompt; {prompt_file.name} holds {len(texts)}, counted from 0")
        found[number] = where
    missing, model = folder.relative_to(root), root.resolve().name
    records = []
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{prompt_file}, entry {number}: the prompt is {text!r}; HPSv2's are texts")
        name = found.get(number, (missing / f"{number:05d}.jpg").as_posix())
        records.append(
            ImageRecord(name, f"{style}-{number:05d}", text, model=model, set=f"hpsv2-{style}", category=style)
        )
    return records


def export(image_set: ImageSet, target: Target) -> Exported:
    """Write `images/{style}/{number:05d}.jpg` and `prompts/{style}.json`.

    The style is the prompt's category, else its set. HPSv2 takes one picture a prompt: sample 0.

    Raises:
        DataError: If a prompt has no sample 0, or a style's name is no file name.
    """
    styles: dict[str, dict[str, ImageRecord | None]] = {}
    texts: dict[str, str] = {}
    further = 0
    for record in image_set.records:
        style = plain_name(record.category or record.set or "prompts", "style")
        chosen = styles.setdefault(style, {})
        texts[record.prompt_id] = record.prompt
        chosen.setdefault(record.prompt_id, None)
        if record.sample == 0:
            chosen[record.prompt_id] = record
        else:
            further += 1
    encoded = 0
    for style, chosen in styles.items():
        for number, (prompt_id, first) in enumerate(chosen.items()):
            if first is None:
                raise DataError(f"{image_set.path}: prompt {prompt_id} has no sample 0; HPSv2's layout needs it")
            encoded += place(image_set.file(first), target.folder / "images" / style / f"{number:05d}.jpg")
        listed = json.dumps([texts[prompt_id] for prompt_id in chosen], indent=1, ensure_ascii=False)
        write_text(target.folder / "prompts" / f"{style}.json", listed + "\n")
    left_out = {"samples after the first": further} if further else {}
    count = sum(map(len, styles.values()))
    return Exported("hpsv2", target.final, count, encoded, left_out, "hpsv2.evaluate is for its folder images")
