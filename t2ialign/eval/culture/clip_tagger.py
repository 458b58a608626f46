"""Geo-tags by CLIP, zero-shot: the artifact of a concept space whose name is nearest to the picture.

Law of this file: a label is given only where its margin is large enough. The margin of a label is the cosine of the
nearest artifact less that of the nearest artifact with another label of the same level, so a picture may have a
continent without a country, never the reverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t2ialign.errors import DataError
from t2ialign.eval.culture.cspace import ConceptSpace
from t2ialign.eval.culture.geotag import GeoTag, artifact_label

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.reward_models.base import Embedder

Features = npt.NDArray[np.float32]
TEXT = "a photo of {name} from {country}"
"""How an artifact is named to CLIP; ` from {country}` is dropped where the country is unknown."""
TEXTS_AT_ONCE = 4096


class ClipTagger:
    """CLIP over a concept space.

    Attributes:
        source: `"clip:"` and the scorer's version.
        batch_size: Pictures at once.
        space: The artifacts.
    """

    def __init__(
        self,
        embedder: Embedder,
        space: ConceptSpace,
        *,
        min_margin: float = 0.0,
        template: str = TEXT,
        batch_size: int = 64,
    ) -> None:
        """Embed the artifacts' names: once, some thousand at a time; 100,000 take 4 D bytes each in memory.

        Args:
            embedder: A scorer with features, such as `load_scorer("clipscore@...")`.
            space: The artifacts; those without a country are passed over.
            min_margin: Margin (difference of cosines, 0 to 2) below which a label is not given. Find it on pictures
                whose country is known: it depends on the checkpoint and on the space.
            template: With `{name}` and, perhaps, `{country}`.
            batch_size: Pictures at once.

        Raises:
            DataError: If fewer than two artifacts have a country.
            ValueError: If the template has no place for the name, or the margin is negative.
        """
        if "{name}" not in template or min_margin < 0:
            raise ValueError(f"template {template!r} needs {{name}}, and min_margin {min_margin} must be 0 or more")
        self.concepts = [concept for concept in space.concepts if concept.country is not None]
        if len(self.concepts) < 2:
            raise DataError(f"{space.name}: {len(self.concepts)} artifacts have a country; at least 2 are needed")
        self.space, self.min_margin, self.template, self.batch_size = space, min_margin, template, batch_size
        self._embedder = embedder
        texts = [template.replace("{name}", c.name).replace("{country}", c.country or "") for c in self.concepts]
        self._texts = unit_texts(embedder, texts)
        levels = [[c.continent for c in self.concepts], [c.country for c in self.concepts]]
        levels.append([artifact_label(c.name) for c in self.concepts])
        self._levels = [np.unique(np.array(level, dtype=str), return_inverse=True)[1] for level in levels]
        described = getattr(embedder, "version", type(embedder).__name__)
        self.source = f"clip:{getattr(embedder, 'name', '')} {described}".strip()

    def tag(self, images: Sequence[Image.Image]) -> list[GeoTag]:
        """Tag pictures; `margin` is that of the country."""
        cosines = unit_images(self._embedder, images) @ self._texts.T
        return [self._one(row) for row in cosines]

    def _one(self, cosines: Features) -> GeoTag:
        best = int(np.argmax(cosines))
        margins = []
        for codes in self._levels:
            others = cosines[codes != codes[best]]
            margins.append(float(cosines[best] - others.max()) if len(others) else float("inf"))
        sure = [margin >= self.min_margin for margin in margins]
        concept = self.concepts[best]
        missing = [name for name, there in zip(("continent", "country", "artifact"), sure, strict=True) if not there]
        return GeoTag(
            concept.continent if sure[0] else None,
            concept.country if sure[1] else None,
            artifact_label(concept.name) if sure[2] else None,
            f"margin too small for {', '.join(missing)}" if missing else "",
            margin=margins[1] if np.isfinite(margins[1]) else None,
        )

    def info(self) -> dict[str, Any]:
        """Say what was compared with what."""
        described: Any = getattr(self._embedder, "info", dict)()
        return {
            "tagger": "clip",
            "space": self.space.name,
            "artifacts": len(self.concepts),
            "without_country": len(self.space) - len(self.concepts),
            "template": self.template,
            "min_margin": self.min_margin,
            "embedder": described,
        }


def unit_texts(embedder: Embedder, texts: Sequence[str]) -> Features:
    """Embed texts, some thousand at a time; unit length, [T, D]."""
    parts = [texts[i : i + TEXTS_AT_ONCE] for i in range(0, len(texts), TEXTS_AT_ONCE)]
    return np.concatenate([_unit(embedder.embed_texts(list(part))) for part in parts])


def unit_images(embedder: Embedder, images: Sequence[Image.Image]) -> Features:
    """Embed pictures; unit length, [I, D]."""
    return _unit(embedder.embed_images(list(images)))


def _unit(features: Any) -> Features:
    array = (
        features.detach().cpu().float().numpy() if hasattr(features, "detach") else np.asarray(features, np.float32)
    )
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))
