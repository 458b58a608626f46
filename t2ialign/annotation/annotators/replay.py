"""A replay of earlier annotations: what was said is said again of the same pictures, and nothing is asked.

Law of this file: a picture is the same if its file is, to the byte; a sheet is replayed if one earlier annotation of
its prompt, in the same pass, holds all its pictures. What is not found is null, and counted.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.annotation.annotations import ASPECTS, FILE, Annotation, read_annotations
from t2ialign.annotation.annotators.base import Desk, Marks, Outcome, QuietAnnotator
from t2ialign.errors import DataError

if TYPE_CHECKING:
    from t2ialign.annotation.sheets import Sheet

MISSING = "not in the replayed annotations"


class ReplayAnnotator(QuietAnnotator):
    """Says again what a folder of annotations holds. See `Annotator`."""

    sees_order = True

    def __init__(self, folder: str | Path) -> None:
        """Read the folder.

        Raises:
            DataError: If it holds no annotations, or annotations without digests of their pictures.
        """
        path = Path(folder).expanduser()
        earlier = read_annotations(path)
        self.name = f"replay:{path.resolve().name}"
        self.aspects = tuple(aspect for aspect in ASPECTS if any(aspect in each.ratings for each in earlier))
        self._digest = hashlib.sha256((path / FILE).read_bytes()).hexdigest()
        self._earlier: dict[tuple[str, int], list[Annotation]] = defaultdict(list)
        for each in earlier:
            if len(each.sha256) != len(each.images) or not all(each.sha256):
                raise DataError(f"{path}: the annotation of {each.prompt_id!r} has no digests of its pictures")
            self._earlier[each.prompt, each.order].append(each)
        self._found = self._missing = 0

    def work(self, sheets: Sequence[Sheet], desk: Desk) -> Outcome:
        """See `Annotator`.

        Raises:
            DataError: If no sheet is found.
        """
        found = sum(self._find(sheet) is not None for sheet in sheets)
        if not found:
            raise DataError(f"{self.name} holds no annotation of these prompts and pictures; name another folder")
        self._found, self._missing = found, len(sheets) - found
        return Outcome()

    def _find(self, sheet: Sheet) -> Annotation | None:
        for each in self._earlier.get((sheet.prompt, sheet.order), ()):
            if not Counter(sheet.sha256) - Counter(each.sha256):
                return each
        return None

    def marks(self, sheet: Sheet) -> Marks:
        """See `Annotator`."""
        earlier = self._find(sheet)
        if earlier is None:
            nothing: list[float | None] = [None] * len(sheet.records)
            return Marks({aspect: list(nothing) for aspect in self.aspects}, problem=MISSING)
        places = _places(earlier.sha256, sheet.sha256)
        return Marks(
            {aspect: [marks[place] for place in places] for aspect, marks in earlier.ratings.items()},
            {aspect: [texts[place] for place in places] for aspect, texts in earlier.rationales.items()},
            earlier.problem,
            list(earlier.raw),
            {**earlier.params, "replayed": self.name},
            annotator=earlier.annotator,
            permutation=_as_shown(earlier, places),
        )

    def identity(self) -> dict[str, Any]:
        """See `Annotator`."""
        return {"annotator": self.name, "annotations_sha256": self._digest}

    def counts(self) -> dict[str, Any]:
        """See `Annotator`."""
        return {"replayed": self._found, "not_found": self._missing}


def _places(there: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return where each digest is among the earlier ones; pictures that are the same to the byte in their order."""
    free: dict[str, list[int]] = defaultdict(list)
    for place, digest in enumerate(there):
        free[digest].append(place)
    return [free[digest].pop(0) for digest in wanted]


def _as_shown(earlier: Annotation, places: list[int]) -> tuple[int, ...]:
    """Return the order in which these pictures were shown then, as places among them."""
    rank = {place: number for number, place in enumerate(earlier.permutation)}
    return tuple(sorted(range(len(places)), key=lambda index: (rank[places[index]], index)))
