"""From a decoded picture to what the VAE takes: resized, cut to a square, perhaps mirrored.

The shorter side is brought to the training resolution (bilinear with antialiasing, as the published scripts do
on PIL images), then a square is cut. The cut of both pictures of a pair is at the same relative place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """A picture ready for the VAE.

    Attributes:
        pixels: `[3, R, R]` float32 in [-1, 1].
        original_size: Height and width before resizing, pixels.
        crop: Top and left of the cut in the resized picture, pixels.
    """

    pixels: Tensor
    original_size: tuple[int, int]
    crop: tuple[int, int]


def prepare_picture(
    image: Image.Image, resolution: int, *, position: tuple[float, float] = (0.5, 0.5), flip: bool = False
) -> Picture:
    """Resize, cut and mirror a picture.

    Args:
        image: 8-bit RGB.
        resolution: Side of the result, R, in pixels.
        position: Where the square lies in the room left and right, above and below: (vertical, horizontal) in [0, 1];
            0.5 is the centre.
        flip: Mirror left and right. With SDXL the reported left edge is that of the mirrored picture.

    Returns:
        The picture with the sizes that SDXL is told.
    """
    width, height = image.size
    shorter = min(width, height)
    size = (resolution * width // shorter, resolution * height // shorter)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    top, left = (round((side - resolution) * place) for side, place in zip(size[::-1], position, strict=True))
    image = image.crop((left, top, left + resolution, top + resolution))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = size[0] - resolution - left
    array = np.array(image, dtype=np.float32) / 127.5 - 1.0
    return Picture(torch.from_numpy(array).permute(2, 0, 1).contiguous(), (height, width), (top, left))
