"""The oracle: reads a picture of the mini-world back into attributes, without learning anything.

Law of this room: analysis by synthesis. A reading counts only if drawing it again gives the
picture back, up to a stated tolerance; otherwise the picture is unreadable, and nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from t2ialign.mini.flags import FLAG_COLORS, FLAGS
from t2ialign.mini.world import (
    BACKGROUND_COLORS,
    INVERSE,
    OBJECT_COLORS,
    SHAPES,
    SIZE,
    SIZE_BOUNDARY,
    SUPERSAMPLING,
    Spec,
    Thing,
    describe,
    draw_shape,
    parse,
    render,
)

Array = npt.NDArray[np.float64]

FLAG_AGREEMENT = 0.86
"""Share of pixels that must be near a flag's drawing before it is read as that flag."""
FLAG_PART_AGREEMENT = 0.6
"""The same share, of each of the flag's colours by itself."""
FLAG_MARGIN = 0.03
"""How much better the best flag must agree than the second."""
NEAR = 62.0
"""Distance in RGB (0 to 442) within which a pixel has a colour."""
BORDER_SHARE = 0.85
"""Share of the border that must have the background's colour."""
FOREGROUND = 45.0
"""Distance in RGB from the background beyond which a pixel may belong to an object."""
MIN_AREA = 40
"""Pixels below which a spot is a speck and no object."""
MAX_SPECKS = 80
"""Pixels of specks, all together, that a readable picture may hold."""
MIN_OVERLAP = 0.74
"""Overlap (intersection over union) of an object with the drawing of its shape."""
MAX_COLOR_ERROR = 62.0
"""Distance in RGB of an object's median from the nearest colour that has a name."""
MAX_RESIDUAL = 16.0
"""Mean absolute difference (0 to 255) between a scene and its reading drawn again."""
MAX_FLAG_RESIDUAL = 26.0
"""The same for a flag, whose colours fill the whole picture."""


@dataclass(frozen=True)
class Reading:
    """What the oracle sees in a picture.

    Attributes:
        readable: Whether it could be read at all.
        reason: Why not; empty when readable.
        spec: All attributes, with places and radii; `None` when unreadable.
        confidence: In [0, 1]: how well the reading, drawn again, gives the picture back.
    """

    readable: bool
    reason: str
    spec: Spec | None
    confidence: float


@dataclass(frozen=True)
class Verdict:
    """How a picture answers a prompt.

    Attributes:
        right: Whether every attribute that the prompt asks for is there.
        attributes: Whether each one is, by name (`kind`, `count`, `shape 1`, `color 1`, `relation`,
            `background`, `country`, ...).
        score: Graded, in [0, 1]: the share of attributes that are right, times 0.8 + 0.2 times the
            reading's confidence; 0 for an unreadable picture.
        reading: What the oracle saw.
    """

    right: bool
    attributes: dict[str, bool]
    score: float
    reading: Reading


def _unreadable(reason: str) -> Reading:
    return Reading(False, reason, None, 0.0)


def _pixels(image: Image.Image) -> Array:
    image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64)


def _distance(pixels: Array, color: tuple[int, ...] | Array) -> Array:
    return np.asarray(np.sqrt(np.square(pixels - np.asarray(color, dtype=np.float64)).sum(-1)))


# ---------------------------------------------------------------------------------------------
# Flags


@lru_cache(maxsize=1)
def _flag_drawings() -> tuple[tuple[str, ...], Array]:
    names = tuple(FLAGS)
    return names, np.stack([np.asarray(render(Spec("flag", country=n)), dtype=np.float64) for n in names])


def _read_flag(pixels: Array) -> Reading | None:
    names, drawings = _flag_drawings()
    near = _distance(drawings, pixels[None]) < NEAR
    agreement = near.mean(axis=(1, 2))
    order = np.argsort(agreement)[::-1]
    best, second = float(agreement[order[0]]), float(agreement[order[1]])
    if best < FLAG_AGREEMENT:
        return None
    if best - second < FLAG_MARGIN:
        return _unreadable(f"it could be the flag of {names[order[0]]} or of {names[order[1]]}")
    drawing = drawings[order[0]]
    residual = float(np.abs(pixels - drawing).mean())
    if residual > MAX_FLAG_RESIDUAL:
        return _unreadable(f"it differs from the flag of {names[order[0]]} by {residual:.0f} of 255 in the mean")
    for step in FLAGS[names[order[0]]].steps:
        part = _distance(drawing, FLAG_COLORS[step[2]]) < 1.0
        if near[order[0]][part].mean() < FLAG_PART_AGREEMENT:
            return _unreadable(f"it lacks the {step[2]} of the flag of {names[order[0]]}")
    spec = Spec("flag", country=names[order[0]])
    return Reading(True, "", spec, _confidence(best, residual))


