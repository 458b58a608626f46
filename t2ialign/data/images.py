"""Pictures from anywhere to 8-bit RGB: decoded in full, upright, without transparency, or refused by name.

Law of this file: a picture is either read entirely and rightly, or `DataError` says which one it is, what is wrong and
how to mend it. Whatever changes the pixels (orientation, transparency, depth, colour space) is counted in `notices`.

Files may be PNG, JPEG or WebP. Objects of Pillow may have any mode that Pillow knows. Colour profiles are not applied.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from t2ialign.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
"""The file formats that are read, by Pillow's names."""

MAX_PIXELS = 1 << 26
"""Pictures with more pixels than this (8192 x 8192) are refused from their header, before any memory is taken."""

MAX_ASPECT = 64
"""Pictures longer than this many times their shorter side are refused: resized by that, they would fill the memory."""

ImageSource = str | Path | bytes | Image.Image | Mapping[str, Any]
"""A path, encoded bytes, a Pillow object, or the `{"bytes": ..., "path": ...}` of Hugging Face `datasets`."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIGNATURES = (
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF file"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_DEEP = "16-bit brought to 8-bit"

_strict = threading.Lock()


def open_image(
    source: ImageSource,
    *,
    notices: Counter[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Image.Image:
    """Decode a picture in full and bring it to upright, opaque, 8-bit RGB.

    Args:
        source: A path, encoded bytes, a Pillow object (any mode; it is not changed), or a mapping with `bytes` or
            `path`.
        notices: Counts what was done to the pixels, by short phrases such as `"16-bit brought to 8-bit"`.
        max_pixels: The most pixels (width times height) that are accepted.
        name: What to call the picture in an error; its file name by default.

    Returns:
        A new picture of mode RGB, with no metadata. Transparent parts lie on white. 16-bit samples are scaled by
        255/65535.

    Raises:
        DataError: If it can not be read, is damaged or cut short, animated, too large, or in a format not read here.
    """
    notices = Counter() if notices is None else notices
    if isinstance(source, Image.Image):
        return _to_rgb(source, name or _name_of(source), notices, max_pixels)
    stream, name = _stream(source, name)
    with stream:
        return _to_rgb(_identify(stream, name), name, notices, max_pixels)


def decode_image(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image.Image:
    """Decode a picture in full, and leave its mode, its transparency and its orientation as the file has them.

    For scorers, which prepare pictures as their official code does. It is as strict as `open_image`.

    Args:
        source: A path or encoded bytes.
        max_pixels: The most pixels (width times height) that are accepted.
        name: What to call the picture in an error; its file name by default.

    Raises:
        DataError: If it can not be read, is damaged or cut short, animated, too large, or in a format not read here.
    """
    stream, name = _stream(source, name)
    with stream:
        image = _identify(stream, name)
        _refuse_by_header(image, name, max_pixels)
        try:
            with _whole_files_only():
                image.load()
        except Exception as error:
            raise _damaged(name, error) from error
        return image


def peek(source: str | Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int]:
    """Read a picture's header, without its pixels.

    Args:
        source: A path or encoded bytes.
        name: What to call the picture in an error; its file name by default.
        max_pixels: The most pixels that are accepted.

    Returns:
        The format (one of `FORMATS`), width and height in pixels, before any rotation.

    Raises:
        DataError: If the header shows that `open_image` would refuse it.
    """
    stream, name = _stream(source, name)
    with stream:
        image = _identify(stream, name)
        _refuse_by_header(image, name, max_pixels)
        return ("JPEG" if image.format == "MPO" else str(image.format)), image.width, image.height


def upright_size(
    source: str | Path | bytes | BinaryIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Read from a picture's header which size it has once `open_image` has brought it upright.

    Args:
        source: A path, encoded bytes, or an opened file.
        name: What to call the picture in an error; its file name by default.
        max_pixels: The most pixels that are accepted.

    Returns:
        Height and width in pixels.

    Raises:
        DataError: If the header shows that `open_image` would refuse it.
    """
    known = isinstance(source, str | Path | bytes)
    stream, name = _stream(source, name) if known else (cast(BinaryIO, source), name or "a picture")
    with stream:
        image = _identify(stream, name)
        _refuse_by_header(image, name, max_pixels)
        try:
            # Pillow decodes a PNG to find out whether EXIF data follow the pixels.
            plain = image.format == "PNG" and not _has_late_texts(stream)
            orientation = (Image.Image.getexif(image) if plain else image.getexif()).get(_ORIENTATION_TAG)
        except Exception:
            orientation = None
        turned = orientation in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def _has_late_texts(stream: BinaryIO) -> bool:
    """Whether chunks of a PNG that may tell its orientation come after its pixels."""
    before, pixels = stream.tell(), False
    try:
        stream.seek(8)
        while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
            pixels = pixels or head[4:] == b"IDAT"
            if pixels and head[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            stream.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
        return False
    finally:
        stream.seek(before)


def encode_png(image: Image.Image) -> bytes:
    """Encode a picture as PNG; the same pixels give the same bytes with the same version of Pillow.

    Args:
        image: Of a mode that PNG holds, usually RGB.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _name_of(image: Image.Image) -> str:
    path = getattr(image, "filename", "")
    return Path(path).name if isinstance(path, str) and path else f"a picture of mode {image.mode}"


def _stream(source: object, name: str | None) -> tuple[BinaryIO, str]:
    if isinstance(source, Mapping):
        inner, path = source.get("bytes"), source.get("path")
        name = name or (Path(path).name if isinstance(path, str) and path else None)
        source = path if inner is None else inner
        if source is None:
            raise DataError(f"{name or 'a picture'}: neither bytes nor a path; the picture is missing")
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        if not data:
            raise DataError(f"{name or 'a picture'}: the file is empty (0 bytes); fetch it again")
        return io.BytesIO(data), name or f"a picture of {len(data)} bytes"
    if not isinstance(source, str | Path):
        raise DataError(
            f"{name or 'a picture'}: expected a path, bytes or a Pillow image, not {type(source).__name__}"
        )
    return _open_file(Path(source), name or Path(source).name)


def _open_file(path: Path, name: str) -> tuple[BinaryIO, str]:
    try:
        if not path.is_file():
            raise DataError(f"{name}: there is no such file ({path})")
        if path.stat().st_size == 0:
            raise DataError(f"{name}: the file is empty (0 bytes); fetch it again")
        return path.open("rb"), name
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: the file can not be opened: {error}") from error


def _identify(stream: BinaryIO, name: str) -> Image.Image:
    """Let Pillow read the header, of the formats that we read alone."""
    try:
        return Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        stream.seek(0)
        raise DataError(f"{name}: {_foreign(stream.read(512))}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: the header announces too many pixels ({error}); make it smaller") from error
    except Exception as error:
        raise _damaged(name, error) from error


def _foreign(head: bytes) -> str:
    """Say what a file that is none of our formats looks like, and how to mend it."""
    mend = "only PNG, JPEG and WebP are read; convert it to PNG"
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return f"{what}; {mend}"
    if head[4:8] == b"ftyp":
        return f"{'an AVIF' if head[8:11] == b'avi' else 'a HEIC or video'} file; {mend}"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "a web page or SVG, not a picture; fetch the picture itself"
    for signature, what in ((b"\x89PNG", "PNG"), (b"\xff\xd8", "JPEG"), (b"RIFF", "WebP")):
        if head.startswith(signature):
            return f"begins like {what} but is damaged or cut short; fetch it again"
    return f"not a picture that can be identified; {mend}"


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: damaged or cut short ({error}); fetch or write it again")


def _refuse_by_header(image: Image.Image, name: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise DataError(
            f"{name}: {image.width} x {image.height} pixels, more than the {max_pixels:,} accepted; make it smaller"
        )
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise DataError(
            f"{name}: {image.width} x {image.height} pixels, longer than {MAX_ASPECT} times its shorter side; cut it"
        )
    # The further pictures of an MPO, the JPEG of many cameras, are depth maps and previews, not an animation.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise DataError(f"{name}: animated ({getattr(image, 'n_frames', 2)} frames); save the one frame you mean")


@contextmanager
def _whole_files_only() -> Iterator[None]:
    """Hold Pillow's `LOAD_TRUNCATED_IMAGES` off: with it on, what is missing becomes grey without a word."""
    if not ImageFile.LOAD_TRUNCATED_IMAGES:
        yield
        return
    with _strict:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = True


def _to_rgb(image: Image.Image, name: str, notices: Counter[str], max_pixels: int) -> Image.Image:
    try:
        _refuse_by_header(image, name, max_pixels)
        halved = _halves_samples(image)
        with _whole_files_only():
            image.load()
        rgb = _upright(_opaque(image, halved, name, notices), image, notices)
    except DataError:
        raise
    except Exception as error:
        raise _damaged(name, error) from error
    if image.format == "MPO":
        notices["first picture of several taken (MPO)"] += 1
    rgb.info = {}
    return rgb


def _upright(rgb: Image.Image, image: Image.Image, notices: Counter[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:
        notices["unreadable EXIF ignored"] += 1
        return rgb
    if orientation not in _UPRIGHT:
        return rgb
    notices["EXIF orientation applied"] += 1
    return rgb.transpose(_UPRIGHT[orientation])


def _halves_samples(image: Image.Image) -> bool:
    """Whether Pillow will keep the high byte alone of 16-bit samples (of colour PNG files) while it decodes.

    That is within 1 of the rounded value, so those pixels need no further scaling, only the notice.
    """
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _opaque(image: Image.Image, halved: bool, name: str, notices: Counter[str]) -> Image.Image:
    """Bring a loaded picture of any mode to RGB on white, the orientation aside."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        image = _from_deep(image, name, notices)
    elif halved:
        notices[_DEEP] += 1
        image = _halve_transparent_colour(image)
    elif mode not in ("RGB", "RGBA", "RGBa"):
        notices[f"{mode} brought to RGB"] += 1
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB")
    notices["transparency laid on white"] += 1
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _halve_transparent_colour(image: Image.Image) -> Image.Image:
    """Bring the transparent colour of a 16-bit PNG (tRNS) to the 8 bits of its decoded pixels."""
    colour = image.info.get("transparency")
    if not isinstance(colour, tuple):
        return image
    copy = image.copy()
    copy.info["transparency"] = tuple(sample >> 8 for sample in colour)
    return copy


def _from_deep(image: Image.Image, name: str, notices: Counter[str]) -> Image.Image:
    """Scale the samples of an integer or float picture to 8 bits; with an alpha channel where one grey is transparent.

    `I;16` means 0 to 65535. Modes `I` and `F` do not say their range, so the largest sample does: up to 1 (`F` alone),
    up to 255, or up to 65535.
    """
    samples = np.asarray(image).astype(np.float64)
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(samples).all() and low >= 0 and high <= 65535):
        raise DataError(f"{name}: samples of mode {image.mode} lie in [{low:g}, {high:g}]; scale them to 0..255")
    if image.mode.startswith("I;16") or high > 255:
        top, notice = 65535.0, _DEEP
    elif image.mode == "F" and high <= 1:
        top, notice = 1.0, "floating point brought to 8-bit"
    else:
        top, notice = 255.0, f"{image.mode} brought to RGB"
    notices[notice] += 1
    grey = Image.fromarray(np.rint(samples * (255.0 / top)).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha: npt.NDArray[np.uint8] = np.where(samples == transparent, 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey
