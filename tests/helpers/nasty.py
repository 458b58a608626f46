"""A folder of nasty pictures: what is wrong with each is known by construction, and so are the pixels of the readable.

Nothing here imports what is tested. `NASTY` holds all of them; `refused()` and `readable()` pick. `PROMPTS` are such
prompts.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

Pixels = npt.NDArray[np.uint8]

WIDTH, HEIGHT = 24, 16
PROMPTS = {
    "100 kB": "word " * 20_000 + "end",
    "null": "a\0b",
    "escapes of a terminal": "a\x1b[31m\x07 red",
    "right to left": "a \u202e\u2066red\u2069",
    "no width": "a\u200b\u200d\ufeff red",
    "script": "<script>alert(1)</script>&amp;\"'",
    "lines": "a\nred\u2028circle",
    "a path": "../../etc/passwd",
    "a formula": "=cmd|' /C calc'!A0",
    "not of the first plane": "\U0001f469\u200d\U0001f680",
    "marks": "a" + "\u0301" * 500,
}
"""Prompts that are strange, and are prompts."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""x, y, step in x, step in y of the seven passes (PNG specification, 8.2)."""


@dataclass(frozen=True)
class Nasty:
    """A file.

    Attributes:
        name: Of the file, with its ending.
        data: Its bytes.
        pixels: What must be read, `[H, W, 3]`, or None where it must be refused.
        within: How far from `pixels` a sample may be: 0, or what a lossy format costs.
        words: Regular expression of what the refusal says.
    """

    name: str
    data: bytes
    pixels: Pixels | None = None
    within: int = 0
    words: str = ""


class Marker:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def evil_pickle(marker: Path) -> bytes:
    """A pickle whose loading makes the file `marker`."""
    return pickle.dumps(Marker(marker))


