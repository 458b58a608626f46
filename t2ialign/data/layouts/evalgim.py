"""EvalGIM: a folder a run, with `index.json` and pictures of any name.

    {model}__{dataset}__cfg{g}/index.json   [{"prompt", "condition", "class_label", "group", ..., "image_path"}, ...]
    {model}__{dataset}__cfg{g}/images/*.png

Law of this file: `image_path` is absolute where the run was made, so a picture is looked for by its name in `images/`;
what lies outside the folder is never read.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from t2ialign.data.files import write_text
from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.layouts.base import Exported, Target, place, prompt_hash, samples_of, suffix_of
from t2ialign.errors import DataError

INDEX = "index.json"


def looks_so(root: Path, prompts: Path | None) -> bool:
    """Whether there is an index whose first entry has a prompt and the path of a picture."""
    if not (root / INDEX).is_file():
        return False
    try:
        entries = _entries(root)
    except DataError:
        return False
    return bool(entries) and "image_path" in entries[0]


def read(root: Path, prompts: Path | None) -> list[ImageRecord]:
    """Return a record for every entry of the index.

    Raises:
        DataError: If the index is missing or an entry lacks its prompt or its picture's path.
    """
    if prompts is not None:
        raise DataError(f"{root}: EvalGIM's index holds its own prompts; leave --prompts {prompts} out")
    entries = _entries(root)
    model, _, rest = root.resolve().name.partition("__")
    ids = [prompt_hash(entry["prompt"]) for entry in entries]
    records = []
    for entry, prompt_id, sample in zip(entries, ids, samples_of(ids), strict=True):
        label = entry.get("class_label")
        records.append(
            ImageRecord(
                _file_name(entry["image_path"]),
                prompt_id,
                entry["prompt"],
                sample=sample,
                model=model,
                set=rest.partition("__")[0],
                category=label if isinstance(label, str) else None,
                extra={key: value for key, value in entry.items() if key not in ("prompt", "image_path")},
            )
        )
    return records


def _entries(root: Path) -> list[dict[str, Any]]:
    path = root / INDEX
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: a JSON list is needed: {error}") from error
    if not isinstance(value, list) or not value:
        raise DataError(f"{path}: a JSON list with an entry a picture is needed")
    for number, entry in enumerate(value):
        for name in ("prompt", "image_path"):
            if not isinstance(entry, dict) or not isinstance(entry.get(name), str) or not entry[name].strip():
                raise DataError(f"{path}, entry {number}: a text {name!r} is needed")
    return value


def _file_name(path: str) -> str:
    """Return where a picture lies in the folder: a relative path as it is, an absolute one by its name in images/."""
    windows = PureWindowsPath(path)
    if PurePosixPath(path).is_absolute() or windows.drive or windows.root:
        return f"images/{windows.name}"
    return PurePosixPath(path).as_posix()


def export(image_set: ImageSet, target: Target) -> Exported:
    """Write `images/` and `index.json`, in it the paths as they will be once the folder is in place."""
    entries = []
    encoded = 0
    for number, record in enumerate(image_set.records):
        source = image_set.file(record)
        file_name = f"images/{number:06d}{suffix_of(source)}"
        encoded += place(source, target.folder / file_name)
        known = {"condition": record.prompt, "class_label": record.category, "group": None}
        extra = {key: value for key, value in record.extra.items() if key in known or key.startswith("dsg_")}
        path = str(target.final.resolve() / file_name)
        entries.append({"prompt": record.prompt, **known, **extra, "image_path": path})
    write_text(target.folder / INDEX, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    hint = "EvalGIM takes model, data set and guidance from the folder's name: {model}__{dataset}__cfg{g}"
    return Exported("evalgim", target.final, len(entries), encoded, {}, hint)
