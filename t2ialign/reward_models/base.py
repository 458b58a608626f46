"""What every scorer offers, what some offer besides, and the pictures they accept.

Law of this file: it knows no scorer, and needs no weights. A scorer is any object of the form
`RewardModel`; the other protocols are offers that a caller looks for with `isinstance`:

| protocol | offer | who asks |
|---|---|---|
| `Prepares` | one picture is prepared apart from the model, in a worker process | a pass over a set |
| `Embedder` | features, and every prompt with every picture | diversity, retrieval, training a scorer |
| `Differentiable` | scores of picture tensors, with gradients | reward-guided training |
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from PIL import Image

from t2ialign.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

    ImageInput: TypeAlias = Image.Image | str | Path | torch.Tensor

logger = logging.getLogger(__name__)

_CLIPPED_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@runtime_checkable
class RewardModel(Protocol):
    """A scorer: prompts and pictures in, one number a pair out.

    Attributes:
        name: Short name, the `scorer` column of a scores file.
        version: What was computed, with which weights; the `version` column.
        higher_is_better: Whether a higher score is a better picture.

    A scorer that asks somebody may get no answer. If it has an attribute `may_abstain` that is true, a score of NaN
    means that there is none, and is left out and counted; of any other scorer NaN is an error.
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


@runtime_checkable
class Preparation(Protocol):
    """How a scorer prepares one picture: decoded, resized, cut; a small value without weights.

    It is hashable and equal to another that does the same, so that scorers with the same
    preprocessing share the work; it is picklable and cheap to import, so that it runs in a worker
    process. What it returns is picklable too (for CLIP's family a uint8 tensor [3, S, S]).
    """

    def __call__(self, image: ImageInput) -> Any:
        """Prepare a picture.

        Raises:
            DataError: If a file cannot be read; the message names it.
            ValueError: If a tensor's shape, type or range is another than `to_rgb` accepts.
        """
        ...

    def __hash__(self) -> int:
        """Equal preparations have equal hashes."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what is done, in values for JSON."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A scorer whose work splits into preparing pictures, one by one, and the model.

    `score(prompts, images)` equals `score_prepared(prompts, [preparation(image) for image in images])`.

    Attributes:
        preparation: How a picture is prepared, and the key under which it may be shared.
    """

    preparation: Preparation

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """Score aligned pairs of prompts and prepared pictures; float32 [B] on the CPU.

        Where `preparation` returns tensors of one shape, `prepared` may be one tensor [B, ...].
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """A scorer that compares features of a picture with features of a prompt."""

    def embed_images(self, images: Sequence[ImageInput]) -> torch.Tensor:
        """Return raw (not normalised) features, float32 [I, D] on the CPU."""
        ...

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return raw (not normalised) features, float32 [P, D] on the CPU."""
        ...

    def score_matrix(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score every prompt with every picture; float32 [P, I] on the CPU."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """A scorer with gradients from the score back to the pixels. Its own weights get none."""

    def score_tensors(self, prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        """Score aligned pairs, every step differentiable in the pixels.

        Args:
            prompts: [B].
            images: Floating [B, 3, H, W] in [0, 1], of any size, on any device. Values a little outside
                (a decoder gives them) are not clamped here.

        Returns:
            float32 [B] on the scorer's device. For pictures of 512 px or so the cosine behind it is
            within 0.01 of the ordinary path's, which rounds to 8 bits between its steps.
        """
        ...


class PreparedScorer:
    """Base of scorers that prepare pictures one by one: what follows from `score_prepared` alone.

    A scorer sets `name`, `version`, `preparation` and `batch_size`, and defines `score_prepared` and `info`.

    Attributes:
        batch_size: Pictures in a forward; it changes speed and memory, not scores.
    """

    name: str
    version: str
    higher_is_better: bool = True
    preparation: Preparation
    batch_size: int = 32

    def score(self, prompts: Sequence[str], images: Sequence[ImageInput]) -> torch.Tensor:
        """Score aligned pairs.

        Args:
            prompts: [B]; what exceeds the scorer's limit is cut and counted (`count_truncated`).
            images: [B], see `to_rgb`.

        Returns:
            float32 [B] on the CPU.
        """
        import torch

        check_pairs(prompts, images)
        parts = [
            self.score_prepared(prompts[i:j], [self.preparation(image) for image in images[i:j]])
            for i, j in spans(len(images), self.batch_size)
        ]
        return torch.cat(parts) if parts else torch.zeros(0)

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any] | torch.Tensor) -> torch.Tensor:
        """See `Prepares`."""
        raise NotImplementedError

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Count the distinct prompts that exceed the scorer's limit; none, unless a scorer says otherwise."""
        return 0

    def aggregate(self, scores: Sequence[float]) -> float:
        """Return the mean."""
        return sum(scores) / len(scores)

    def info(self) -> dict[str, Any]:
        """See `RewardModel`."""
        raise NotImplementedError


def spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield beginning and end of each batch of at most `size`."""
    for start in range(0, total, size):
        yield start, min(start + size, total)


def stacked(prepared: Sequence[torch.Tensor] | torch.Tensor) -> torch.Tensor:
    """Return prepared pictures of one shape as a batch [B, ...]; a batch is returned as it is."""
    import torch

    return prepared if isinstance(prepared, torch.Tensor) else torch.stack(list(prepared))


def check_pairs(prompts: Sequence[str], images: Sequence[Any] | torch.Tensor) -> None:
    """Check that there are as many prompts as pictures.

    Raises:
        ValueError: If not, or if `prompts` is one bare string.
    """
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list with a prompt for each picture")
    if len(prompts) != len(images):
        raise ValueError(f"{len(prompts)} prompts for {len(images)} pictures; give one prompt for each picture")


def check_some(items: Sequence[Any]) -> None:
    """Check that there is something to embed, in a list.

    Raises:
        ValueError: If not, or if it is one bare string.
    """
    if isinstance(items, str):
        raise ValueError("one string is given; give a list")
    if not len(items):
        raise ValueError("nothing is given; give at least one")


def check_batch(images: torch.Tensor) -> None:
    """Check the shape and type of a batch of pictures for `Differentiable.score_tensors`.

    Raises:
        ValueError: If it is not a floating tensor [B, 3, H, W].
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"a batch of pictures has the shape {tuple(images.shape)}; it must be [B, 3, H, W]")
    if not images.is_floating_point():
        raise ValueError(f"a batch of pictures is {images.dtype}; it must be floating, in [0, 1]")


