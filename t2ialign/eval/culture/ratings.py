"""Ratings of faithfulness and realism, 1 to 5: by a scorer such as a vision-language judge, or from annotations.

Law of this file: a rating that was not given is null; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from t2ialign.eval.culture.targets import MEASURES, Observation, Target, targeted

if TYPE_CHECKING:
    from t2ialign.annotation.annotations import Annotation
    from t2ialign.data.image_sets import ImageSet
    from t2ialign.reward_models.base import RewardModel

_ANSWER = """Answer with one JSON object and nothing else: {"reason": "one or two sentences", "score": a number from \
1 to 5}"""
FAITHFULNESS = f"""A text-to-image model made this picture of a cultural artifact of a country from a prompt.
The prompt, as a JSON string: {{prompt}}
How faithfully does the picture show that artifact, as it is known in that country? Choose one:
5: it is that artifact, right in every part that makes it recognisable.
4: it is that artifact, with small faults.
3: it resembles that artifact, but parts that make it recognisable are missing or wrong.
2: it is something of the same kind, but not that artifact.
1: it is something else, or not to be recognised.
{_ANSWER}"""
"""Template of a judge (`reward_models.judge.Judge(template=...)`) for faithfulness."""
REALISM = f"""A text-to-image model made this picture from a prompt.
The prompt, as a JSON string: {{prompt}}
Whatever the prompt asks for: how real does the picture look? Choose one:
5: like a photograph of something real; nothing gives it away.
4: almost; one has to look for what gives it away.
3: parts look real, parts do not.
2: it plainly looks made.
1: broken: shapes, textures or perspective that nothing real has.
{_ANSWER}"""
"""Template of a judge for realism."""
OF_ASPECT = {"prompt_following": "faithfulness", "fidelity": "realism"}
"""Which aspect of an annotation stands for which measure."""


def rated(
    image_set: ImageSet, targets: Iterable[Target], rater: RewardModel, measure: str, *, batch_size: int = 16
) -> list[Observation]:
    """Have the pictures of targets rated.

    Args:
        image_set: The pictures.
        targets: What they should show.
        rater: A scorer whose scores are ratings from 1 to 5, such as a judge with `FAITHFULNESS` as its template.
        measure: `"faithfulness"` or `"realism"`.
        batch_size: Pictures at once.

    Raises:
        ValueError: If the measure is none of these, or a rating is off the scale.
    """
    _check(measure)
    pairs = targeted(image_set, targets)
    found = []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        images = [image_set.open(record) for record, _ in batch]
        scores = rater.score([target.prompt for _, target in batch], images)
        for (record, target), score in zip(batch, scores, strict=True):
            found.append(_observation(target, record.file_name, measure, float(score), rater.name))
    return found


def annotated(
    annotations: Iterable[Annotation], targets: Iterable[Target], aspects: Mapping[str, str] = OF_ASPECT
) -> list[Observation]:
    """Take ratings from annotations; those of several passes or annotators are averaged, picture by picture.

    Args:
        annotations: Of the image set (`annotation.annotations.read_annotations`).
        targets: What its pictures should show.
        aspects: Which aspect stands for which measure.

    Raises:
        ValueError: If a measure is neither faithfulness nor realism, or a rating is off the scale.
    """
    by_id = {target.prompt_id: target for target in targets}
    marks: dict[tuple[str, str, str], list[float]] = {}
    who: dict[str, None] = {}
    for annotation in annotations:
        if annotation.prompt_id not in by_id:
            continue
        who[annotation.annotator] = None
        for aspect, measure in aspects.items():
            _check(measure)
            given = annotation.ratings.get(aspect, [None] * len(annotation.images))
            for name, mark in zip(annotation.images, given, strict=True):
                there = marks.setdefault((annotation.prompt_id, name, measure), [])
                there += [] if mark is None else [mark]
    source = ", ".join(who)
    return [
        _observation(by_id[prompt_id], name, measure, sum(each) / len(each) if each else None, source)
        for (prompt_id, name, measure), each in marks.items()
    ]


def _check(measure: str) -> None:
    if measure not in OF_ASPECT.values():
        raise ValueError(f"{measure!r} is not rated; it must be one of {', '.join(OF_ASPECT.values())}")


def _observation(target: Target, file_name: str, measure: str, value: float | None, source: str) -> Observation:
    made = Observation.of(target, file_name, measure, value, source)
    scale = MEASURES[measure]
    if made.value is not None and not scale.low <= made.value <= scale.high:
        raise ValueError(f"{file_name}: {measure} is {made.value:g}, not from {scale.low:g} to {scale.high:g}")
    return made
