"""Plots as inline SVG, drawn from the plain values of a plot block.

Law of this file: a plot is narrow (`WIDTH` units) with letters that can be read on a phone, needs no network and no
script, and names the row of every figure in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH = 380
"""Width of a plot in its own units; a phone shows one unit as one pixel."""
PALETTE = ("#1f6feb", "#d4791f", "#2e8b57", "#8a4fbf", "#c23b6b", "#4b8ea8", "#8c7a2b", "#6b7280")
"""Colours of models, told apart in print by their order too."""
MUTED = "#8a94a3"

Data = Mapping[str, Any]


def draw(shape: str, title: str, data: Data, places: Mapping[str, int]) -> str:
    """Draw a plot.

    Args:
        shape: One of `SHAPES`.
        title: Read out by screen readers.
        data: What the shape takes; see its function.
        places: Number of each row by id.

    Raises:
        KeyError: If there is no such shape.
    """
    height, body = SHAPES[shape](data, places)
    return (
        f'<svg class="{shape}" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{body}</svg>"
    )


def _tip(point: Data, places: Mapping[str, int]) -> str:
    """Say what a mark shows, with the number of its row."""
    parts = [f"{point.get('label', '')}: {_short(point['value'])}"]
    if point.get("low") is not None:
        parts.append(f"95 % interval {_short(point['low'])} to {_short(point['high'])}")
    if point.get("row") in places:
        parts.append(f"row {places[point['row']]}")
    return f"<title>{escape('; '.join(parts))}</title>"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers in [low, high], about `wanted` of them."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _span(values: Sequence[float], room: float = 0.06) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high - low) * room or abs(high) * 0.1 or 0.5
    return low - pad, high + pad


def intervals(data: Data, places: Mapping[str, int]) -> tuple[float, str]:
    """Draw points with their intervals, a line each, its words above it.

    Args:
        data: `points`: `label`, `value`, `low`, `high`, `row`, `tone`; `mark`, a value drawn as a line, or `None`;
            `percent`, whether values are shares (by default where `mark` is one half).
        places: See `draw`.
    """
    points, mark = data["points"], data.get("mark")
    shares = data.get("percent", mark == 0.5)
    ends = [each[name] for each in points for name in ("value", "low", "high") if each.get(name) is not None]
    low, high = (0.0, 1.0) if mark == 0.5 else _span([*ends, *([] if mark is None else [mark])])
    left, right, step = 6.0, WIDTH - 6.0, 36.0

    def at(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    bottom = 6 + step * len(points)
    parts = [_axis(low, high, at, bottom, shares)]
    if mark is not None:
        parts.append(f'<line class="mark" x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="4" y2="{bottom:.1f}"/>')
    for number, point in enumerate(points):
        y = 6 + step * number + 24
        value = f"{100 * point['value']:.1f} %" if shares else _short(point["value"])
        parts.append(_text(left, y - 9, point["label"]))
        parts.append(_text(right, y - 9, value, "value", "end"))
        tone = point.get("tone") or "plain"
        line = ""
        if point.get("low") is not None:
            line = f'<line x1="{at(point["low"]):.1f}" x2="{at(point["high"]):.1f}" y1="{y}" y2="{y}"/>'
        parts.append(
            f'<g class="tone-{escape(tone)}">{_tip(point, places)}{line}'
            f'<circle cx="{at(point["value"]):.1f}" cy="{y}" r="4.5"/></g>'
        )
    return bottom + 22, "".join(parts)


def _axis(low: float, high: float, at: Callable[[float], float], y: float, shares: bool) -> str:
    parts = [f'<line class="axis" x1="6" x2="{WIDTH - 6}" y1="{y:.1f}" y2="{y:.1f}"/>']
    for value in ticks(low, high):
        words = f"{100 * value:.0f} %" if shares else _short(value)
        x = at(value)
        anchor = "start" if x < 20 else "end" if x > WIDTH - 20 else "middle"
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 4:.1f}"/>')
        parts.append(_text(x, y + 16, words, "small", anchor))
    return "".join(parts)


def bars(data: Data, places: Mapping[str, int]) -> tuple[float, str]:
    """Draw groups of bars, a colour a series, with intervals.

    Args:
        data: `groups`: `label` and `bars`, each with `series`, `value`, `low`, `high`, `row`; `percent`, whether
            values are shares; `top`, the end of the axis, or `None`.
        places: See `draw`.
    """
    groups = data["groups"]
    series = list(dict.fromkeys(bar["series"] for group in groups for bar in group["bars"]))
    shares = bool(data.get("percent"))
    ends = [max(bar["value"], bar.get("high") or bar["value"]) for group in groups for bar in group["bars"]]
    top = data.get("top") or (max(ends, default=1.0) * 1.05 or 1.0)
    left, right = 6.0, WIDTH - 56.0

    def at(value: float) -> float:
        return left + (right - left) * max(0.0, min(value, top)) / top

    parts = [_legend(_colors(series))]
    y = 8.0 + 18 * len(series)
    for group in groups:
        y += 16
        parts.append(_text(left, y - 4, group["label"]))
        for bar in group["bars"]:
            parts.append(_bar({"label": f"{group['label']}, {bar['series']}"} | bar, series, y, at, shares, places))
            y += 14
        y += 4
    return y + 4, "".join(parts)


def _bar(
    bar: Data,
    series: Sequence[str],
    y: float,
    at: Callable[[float], float],
    shares: bool,
    places: Mapping[str, int],
) -> str:
    color = PALETTE[series.index(bar["series"]) % len(PALETTE)]
    words = f"{100 * bar['value']:.1f} %" if shares else _short(bar["value"])
    whisker = ""
    end = at(bar["value"])
    if bar.get("low") is not None:
        whisker = (
            f'<line class="whisker" x1="{at(bar["low"]):.1f}" x2="{at(bar["high"]):.1f}" y1="{y + 5}" y2="{y + 5}"/>'
        )
        end = max(end, at(bar["high"]))
    return (
        f'<g>{_tip(bar, places)}<rect x="6" y="{y}" width="{max(0.5, at(bar["value"]) - 6):.1f}" height="11" '
        f'fill="{color}"/>{whisker}{_text(end + 5, y + 10, words, "small")}</g>'
    )


def _legend(colors: Mapping[str, str]) -> str:
    parts = []
    for number, (name, color) in enumerate(colors.items()):
        y = 6 + 18 * number
        parts.append(f'<rect x="6" y="{y}" width="11" height="11" fill="{color}"/>')
        parts.append(_text(24, y + 10, name))
    return "".join(parts)


def _colors(series: Sequence[str]) -> dict[str, str]:
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(series)}


def stacked(data: Data, places: Mapping[str, int]) -> tuple[float, str]:
    """Draw shares of a whole as one bar a line.

    Args:
        data: `lines`: `label` and `parts`, each with `series`, `value` (shares that sum to at most 1) and `row`;
            `muted`, a series that is drawn in gray.
        places: See `draw`.
    """
    lines = data["lines"]
    series = list(dict.fromkeys(part["series"] for line in lines for part in line["parts"]))
    left, right = 6.0, WIDTH - 6.0
    colors = {name: MUTED if name == data.get("muted") else color for name, color in _colors(series).items()}
    parts = [_legend(colors)]
    y = 8.0 + 18 * len(series)
    for line in lines:
        y += 18
        parts.append(_text(left, y - 5, line["label"]))
        x = left
        for part in line["parts"]:
            width = (right - left) * part["value"]
            color = colors[part["series"]]
            words = f"{100 * part['value']:.0f}" if width > 22 else ""
            shown = {"label": f"{line['label']}, {part['series']}"} | part
            parts.append(
                f'<g>{_tip(shown, places)}<rect class="part" x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" '
                f'fill="{color}"/>{_text(x + width / 2, y + 13, words, "inside", "middle")}</g>'
            )
            x += width
        y += 22
    return y + 4, "".join(parts)


def lines(data: Data, places: Mapping[str, int]) -> tuple[float, str]:
    """Draw curves.

    Args:
        data: `series`: `label` and `points` (`x`, `value`, optionally `low`, `high`, `row`, `label`); `x` and `y`,
            names of the axes; `joined`, whether points are joined (default true).
        places: See `draw`.
    """
    series = data["series"]
    names = [each["label"] for each in series]
    points = [point for each in series for point in each["points"]]
    low_x, high_x = _span([point["x"] for point in points])
    low, high = _span([p[k] for p in points for k in ("value", "low", "high") if p.get(k) is not None])
    top = 26.0 + 18 * len(names)
    left, right, bottom = 46.0, WIDTH - 10.0, top + 200

    def across(value: float) -> float:
        return left + (right - left) * (value - low_x) / (high_x - low_x)

    def up(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    parts = [_legend(_colors(names)), _text(6, top - 8, str(data.get("y", "")), "small")]
    for value in ticks(low, high):
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>')
        parts.append(_text(left - 5, up(value) + 4, _short(value), "small", "end"))
    for value in ticks(low_x, high_x):
        parts.append(_text(across(value), bottom + 16, _short(value), "small", "middle"))
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(_text((left + right) / 2, bottom + 32, str(data.get("x", "")), "small", "middle"))
    for number, each in enumerate(series):
        color = PALETTE[number % len(PALETTE)]
        parts.append(_curve(each["points"], color, across, up, places, joined=data.get("joined", True)))
    return bottom + 40, "".join(parts)


def _curve(
    points: Sequence[Data],
    color: str,
    across: Callable[[float], float],
    up: Callable[[float], float],
    places: Mapping[str, int],
    *,
    joined: bool,
) -> str:
    parts = []
    if joined and len(points) > 1:
        path = " ".join(f"{across(p['x']):.1f},{up(p['value']):.1f}" for p in points)
        parts.append(f'<polyline points="{path}" stroke="{color}"/>')
    for point in points:
        x, y = across(point["x"]), up(point["value"])
        if point.get("low") is not None:
            parts.append(
                f'<line stroke="{color}" x1="{x:.1f}" x2="{x:.1f}" y1="{up(point["low"]):.1f}" '
                f'y2="{up(point["high"]):.1f}"/>'
            )
        parts.append(f'<g>{_tip(point, places)}<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/></g>')
        if point.get("text"):
            near = x > WIDTH - 10 - 7 * len(str(point["text"]))  # it would leave the plot
            parts.append(
                _text(x - 6 if near else x + 6, y - 6, str(point["text"]), "small", "end" if near else "start")
            )
    return "".join(parts)


SHAPES: dict[str, Callable[[Data, Mapping[str, int]], tuple[float, str]]] = {
    "intervals": intervals,
    "bars": bars,
    "stacked": stacked,
    "lines": lines,
}
"""Shapes of plots by name."""