def gradient(width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """A picture that differs in every row and column."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 10 % 256, y * 15 % 256, (255 - x * 5) % 256], axis=-1).astype(np.uint8)


def encoded(pixels: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes, interlaced: bool = False
) -> bytes:
    """A PNG by hand: `rows` are its filtered rows, `more` are chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    body = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def rows_of(samples: npt.NDArray[Any]) -> bytes:
    """Unfiltered rows of a PNG; samples of two bytes are big-endian."""
    kind = ">u2" if samples.dtype.itemsize == 2 else "u1"
    return b"".join(b"\0" + row.astype(kind).tobytes() for row in samples)


def bomb(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header announces more than it has."""
    return png(width, height, depth, colour, bytes(100))


def one_bit_bomb(side: int = 20000) -> bytes:
    """A whole, valid PNG of black: some 50 kB that become 400 million pixels."""
    row = bytes(1 + side // 8)
    squeeze = zlib.compressobj(9)
    data = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each) for each in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def _cut() -> Iterator[Nasty]:
    """Files that end too early, at every tenth."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    passes = b"".join(rows_of(noise[y::dy, x::dx]) for x, y, dx, dy in ADAM7)
    whole = {
        "png": encoded(noise, "PNG"),
        "interlaced.png": png(48, 48, 8, 2, passes, interlaced=True),
        "jpg": encoded(noise, "JPEG", quality=95),
        "progressive.jpg": encoded(noise, "JPEG", quality=95, progressive=True),
        "lossless.webp": encoded(noise, "WEBP", lossless=True),
        "webp": encoded(noise, "WEBP", quality=90),
    }
    for ending, data in whole.items():
        for tenth in range(1, 10):
            kept = data[: len(data) * tenth // 10]
            yield Nasty(f"cut-{tenth}.{ending}", kept, words="cut short|damaged")
    yield Nasty("empty.png", b"", words="0 bytes")
    yield Nasty("zeros.jpg", bytes(5000), words="not a picture")
    yield Nasty("head.png", b"\x89PNG\r\n\x1a\n", words="begins like PNG")
    flipped = bytearray(whole["png"])
    flipped[len(flipped) // 2] ^= 255
    yield Nasty("flipped-bits.png", bytes(flipped), words="damaged")


def _mislabelled() -> Iterator[Nasty]:
    """Files that are not what their name says."""
    square = gradient()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", encoded(square, "PNG"))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield Nasty("page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", words="a web page")
    yield Nasty("drawing.png", svg, words="a web page or SVG")
    yield Nasty("still.gif.png", encoded(square, "GIF"), words="a GIF picture")
    yield Nasty("scan.jpg", encoded(square, "TIFF"), words="a TIFF picture")
    yield Nasty("bitmap.png", encoded(square, "BMP"), words="a BMP picture")
    yield Nasty("icon.png", encoded(Image.fromarray(square), "ICO"), words="not a picture that can be identified")
    yield Nasty("archive.png", archive.getvalue(), words="a ZIP archive")
    yield Nasty("code.png", evil_pickle(Path("unpickled")), words="not a picture that can be identified")
    yield Nasty("page.eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", words="not a picture")
    yield Nasty("jpeg-named.png", encoded(square, "JPEG", quality=95, subsampling=0), square, within=8)
    yield Nasty("png-named.webp", encoded(square, "PNG"), square)


def _animated() -> Iterator[Nasty]:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind, ending in (("PNG", "png"), ("WEBP", "webp")):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        yield Nasty(f"animated.{ending}", data, words=r"animated \(2 frames\)")
    yield Nasty("animated.jpg", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), words="a GIF")


def _shapes() -> Iterator[Nasty]:
    """Of odd sizes, and those that would fill the memory."""
    for width, height in ((1, 1), (1, 40), (40, 1)):
        yield Nasty(f"{width}x{height}.png", encoded(gradient(width, height), "PNG"), gradient(width, height))
    for width, height in ((1, 65), (4000, 10), (1, 60000)):
        data = encoded(np.zeros((height, width, 3), dtype=np.uint8), "PNG")
        yield Nasty(f"strip-{width}x{height}.png", data, words="longer than")
    yield Nasty("nothing.png", png(0, 5, 8, 2, b""), words="damaged|cut short")
    yield Nasty("bomb-60000.png", bomb(60000, 60000), words="make it smaller")
    yield Nasty("bomb-8193.png", bomb(8193, 8192), words="make it smaller")
    yield Nasty("bomb-2-31.png", bomb(2**31 - 1, 2**31 - 1), words="make it smaller|damaged")
    yield Nasty("bomb-one-bit.png", one_bit_bomb(), words="make it smaller")
    jpeg = bytearray(encoded(gradient(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    yield Nasty("bomb.jpg", bytes(jpeg), words="make it smaller")
    webp = bytearray(encoded(gradient(), "WEBP"))
    start = webp.index(b"\x9d\x01\x2a") + 3
    webp[start : start + 4] = struct.pack("<HH", 16383, 16383)
    yield Nasty("bomb.webp", bytes(webp), words="make it smaller|damaged")


def _depths() -> Iterator[Nasty]:
    """Modes other than 8-bit RGB."""
    deep = (gradient().astype(np.uint16) * 257).astype(np.uint16)
    yield Nasty("16-bit-rgb.png", png(WIDTH, HEIGHT, 16, 2, rows_of(deep)), gradient(), within=1)
    grey = gradient()[..., 0]
    grey16 = np.repeat(grey[..., None], 3, axis=-1)
    yield Nasty("16-bit-grey.png", png(WIDTH, HEIGHT, 16, 0, rows_of(deep[..., :1])), grey16)
    yield Nasty("grey.png", encoded(grey, "PNG"), grey16)
    yield Nasty("grey.jpg", encoded(grey, "JPEG", quality=95), grey16, within=8)
    alpha = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 255).astype(np.uint8)
    alpha = np.broadcast_to(alpha, (HEIGHT, WIDTH))
    on_white = np.where(alpha[..., None] == 0, 255, grey16).astype(np.uint8)
    la = np.stack([grey, alpha], axis=-1)
    yield Nasty("grey-alpha.png", png(WIDTH, HEIGHT, 8, 4, rows_of(la)), on_white)
    rgba = np.concatenate([gradient(), alpha[..., None]], axis=-1)
    coloured = np.where(alpha[..., None] == 0, 255, gradient()).astype(np.uint8)
    yield Nasty("alpha.png", encoded(Image.fromarray(rgba), "PNG"), coloured)
    yield Nasty("alpha.webp", encoded(Image.fromarray(rgba), "WEBP", lossless=True), coloured)
    half = np.full((4, 4, 4), (200, 0, 0, 128), dtype=np.uint8)
    yield Nasty("half-alpha.png", encoded(Image.fromarray(half), "PNG"), _one((227, 127, 127), 4), within=1)
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    clear = np.array([[[255, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    yield Nasty("palette-alpha.png", encoded(palette, "PNG", transparency=b"\xff\x00"), clear)
    bits = np.packbits(np.arange(WIDTH) % 2).tobytes()
    stripes = np.broadcast_to((np.arange(WIDTH) % 2 * 255)[None, :, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)
    yield Nasty("one-bit.png", png(WIDTH, HEIGHT, 1, 0, (b"\0" + bits) * HEIGHT), stripes)
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    inverted = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in inverted[:200]  # Photoshop's, whose inks are stored inverted
    yield Nasty("cmyk.jpg", inverted, _one((255, 0, 0), 16), within=3)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    passes = b"".join(rows_of(gradient()[top::dy, left::dx]) for left, top, dx, dy in ADAM7)
    assert len(np.unique(y * WIDTH + x)) == WIDTH * HEIGHT
    yield Nasty("interlaced.png", png(WIDTH, HEIGHT, 8, 2, passes, interlaced=True), gradient())


def _extras() -> Iterator[Nasty]:
    """What stands beside the pixels: orientation, profiles, texts, more bytes."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that undoes each orientation
    for orientation in range(1, 9):
        stored = Image.fromarray(gradient())
        if orientation > 1:
            stored = stored.transpose(Image.Transpose(back[orientation]))
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield Nasty(f"turned-{orientation}.png", encoded(stored, "PNG", exif=exif), gradient())
        data = encoded(stored, "JPEG", exif=exif, quality=100, subsampling=0)
        yield Nasty(f"turned-{orientation}.jpg", data, gradient(), within=6)
    broken = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff"
    yield Nasty("broken-exif.png", encoded(gradient(), "PNG", exif=broken), gradient())
    odd = Image.Exif()
    odd[0x0112] = 77
    yield Nasty("odd-orientation.png", encoded(gradient(), "PNG", exif=odd), gradient())
    yield Nasty("broken-profile.png", encoded(gradient(), "PNG", icc_profile=b"nonsense" * 9), gradient())
    whole = encoded(gradient(), "PNG")
    yield Nasty("trailing.png", whole + evil_pickle(Path("unpickled")), gradient())
    yield Nasty("trailing.jpg", encoded(gradient(), "JPEG", quality=95, subsampling=0) + whole, gradient(), within=8)
    info = PngInfo()
    info.add_text("comment", "x" * 1000, zip=True)
    yield Nasty("text.png", encoded(gradient(), "PNG", pnginfo=info), gradient())
    text = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    yield Nasty("text-bomb.png", png(WIDTH, HEIGHT, 8, 2, rows_of(gradient()), text), words="damaged|too large")
    profile = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(80_000_000), 9))
    yield Nasty("profile-bomb.png", png(WIDTH, HEIGHT, 8, 2, rows_of(gradient()), profile), words="damaged|too large")


def _one(colour: tuple[int, int, int], side: int) -> Pixels:
    return np.full((side, side, 3), colour, dtype=np.uint8)


NASTY = {each.name: each for part in (_cut, _mislabelled, _animated, _shapes, _depths, _extras) for each in part()}


def refused() -> list[Nasty]:
    """Those that must be refused."""
    return [each for each in NASTY.values() if each.pixels is None]


def readable() -> list[Nasty]:
    """Those that must be read, to known pixels."""
    return [each for each in NASTY.values() if each.pixels is not None]


def one_of_each_kind() -> list[Nasty]:
    """A few refused files, one of every kind, for doors that take long."""
    names = ("cut-5.jpg", "empty.png", "page.jpg", "code.png", "animated.webp", "bomb-60000.png", "strip-1x60000.png")
    return [NASTY[name] for name in names]


def write_nasty(folder: Path) -> dict[str, Path]:
    """Write all of them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in NASTY}
    for name, path in paths.items():
        path.write_bytes(NASTY[name].data)
    return paths
