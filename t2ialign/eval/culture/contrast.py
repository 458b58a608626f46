"""Contrast: whether a picture fits its prompt better than the same prompt with a wrong country.

Law of this file: only the country differs between the prompts that are compared; a scorer that abstains gives null.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from t2ialign.eval.culture.targets import Observation, Target, targeted
from t2ialign.reward_models.base import Embedder

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord, ImageSet
    from t2ialign.reward_models.base import RewardModel


def contrast_margins(
    image_set: ImageSet, targets: Iterable[Target], scorer: RewardModel, *, batch_size: int = 64
) -> list[Observation]:
    """Score each picture of a target against its prompt and against the prompt's contrasts.

    Args:
        image_set: The pictures.
        targets: What they should show; those without contrasts are passed over.
        scorer: Any scorer of a prompt and a picture. The margin is on its scale.
        batch_size: Pairs scored at once; pictures at once, where the scorer has features.

    Returns:
        Two observations a picture: `contrast_margin` and `contrast_best`.
    """
    pairs = [pair for pair in targeted(image_set, targets) if pair[1].contrasts]
    sign = 1.0 if scorer.higher_is_better else -1.0
    found = []
    for records, target in _by_target(pairs):
        asked = [target.prompt, *target.contrasts.values()]
        at_once = max(1, batch_size // (1 if isinstance(scorer, Embedder) else len(asked)))
        for start in range(0, len(records), at_once):
            batch = records[start : start + at_once]
            rows = _scores(scorer, asked, [image_set.open(record) for record in batch])
            for record, (own, *wrong) in zip(batch, rows, strict=True):
                margin = sign * (own - sum(wrong) / len(wrong))
                best = float(all(sign * own > sign * score for score in wrong))
                best = math.nan if math.isnan(margin) else best
                values = {"contrast_margin": margin, "contrast_best": best}
                found += [Observation.of(target, record.file_name, *each, scorer.name) for each in values.items()]
    return found


def _by_target(pairs: Sequence[tuple[ImageRecord, Target]]) -> list[tuple[list[ImageRecord], Target]]:
    """Return each target with its pictures, so that its prompts are embedded once."""
    groups: dict[str, tuple[list[ImageRecord], Target]] = {}
    for record, target in pairs:
        groups.setdefault(target.prompt_id, ([], target))[0].append(record)
    return list(groups.values())


def _scores(scorer: RewardModel, texts: list[str], images: list[Image.Image]) -> list[list[float]]:
    """Score every picture with every text, [I][T]; by features where the scorer has them."""
    if isinstance(scorer, Embedder):
        return [[float(score) for score in row] for row in scorer.score_matrix(texts, images).T]
    many = scorer.score(texts * len(images), [image for image in images for _ in texts])
    scores = [float(score) for score in many]
    return [scores[start : start + len(texts)] for start in range(0, len(scores), len(texts))]
