"""Who names the colour of an object.

Law of this file: a colour is one of `COLORS`, or what the detector itself knows; nothing is guessed from pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from t2ialign.eval.composition.detections import Detection

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.reward_models.base import Embedder

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
"""The colours that GenEval tells apart."""
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
"""How GenEval says a colour to CLIP; unit features are averaged over them."""
BACKGROUND = (153, 153, 153)
"""What is put in place of what is not the object: GenEval's #999."""


class ColorNamer(Protocol):
    """Whoever names colours."""

    def colors(self, image: Image.Image, objects: Sequence[Detection], name: str) -> list[str | None]:
        """Name the colour of each object of class `name`; `None` where it has none that can be told."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what names depend on, as JSON values."""
        ...


class KnownColors:
    """Colours that the detector itself knows."""

    def colors(self, image: Image.Image, objects: Sequence[Detection], name: str) -> list[str | None]:
        """Return `Detection.color` of each."""
        return [each.color for each in objects]

    def info(self) -> dict[str, Any]:
        """Say so."""
        return {"colors": "of the detector"}


class ClipColors:
    """CLIP, zero-shot, on the object cut out of the picture, as in GenEval (there with OpenAI's ViT-L-14)."""

    def __init__(self, embedder: Embedder, *, names: Sequence[str] = COLORS) -> None:
        """Take a scorer with features, such as `load_scorer("clipscore@openai/clip-vit-large-patch14")`."""
        self.names = tuple(names)
        self._embedder = embedder
        self._texts: dict[str, npt.NDArray[np.float32]] = {}

    def colors(self, image: Image.Image, objects: Sequence[Detection], name: str) -> list[str | None]:
        """Return the nearest colour of each object."""
        if not objects:
            return []
        crops = [cut_out(image, each) for each in objects]
        cosines = _unit(self._embedder.embed_images(crops)) @ self._classes(name).T
        return [self.names[int(place)] for place in cosines.argmax(axis=1)]

    def _classes(self, name: str) -> npt.NDArray[np.float32]:
        if name not in self._texts:
            parts = []
            for color in self.names:
                words = [each.format(color=color, name=name) for each in TEMPLATES]
                parts.append(_unit(self._embedder.embed_texts(words)).mean(axis=0))
            self._texts[name] = _unit(np.stack(parts))
        return self._texts[name]

    def info(self) -> dict[str, Any]:
        """Say what is compared with what."""
        described: Any = getattr(self._embedder, "info", dict)()
        return {"colors": "clip", "names": list(self.names), "templates": list(TEMPLATES), "embedder": described}


def cut_out(image: Image.Image, found: Detection) -> Image.Image:
    """Cut an object's box out; what lies outside its mask, where there is one, becomes `BACKGROUND`.

    The box is rounded outward to whole pixels and holds at least one.
    """
    from PIL import Image as Pictures

    if found.mask is not None:
        pixels = np.asarray(image.convert("RGB")).copy()
        pixels[~found.mask] = BACKGROUND
        image = Pictures.fromarray(pixels)
    left, top = (min(max(int(np.floor(v)), 0), size - 1) for v, size in zip(found.box[:2], image.size, strict=True))
    right, bottom = (
        min(max(int(np.ceil(v)), low + 1), size)
        for v, low, size in zip(found.box[2:], (left, top), image.size, strict=True)
    )
    return image.convert("RGB").crop((left, top, right, bottom))


def _unit(features: Any) -> npt.NDArray[np.float32]:
    array = (
        features.detach().cpu().float().numpy() if hasattr(features, "detach") else np.asarray(features, np.float32)
    )
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))
