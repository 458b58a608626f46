"""The mini-world: small pictures drawn by rule, each with a caption that says what is in it.

Law of this room: a picture is a function of its specification alone. `sample` draws a
specification, `render` turns it into a picture, `describe` into words, and `parse` reads words
back into the attributes they ask for. Nothing here is learned.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from t2ialign.mini.flags import CONTINENTS, FLAGS, draw_flag, star_points

SIZE = 64
"""Side of a picture in pixels."""

SUPERSAMPLING = 3
"""Pictures are drawn this many times larger and reduced by averaging."""

OBJECT_COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "green": (35, 155, 60),
    "blue": (40, 70, 220),
    "yellow": (248, 220, 40),
    "purple": (130, 40, 170),
    "orange": (252, 135, 20),
    "pink": (252, 150, 205),
    "brown": (120, 70, 30),
}
BACKGROUND_COLORS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "black": (12, 12, 12),
    "gray": (140, 140, 140),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

SMALL_RADIUS, LARGE_RADIUS, PAIR_RADIUS = 12.0, 22.0, 12.5
SIZE_BOUNDARY = 17.0
"""Objects with a radius below this many pixels are small, the others large."""


@dataclass(frozen=True)
class Thing:
    """One object: what a caption can say of it, and where it stands in the picture.

    Attributes:
        shape: One of `SHAPES`.
        color: A key of `OBJECT_COLORS`; `None` in a request that does not ask for one.
        size: One of `SIZES`; `None` where it is not asked for, and in scenes of two objects.
        x, y: Centre in pixels.
        radius: In pixels.
    """

    shape: str
    color: str | None = None
    size: str | None = None
    x: float = 32.0
    y: float = 32.0
    radius: float = LARGE_RADIUS


@dataclass(frozen=True)
class Spec:
    """A picture's attributes, or those of them that a caption asks for (the rest `None`).

    Attributes:
        kind: `"scene"` or `"flag"`.
        things: One or two objects of a scene; the relation is that of the first to the second.
        relation: One of `RELATIONS`, for two objects.
        background: A key of `BACKGROUND_COLORS`.
        country: A key of `FLAGS`.
        continent: For a request such as "the flag of a country in Africa".
    """

    kind: str
    things: tuple[Thing, ...] = ()
    relation: str | None = None
    background: str | None = None
    country: str | None = None
    continent: str | None = None


# ---------------------------------------------------------------------------------------------
# Drawing


def shape_polygon(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Return the corners of a straight-edged shape, in the unit of `x`, `y` and `radius`."""
    if shape == "square":
        half = 0.88 * radius
        return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    if shape == "cross":
        r, w = radius, 0.34 * radius
        outline = [(-w, -r), (w, -r), (w, -w), (r, -w), (r, w), (w, w)]
        outline += [(w, r), (-w, r), (-w, w), (-r, w), (-r, -w), (-w, -w)]
        return [(x + a, y + b) for a, b in outline]
    if shape == "triangle":
        angles = [math.pi * (-0.5 + 2 * i / 3) for i in range(3)]
        return [(x + 1.15 * radius * math.cos(a), y + 1.15 * radius * math.sin(a)) for a in angles]
    if shape == "star":
        return star_points(x, y, 1.12 * radius)
    raise ValueError(f"{shape!r} has no corners; straight-edged shapes: square, triangle, star, cross")


def draw_shape(
    draw: ImageDraw.ImageDraw,
    thing: Thing,
    fill: int | tuple[int, ...],
    hole: int | tuple[int, ...],
    scale: float = SUPERSAMPLING,
) -> None:
    """Draw one object, enlarged by `scale`; `hole` fills the inside of a ring."""
    x, y, r = thing.x * scale, thing.y * scale, thing.radius * scale
    if thing.shape in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        if thing.shape == "ring":
            inner = 0.55 * r
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=hole)
        return
    draw.polygon(shape_polygon(thing.shape, x, y, r), fill=fill)


