"""Image sets in the layouts of other tools, read as they lie and written where those tools look for them.

Law of this room: a layout is a file with `looks_so`, `read` and mostly `export`; it is guessed only where it is
certain, a foreign folder is never written to, and no picture that is there or ought to be there is passed over.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from t2ialign.config.fields import nearest
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.layouts.base import Exported, ForeignSet, Target, new_folder, plain_name
from t2ialign.errors import ConfigError, DataError

OURS = "t2ialign"
LAYOUTS = {
    OURS: "metadata.jsonl with prompt_id, as `t2ialign generate` writes it",
    "hpsv2": "HPSv2's benchmark: {style}/00000.jpg, prompts in {style}.json",
    "geneval": "GenEval: 00000/metadata.jsonl and 00000/samples/0000.png",
    "imagereward": "ImageReward's benchmark: <id>_<k>.png, and a file of prompts with ids",
    "evalgim": "EvalGIM: index.json and images/",
    "captions": "a plain folder with a captions file",
    "rankings": "ImageRewardDB's or HPDv2's test pictures, and the file with their ranks",
}
"""The layouts, with a line on each. A file of the same name reads it."""
EXPORTS = (OURS, "hpsv2", "geneval", "imagereward", "evalgim", "captions")
"""The layouts that can be written."""

_OUR_PARTS = re.compile(r"metadata(\.rank-\d+)?\.jsonl")


def open_set(path: str | Path, layout: str | None = None, prompts: str | Path | None = None) -> ImageSet:
    """Open an image set in any layout.

    Args:
        path: The folder.
        layout: A key of `LAYOUTS`; `None` to see which it is.
        prompts: The file (for `hpsv2` the folder) with the prompts, for layouts that keep them elsewhere.

    Returns:
        The set; its records also name pictures that the layout asks for and that are not there.

    Raises:
        ConfigError: If the layout is not known.
        DataError: If it can not be told which layout it is, or it can not be read as that one.
    """
    root, listed = Path(path), None if prompts is None else Path(prompts)
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}{nearest(layout, LAYOUTS)}; there are {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; name an image set")
    if listed is not None and not listed.exists():
        raise DataError(f"there is no file of prompts {listed}")
    name = layout or detect_layout(root, listed)
    if name == OURS:
        if listed is not None:
            raise DataError(f"{root} holds its own prompts; leave --prompts {listed} out")
        return ImageSet(root)
    return ForeignSet(root, _room(name).read(root, listed), name)


def detect_layout(root: Path, prompts: Path | None = None) -> str:
    """Tell which layout a folder has.

    Raises:
        DataError: If none fits for certain, or more than one does.
    """
    if any(_OUR_PARTS.fullmatch(each.name) and _is_ours(each) for each in root.glob("metadata*.jsonl")):
        return OURS
    fitting = [name for name in LAYOUTS if name != OURS and _room(name).looks_so(root, prompts)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(f"{root} may be laid out as {' or '.join(fitting)}; say which with --layout")
    raise DataError(
        f"{root}: no metadata.jsonl as `t2ialign generate` writes it, and no other layout fits for certain; say which "
        f"it is with --layout ({', '.join(LAYOUTS)}), and where its prompts are with --prompts"
    )


def export_set(image_set: ImageSet, layout: str, output_dir: str | Path, *, name: str | None = None) -> Exported:
    """Write an image set in another layout; pictures are linked where the file format fits, else encoded anew.

    Args:
        image_set: The set, see `open_set`.
        layout: One of `EXPORTS`.
        output_dir: A folder that is not there yet, or empty. It appears whole or not at all.
        name: Name of the set, for layouts that write it; the name of the set's folder by default.

    Returns:
        What was written and what was left out.

    Raises:
        ConfigError: If the layout is not known, or can not be written.
        DataError: If the folder is not empty, a picture can not be read, or the set lacks what the layout needs.
    """
    if layout not in EXPORTS:
        raise ConfigError(f"cannot write the layout {layout!r}{nearest(layout, EXPORTS)}; choose {', '.join(EXPORTS)}")
    if not image_set.records:
        raise DataError(f"the image set {image_set.path} is empty; there is nothing to export")
    final = Path(output_dir)
    label = plain_name(name or image_set.path.resolve().name, "name of the set")
    with new_folder(final) as folder:
        room = _room("ours" if layout == OURS else layout)
        exported: Exported = room.export(image_set, Target(folder, final, label))
    return exported


def _room(name: str) -> Any:
    return importlib.import_module(f"t2ialign.data.layouts.{name}")


def _is_ours(part: Path) -> bool:
    """Whether the first line has a prompt id; `imagefolder` has files of that name too. An empty file is ours."""
    with part.open(encoding="utf-8-sig", errors="replace") as lines:
        first = next((line for line in lines if line.strip()), "")
    return not first or '"prompt_id"' in first


__all__ = ["EXPORTS", "LAYOUTS", "Exported", "ForeignSet", "detect_layout", "export_set", "open_set"]
