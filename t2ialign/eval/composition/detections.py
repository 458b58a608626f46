"""What a detector says of a picture, and which of it counts.

Law of this file: it knows no detector. Thresholds are part of the measure and are recorded with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from t2ialign.eval.composition.position import Box

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord


@dataclass(frozen=True, eq=False)
class Detection:
    """An object that was found.

    Attributes:
        box: Its edges, in pixels of the picture.
        score: How sure, in [0, 1].
        mask: Its pixels, bool [H, W]; `None` where the detector gives boxes alone.
        color: Where the detector itself knows it (the mini-world's oracle).
    """

    box: Box
    score: float
    mask: npt.NDArray[np.bool_] | None = None
    color: str | None = None


Detections = Mapping[str, Sequence[Detection]]
"""Of each class, what was found."""


class Detector(Protocol):
    """Whoever finds objects in pictures."""

    def detect(self, image: Image.Image, classes: Sequence[str], record: ImageRecord | None = None) -> Detections:
        """Find objects of these classes at least.

        Args:
            image: RGB.
            classes: Names.
            record: The picture's line in its set, for detectors that look results up.
        """
        ...

    def info(self) -> dict[str, Any]:
        """Say what detections depend on, as JSON values."""
        ...


@dataclass(frozen=True)
class Thresholds:
    """Which detections count. The defaults are GenEval's, and were chosen for its Mask2Former.

    Attributes:
        score: A detection must be surer than this.
        counting: The same for prompts of the task `counting`.
        most: Objects of a class, the surest first.
        overlap: Two of a class that overlap by this much (intersection over union) or more are one, the surer;
            1 for none.
    """

    score: float = 0.3
    counting: float = 0.9
    most: int = 16
    overlap: float = 1.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if not (0 <= self.score <= 1 and 0 <= self.counting <= 1 and 0 < self.overlap <= 1 and self.most >= 1):
            raise ValueError(f"{self} is out of range; scores lie in [0, 1], overlap in (0, 1], most is at least 1")

    def kept(self, found: Detections, tag: str) -> dict[str, list[Detection]]:
        """Return what counts for a prompt of this task, the surest first; classes without any are left out."""
        least = self.counting if tag == "counting" else self.score
        kept = {}
        for name, all_of in found.items():
            sure = sorted((each for each in all_of if each.score > least), key=lambda each: -each.score)[: self.most]
            if sure:
                kept[name] = sure if self.overlap >= 1 else self._apart(sure)
        return kept

    def _apart(self, found: list[Detection]) -> list[Detection]:
        apart: list[Detection] = []
        for each in found:
            if all(overlap(each.box, other.box) < self.overlap for other in apart):
                apart.append(each)
        return apart

    def to_dict(self) -> dict[str, Any]:
        """Return all values."""
        return asdict(self)


def overlap(first: Box, second: Box) -> float:
    """Return the intersection over the union of two boxes, in [0, 1]; 0 where both are empty."""
    width = min(first.right, second.right) - max(first.left, second.left)
    height = min(first.bottom, second.bottom) - max(first.top, second.top)
    common = max(width, 0.0) * max(height, 0.0)
    areas = [max(b.right - b.left, 0.0) * max(b.bottom - b.top, 0.0) for b in (first, second)]
    union = sum(areas) - common
    return common / union if union > 0 else 0.0
