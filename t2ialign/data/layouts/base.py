"""What the layouts share: a set whose lines were found rather than read, and pictures put where another tool looks.

Law of this file: what a layout says must be there has a record, whether its file is there or not, so that a missing
picture is met by name later on; a file that fits nowhere is refused, never passed over.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.data.files import inside
from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.images import encode_png, open_image, peek
from t2ialign.errors import DataError

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
JPEG_QUALITY = 95
"""Quality of a picture that is encoded anew because a layout knows JPEG alone; colours keep their resolution."""

_FORMAT_OF = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class ForeignSet(ImageSet):
    """An image set in the layout of another tool. Its folder is read and never written to.

    Attributes:
        path: The folder that `file_name` is relative to.
        records: A record for every picture that the layout says is there.
        config: `{"layout": ...}`.
        notices: What was done to pictures while decoding (see `open_image`).
        layout: Name of the layout.
    """

    def __init__(self, path: Path, records: Sequence[ImageRecord], layout: str) -> None:
        """Take the records, and check that none leaves the folder and that none is there twice.

        Raises:
            DataError: If one leaves the folder, or two are the same picture or the same sample of a prompt.
        """
        self.path = path
        self.records = list(records)
        self.config: dict[str, Any] = {"layout": layout}
        self.notices: Counter[str] = Counter()
        self.layout = layout
        places: dict[Any, str] = {}
        for record in self.records:
            inside(path, record.file_name)
            for key in (record.file_name, record.key):
                if key in places:
                    raise DataError(
                        f"{path}: {places[key]} and {record.file_name} are both sample {record.sample} of prompt "
                        f"{record.prompt_id}; remove one"
                    )
                places[key] = record.file_name


@dataclass(frozen=True)
class Target:
    """Where an export goes.

    Attributes:
        folder: The folder to write into now.
        final: What it will be called when it is whole.
        name: Name of the set, for layouts that write it.
    """

    folder: Path
    final: Path
    name: str


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        layout: The layout.
        output_dir: The folder.
        pictures: Pictures written.
        encoded: How many of them were encoded anew, because the layout knows one file format alone.
        left_out: Pictures that the layout has no place for, by reason.
        hint: How the other tool is called on it.
    """

    layout: str
    output_dir: Path
    pictures: int
    encoded: int
    left_out: dict[str, int]
    hint: str

    def lines(self) -> list[str]:
        """Say it for people."""
        anew = f", {self.encoded:,} of them encoded anew" if self.encoded else ""
        told = [f"{self.pictures:,} pictures{anew}: {self.output_dir} ({self.layout})"]
        told += [f"  left out, {reason}: {count:,}" for reason, count in self.left_out.items()]
        return [*told, *([f"  {self.hint}"] if self.hint else [])]


def prompt_hash(prompt: str) -> str:
    """Return an id for a prompt that came without one: the same text has the same id in every set."""
    return f"prompt-{hashlib.sha256(prompt.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def samples_of(prompt_ids: Iterable[str]) -> Iterator[int]:
    """Number the pictures of each prompt, from 0, in the order given."""
    seen: Counter[str] = Counter()
    for prompt_id in prompt_ids:
        yield seen[prompt_id]
        seen[prompt_id] += 1


def folders_in(root: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, sorted."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files in a folder that are not hidden, sorted by name."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def plain_name(text: str, what: str) -> str:
    """Return a text that serves as a file name.

    Raises:
        DataError: If it can not: empty, hidden, or with a character that means something to a file system.
    """
    if not text or text.startswith(".") or any(letter in '/\\:*?"<>|\0' or letter < " " for letter in text):
        raise DataError(f"the {what} {text!r} can not be part of a file name; rename it before the export")
    return text


def place(source: Path, target: Path) -> bool:
    """Put a picture where a layout wants it: linked or copied if the format is the same, else encoded anew.

    Args:
        source: The picture file.
        target: Where it shall be; the suffix says in which format (PNG, JPEG of `JPEG_QUALITY`, or WebP).

    Returns:
        Whether it was encoded anew. Then EXIF orientation is applied and transparency laid on white, as everywhere.

    Raises:
        DataError: If it can not be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = _FORMAT_OF[target.suffix.lower()]
    if peek(source)[0] == kind:
        try:
            os.link(source.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
        return False
    image = open_image(source)
    if kind == "PNG":
        target.write_bytes(encode_png(image))
        return True
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, format="WEBP", lossless=True)
    target.write_bytes(buffer.getvalue())
    return True


def suffix_of(source: Path) -> str:
    """Return the suffix that fits what a picture file holds, whatever its own.

    Raises:
        DataError: If it can not be read.
    """
    return {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}[peek(source)[0]]


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Hand out a temporary folder beside `path`, and rename it onto `path` when the block ends well.

    Raises:
        DataError: If there is something at `path` other than an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} is there already; choose another folder, or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.mkdir()
        yield aside
        if path.exists():
            path.rmdir()
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