def render(spec: Spec) -> Image.Image:
    """Draw a complete specification as an RGB picture of `SIZE` by `SIZE` pixels.

    Raises:
        ValueError: If an attribute that the drawing needs is missing.
    """
    side = SIZE * SUPERSAMPLING
    if spec.kind == "flag":
        if spec.country is None:
            raise ValueError("a flag is drawn for a country, and this specification names none")
        return draw_flag(spec.country, side).reduce(SUPERSAMPLING)
    if spec.background is None:
        raise ValueError("a scene is drawn on a background, and this specification names none")
    background = BACKGROUND_COLORS[spec.background]
    image = Image.new("RGB", (side, side), background)
    draw = ImageDraw.Draw(image)
    for thing in spec.things:
        if thing.color is None:
            raise ValueError(f"a {thing.shape} is drawn in a colour, and this specification names none")
        draw_shape(draw, thing, OBJECT_COLORS[thing.color], background)
    return image.reduce(SUPERSAMPLING)


# ---------------------------------------------------------------------------------------------
# Sampling


def _choice(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def sample_single(rng: np.random.Generator) -> Spec:
    """Draw a scene of one object."""
    size = _choice(rng, SIZES)
    radius = LARGE_RADIUS + rng.uniform(-2, 2) if size == "large" else SMALL_RADIUS + rng.uniform(-1.5, 1.5)
    reach = 4.0 if size == "large" else 12.0
    thing = Thing(
        shape=_choice(rng, SHAPES),
        color=_choice(rng, tuple(OBJECT_COLORS)),
        size=size,
        x=32 + rng.uniform(-reach, reach),
        y=32 + rng.uniform(-reach, reach),
        radius=radius,
    )
    return Spec("scene", (thing,), background=_choice(rng, tuple(BACKGROUND_COLORS)))


def sample_double(rng: np.random.Generator) -> Spec:
    """Draw a scene of two objects, one beside or above the other."""
    relation = _choice(rng, RELATIONS)
    near, far = 15.5 + rng.uniform(-1, 1), 48.5 + rng.uniform(-1, 1)
    across = 32 + rng.uniform(-5, 5, size=2)
    first, second = (near, far) if relation in ("left of", "above") else (far, near)
    things = []
    for along, other in ((first, across[0]), (second, across[1])):
        x, y = (along, other) if relation in ("left of", "right of") else (other, along)
        things.append(
            Thing(
                shape=_choice(rng, SHAPES),
                color=_choice(rng, tuple(OBJECT_COLORS)),
                x=float(x),
                y=float(y),
                radius=PAIR_RADIUS + rng.uniform(-1.0, 1.0),
            )
        )
    return Spec("scene", tuple(things), relation, _choice(rng, tuple(BACKGROUND_COLORS)))


def sample_flag(rng: np.random.Generator) -> Spec:
    """Draw a country's flag."""
    return Spec("flag", country=_choice(rng, tuple(FLAGS)))


SAMPLERS = {"single": sample_single, "double": sample_double, "flag": sample_flag}


def sample(rng: np.random.Generator, flags: float = 0.15, doubles: float = 0.55) -> Spec:
    """Draw a picture of any kind; `flags` and `doubles` are shares of the whole."""
    u = rng.random()
    if u < flags:
        return sample_flag(rng)
    return sample_double(rng) if u < flags + doubles else sample_single(rng)


# ---------------------------------------------------------------------------------------------
# Words


def forget(
    spec: Spec,
    rng: np.random.Generator,
    size: float = 0.3,
    color: float = 0.15,
    background: float = 0.3,
    country: float = 0.2,
) -> Spec:
    """Leave out attributes at random, each with its probability, as captions do."""
    if spec.kind == "flag":
        if rng.random() >= country:
            return spec
        named = FLAGS[spec.country or ""].continent if rng.random() < 0.6 else None
        return Spec("flag", continent=named)
    things = tuple(
        replace(
            t,
            size=None if rng.random() < size else t.size,
            color=None if rng.random() < color else t.color,
        )
        for t in spec.things
    )
    kept = None if rng.random() < background else spec.background
    return replace(spec, things=things, background=kept)


def turn_around(spec: Spec) -> Spec:
    """Tell a scene of two objects from the second one's side."""
    if len(spec.things) != 2 or spec.relation is None:
        return spec
    return replace(spec, things=spec.things[::-1], relation=INVERSE[spec.relation])


def _with_article(words: list[str]) -> str:
    return ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)


