"""Pictures of every kind that scorers meet, as files, and the official transforms to prepare them with.

Law: nothing of t2ialign has a hand in it; the transforms are torchvision's and transformers' own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

SHAPES = ("square", "exact", "landscape", "portrait", "tiny", "huge")
MODES = ("rgba", "palette", "deep", "cmyk", "grey", "turned")
KINDS = (*SHAPES, *MODES)
"""What `save_zoo` saves."""


def colours(seed: int, size: tuple[int, int], grain: int = 6, mode: str = "RGB") -> Image.Image:
    """Coarse random colours, enlarged, so that resizing matters but does not average everything away."""
    pixels = np.random.default_rng(seed).integers(0, 256, (grain, grain, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


def edges(seed: int, size: int = 512) -> Image.Image:
    """A picture with hard edges, flat white, fine stripes and noise: what resizing treats most differently."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 255, dtype=np.uint8)
    pixels[size // 8 : size // 2, size // 8 : size // 2] = rng.integers(0, 256, 3)
    pixels[size // 2 :, : size // 2] = np.where((np.arange(size // 2) // 3 % 2)[:, None] == 0, 0, 255)
    pixels[size // 2 :, size // 2 :] = rng.integers(0, 256, (size // 2, size // 2, 3))
    return Image.fromarray(pixels)


def save_zoo(folder: Path) -> dict[str, Path]:
    """Saves a picture of each kind; returns the files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = colours(5, (61, 40))
    clear.putalpha(colours(6, (61, 40), mode="L"))
    deep = np.random.default_rng(7).integers(0, 400, (45, 70)).astype(np.uint16)
    pictures: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "square": (colours(0, (64, 64)), "png", {}),
        "exact": (colours(1, (32, 32)), "png", {}),
        "landscape": (colours(2, (101, 36)), "png", {}),
        "portrait": (colours(3, (33, 70)), "jpg", {"quality": 90}),
        "tiny": (colours(4, (5, 7)), "png", {}),
        "huge": (colours(8, (1601, 1203), grain=60), "jpg", {"quality": 90}),
        "rgba": (clear, "png", {}),
        "palette": (colours(9, (53, 47)).quantize(17), "png", {"transparency": 3}),
        "deep": (Image.fromarray(deep), "png", {}),
        "cmyk": (colours(10, (57, 44), mode="CMYK"), "jpg", {"quality": 95}),
        "grey": (colours(11, (46, 59), mode="L"), "webp", {"lossless": True}),
        "turned": (colours(12, (80, 49)), "jpg", {"exif": exif, "quality": 95}),
    }
    files = {}
    for name, (picture, kind, options) in pictures.items():
        files[name] = folder / f"{name}.{kind}"
        picture.save(files[name], **options)
    return files


def torchvision_pixels(file: Path | Image.Image, size: int, mean: Any = MEAN, std: Any = STD) -> torch.Tensor:
    """OpenAI's `clip`, open_clip, ImageReward: resize, cut the middle, then RGB, then normalise."""
    from torchvision import transforms

    steps = [
        transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(size),
        lambda image: image.convert("RGB"),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    pixels: torch.Tensor = transforms.Compose(steps)(Image.open(file) if isinstance(file, Path) else file)
    return pixels


def transformers_pixels(file: Path | Image.Image, size: int) -> torch.Tensor:
    """PickScore, MPS, torchmetrics: RGB, then transformers' image processor.

    Newer versions of transformers composite on white where a palette had a transparent colour; the versions
    that the official code is pinned to do not, so what is left of that is taken off.
    """
    from transformers import CLIPImageProcessorPil

    image = (Image.open(file) if isinstance(file, Path) else file).convert("RGB")
    image.info.clear()
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    pixels: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return pixels


def letterbox_pixels(file: Path | Image.Image, size: int, antialias: bool = True) -> torch.Tensor:
    """HPSv2: RGB, the longer side resized on the floating tensor, black around it, then normalise.

    The official code does not frame a picture whose longer side has the right size already, and fails on it.
    """
    from torchvision.transforms import InterpolationMode, functional

    image = (Image.open(file) if isinstance(file, Path) else file).convert("RGB")
    pixels = functional.to_tensor(image)
    scale = size / float(max(pixels.shape[1:]))
    if scale != 1.0:
        height, width = (round(side * scale) for side in pixels.shape[1:])
        pixels = functional.resize(pixels, [height, width], InterpolationMode.BICUBIC, antialias=antialias)
        down, right = size - height, size - width
        pixels = functional.pad(pixels, [right // 2, down // 2, right - right // 2, down - down // 2], fill=0)
    normalised: torch.Tensor = functional.normalize(pixels, MEAN, STD)
    return normalised