# ---------------------------------------------------------------------------------------------
# Scenes


@lru_cache(maxsize=4096)
def _coverage(shape: str, x: float, y: float, radius: float) -> Array:
    """Draw a shape's coverage of each pixel, [SIZE, SIZE] in [0, 1]."""
    image = Image.new("L", (SIZE * SUPERSAMPLING,) * 2, 0)
    draw_shape(ImageDraw.Draw(image), Thing(shape, x=x, y=y, radius=radius), 255, 0)
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float64) / 255.0


@lru_cache(maxsize=1)
def _box_ratios() -> dict[str, tuple[float, float, float, float]]:
    """Return the bounding box (left, top, right, bottom) of each shape around its centre at radius 1."""
    boxes = {}
    for shape in SHAPES:
        rows, columns = np.nonzero(_coverage(shape, 32.0, 32.0, 20.0) > 0.5)
        left, right = columns.min() - 32.0, columns.max() + 1 - 32.0
        top, bottom = rows.min() - 32.0, rows.max() + 1 - 32.0
        boxes[shape] = (left / 20.0, top / 20.0, right / 20.0, bottom / 20.0)
    return boxes


def _background(pixels: Array) -> str | None:
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
    border = np.concatenate([border, pixels[:, :2].reshape(-1, 3), pixels[:, -2:].reshape(-1, 3)])
    shares = {name: float((_distance(border, color) < NEAR).mean()) for name, color in BACKGROUND_COLORS.items()}
    name = max(shares, key=lambda n: shares[n])
    return name if shares[name] >= BORDER_SHARE else None


def _overlap(alpha: Array, shape: str, box: tuple[float, float, float, float]) -> tuple[float, Thing]:
    """Fit a shape to a soft mask by its bounding box; return the overlap and where the shape stands."""
    left, top, right, bottom = box
    l1, t1, r1, b1 = _box_ratios()[shape]
    radius = 0.5 * ((right - left) / (r1 - l1) + (bottom - top) / (b1 - t1))
    x = 0.5 * (left + right) - 0.5 * (l1 + r1) * radius
    y = 0.5 * (top + bottom) - 0.5 * (t1 + b1) * radius
    best = (0.0, Thing(shape))
    for grow in (0.0, -0.7, 0.7):
        thing = Thing(shape, x=round(x, 1), y=round(y, 1), radius=round(radius + grow, 1))
        cover = _coverage(shape, thing.x, thing.y, thing.radius)
        overlap = float(np.minimum(alpha, cover).sum() / np.maximum(alpha, cover).sum())
        best = max(best, (overlap, thing), key=lambda pair: pair[0])
    return best


def _read_thing(pixels: Array, mask: npt.NDArray[np.bool_], background: Array) -> tuple[float, Thing] | str:
    inner = ndimage.binary_erosion(mask)
    median = np.median(pixels[inner if inner.sum() >= 12 else mask], axis=0)
    errors = {name: float(_distance(median, np.asarray(color))) for name, color in OBJECT_COLORS.items()}
    color = min(errors, key=lambda n: errors[n])
    if errors[color] > MAX_COLOR_ERROR:
        return f"an object's colour {tuple(int(v) for v in median)} has no name"
    axis = median - background
    alpha = np.clip(((pixels - background) @ axis) / float(axis @ axis), 0.0, 1.0)
    alpha = alpha * ndimage.binary_dilation(mask, iterations=2)
    rows, columns = np.nonzero(alpha > 0.5)
    if len(rows) < MIN_AREA:
        return "an object too faint to have a shape"
    box = (columns.min(), rows.min(), columns.max() + 1.0, rows.max() + 1.0)
    overlap, thing = max((_overlap(alpha, shape, box) for shape in SHAPES), key=lambda pair: pair[0])
    if overlap < MIN_OVERLAP:
        return f"an object fits no shape (the nearest, {thing.shape}, overlaps {overlap:.2f})"
    return overlap, replace(thing, color=color)


def _relation(first: Thing, second: Thing) -> str | None:
    dx, dy = second.x - first.x, second.y - first.y
    if max(abs(dx), abs(dy)) < 1.3 * min(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx > 0 else "right of"
    return "above" if dy > 0 else "below"


def _confidence(overlap: float, residual: float) -> float:
    return float(np.clip(overlap, 0, 1) * np.clip(1.0 - residual / (2 * MAX_RESIDUAL), 0, 1))


def _objects(pixels: Array, background: Array) -> list[npt.NDArray[np.bool_]] | str:
    labels, count = ndimage.label(_distance(pixels, background) > FOREGROUND, np.ones((3, 3)))
    areas = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1)) if count else np.zeros(0)
    masks = [labels == i + 1 for i in range(count) if areas[i] >= MIN_AREA]
    if float(areas[areas < MIN_AREA].sum()) > MAX_SPECKS:
        return "too many specks"
    if not masks:
        return "it holds no object"
    return masks if len(masks) <= 2 else f"it holds {len(masks)} objects"