def _thing_words(thing: Thing) -> str:
    return _with_article([w for w in (thing.size, thing.color, thing.shape) if w])


def describe(spec: Spec) -> str:
    """Say in words what a specification says, no more and no less.

    >>> describe(Spec("scene", (Thing("ring", "orange", "small"),), background="white"))
    'a small orange ring on a white background'
    """
    if spec.kind == "flag":
        if spec.country:
            return f"the flag of {FLAGS[spec.country].name}"
        return f"the flag of a country in {spec.continent}" if spec.continent else "a flag"
    words = _thing_words(spec.things[0])
    if len(spec.things) == 2:
        words += f" {spec.relation} {_thing_words(spec.things[1])}"
    return words + (f" on a {spec.background} background" if spec.background else "")


_THING = rf"an? (?:({'|'.join(SIZES)}) )?(?:({'|'.join(OBJECT_COLORS)}) )?({'|'.join(SHAPES)})"
_SCENE = re.compile(
    rf"{_THING}(?: ({'|'.join(RELATIONS)}) {_THING})?(?: on a ({'|'.join(BACKGROUND_COLORS)}) background)?"
)


@lru_cache(maxsize=65536)
def parse(prompt: str) -> Spec:
    """Read a prompt of the mini-world back into what it asks for.

    Args:
        prompt: Words in the grammar that `describe` writes; case, outer blanks and a final stop
            do not matter.

    Raises:
        ValueError: If the prompt is not in the mini-world's grammar.
    """
    text = " ".join(prompt.lower().split()).rstrip(".")
    if text == "a flag":
        return Spec("flag")
    for continent in CONTINENTS:
        if text == f"the flag of a country in {continent}".lower():
            return Spec("flag", continent=continent)
    for key, flag in FLAGS.items():
        if text == f"the flag of {flag.name}".lower():
            return Spec("flag", country=key)
    match = _SCENE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{prompt!r} is not a prompt of the mini-world; it understands for instance "
            "'a large red circle on a white background', 'a blue star above a green ring', "
            "'the flag of France', 'the flag of a country in Africa', 'a flag'"
        )
    s1, c1, shape1, relation, s2, c2, shape2, background = match.groups()
    things = (Thing(shape1, c1, s1),) + ((Thing(shape2, c2, s2),) if shape2 else ())
    return Spec("scene", things, relation, background)


SPLITS = ("train", "validation", "test")


def split_of(prompt: str) -> str:
    """Tell which split a prompt belongs to: 80 % train, 10 % validation, 10 % test.

    The split is a function of the words alone, so that no prompt is ever in two of them. A scene
    told from either side counts as the same prompt.
    """
    spec = parse(prompt)
    key = min(describe(spec), describe(turn_around(spec)))
    digit = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
    return "test" if digit == 9 else "validation" if digit == 8 else "train"


def captions_vocabulary() -> list[str]:
    """Return every word that a caption can hold, sorted."""
    words = {"a", "an", "on", "background", "the", "flag", "of", "country", "in", "left", "right", "above", "below"}
    words |= {*SIZES, *SHAPES, *OBJECT_COLORS, *BACKGROUND_COLORS}
    for name in [f.name for f in FLAGS.values()] + list(CONTINENTS):
        words |= set(name.lower().split())
    return sorted(words)
