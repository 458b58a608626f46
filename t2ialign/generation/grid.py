"""`t2ialign grid`: image sets side by side in one labelled picture.

Law of this file: pictures in a row answer the same prompt, and pictures of equal sample number start
from the same seed; a picture that a set lacks is shown as a gap, never skipped over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from t2ialign.data.files import written_aside
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError, DataError
from t2ialign.generation.labels import set_labels

if TYPE_CHECKING:
    from t2ialign.data.image_sets import ImageRecord

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SMALLEST_CELL, LARGEST_CELL = 128, 256
"""Sides in pixels between which a cell is chosen where none is given."""
PAPER, INK, PALE, GAP = (255, 255, 255), (25, 25, 25), (110, 110, 110), (238, 238, 238)
PADDING = 8
"""Pixels between cells."""
TEXT_WIDTH = 220
"""Width in pixels of the column of prompts."""

Key = tuple[str, int]


@dataclass(frozen=True)
class _Layout:
    """Measures of a grid in pixels, and its fonts."""

    cell: int
    columns: int
    samples: int
    rows: int
    head: int
    text: Font
    small: Font

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole."""
        width = TEXT_WIDTH + PADDING + sum(self.width_of_set + 2 * PADDING for _ in range(self.columns))
        return width, self.head + self.rows * (self.cell + PADDING) + PADDING

    @property
    def width_of_set(self) -> int:
        """Width of the pictures of one set."""
        return self.samples * (self.cell + PADDING) - PADDING

    def left(self, column: int, sample: int = 0) -> int:
        """Return where a cell begins from the left."""
        return TEXT_WIDTH + 2 * PADDING + column * (self.width_of_set + 2 * PADDING) + sample * (self.cell + PADDING)

    def top(self, row: int) -> int:
        """Return where a row begins from the top."""
        return self.head + row * (self.cell + PADDING)