def _read_scene(pixels: Array) -> Reading:
    name = _background(pixels)
    if name is None:
        return _unreadable("the border has no colour that a background has")
    background = np.asarray(BACKGROUND_COLORS[name], dtype=np.float64)
    masks = _objects(pixels, background)
    if isinstance(masks, str):
        return _unreadable(masks)
    overlaps, things = [], []
    for mask in masks:
        read_thing = _read_thing(pixels, mask, background)
        if isinstance(read_thing, str):
            return _unreadable(read_thing)
        overlaps.append(read_thing[0])
        things.append(read_thing[1])
    relation = None
    if len(things) == 1:
        things[0] = replace(things[0], size="small" if things[0].radius < SIZE_BOUNDARY else "large")
    else:
        relation = _relation(things[0], things[1])
        if relation is None:
            return _unreadable("the two objects stand askew")
    spec = Spec("scene", tuple(things), relation, name)
    residual = float(np.abs(pixels - np.asarray(render(spec), dtype=np.float64)).mean())
    if residual > MAX_RESIDUAL:
        return _unreadable(f"drawn again, the reading differs by {residual:.0f} of 255 in the mean")
    return Reading(True, "", spec, _confidence(float(np.mean(overlaps)), residual))


# ---------------------------------------------------------------------------------------------
# The oracle's public face


def read(image: Image.Image) -> Reading:
    """Read a picture of the mini-world.

    Args:
        image: Any size and mode; it is brought to RGB and to `SIZE` pixels by averaging.

    Returns:
        All attributes of the scene or flag, or an unreadable reading with its reason.
    """
    pixels = _pixels(image)
    return _read_flag(pixels) or _read_scene(pixels)


def caption(image: Image.Image) -> str | None:
    """Say in words what a picture shows, in full; `None` when it is unreadable."""
    spec = read(image).spec
    return describe(spec) if spec else None


def _scene_attributes(asked: Spec, things: tuple[Thing, ...], relation: str | None) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for i, (want, have) in enumerate(zip(asked.things, things, strict=False), 1):
        found[f"shape {i}"] = want.shape == have.shape
        if want.color:
            found[f"color {i}"] = want.color == have.color
        if want.size:
            found[f"size {i}"] = want.size == have.size
    if asked.relation:
        found["relation"] = asked.relation == relation
    return found


def _missing(asked: Spec) -> dict[str, bool]:
    """Name all attributes that a scene prompt asks for, as not found."""
    return {name: False for name in _scene_attributes(asked, asked.things, asked.relation)}


def _compare_scene(asked: Spec, seen: Spec) -> dict[str, bool]:
    found = {"count": len(asked.things) == len(seen.things)}
    turned = INVERSE[seen.relation] if seen.relation else None
    orders = [(seen.things, seen.relation), (seen.things[::-1], turned)]
    attributes = [_missing(asked) | _scene_attributes(asked, things, relation) for things, relation in orders]
    best: dict[str, bool] = max(attributes, key=lambda a: sum(a.values()))
    found |= best
    if asked.background:
        found["background"] = asked.background == seen.background
    return found


def compare(asked: Spec, reading: Reading) -> dict[str, bool]:
    """Tell which of the attributes that `asked` names a reading has.

    The two objects of a scene may be matched either way round; the better way counts.
    """
    seen = reading.spec or Spec("unreadable")
    kind = {"kind": asked.kind == seen.kind}
    if asked.kind == "scene":
        found = _compare_scene(asked, seen if seen.kind == "scene" else Spec("scene"))
        return kind | (found if kind["kind"] else dict.fromkeys(found, False))
    if asked.country:
        kind["country"] = asked.country == seen.country
    if asked.continent:
        kind["continent"] = seen.country is not None and FLAGS[seen.country].continent == asked.continent
    return kind


def judge(prompt: str, image: Image.Image) -> Verdict:
    """Judge how a picture answers a prompt of the mini-world.

    Raises:
        ValueError: If the prompt is outside the mini-world's grammar (`world.parse`).
    """
    asked = parse(prompt)
    reading = read(image)
    attributes = compare(asked, reading)
    share = sum(attributes.values()) / len(attributes)
    score = share * (0.8 + 0.2 * reading.confidence) if reading.readable else 0.0
    return Verdict(all(attributes.values()), attributes, score, reading)


def score(prompt: str, image: Image.Image) -> float:
    """Return `judge(prompt, image).score`, graded in [0, 1]."""
    return judge(prompt, image).score
