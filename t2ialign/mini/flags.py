"""National flags simple enough to draw in a few lines, and no two of them alike to the eye.

Law of this room: a flag is a short list of drawing steps on the unit square, so that the same
table draws pictures, gives the oracle its templates and tells the continent of a country.
Proportions and shades are simplified: every flag is square, and shades come from one palette.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

FLAG_COLORS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "black": (12, 12, 12),
    "red": (215, 25, 40),
    "green": (20, 140, 70),
    "blue": (25, 55, 165),
    "sky": (110, 185, 235),
    "yellow": (250, 212, 30),
    "orange": (250, 135, 25),
}
CONTINENTS = ("Africa", "Asia", "Europe", "North America", "Oceania", "South America")

Step = tuple[str, tuple[float, ...], str]
"""A drawing step: `rect` (left, top, right, bottom), `disc` (x, y, radius), `star` (x, y, radius)
or `polygon` (x1, y1, x2, y2, ...), all on the unit square, and a colour."""


@dataclass(frozen=True)
class FlagDesign:
    """A country's name as captions write it, its continent, and how to draw its flag."""

    name: str
    continent: str
    steps: tuple[Step, ...]


def _bands(horizontal: bool, colors: str, weights: tuple[float, ...] = ()) -> tuple[Step, ...]:
    names = colors.split()
    shares = weights or (1.0,) * len(names)
    total, start, steps = sum(shares), 0.0, []
    for name, share in zip(names, shares, strict=True):
        end = start + share / total
        box = (0.0, start, 1.0, end) if horizontal else (start, 0.0, end, 1.0)
        steps.append(("rect", box, name))
        start = end
    return tuple(steps)


def _rows(colors: str, *weights: float) -> tuple[Step, ...]:
    return _bands(True, colors, weights)


def _columns(colors: str, *weights: float) -> tuple[Step, ...]:
    return _bands(False, colors, weights)


def _field(color: str, *steps: Step) -> tuple[Step, ...]:
    return (("rect", (0.0, 0.0, 1.0, 1.0), color), *steps)


def _nordic(field: str, cross: str) -> tuple[Step, ...]:
    return _field(field, ("rect", (0.28, 0.0, 0.46, 1.0), cross), ("rect", (0.0, 0.41, 1.0, 0.59), cross))


