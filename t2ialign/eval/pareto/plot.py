"""The plot of a Pareto front: one self-contained SVG, a panel for each pair of axes.

Law of this file: what is drawn is in the front already; nothing is computed here but places. Points on the front are
full and joined; others are hollow. Bars are 95 % intervals. Better is up and to the right on every panel.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t2ialign.eval.pareto.front import Axis, Front, FrontPoint

_SIDE = 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 18.0, 26.0, 52.0
_INK, _GREY, _FRONT = "#24292f", "#8c959f", "#1f6feb"
_STYLE = "font-family:system-ui,sans-serif;font-size:11px"

Place = Callable[[float], float]


def front_svg(front: Front) -> str:
    """Draw a front.

    Returns:
        An SVG document without references to anything outside; it can stand in a page as it is.
    """
    pairs = list(combinations(front.axes, 2)) or [(front.axes[0], front.axes[0])]
    width, height = _SIDE * len(pairs), _SIDE + 34
    panels = [
        f'<g transform="translate({_SIDE * number:.0f},0)">{_panel(front, *pair)}</g>'
        for number, pair in enumerate(pairs)
    ]
    title = "Pareto front: " + ", ".join(axis.shown for axis in front.axes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title, quote=True)}" style="{_STYLE};max-width:{width:.0f}px;background:#fff">'
        f"{''.join(panels)}{_legend(front, height)}</svg>\n"
    )


def _legend(front: Front, height: float) -> str:
    bars = f"bars: 95 % intervals; {front.prompts} prompts" if front.prompts else "no intervals: no values by prompt"
    lines = ("full: on the front; hollow: dominated", bars)
    return "".join(_words(8, height - 22 + 16 * number, line, _GREY) for number, line in enumerate(lines))


def _panel(front: Front, across: Axis, up: Axis) -> str:
    x, y = _scale(front, across, _LEFT, _SIDE - _RIGHT), _scale(front, up, _SIDE - _BOTTOM, _TOP)
    on_front = sorted((p for p in front.points if p.on_front), key=lambda point: x(point.values[across.name]))
    parts = [_frame(front, across, up, x, y)]
    if len(front.axes) == 2 and len(on_front) > 1:
        line = " ".join(f"{x(p.values[across.name]):.1f},{y(p.values[up.name]):.1f}" for p in on_front)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{_FRONT}" stroke-width="1.5"/>')
    places = [(x(point.values[across.name]), y(point.values[up.name])) for point in front.points]
    for number in sorted(range(len(places)), key=lambda i: front.points[i].on_front):
        parts.append(_mark(front.points[number], places[number], across, up, x, y))
    parts += _labels(front, places)
    return "".join(parts)


def _mark(point: FrontPoint, place: tuple[float, float], across: Axis, up: Axis, x: Place, y: Place) -> str:
    colour = _FRONT if point.on_front else _GREY
    bars = ""
    interval = point.intervals[across.name]
    if interval is not None:
        bars += f'<path d="M{x(interval.low):.1f} {place[1]:.1f}H{x(interval.high):.1f}"/>'
    interval = point.intervals[up.name]
    if interval is not None:
        bars += f'<path d="M{place[0]:.1f} {y(interval.low):.1f}V{y(interval.high):.1f}"/>'
    said = [point.label, *(f"{name}: {value:.4g}" for name, value in point.values.items())]
    if point.membership is not None:
        said.append(f"on the front in {100 * point.membership:.0f} % of resamples")
    fill = colour if point.on_front else "#fff"
    return (
        f'<g stroke="{colour}"><title>{escape("; ".join(said))}</title><g stroke-opacity="0.45">{bars}</g>'
        f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4.5" fill="{fill}" stroke-width="1.5"/></g>'
    )


def _labels(front: Front, places: list[tuple[float, float]]) -> list[str]:
    """Words beside the points, where they cover no words that stand already; left out where there is no room."""
    taken: list[tuple[float, float, float, float]] = [(px - 6, py - 6, px + 6, py + 6) for px, py in places]
    found = []
    for number in sorted(range(len(places)), key=lambda i: not front.points[i].on_front):
        point, (px, py) = front.points[number], places[number]
        words = point.label if len(point.label) <= 26 else point.label[:25] + "…"
        wide = 5.9 * len(words)
        for left, base in ((px + 8, py - 6), (px + 8, py + 14), (px - 8 - wide, py - 6), (px - 8 - wide, py + 14)):
            box = (left, base - 9, left + wide, base + 3)
            inside = box[0] > _LEFT and box[2] < _SIDE - 2 and box[1] > _TOP - 16 and box[3] < _SIDE - _BOTTOM + 2
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                found.append(_words(left, base, words, _INK if point.on_front else _GREY))
                break
    return found


def _overlap(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _frame(front: Front, across: Axis, up: Axis, x: Place, y: Place) -> str:
    bottom, right = _SIDE - _BOTTOM, _SIDE - _RIGHT
    parts = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="{_INK}"/>']
    for value in _ticks(front, across):
        place = x(value)
        parts.append(f'<path d="M{place:.1f} {bottom}v4" stroke="{_INK}"/>')
        parts.append(_words(place, bottom + 16, f"{value:.4g}", _INK, "middle"))
    for value in _ticks(front, up):
        place = y(value)
        parts.append(f'<path d="M{_LEFT} {place:.1f}h-4" stroke="{_INK}"/>')
        parts.append(_words(_LEFT - 7, place + 4, f"{value:.4g}", _INK, "end"))
    parts.append(_words((_LEFT + right) / 2, bottom + 34, _named(across), _INK, "middle"))
    middle = (_TOP + bottom) / 2
    turned = _words(0, 0, _named(up), _INK, "middle")
    parts.append(f'<g transform="translate(14,{middle:.1f}) rotate(-90)">{turned}</g>')
    return "".join(parts)


def _named(axis: Axis) -> str:
    return f"{axis.shown} →" if axis.higher else f"{axis.shown} (less is better) →"


def _span(front: Front, axis: Axis) -> tuple[float, float]:
    ends = []
    for point in front.points:
        interval = point.intervals[axis.name]
        ends += [point.values[axis.name], *(interval or ())]
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def _scale(front: Front, axis: Axis, start: float, end: float) -> Place:
    low, high = _span(front, axis) if axis.higher else _span(front, axis)[::-1]
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _ticks(front: Front, axis: Axis) -> list[float]:
    """Some four round values inside the span."""
    import math

    low, high = _span(front, axis)
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def _words(x: float, y: float, words: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
