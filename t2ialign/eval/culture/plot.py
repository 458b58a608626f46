"""Where pictures come from, without a map: a line a country, continent by continent, as one SVG file.

Law of this file: a picture says what the counts say. Lengths are shares of a set's pictures on one scale for all sets
that begins at zero; countries without a picture are not drawn, pictures without a country are a line of their own, and
every line has its number of pictures. The file needs no network, no font of its own, no script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from t2ialign.eval.culture.countries import CONTINENTS
from t2ialign.eval.culture.diversity import DiversityReport

_COLORS = {
    "Africa": "#b5651d",
    "Asia": "#c2334d",
    "Europe": "#2f6db3",
    "North America": "#5b8c2a",
    "Oceania": "#0e8f8a",
    "South America": "#7d4fa8",
    "Antarctica": "#6b7280",
}
_NONE = "no country"
_STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:12px;fill:#1f2937}"
    ".h{font-weight:600}.t{font-size:15px;font-weight:600}.s{fill:#6b7280}"
    "@media (prefers-color-scheme:dark){text{fill:#e5e7eb}.s{fill:#9ca3af}.bg{fill:#111827}}"
)
_ROW, _HEAD, _TOP, _NAME, _NUMBER, _SIDE = 18, 24, 62, 150, 46, 16


@dataclass(frozen=True)
class Origin:
    """What is drawn of a set of pictures.

    Attributes:
        label: Name of the set.
        countries: Pictures by country.
        without: Pictures without a country.
    """

    label: str
    countries: Mapping[str, int]
    without: int

    @classmethod
    def of(cls, report: DiversityReport, label: str) -> Origin:
        """Take the counts of a report."""
        covered = report.coverage["country"]
        return cls(label, report.countries, covered.n - covered.labelled)

    @property
    def n(self) -> int:
        """All pictures."""
        return sum(self.countries.values()) + self.without


def origin_svg(
    origins: Sequence[Origin],
    continents: Mapping[str, str],
    *,
    title: str = "Where pictures come from",
    width: int = 860,
) -> str:
    """Draw where pictures come from; several sets stand side by side on one scale.

    Args:
        origins: The sets, at least one.
        continents: Continent of each country (`DiversityReport.country_continents`).
        title: In the picture.
        width: In pixels.

    Returns:
        The SVG file's text.

    Raises:
        ValueError: If there is no set, or a country has no continent.
    """
    if not origins or not any(origin.n for origin in origins):
        raise ValueError("there is nothing to draw; give at least one set with pictures")
    unknown = [name for origin in origins for name in origin.countries if name not in continents]
    if unknown:
        raise ValueError(f"{unknown[0]!r} has no continent; pass it in `continents`")
    column = (width - 2 * _SIDE - _NAME) / len(origins)
    reach = (column - _NUMBER - 12) / max(_longest(origin) for origin in origins)
    lines = _heads(origins, column, title)
    y = float(_TOP)
    for continent, names in _groups(origins, continents):
        y += _HEAD
        lines.append(f'<text class="h" x="{_SIDE}" y="{y:.0f}">{escape(continent)}</text>')
        totals = [sum(_count(origin, name) for name in names) for origin in origins]
        lines += [
            f'<text class="s" x="{_left(i, column):.1f}" y="{y:.0f}">{_percent(total, origin)}</text>'
            for i, (origin, total) in enumerate(zip(origins, totals, strict=True))
        ]
        for name in names:
            y += _ROW
            lines += _line(name, origins, y, column, reach, _COLORS.get(continent, "#6b7280"))
    height = y + 2 * _SIDE
    said = "; ".join(f"{origin.label}: {origin.n} pictures, {origin.without} without a country" for origin in origins)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
            f'height="{height:.0f}" role="img" aria-label="{escape(f"{title}. {said}", quote=True)}">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<rect class="bg" width="{width}" height="{height:.0f}" fill="#ffffff"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _groups(origins: Sequence[Origin], continents: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return continents with their countries, the commonest first; last the pictures without a country."""
    totals: dict[str, int] = {}
    for origin in origins:
        for name, count in origin.countries.items():
            totals[name] = totals.get(name, 0) + count
    found = []
    for continent in (*CONTINENTS, *sorted({*continents.values()} - {*CONTINENTS})):
        names = sorted((name for name in totals if continents[name] == continent), key=lambda n: (-totals[n], n))
        if names:
            found.append((continent, names))
    if any(origin.without for origin in origins):
        found.append(("Not told", [_NONE]))
    return found


def _count(origin: Origin, name: str) -> int:
    return origin.without if name == _NONE else origin.countries.get(name, 0)


def _share(origin: Origin, count: int) -> float:
    return count / origin.n if origin.n else 0.0


def _longest(origin: Origin) -> float:
    return max((_share(origin, count) for count in (*origin.countries.values(), origin.without)), default=0.0)


def _percent(count: int, origin: Origin) -> str:
    return f"{100 * _share(origin, count):.0f} %"


def _left(number: int, column: float) -> float:
    return _SIDE + _NAME + number * column


def _heads(origins: Sequence[Origin], column: float, title: str) -> list[str]:
    lines = [f'<text class="t" x="{_SIDE}" y="26">{escape(title)}</text>']
    for i, origin in enumerate(origins):
        lines.append(f'<text class="h" x="{_left(i, column):.1f}" y="48">{escape(origin.label)}</text>')
        lines.append(f'<text class="s" x="{_left(i, column):.1f}" y="64">{origin.n} pictures</text>')
    return lines


def _line(name: str, origins: Sequence[Origin], y: float, column: float, reach: float, color: str) -> list[str]:
    lines = [f'<text x="{_SIDE + 10}" y="{y:.0f}">{escape(name)}</text>']
    for i, origin in enumerate(origins):
        count, left = _count(origin, name), _left(i, column)
        long = reach * _share(origin, count)
        told = f"{origin.label}, {name}: {count} of {origin.n}"
        if count:
            lines.append(
                f'<rect x="{left:.1f}" y="{y - 10:.0f}" width="{long:.1f}" height="11" rx="2" fill="{color}">'
                f"<title>{escape(told)}</title></rect>"
            )
        lines.append(f'<text class="s" x="{left + long + 5:.1f}" y="{y:.0f}">{count}</text>')
    return lines