def make_grid(
    sets: Sequence[str | Path],
    output: str | Path,
    max_prompts: int = 16,
    samples: int = 1,
    cell: int | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Path:
    """Draw prompts down and models across, the same seeds side by side, and write a PNG.

    Args:
        sets: Image sets. One in which several models drew becomes a column a model.
        output: The PNG file.
        max_prompts: Rows; prompts that all sets have come first, in the order of the first set.
        samples: Pictures of a prompt that are shown of each set.
        cell: Side of a picture in pixels; `None` for one between 128 and 256 that suits the pictures.
            Small pictures are enlarged by repeating pixels, large ones reduced smoothly.
        labels: Names of the columns; by default the models' or folders'.

    Returns:
        `output`.

    Raises:
        ConfigError: If a number is out of range.
        DataError: If sets share no prompt, or show one sample of a prompt from different seeds.
    """
    for name, value in (("max_prompts", max_prompts), ("samples", samples), ("cell", cell or 1)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if not sets:
        raise ConfigError("there is no image set to show; name at least one")
    columns = _columns([Path(folder) for folder in sets], labels)
    folders, opened = [each.image_set.path for each in columns], [each.image_set for each in columns]
    indexed, names = [each.index for each in columns], [each.label for each in columns]
    _check_seeds(folders, indexed)
    prompts = _choose(folders, indexed, max_prompts)
    layout = _layout(opened, cell, samples, len(prompts), names)
    canvas = Image.new("RGB", layout.size, PAPER)
    draw = ImageDraw.Draw(canvas)
    _draw_heads(draw, layout, names)
    for row, (prompt_id, prompt) in enumerate(prompts):
        _draw_text(draw, layout, row, prompt, prompt_id)
        for column, (image_set, index) in enumerate(zip(opened, indexed, strict=True)):
            for sample in range(samples):
                place = (layout.left(column, sample), layout.top(row))
                _draw_cell(canvas, draw, layout, place, image_set, index.get((prompt_id, sample)))
    with written_aside(Path(output)) as aside:
        canvas.save(aside, format="PNG")
    return Path(output)


@dataclass(frozen=True)
class _Column:
    """A set, or what one model made of a set of several, and its label."""

    image_set: ImageSet
    index: dict[Key, ImageRecord]
    label: str


def _columns(folders: list[Path], labels: Sequence[str] | None) -> list[_Column]:
    """Open sets; one in which several models drew the same samples becomes a column a model."""
    parts = [(image_set, *part) for image_set in map(ImageSet, folders) for part in _by_model(image_set).items()]
    if len(parts) == len(folders):
        names = set_labels(folders, labels)
    elif labels and len(labels) != len(parts):
        raise DataError(f"{len(labels)} labels for {len(parts)} columns, one for each model of a set; give each one")
    elif labels:
        names = list(labels)
    else:
        # The models alone name the columns of one set; beside others, the folders are named too.
        folded = [(image_set.path.resolve().name, model) for image_set, model, _ in parts]
        names = [model if len(folders) == 1 else f"{name}: {model}".removesuffix(": ") for name, model in folded]
    return [
        _Column(image_set, _index(image_set, records), name)
        for (image_set, _, records), name in zip(parts, names, strict=True)
    ]


def _by_model(image_set: ImageSet) -> dict[str, list[ImageRecord]]:
    """Part the records by model where models share samples; else all of them, under no name."""
    if len({(record.prompt_id, record.sample) for record in image_set.records}) == len(image_set.records):
        return {"": list(image_set.records)}
    parts: dict[str, list[ImageRecord]] = {}
    for record in image_set.records:
        parts.setdefault(record.model, []).append(record)
    return parts


def _index(image_set: ImageSet, records: list[ImageRecord]) -> dict[Key, ImageRecord]:
    found: dict[Key, ImageRecord] = {}
    for record in records:
        key = (record.prompt_id, record.sample)
        if key in found:
            raise DataError(
                f"{image_set.path} holds two pictures of prompt {key[0]}, sample {key[1]}; show sets of one model each"
            )
        found[key] = record
    if not found:
        raise DataError(f"the image set {image_set.path} is empty; generate pictures first with t2ialign generate")
    return found


def _check_seeds(folders: Sequence[Path], indexed: Sequence[dict[Key, ImageRecord]]) -> None:
    """Hold that every set shows the same prompt and seed under one (prompt id, sample)."""
    first: dict[Key, tuple[Path, ImageRecord]] = {}
    for folder, index in zip(folders, indexed, strict=True):
        for key, record in index.items():
            where, known = first.setdefault(key, (folder, record))
            if known.prompt != record.prompt:
                raise DataError(
                    f"prompt {key[0]} is {known.prompt!r} in {where} but {record.prompt!r} in {folder}; "
                    "generate both from the same prompt file"
                )
            if known.seed != record.seed:
                raise DataError(
                    f"prompt {key[0]}, sample {key[1]} has seed {known.seed} in {where} but {record.seed} in "
                    f"{folder}; generate both with the same --seed"
                )


def _choose(
    folders: Sequence[Path], indexed: Sequence[dict[Key, ImageRecord]], max_prompts: int
) -> list[tuple[str, str]]:
    """Choose (prompt id, prompt): those of all sets first, then those that some sets lack."""
    texts: dict[str, str] = {}
    having: dict[str, set[int]] = {}
    for number, index in enumerate(indexed):
        for (prompt_id, _), record in index.items():
            texts.setdefault(prompt_id, record.prompt)
            having.setdefault(prompt_id, set()).add(number)
    everywhere = [prompt_id for prompt_id in texts if len(having[prompt_id]) == len(indexed)]
    if not everywhere:
        raise DataError(
            f"the image sets {', '.join(map(str, folders))} have no prompt in common; "
            "generate them from the same prompt file"
        )
    some = [prompt_id for prompt_id in texts if prompt_id not in set(everywhere)]
    return [(prompt_id, texts[prompt_id]) for prompt_id in (everywhere + some)[:max_prompts]]


def _layout(sets: Sequence[ImageSet], cell: int | None, samples: int, rows: int, labels: Sequence[str]) -> _Layout:
    if cell is None:
        picture = sets[0].open(sets[0].records[0])
        side = max(picture.size)
        cell = side * math.ceil(SMALLEST_CELL / side) if side < SMALLEST_CELL else min(side, LARGEST_CELL)
    text, small = ImageFont.load_default(14), ImageFont.load_default(11)
    plain = _Layout(cell, len(sets), samples, rows, 0, text, small)
    lines = max(len(_wrap(label, text, plain.width_of_set, 3)) for label in labels)
    head = 2 * PADDING + lines * _line_height(text) + (_line_height(small) if samples > 1 else 0)
    return _Layout(cell, len(sets), samples, rows, head, text, small)


def _draw_heads(draw: ImageDraw.ImageDraw, layout: _Layout, labels: Sequence[str]) -> None:
    for column, label in enumerate(labels):
        for number, line in enumerate(_wrap(label, layout.text, layout.width_of_set, 3)):
            place = (layout.left(column), PADDING + number * _line_height(layout.text))
            draw.text(place, line, fill=INK, font=layout.text)
        for sample in range(layout.samples if layout.samples > 1 else 0):
            place = (layout.left(column, sample), layout.head - PADDING - _line_height(layout.small))
            draw.text(place, f"sample {sample}", fill=PALE, font=layout.small)


def _draw_text(draw: ImageDraw.ImageDraw, layout: _Layout, row: int, prompt: str, prompt_id: str) -> None:
    """Write a prompt beside its row, as many lines as fit, its id below."""
    top, height = layout.top(row), _line_height(layout.text)
    room = max(1, (layout.cell - _line_height(layout.small)) // height)
    lines = _wrap(prompt, layout.text, TEXT_WIDTH, room)
    for number, line in enumerate(lines):
        draw.text((PADDING, top + number * height), line, fill=INK, font=layout.text)
    if top + len(lines) * height + _line_height(layout.small) <= top + layout.cell + PADDING:
        name = _wrap(prompt_id, layout.small, TEXT_WIDTH, 1)[0]
        draw.text((PADDING, top + len(lines) * height), name, fill=PALE, font=layout.small)


def _draw_cell(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    layout: _Layout,
    place: tuple[int, int],
    image_set: ImageSet,
    record: ImageRecord | None,
) -> None:
    left, top = place
    if record is None:
        box = (left, top, left + layout.cell - 1, top + layout.cell - 1)
        draw.rectangle(box, fill=GAP, outline=PALE)
        draw.line((box[0], box[1], box[2], box[3]), fill=PALE)
        draw.line((box[0], box[3], box[2], box[1]), fill=PALE)
        centre = (left + layout.cell // 2, top + layout.cell // 2)
        draw.text(centre, "missing", fill=INK, font=layout.small, anchor="mm", stroke_width=4, stroke_fill=GAP)
        return
    picture = fit(image_set.open(record), layout.cell)
    canvas.paste(picture, (left + (layout.cell - picture.width) // 2, top + (layout.cell - picture.height) // 2))


def fit(picture: Image.Image, side: int) -> Image.Image:
    """Bring a picture's longer side to `side` pixels: enlarged by repeating pixels, or reduced smoothly."""
    scale = side / max(picture.size)
    if scale == 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _wrap(text: str, font: Font, width: int, room: int) -> list[str]:
    """Break a text into at most `room` lines of at most `width` pixels; what is cut ends in an ellipsis."""
    lines = [""]
    for word in text.split() or [""]:
        candidate = f"{lines[-1]} {word}".strip()
        if font.getlength(candidate) <= width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        while font.getlength(word) > width:
            fitting = next(n for n in range(len(word), 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines[-1] = word[:fitting]
            lines.append("")
            word = word[fitting:]
        lines[-1] = word
    if len(lines) > room:
        lines = lines[:room]
        while lines[-1] and font.getlength(lines[-1] + "…") > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] += "…"
    return lines


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Äg|")
    return int(bottom - min(0, top)) + 3
