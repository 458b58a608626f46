"""Where pairs to be labelled come from: the pictures of an image set, two by two, or the rows of a set of pairs.

Law of this file: a picture is read from inside its set or not at all; what a set says of a picture, its model or an
earlier label, stays here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from t2ialign.data.image_sets import ImageRecord, ImageSet
from t2ialign.data.sources import local_path
from t2ialign.errors import DataError

if TYPE_CHECKING:
    from t2ialign.data.pairs import PairDataset


@dataclass(frozen=True)
class Couple:
    """Two pictures of one prompt that a person may be asked about.

    Attributes:
        prompt_id: Id of the prompt; of a row in a set of pairs, where prompts have none.
        prompt: Its text.
        names: What the source calls the two pictures, in its own order.
        sha256: Of the two encoded pictures, as the source says; empty where it does not.
    """

    prompt_id: str
    prompt: str
    names: tuple[str, str]
    sha256: tuple[str, str] = ("", "")


class Source(Protocol):
    """A set that pairs can be taken from."""

    @property
    def name(self) -> str:
        """What the set is called, without saying where it lies."""
        ...

    def couples(self) -> Iterator[Couple]:
        """Go through all couples, those of one prompt in the set's order."""
        ...

    def encoded(self, couple: Couple, place: int) -> bytes:
        """Return the encoded picture 0 or 1 of a couple.

        Raises:
            DataError: If it can not be read.
        """
        ...


def open_source(name: str | Path, split: str = "train", revision: str | None = None) -> Source:
    """Open an image set or a set of pairs.

    Args:
        name: A folder, `mini-pairs`, `mini-user-pairs`, or the id of a hub dataset of pairs.
        split: Of a set of pairs.
        revision: Of a hub dataset.

    Raises:
        DataError: If it is neither, or damaged.
    """
    path = local_path(name)
    if path is not None and path.is_dir() and _holds_pictures(path):
        return PictureSource(ImageSet(path))
    from t2ialign.data.pairs import load_pairs

    return PairSource(load_pairs(name, split=split, revision=revision, ties="keep"))


def _holds_pictures(folder: Path) -> bool:
    """Whether the first line of the metadata is a picture's and not a pair's."""
    for part in sorted(folder.glob("metadata*.jsonl")):
        with part.open("rb") as lines:
            for line in lines:
                if line.strip():
                    try:
                        first = json.loads(line)
                    except ValueError:
                        return True  # torn or damaged: the image set's own reader says what is wrong
                    return isinstance(first, dict) and "file_name" in first and "prompt_id" in first
    return False


class PictureSource:
    """An image set; every two pictures of a prompt are a couple, unless they are the same file twice."""

    def __init__(self, images: ImageSet) -> None:
        """Take an opened set."""
        self._images = images
        self._records = {record.file_name: record for record in images.records}

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._images.path.resolve().name

    def couples(self) -> Iterator[Couple]:
        """Go through all couples."""
        groups: dict[tuple[str, str], list[ImageRecord]] = defaultdict(list)
        for record in self._images.records:
            groups[record.prompt_id, record.prompt].append(record)
        for (prompt_id, prompt), records in groups.items():
            for first, second in combinations(records, 2):
                if not first.sha256 or first.sha256 != second.sha256:
                    names, marks = (first.file_name, second.file_name), (first.sha256, second.sha256)
                    yield Couple(prompt_id, prompt, names, marks)

    def encoded(self, couple: Couple, place: int) -> bytes:
        """Return an encoded picture."""
        name = couple.names[place]
        try:
            return self._images.file(self._records[name]).read_bytes()
        except OSError as error:
            raise DataError(f"{self.name}/{name} can not be read: {error.strerror or error}") from error


class PairSource:
    """A set of pairs; every row is a couple, its earlier label forgotten."""

    def __init__(self, pairs: PairDataset) -> None:
        """Take an opened set, ties included."""
        self._pairs = pairs

    @property
    def name(self) -> str:
        """The set's name with its split, without its folder."""
        source, bracket, split = self._pairs.name.rpartition("[")
        path = Path(source).expanduser()
        return f"{path.resolve().name}{bracket}{split}" if path.exists() else self._pairs.name

    def couples(self) -> Iterator[Couple]:
        """Go through all rows."""
        for row, prompt in enumerate(self._pairs.prompts):
            yield Couple(f"row-{row}", prompt, (f"row-{row}/chosen", f"row-{row}/rejected"))

    def encoded(self, couple: Couple, place: int) -> bytes:
        """Return an encoded picture."""
        row, side = couple.names[place].removeprefix("row-").split("/")
        return self._pairs.encoded(int(row), side)
