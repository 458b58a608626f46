"""Every mode, every kind of file, and everything that must be refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from t2ialign.data.images import decode_image, encode_png, open_image, peek
from t2ialign.errors import DataError

DEEP = "16-bit brought to 8-bit"
ON_WHITE = "transparency laid on white"


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> npt.NDArray[np.int64]:
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int64)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(samples: npt.NDArray[np.uint16], colour_type: int, *extra: bytes) -> bytes:
    """A 16-bit PNG written by hand, for Pillow writes grey ones alone. `samples` is [H, W, channels]."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 10, y * 15, 255 - x * 5], axis=-1).astype(np.uint8))


PLAIN_MODES: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "1": (1, (255, 255, 255)),
    "L": (100, (100, 100, 100)),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBX": ((10, 20, 30, 0), (10, 20, 30)),
    "CMYK": ((0, 255, 255, 0), (255, 0, 0)),
    "YCbCr": ((128, 128, 128), (128, 128, 128)),
    "LAB": ((255, 128, 128), (255, 255, 255)),
    "HSV": ((0, 255, 255), (255, 0, 0)),
    "I": (200, (200, 200, 200)),
    "F": (200.0, (200, 200, 200)),
    "I;16": (65535, (255, 255, 255)),
    "I;16L": (257 * 100, (100, 100, 100)),
    "I;16B": (257 * 100, (100, 100, 100)),
    "I;16N": (257 * 100, (100, 100, 100)),
}


@pytest.mark.parametrize("mode", PLAIN_MODES)
def test_opaque_modes(mode: str) -> None:
    colour, expected = PLAIN_MODES[mode]
    image = Image.new(mode, (3, 2), colour)
    notices: Counter[str] = Counter()
    result = open_image(image, notices=notices)
    assert result.size == (3, 2)
    assert np.abs(pixels(result) - np.array(expected)).max() <= 1
    assert sum(notices.values()) == (0 if mode == "RGB" else 1)
    assert ON_WHITE not in notices
    assert image.mode == mode


# Half transparent over white: colour * 128/255 + 255 * 127/255.
TRANSPARENT_MODES: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "RGBA": ((200, 0, 0, 128), (227, 127, 127)),
    "RGBa": ((100, 0, 0, 128), (227, 127, 127)),
    "LA": ((0, 128), (127, 127, 127)),
    "La": ((0, 128), (127, 127, 127)),
    "PA": ((0, 128), (127, 127, 127)),
}


@pytest.mark.parametrize("mode", TRANSPARENT_MODES)
def test_alpha_is_laid_on_white(mode: str) -> None:
    colour, expected = TRANSPARENT_MODES[mode]
    notices: Counter[str] = Counter()
    result = open_image(Image.new(mode, (3, 2), colour), notices=notices)
    assert np.abs(pixels(result) - np.array(expected)).max() <= 1
    assert notices[ON_WHITE] == 1


def test_every_mode_of_pillow_is_known_to_these_tests() -> None:
    from PIL import ImageMode

    described = {
        "1",
        "L",
        "I",
        "F",
        "P",
        "RGB",
        "RGBX",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "RGBa",
        "LA",
        "La",
        "PA",
    }
    described |= {"I;16", "I;16L", "I;16B"}
    assert described | {"I;16N"} == PLAIN_MODES.keys() | TRANSPARENT_MODES.keys() | {"P"}
    assert all(ImageMode.getmode(mode).mode == mode for mode in described)


def test_opaque_alpha_is_no_notice() -> None:
    notices: Counter[str] = Counter()
    result = open_image(Image.new("RGBA", (2, 2), (1, 2, 3, 255)), notices=notices)
    assert result.getpixel((0, 0)) == (1, 2, 3)
    assert not notices


def palette_picture() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize("format", ["object", "PNG"])
@pytest.mark.parametrize("transparency", [None, 1, b"\xff\x00"])
def test_palette_with_and_without_transparency(format: str, transparency: int | bytes | None) -> None:
    image = palette_picture()
    if transparency is not None:
        image.info["transparency"] = transparency
    notices: Counter[str] = Counter()
    source = image if format == "object" else encoded(image, "PNG")
    result = open_image(source, notices=notices)
    assert result.getpixel((0, 0)) == (255, 0, 0)
    assert result.getpixel((1, 0)) == ((0, 0, 255) if transparency is None else (255, 255, 255))
    assert notices == {"P brought to RGB": 1} | ({} if transparency is None else {ON_WHITE: 1})


@pytest.mark.parametrize("format", ["object", "PNG"])
def test_transparent_colour_of_rgb_and_grey(format: str) -> None:
    rgb = Image.new("RGB", (2, 1), (9, 9, 9))
    rgb.putpixel((1, 0), (1, 2, 3))
    grey = Image.new("L", (2, 1), 9)
    grey.putpixel((1, 0), 4)
    for image, colour in ((rgb, (1, 2, 3)), (grey, 4)):
        image.info["transparency"] = colour
        result = open_image(image if format == "object" else encoded(image, "PNG"))
        assert [result.getpixel((x, 0)) for x in (0, 1)] == [(9, 9, 9), (255, 255, 255)]


