"""Retrieval: where the true artifact stands among all of its domain when a picture is compared with their names.

Law of this file: each name of a domain counts once, and the true one is always among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from t2ialign.eval.culture.clip_tagger import unit_images, unit_texts
from t2ialign.eval.culture.cspace import ConceptSpace
from t2ialign.eval.culture.geotag import artifact_label
from t2ialign.eval.culture.targets import Observation, Target, targeted

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageSet
    from t2ialign.reward_models.base import Embedder

TEXT = "a photo of {name}"
"""How an artifact is named; without its country, which would give the answer away."""


def retrieval_ranks(
    image_set: ImageSet,
    targets: Iterable[Target],
    space: ConceptSpace,
    embedder: Embedder,
    *,
    template: str = TEXT,
    batch_size: int = 64,
) -> list[Observation]:
    """Find the rank of the true artifact for each picture of a target.

    The rank is one and the number of names that are nearer, plus half of those that are as near. Where the space lacks
    an artifact of a target, it is added to its domain.

    Args:
        image_set: The pictures.
        targets: What they should show.
        space: The artifacts.
        embedder: A scorer with features.
        template: With `{name}`.
        batch_size: Pictures at once.

    Returns:
        Three observations a picture: `rank`, `top1`, `top5`.
    """
    if "{name}" not in template:
        raise ValueError(f"template {template!r} has no {{name}}, where the artifact's name goes")
    pairs = targeted(image_set, targets)
    source = f"{getattr(embedder, 'name', type(embedder).__name__)} over {space.name}"
    found = []
    for domain in dict.fromkeys(target.domain for _, target in pairs):
        there = [pair for pair in pairs if pair[1].domain == domain]
        names = _names(space, domain, [target for _, target in there])
        texts = unit_texts(embedder, [template.replace("{name}", name) for name in names.values()])
        places = {label: place for place, label in enumerate(names)}
        for start in range(0, len(there), batch_size):
            batch = there[start : start + batch_size]
            cosines = unit_images(embedder, [image_set.open(record) for record, _ in batch]) @ texts.T
            for (record, target), row in zip(batch, cosines, strict=True):
                own = places[artifact_label(target.artifact) or ""]
                others = np.delete(row, own)
                rank = 1 + float(np.sum(others > row[own])) + 0.5 * float(np.sum(others == row[own]))
                values = {"rank": rank, "top1": float(rank <= 1), "top5": float(rank <= 5)}
                found += [Observation.of(target, record.file_name, *each, source) for each in values.items()]
    return found


def _names(space: ConceptSpace, domain: str, targets: Iterable[Target]) -> dict[str, str]:
    """Return the names of a domain by label, the targets' among them."""
    names = [concept.name for concept in space.concepts if concept.domain == domain]
    found: dict[str, str] = {}
    for name in (*names, *(target.artifact for target in targets)):
        found.setdefault(artifact_label(name) or "", name)
    return found
