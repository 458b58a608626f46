"""How pictures are prepared for CLIP's family: one picture on Pillow, or a batch of tensors with gradients.

Law of this file: a preparation is a small frozen value, hashable and picklable; it imports no model
library unless a checkpoint asks for something unusual. Its `__call__` is the official path, to the last
bit of the resized picture; its `tensors` is the same in smooth arithmetic.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from t2ialign.errors import ModelError
from t2ialign.reward_models.base import decode, to_rgb

if TYPE_CHECKING:
    import torch

    from t2ialign.reward_models.base import ImageInput

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of OpenAI's training pictures in [0, 1]; laion's checkpoints, PickScore, HPSv2 and ImageReward use it too."""
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Their standard deviation."""

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class PillowPreparation:
    """Resize and cut on 8-bit pictures by Pillow, as `clip`, transformers and open_clip do.

    Attributes:
        size: Side of the result in pixels.
        edge: What the shorter side is resized to before the middle is cut out; `size` where it is 0.
        squash: Resize to `size` x `size` whatever the shape, and cut nothing (SigLIP).
        resample: `"bicubic"` or `"bilinear"`.
        rgb: `"first"`: RGB before resizing (transformers, PickScore); `"last"`: after cutting (`clip`,
            open_clip, ImageReward). Transparent, palette and CMYK pictures differ between the two.
        half: Where the middle falls on half a pixel: `"down"` (transformers) or `"even"` (torchvision).
    """

    size: int = 224
    edge: int = 0
    squash: bool = False
    resample: str = "bicubic"
    rgb: str = "first"
    half: str = "down"

    def __call__(self, image: ImageInput) -> torch.Tensor:
        """Return uint8 [3, S, S]; see `base.Preparation`."""
        import torch

        picture = to_rgb(image) if self.rgb == "first" else decode(image)
        width, height = self._resized(picture.width, picture.height)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), _RESAMPLE[self.resample])
        top, left = self._corner(height), self._corner(width)
        picture = to_rgb(picture.crop((left, top, left + self.size, top + self.size)))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()

    def tensors(self, images: torch.Tensor) -> torch.Tensor:
        """Prepare floating pictures [B, 3, H, W] in [0, 1]; float32 [B, 3, S, S], differentiable.

        What bicubic resizing throws beyond [0, 1] is clipped in value, as Pillow clips it, and let
        through in the gradient: flat white would have none otherwise.
        """
        width, height = self._resized(images.shape[3], images.shape[2])
        resized = images
        for rows, columns in ((images.shape[2], width), (height, width)):  # Pillow's two passes, each clipped
            resized = _interpolate(resized, rows, columns, self.resample, antialias=True)
            resized = resized + (resized.clamp(0.0, 1.0) - resized).detach()
        top, left = self._corner(height), self._corner(width)
        return resized[:, :, top : top + self.size, left : left + self.size]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.squash:
            return self.size, self.size
        edge, short = self.edge or self.size, min(width, height)
        scaled = int(edge * max(width, height) / short)
        return (edge, scaled) if width <= height else (scaled, edge)

    def _corner(self, side: int) -> int:
        return (side - self.size) // 2 if self.half == "down" else round((side - self.size) / 2)

    def info(self) -> dict[str, Any]:
        """See `base.Preparation`."""
        return {"backend": "pillow"} | asdict(self)


@dataclass(frozen=True)
class Letterbox:
    """HPSv2's: the longer side to `size` in floating point, the rest black; nothing is cut.

    Attributes:
        size: Side of the result in pixels.
        antialias: Whether shrinking averages. torchvision did not before 0.17 and does since, with the
            same official code.
    """

    size: int = 224
    antialias: bool = True

    def __call__(self, image: ImageInput) -> torch.Tensor:
        """Return float32 [3, S, S] around [0, 1] (bicubic resizing overshoots); see `base.Preparation`."""
        import torch

        pixels = torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1).contiguous().float() / 255.0
        return self.tensors(pixels[None])[0]

    def tensors(self, images: torch.Tensor) -> torch.Tensor:
        """Prepare floating pictures [B, 3, H, W] in [0, 1]; float32 [B, 3, S, S], differentiable."""
        from torch.nn.functional import pad

        scale = self.size / float(max(images.shape[2:]))
        height, width = (max(1, round(side * scale)) for side in images.shape[2:])
        resized = _interpolate(images, height, width, "bicubic", antialias=self.antialias)
        down, right = self.size - height, self.size - width
        return pad(resized, (right // 2, right - right // 2, down // 2, down - down // 2))

    def info(self) -> dict[str, Any]:
        """See `base.Preparation`."""
        return {"backend": "torch", "fit": "longer side, black around"} | asdict(self)


@dataclass(frozen=True)
class LibraryPreparation:
    """Whatever else a checkpoint asks for, done by its own library; no gradients.

    Attributes:
        library: `"transformers"` or `"open_clip"`.
        settings: Of the library's image processor, as JSON.
    """

    library: str
    settings: str

    def __call__(self, image: ImageInput) -> torch.Tensor:
        """Return float32 [3, S, S], normalised already; see `base.Preparation`."""
        apply = _library_transform(self.library, self.settings)
        pixels: torch.Tensor = apply(to_rgb(image)) if self.library == "transformers" else apply(decode(image))
        return pixels

    def tensors(self, images: torch.Tensor) -> torch.Tensor:
        """Refuse.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"this checkpoint's preprocessing ({self.settings}) has no form with gradients; "
            "use a checkpoint that resizes and cuts, as CLIP's do"
        )

    def info(self) -> dict[str, Any]:
        """See `base.Preparation`."""
        settings: dict[str, Any] = json.loads(self.settings)
        return {"backend": self.library} | settings


ClipPreparation = PillowPreparation | Letterbox | LibraryPreparation


@lru_cache(maxsize=8)
def _library_transform(library: str, settings: str) -> Any:
    if library == "open_clip":
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**json.loads(settings)), is_train=False)
    processor = pillow_processor()(**json.loads(settings))
    return lambda picture: processor(images=picture, return_tensors="pt")["pixel_values"][0]


def pillow_processor() -> Any:
    """Return transformers' class of CLIP's image processor that resizes with Pillow."""
    try:
        from transformers import CLIPImageProcessorPil

        return CLIPImageProcessorPil
    except ImportError:  # transformers before 5.1 calls it so
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor


def _interpolate(images: torch.Tensor, height: int, width: int, mode: str, *, antialias: bool) -> torch.Tensor:
    from torch.nn.functional import interpolate

    images = images.float()
    if (height, width) == tuple(images.shape[2:]):
        return images
    return interpolate(images, (height, width), mode=mode, align_corners=False, antialias=antialias)