def test_16_bit_is_scaled_and_not_clipped() -> None:
    samples = np.array([[0, 256, 257 * 7, 32768, 65535]], dtype=np.uint16)
    notices: Counter[str] = Counter()
    for source in (Image.fromarray(samples), encoded(Image.fromarray(samples), "PNG")):
        result = pixels(open_image(source, notices=notices))
        assert result[0, :, 0].tolist() == [0, 1, 7, 128, 255]
    assert notices == {DEEP: 2}


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2), (0, 1)])
def test_16_bit_files_of_every_kind(colour_type: int, channels: int) -> None:
    samples = np.full((2, 3, channels), 257 * 90, dtype=np.uint16)
    samples[0, 0] = 0
    samples[1, 2] = 65535
    if channels in (2, 4):
        samples[..., -1] = 65535
    notices: Counter[str] = Counter()
    result = pixels(open_image(raw_png(samples, colour_type), notices=notices))
    assert np.abs(result[0, 1] - 90).max() <= 1
    assert result[0, 0].tolist() == [0, 0, 0]
    assert result[1, 2].tolist() == [255, 255, 255]
    assert notices[DEEP] == 1


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (0, 1)])
def test_16_bit_transparent_colour(colour_type: int, channels: int) -> None:
    samples = np.zeros((1, 2, channels), dtype=np.uint16)
    samples[0, 1] = 0x1234
    trns = chunk(b"tRNS", struct.pack(">H", 0x1234) * channels)
    notices: Counter[str] = Counter()
    result = open_image(raw_png(samples, colour_type, trns), notices=notices)
    assert [result.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]
    assert notices == {DEEP: 1, ON_WHITE: 1}


def test_integers_and_floats_tell_their_range() -> None:
    def grey(samples: list[float], kind: str) -> list[int]:
        return [int(v) for v in pixels(open_image(Image.fromarray(np.array([samples], dtype=kind))))[0, :, 0]]

    assert grey([0, 128, 255], "int32") == [0, 128, 255]
    assert grey([0, 257 * 100, 65535], "int32") == [0, 100, 255]
    assert grey([0.0, 0.5, 1.0], "float32") == [0, 128, 255]
    assert grey([0.0, 100.4, 255.0], "float32") == [0, 100, 255]
    for bad in ([-1, 5], [0, 70000]):
        with pytest.raises(DataError, match=r"scale them to 0\.\.255"):
            grey(list(bad), "int32")
    with pytest.raises(DataError, match="scale them"):
        grey([0.0, float("nan")], "float32")


def test_cmyk_jpeg_is_not_inverted() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    data = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data[:200]
    notices: Counter[str] = Counter()
    red = pixels(open_image(data, notices=notices))
    assert np.abs(red - np.array([255, 0, 0])).max() <= 3
    assert notices == {"CMYK brought to RGB": 1}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    upright = gradient()
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that undoes each orientation
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    kinds: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    notices: Counter[str] = Counter()
    result = open_image(encoded(stored, format, exif=exif, **kinds.get(format, {})), notices=notices)
    assert result.size == upright.size
    assert np.abs(pixels(result) - pixels(upright)).max() <= (6 if format == "JPEG" else 0)
    assert notices["EXIF orientation applied"] == (orientation != 1)
    assert not result.info


def test_lossless_webp_with_alpha() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((10, 20, 30, 255), (0, 0, 4, 8))
    notices: Counter[str] = Counter()
    result = open_image(encoded(image, "WEBP", lossless=True), notices=notices)
    assert result.getpixel((0, 0)) == (10, 20, 30)
    assert result.getpixel((7, 7)) == (255, 255, 255)
    assert notices == {ON_WHITE: 1}


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_animated_is_refused(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(DataError, match=r"walk\.png: animated \(2 frames\)"):
        open_image(data, name="walk.png")
    with pytest.raises(DataError, match="animated"):
        peek(data)
    still = encoded(frames[0], format, save_all=True)
    assert open_image(still).size == (8, 8)


def test_animated_object_is_refused() -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animated"):
        open_image(Image.open(io.BytesIO(data)))


def test_first_picture_of_a_camera_file() -> None:
    first, second = gradient(), Image.new("RGB", (24, 16), "black")
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    notices: Counter[str] = Counter()
    result = open_image(data, notices=notices)
    assert np.abs(pixels(result) - pixels(first)).mean() < 12
    assert notices == {"first picture of several taken (MPO)": 1}
    assert peek(data) == ("JPEG", 24, 16)


FOREIGN = {"GIF": "a GIF picture", "BMP": "a BMP picture", "TIFF": "a TIFF picture", "JPEG2000": "a JPEG 2000 picture"}


@pytest.mark.parametrize("format", FOREIGN)
def test_other_formats_are_refused_by_name(format: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(gradient(), format))
    for look in (open_image, peek):
        with pytest.raises(DataError, match=rf"photo\.png: {FOREIGN[format]}; only PNG, JPEG and WebP") as caught:
            look(path)
        assert "convert it to PNG" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\xef\xbb\xbf  <html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "an AVIF file"),
        (b"\x89PNG\r\n", "begins like PNG"),
        (b"\xff\xd8", "begins like JPEG"),
        (b"RIFF\0\0\0\0WEBP", "damaged or cut short|begins like WebP"),
        (b"hello", "not a picture"),
    ],
)
def test_what_is_no_picture(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    for source in (path, str(path), data, {"bytes": data, "path": "cat.jpg"}, {"bytes": None, "path": str(path)}):
        with pytest.raises(DataError, match=words):
            open_image(source)


@pytest.mark.parametrize("source", [None, 3, {"bytes": None, "path": None}, {}])
def test_what_is_no_source(source: object) -> None:
    with pytest.raises(DataError):
        open_image(source)  # type: ignore[arg-type]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.png", Path("a\0b.png")):
        with pytest.raises(DataError, match=r"no such file|can not be opened"):
            open_image(path)


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60000, 60000), (10000, 10000), (8193, 8192)])
def test_bomb_is_refused_from_its_header(size: tuple[int, int]) -> None:
    for look in (open_image, peek):
        with pytest.raises(DataError, match="make it smaller"):
            look(bomb(*size))


