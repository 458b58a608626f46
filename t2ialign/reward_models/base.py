"""What every scorer offers, and the pictures it accepts.

Law of this file: it knows no scorer, and needs no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from PIL import Image

from t2ialign.errors import DataError

if TYPE_CHECKING:
    import torch

    ImageInput: TypeAlias = Image.Image | str | Path | torch.Tensor

_PLAIN_MODES = ("RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "La", "RGBa")


@runtime_checkable
class RewardModel(Protocol):
    """A scorer: prompts and pictures in, one number a pair out.

    Attributes:
        name: Short name, the `scorer` column of a scores file.
        version: What was computed, with which weights; the `version` column.
        higher_is_better: Whether a higher score is a better picture.
    """

    name: str
    version: str
    higher_is_better: bool

    def score(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score aligned pairs; float32 [B] on the CPU, each number independent of its neighbours."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what is computed: checkpoint, digest, number format, preprocessing, library versions."""
        ...

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Count the distinct prompts that the scorer cannot read to their end."""
        ...

    def aggregate(self, scores: Sequence[float]) -> float:
        """Bring many scores to one number, as the scorer's definition says (mostly the mean)."""
        ...


def check_pairs(prompts: Sequence[str], images: Sequence[ImageInput]) -> None:
    """Check that there are as many prompts as pictures.

    Raises:
        ValueError: If not, or if `prompts` is one bare string.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list with a prompt for each picture")
    if len(prompts) != len(images):
        raise ValueError(f"{len(prompts)} prompts for {len(images)} pictures; give one prompt for each picture")


def to_rgb(image: ImageInput) -> Image.Image:
    """Bring a picture to 8-bit RGB as the scorers' official code does.

    That is Pillow's `convert("RGB")`: alpha is dropped, EXIF orientation is not applied. Modes for
    which official code gives no usable picture (16-bit, float, LAB, HSV) are read as everywhere else
    in this package (`data.images.open_image`). Pictures of an image set are RGB already.

    Args:
        image: A Pillow picture, a path, or a tensor [3, H, W] or [1, H, W]: uint8, or floating in [0, 1].

    Raises:
        DataError: If a file cannot be read; the message names it.
        ValueError: If a tensor's shape, type or range is another.
    """
    if isinstance(image, (str, Path)):
        return _read(Path(image))
    if isinstance(image, Image.Image):
        if image.mode in _PLAIN_MODES:
            return image if image.mode == "RGB" else image.convert("RGB")
        from t2ialign.data.images import open_image

        return open_image(image)
    return _from_tensor(image)


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image.copy())
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the picture {path}: {error}; make it again or take it out of the set") from error


def _from_tensor(pixels: torch.Tensor) -> Image.Image:
    import torch

    if not isinstance(pixels, torch.Tensor):
        raise ValueError(f"a {type(pixels).__name__} is no picture; give a Pillow picture, a path or a tensor")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise ValueError(f"a picture tensor has the shape {tuple(pixels.shape)}; it must be [3, H, W] or [1, H, W]")
    pixels = pixels.detach().cpu()
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(f"a floating picture spans [{low:g}, {high:g}]; bring it to [0, 1], or to uint8")
        pixels = (pixels.float() * 255.0).round().to(torch.uint8)
    elif pixels.dtype != torch.uint8:
        raise ValueError(f"a picture tensor is {pixels.dtype}; it must be uint8, or floating in [0, 1]")
    return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
