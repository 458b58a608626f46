"""From a decoded picture to what the VAE takes: resized, cut to the training size, perhaps mirrored.

The picture is brought to the smallest size that covers the training size (bilinear with antialiasing, as the published
scripts do on PIL images), then a rectangle is cut. The cut of both pictures of a pair is at the same relative place.
What is done follows from a picture's size alone (`plan_cut`), so that an encoded picture can be looked up without
decoding it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

METHOD = "bilinear with antialiasing, then cut"
"""How pictures are prepared; part of the key of an encoded picture, so it changes with the code below."""

Size = tuple[int, int]
"""Height and width, pixels."""


@dataclass(frozen=True)
class Cut:
    """How a picture of one size becomes a training picture.

    Attributes:
        original_size: Before resizing.
        resized: After.
        corner: Top and left of what is cut out of the resized picture.
        target: Size of what is cut out.
        flip: Whether that is mirrored left and right.
    """

    original_size: Size
    resized: Size
    corner: Size
    target: Size
    flip: bool = False

    @property
    def crop(self) -> Size:
        """Top and left as SDXL is told them: of a mirrored picture, where the cut lies in the mirrored one."""
        top, left = self.corner
        return top, self.resized[1] - self.target[1] - left if self.flip else left


def plan_cut(original_size: Size, target: Size, position: tuple[float, float] = (0.5, 0.5), flip: bool = False) -> Cut:
    """Return how a picture becomes one of the training size.

    Args:
        original_size: Of the picture.
        target: Training size.
        position: Where the cut lies in the room above and below, left and right: (vertical, horizontal) in [0, 1];
            0.5 is the centre.
        flip: Mirror left and right.
    """
    (height, width), (rows, columns) = original_size, target
    if columns * height >= rows * width:
        resized = (columns * height // width, columns)
    else:
        resized = (rows, rows * width // height)
    top, left = (round((side - cut) * place) for side, cut, place in zip(resized, target, position, strict=True))
    return Cut(original_size, resized, (top, left), target, flip)


@dataclass(frozen=True)
class Picture:
    """A picture ready for the VAE.

    Attributes:
        pixels: `[3, H, W]` float32 in [-1, 1].
        cut: How it was made.
    """

    pixels: Tensor
    cut: Cut

    @property
    def original_size(self) -> Size:
        """Height and width before resizing, pixels."""
        return self.cut.original_size

    @property
    def crop(self) -> Size:
        """Top and left of the cut in the resized picture, pixels."""
        return self.cut.crop


def prepare_picture(
    image: Image.Image, target: Size | int, *, position: tuple[float, float] = (0.5, 0.5), flip: bool = False
) -> Picture:
    """Resize, cut and mirror a picture.

    Args:
        image: 8-bit RGB.
        target: Size of the result, or the side of a square.
        position: As for `plan_cut`.
        flip: Mirror left and right. With SDXL the reported left edge is that of the mirrored picture.

    Returns:
        The picture with the sizes that SDXL is told.
    """
    size = (target, target) if isinstance(target, int) else target
    return apply_cut(image, plan_cut((image.height, image.width), size, position, flip))


def apply_cut(image: Image.Image, cut: Cut) -> Picture:
    """Resize, cut and mirror a picture of the size that the plan was made for."""
    (rows, columns), (top, left) = cut.target, cut.corner
    if cut.resized != cut.original_size:
        image = image.resize(cut.resized[::-1], Image.Resampling.BILINEAR)
    image = image.crop((left, top, left + columns, top + rows))
    if cut.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    array = np.array(image, dtype=np.float32) / 127.5 - 1.0
    return Picture(torch.from_numpy(array).permute(2, 0, 1).contiguous(), cut)
