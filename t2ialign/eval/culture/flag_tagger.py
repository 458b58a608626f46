"""Geo-tags in the mini-world: flags, read by its oracle.

Law of this file: the oracle reads or it does not; a scene without a flag has no country.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from t2ialign.eval.culture.geotag import GeoTag, stated_tag

if TYPE_CHECKING:
    from PIL import Image


class FlagTagger:
    """The oracle of the mini-world as a tagger. The artifact is the flag.

    Attributes:
        source: `"oracle"`.
        batch_size: Pictures at once; without consequence.
    """

    source = "oracle"
    batch_size = 64

    def tag(self, images: Sequence[Image.Image]) -> list[GeoTag]:
        """Read pictures of the mini-world; the margin is the oracle's confidence, in [0, 1]."""
        return [self._one(image) for image in images]

    def _one(self, image: Image.Image) -> GeoTag:
        from t2ialign.mini import oracle
        from t2ialign.mini.flags import FLAGS

        reading = oracle.read(image)
        if reading.spec is None:
            return GeoTag(problem="unreadable")
        if reading.spec.country is None:
            return GeoTag(problem="no flag")
        flag = FLAGS[reading.spec.country]
        return stated_tag(flag.continent, flag.name, f"flag of {flag.name}", reading.confidence)

    def info(self) -> dict[str, Any]:
        """Say what is read."""
        from t2ialign.mini.flags import FLAGS

        return {"tagger": "mini-world oracle", "countries": len(FLAGS)}