@pytest.mark.filterwarnings("error")
def test_bomb_is_refused_where_warnings_are_errors() -> None:
    with pytest.raises(DataError, match="make it smaller"):
        open_image(bomb(10000, 10000))


def test_max_pixels_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (4, 4)), "PNG")
    assert open_image(data, max_pixels=16).size == (4, 4)
    for source in (data, Image.new("RGB", (4, 4))):
        with pytest.raises(DataError, match="4 x 4 pixels, more than the 15 accepted"):
            open_image(source, max_pixels=15)


def noisy(format: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), format)


FILES = {format: noisy(format) for format in ("PNG", "JPEG", "WEBP")}


@pytest.mark.parametrize("format", FILES)
@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_a_cut_file_is_refused_or_lacks_nothing(format: str, share: float) -> None:
    whole = FILES[format]
    cut = whole[: int(share * len(whole))]
    try:
        result = open_image(cut)
    except DataError:
        return
    assert np.array_equal(pixels(result), pixels(open_image(whole)))
    assert len(whole) - len(cut) < 64


@pytest.mark.parametrize("format", FILES)
def test_half_a_file_is_refused_even_where_pillow_was_told_to_pass_it(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    half = FILES[format][: len(FILES[format]) // 2]
    with pytest.raises(DataError, match=r"damaged or cut short|begins like"):
        open_image(half)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@given(data=st.binary(max_size=200), head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"]))
def test_no_bytes_raise_anything_else(data: bytes, head: bytes) -> None:
    with pytest.raises(DataError):
        open_image(head + data)


@given(position=st.integers(0, 10**6), value=st.integers(0, 255), format=st.sampled_from(sorted(FILES)))
def test_a_changed_byte_raises_nothing_else(position: int, value: int, format: str) -> None:
    data = bytearray(FILES[format])
    data[position % len(data)] = value
    try:
        image = open_image(bytes(data))
    except DataError:
        return
    assert image.mode == "RGB"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_broken_exif_does_no_harm() -> None:
    data = encoded(gradient(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff")
    assert open_image(data).size == (24, 16)


def test_text_chunks_do_no_harm() -> None:
    info = PngInfo()
    info.add_text("comment", "x" * 1000, zip=True)
    assert open_image(encoded(gradient(), "PNG", pnginfo=info)).info == {}


def test_the_result_is_a_new_picture() -> None:
    source = gradient()
    result = open_image(source)
    result.putpixel((0, 0), (1, 1, 1))
    assert source.getpixel((0, 0)) != (1, 1, 1)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_png_round_trip(width: int, height: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = encode_png(Image.fromarray(noise))
    assert np.array_equal(np.asarray(open_image(data)), noise)
    assert peek(data) == ("PNG", width, height)


def test_real_generations(real_data: Path) -> None:
    for path in sorted((real_data / "generated_images").iterdir()):
        assert open_image(path).size == (512, 512)


def test_a_decoded_picture_keeps_its_mode_and_orientation(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGBA", (8, 4), (10, 20, 30, 40)).save(tmp_path / "a.png", exif=turned)
    image = decode_image(tmp_path / "a.png")
    assert (image.mode, image.size) == ("RGBA", (8, 4))
    assert image.getpixel((0, 0)) == (10, 20, 30, 40)
    assert image.getexif()[0x0112] == 6


def test_a_decoded_picture_is_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="mine: damaged or cut short"):
        decode_image(whole[:-400], name="mine")
    assert decode_image(whole).size == (64, 64)
    with pytest.raises(DataError, match="more than the 100 accepted"):
        decode_image(whole, max_pixels=100)
    with pytest.raises(DataError, match="GIF"):
        decode_image(b"GIF89a" + bytes(20))