def check_settings(*, dtype: str, batch_size: int) -> None:
    """Check the settings that all neural scorers share.

    Raises:
        ConfigError: If the number format is unknown or the batch is empty.
    """
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ConfigError(f"unknown dtype {dtype!r}; choose float32, float16 or bfloat16")
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")


def pick_device(device: str) -> torch.device:
    """Return a device; `"auto"` is a CUDA GPU where there is one."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def decode(image: ImageInput) -> Image.Image:
    """Return a picture as Pillow decodes it, in its own mode and orientation.

    Args:
        image: A Pillow picture, a path, or a tensor [3, H, W] or [1, H, W]: uint8, or floating in [0, 1].

    Raises:
        DataError: If a file cannot be read; the message names it.
        ValueError: If a tensor's shape, type or range is another.
    """
    if isinstance(image, (str, Path)):
        return _read(Path(image))
    if isinstance(image, Image.Image):
        return image
    return _from_tensor(image)


def to_rgb(image: ImageInput) -> Image.Image:
    """Bring a picture to 8-bit RGB as the scorers' official code does: Pillow's `convert("RGB")`.

    So alpha is dropped and EXIF orientation is not applied. Of 16-bit, 32-bit and float pictures
    Pillow clips everything above 255, as it does for the official code; that is warned about.
    Pictures of an image set are 8-bit RGB already.

    Args:
        image: As for `decode`.

    Raises:
        DataError: If a file cannot be read or cannot be brought to RGB; the message names it.
        ValueError: If a tensor's shape, type or range is another.
    """
    picture = decode(image)
    if picture.mode == "RGB":
        return picture
    if picture.mode in _CLIPPED_MODES:
        _warn_clipped(picture.mode)
    try:
        converted = picture.convert("RGB")
        converted.info.pop("transparency", None)  # of a palette; newer libraries would composite by it
        return converted
    except ValueError as error:
        raise DataError(
            f"a picture of mode {picture.mode} cannot be brought to RGB ({error}); save it as PNG"
        ) from error


@lru_cache
def _warn_clipped(mode: str) -> None:
    """Warn once a mode and process."""
    logger.warning(
        "a picture of mode %s: values above 255 are clipped to white, as in the scorers' official code; "
        "bring it to 8 bits first (t2ialign.data.images.open_image does)",
        mode,
    )


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
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