FLAGS: dict[str, FlagDesign] = {
    "benin": FlagDesign("Benin", "Africa", (*_rows("yellow red"), ("rect", (0.0, 0.0, 0.4, 1.0), "green"))),
    "gabon": FlagDesign("Gabon", "Africa", _rows("green yellow blue")),
    "ivory_coast": FlagDesign("Ivory Coast", "Africa", _columns("orange white green")),
    "madagascar": FlagDesign("Madagascar", "Africa", (*_rows("red green"), ("rect", (0.0, 0.0, 0.36, 1.0), "white"))),
    "mali": FlagDesign("Mali", "Africa", _columns("green yellow red")),
    "mauritius": FlagDesign("Mauritius", "Africa", _rows("red blue yellow green")),
    "nigeria": FlagDesign("Nigeria", "Africa", _columns("green white green")),
    "somalia": FlagDesign("Somalia", "Africa", _field("sky", ("star", (0.5, 0.52, 0.3), "white"))),
    "armenia": FlagDesign("Armenia", "Asia", _rows("red blue orange")),
    "bangladesh": FlagDesign("Bangladesh", "Asia", _field("green", ("disc", (0.46, 0.5, 0.27), "red"))),
    "emirates": FlagDesign(
        "the United Arab Emirates",
        "Asia",
        (*_rows("green white black"), ("rect", (0.0, 0.0, 0.27, 1.0), "red")),
    ),
    "indonesia": FlagDesign("Indonesia", "Asia", _rows("red white")),
    "thailand": FlagDesign("Thailand", "Asia", _rows("red white blue white red", 1, 1, 2, 1, 1)),
    "vietnam": FlagDesign("Vietnam", "Asia", _field("red", ("star", (0.5, 0.53, 0.32), "yellow"))),
    "yemen": FlagDesign("Yemen", "Asia", _rows("red white black")),
    "denmark": FlagDesign("Denmark", "Europe", _nordic("red", "white")),
    "estonia": FlagDesign("Estonia", "Europe", _rows("sky black white")),
    "finland": FlagDesign("Finland", "Europe", _nordic("white", "blue")),
    "france": FlagDesign("France", "Europe", _columns("blue white red")),
    "germany": FlagDesign("Germany", "Europe", _rows("black red yellow")),
    "italy": FlagDesign("Italy", "Europe", _columns("green white red")),
    "netherlands": FlagDesign("the Netherlands", "Europe", _rows("red white blue")),
    "poland": FlagDesign("Poland", "Europe", _rows("white red")),
    "sweden": FlagDesign("Sweden", "Europe", _nordic("blue", "yellow")),
    "switzerland": FlagDesign(
        "Switzerland",
        "Europe",
        _field("red", ("rect", (0.4, 0.18, 0.6, 0.82), "white"), ("rect", (0.18, 0.4, 0.82, 0.6), "white")),
    ),
    "ukraine": FlagDesign("Ukraine", "Europe", _rows("blue yellow")),
    "bahamas": FlagDesign(
        "the Bahamas",
        "North America",
        (*_rows("sky yellow sky"), ("polygon", (0.0, 0.0, 0.5, 0.5, 0.0, 1.0), "black")),
    ),
    "costa_rica": FlagDesign("Costa Rica", "North America", _rows("blue white red white blue", 1, 1, 2, 1, 1)),
    "jamaica": FlagDesign(
        "Jamaica",
        "North America",
        _field(
            "yellow",
            ("polygon", (0.14, 0.0, 0.86, 0.0, 0.5, 0.38), "green"),
            ("polygon", (0.14, 1.0, 0.86, 1.0, 0.5, 0.62), "green"),
            ("polygon", (0.0, 0.14, 0.0, 0.86, 0.38, 0.5), "black"),
            ("polygon", (1.0, 0.14, 1.0, 0.86, 0.62, 0.5), "black"),
        ),
    ),
    "palau": FlagDesign("Palau", "Oceania", _field("sky", ("disc", (0.46, 0.5, 0.29), "yellow"))),
    "tonga": FlagDesign(
        "Tonga",
        "Oceania",
        _field(
            "red",
            ("rect", (0.0, 0.0, 0.5, 0.5), "white"),
            ("rect", (0.2, 0.08, 0.3, 0.42), "red"),
            ("rect", (0.08, 0.2, 0.42, 0.3), "red"),
        ),
    ),
    "argentina": FlagDesign("Argentina", "South America", _rows("sky white sky")),
    "bolivia": FlagDesign("Bolivia", "South America", _rows("red yellow green")),
    "colombia": FlagDesign("Colombia", "South America", _rows("yellow blue red", 2, 1, 1)),
    "peru": FlagDesign("Peru", "South America", _columns("red white red")),
}
"""The countries of the mini-world by key, in the order of their continents."""


def star_points(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Return the ten corners of a five-pointed star, point up, in the unit of the arguments."""
    points = []
    for i in range(10):
        r = radius if i % 2 == 0 else 0.42 * radius
        angle = -math.pi / 2 + i * math.pi / 5
        points.append((x + r * math.cos(angle), y + r * math.sin(angle)))
    return points


def draw_flag(country: str, side: int) -> Image.Image:
    """Draw a country's flag as a square RGB picture of `side` pixels.

    Raises:
        KeyError: If the country is not one of `FLAGS`.
    """
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    for kind, numbers, color in FLAGS[country].steps:
        fill = FLAG_COLORS[color]
        v = [n * side for n in numbers]
        if kind == "rect":
            draw.rectangle((round(v[0]), round(v[1]), round(v[2]) - 1, round(v[3]) - 1), fill=fill)
        elif kind == "disc":
            draw.ellipse((v[0] - v[2], v[1] - v[2], v[0] + v[2], v[1] + v[2]), fill=fill)
        elif kind == "star":
            draw.polygon(star_points(*v), fill=fill)
        else:
            draw.polygon(list(zip(v[::2], v[1::2], strict=True)), fill=fill)
    return image
