"""GenEval's rules: is what was found what was asked for?

Law of this file: a rule knows no detector and no model. Facts of the rules are GenEval's (`evaluate_images.py`): of a
class the surest `count` objects are taken; all of them must have the colour; every one must stand in the relation to
every object of its target; what is not wanted is counted over all that were found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2ialign.eval.composition.detections import Detection
from t2ialign.eval.composition.position import OFFSET, relations

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.eval.composition.colors import ColorNamer
    from t2ialign.eval.composition.tasks import Requirement, Task


@dataclass(frozen=True)
class Verdict:
    """Whether a picture answers its prompt.

    Attributes:
        correct: It does.
        reasons: What is wrong; empty where nothing is.
    """

    correct: bool
    reasons: tuple[str, ...] = ()


def check(
    task: Task,
    found: Mapping[str, Sequence[Detection]],
    image: Image.Image | None = None,
    colors: ColorNamer | None = None,
    offset: float = OFFSET,
) -> Verdict:
    """Apply the rules.

    Args:
        task: What is asked for.
        found: What counts in the picture (`Thresholds.kept`), the surest first.
        image: RGB; needed where a colour is asked for.
        colors: Who names colours; likewise.
        offset: Of the rule of places (`relations`).

    Raises:
        ValueError: If a colour is asked for and there is nobody to name it.
    """
    reasons: list[str] = []
    matched: list[list[Detection] | None] = []
    for wanted in task.include:
        objects = list(found.get(wanted.name, ()))[: wanted.count]
        wrong = _wrong(wanted, objects, matched, image, colors, offset)
        matched.append(None if wrong else objects)
        reasons += [wrong] if wrong else []
    for unwanted in task.exclude:
        there = len(found.get(unwanted.name, ()))
        if there >= unwanted.count:
            reasons.append(f"expected {unwanted.name}<{unwanted.count}, found {there}")
    return Verdict(not reasons, tuple(reasons))


def _wrong(
    wanted: Requirement,
    objects: list[Detection],
    matched: list[list[Detection] | None],
    image: Image.Image | None,
    colors: ColorNamer | None,
    offset: float,
) -> str:
    """Say what is wrong with a requirement's objects; nothing where they are right."""
    if len(objects) < wanted.count:
        return f"expected {wanted.name}>={wanted.count}, found {len(objects)}"
    if wanted.color is not None:
        if colors is None or image is None:
            raise ValueError(f"{wanted.color} is asked of {wanted.name}, and nobody is there to name colours")
        seen = colors.colors(image, objects, wanted.name)
        if sum(each == wanted.color for each in seen) < wanted.count:
            listed = ", ".join(each or "none" for each in seen)
            return f"expected {wanted.color} {wanted.name}>={wanted.count}, found {listed}"
    if wanted.relation is None or wanted.target is None:
        return ""
    target = matched[wanted.target]
    if target is None:
        return f"no target for {wanted.name} to be {wanted.relation}"
    for one in objects:
        for other in target:
            holds = relations(one.box, other.box, offset)
            if wanted.relation not in holds:
                return (
                    f"expected {wanted.name} {wanted.relation} target, found {' and '.join(sorted(holds)) or 'none'}"
                )
    return ""
