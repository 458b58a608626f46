"""Sheets: the pictures of a prompt as they are laid before an annotator, in one pass.

Law of this file: the order in which pictures are shown is a function of (seed, prompt id) alone; a second pass shows
the same pictures in the reversed order. No picture is left out without being counted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2ialign.annotation import draws
from t2ialign.data.images import open_image
from t2ialign.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord, ImageSet

FEWEST, MOST = 2, 4
"""Pictures on a sheet, as VisionPrefer's 4 (arXiv 2404.15100) and the pairs of others."""
ALONE = "prompts with one picture, which are not compared"
LIMITED = "prompts beyond the limit"


@dataclass(frozen=True)
class Sheet:
    """The pictures of a prompt, in one pass.

    Attributes:
        prompt_id: Id of the prompt.
        prompt: Its text.
        records: Its pictures, [k], in the set's order.
        sha256: Of each picture file, [k].
        permutation: [k]; `permutation[j]` is the place of the picture that is shown j-th.
        order: Number of the pass, 0 or 1.
        image_set: Where the pictures are.
    """

    prompt_id: str
    prompt: str
    records: tuple[ImageRecord, ...]
    sha256: tuple[str, ...]
    permutation: tuple[int, ...]
    order: int
    image_set: ImageSet

    @property
    def images(self) -> list[str]:
        """File names relative to the set, [k]."""
        return [record.file_name for record in self.records]

    def open(self, place: int) -> Image.Image:
        """Decode a picture.

        Raises:
            DataError: If it is missing, can not be read, or is another than the set says.
        """
        record = self.records[place]
        name = f"{self.image_set.path.name}/{record.file_name}"
        try:
            data = self.image_set.file(record).read_bytes()
        except OSError as error:
            raise DataError(f"{name} can not be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256[place]:
            raise DataError(f"{name} is not the picture that the set's metadata names; make the set again")
        return open_image(data, notices=self.image_set.notices, name=name)

    def shown(self) -> list[Image.Image]:
        """Decode all pictures, in the order in which they are shown."""
        return [self.open(place) for place in self.permutation]


def make_sheets(
    image_set: ImageSet,
    *,
    seed: int,
    passes: int = 1,
    split: bool = False,
    limit: int | None = None,
    allow_gaps: bool = False,
) -> tuple[list[Sheet], dict[str, int]]:
    """Lay out all sheets of a set, prompt by prompt and pass by pass.

    Args:
        image_set: The set; prompts come in the order of their first picture.
        seed: Of the order in which pictures are shown.
        passes: 1, or 2 for a second pass in reversed order.
        split: Whether prompts with more than `MOST` pictures are split into sheets of nearly equal size.
        limit: Only the first so many prompts.
        allow_gaps: Whether files may be missing; where the set does not say their digest, it is empty.

    Returns:
        The sheets, and what was left out, counted.

    Raises:
        DataError: If a prompt id has two texts, a prompt too many pictures, a file is missing, or nothing is left.
    """
    groups = _groups(image_set)
    left: Counter[str] = Counter()
    sheets: list[Sheet] = []
    for number, (prompt_id, records) in enumerate(groups.items()):
        if limit is not None and number >= limit:
            left[LIMITED] += 1
        elif len(records) < FEWEST:
            left[ALONE] += 1
        else:
            sheets += _sheets_of(image_set, prompt_id, records, seed, passes, split, allow_gaps)
    if not sheets:
        raise DataError(
            f"{image_set.path} has no prompt with {FEWEST} pictures or more; make some with --images_per_prompt 4"
        )
    return sheets, dict(left)


def _groups(image_set: ImageSet) -> dict[str, list[ImageRecord]]:
    groups: dict[str, list[ImageRecord]] = {}
    for record in image_set.records:
        group = groups.setdefault(record.prompt_id, [])
        if group and group[0].prompt != record.prompt:
            raise DataError(
                f"{image_set.path}: the prompt id {record.prompt_id!r} has two texts, {group[0].prompt!r} and "
                f"{record.prompt!r}; pictures are compared under one"
            )
        group.append(record)
    return groups


def _sheets_of(
    image_set: ImageSet,
    prompt_id: str,
    records: Sequence[ImageRecord],
    seed: int,
    passes: int,
    split: bool,
    allow_gaps: bool,
) -> list[Sheet]:
    if len(records) > MOST and not split:
        raise DataError(
            f"{image_set.path}: the prompt {prompt_id!r} has {len(records)} pictures, and at most {MOST} are shown at "
            "once; --too_many split lays them out in sheets (pictures of different sheets are not compared)"
        )
    sheets = []
    parts = -(-len(records) // MOST)
    for part in range(parts):
        some = tuple(records[len(records) * part // parts : len(records) * (part + 1) // parts])
        digests = tuple(_digest(image_set, record, allow_gaps) for record in some)
        words = (prompt_id,) if part == 0 else (prompt_id, f"sheet {part}")
        shown = draws.shuffled(range(len(some)), seed, *words)
        for order in range(passes):
            turned = tuple(shown if order == 0 else reversed(shown))
            sheets.append(Sheet(prompt_id, records[0].prompt, some, digests, turned, order, image_set))
    return sheets


def _digest(image_set: ImageSet, record: ImageRecord, allow_gaps: bool) -> str:
    """Return a picture's digest as the set has it, or of the file where it does not say."""
    file = image_set.file(record)
    if not file.is_file():
        if allow_gaps:
            return record.sha256
        raise DataError(
            f"{image_set.path.name}/{record.file_name} is missing; make the set again, or go on with --allow_gaps"
        )
    return record.sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
