"""The page: `report.html` from the content of `report.json` and the pictures beside it.

Law of this file: one file without a link to the network; the first place where a figure is shown is the one that
links lead to; what a script adds (the filter) is missed by nobody who has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_text
from t2ialign.eval.reporting.pictures import LOSSLESS, embed
from t2ialign.eval.reporting.plots import draw


class Rows:
    """Which figure is shown where."""

    def __init__(self, places: Mapping[str, int], figures: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the number of each row, and what it holds."""
        self.places, self.figures = places, figures
        self._anchored: set[str] = set()

    def number(self, row_id: str | None) -> int | None:
        """Return the number of a row; `None` for a cell that shows no figure."""
        return None if row_id is None else self.places[row_id]

    def anchor(self, row_id: str | None) -> str:
        """Return the anchor of a figure, the first time it is asked for; then nothing."""
        if row_id is None or row_id in self._anchored:
            return ""
        self._anchored.add(row_id)
        return f"r{self.places[row_id]}"

    def linked(self, row_id: str) -> bool:
        """Whether the page has a place for a figure."""
        return row_id in self._anchored

    def tip(self, row_id: str | None) -> str:
        """Say what a figure is: its row, its id, its interval and count."""
        if row_id is None:
            return ""
        known = self.figures[row_id]
        parts = [f"row {self.places[row_id]}", row_id, f"n = {known.get('n', 1)} {known.get('unit', '')}s"]
        if "low" in known:
            parts.append(f"95 % interval {known['low']:.4g} to {known['high']:.4g}")
        return "; ".join(parts)


def write_page(path: Path, report: Mapping[str, Any], folder: Path) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        report: The content of `report.json`.
        folder: The folder that pictures are named from.
    """
    write_text(path, render(report, folder))


def render(report: Mapping[str, Any], folder: Path) -> str:
    """Return the page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("t2ialign.eval.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=1, ensure_ascii=False)
    rows = Rows(report["rows"], report["figures"])
    body = environment.get_template("sections.html").render(
        report=report,
        rows=rows,
        draw=lambda block: draw(block["shape"], block["title"], block["data"], report["rows"]),
        embed=lambda file: embed(folder, file),
        lossless=LOSSLESS,
    )
    return environment.get_template("report.html").render(
        report=report, rows=rows, body=body, categories=categories(report), known=_definitions(report), how=_how
    )


def categories(report: Mapping[str, Any]) -> list[str]:
    """Return the categories that the page can be filtered by, in the order in which they are met."""
    found: dict[str, None] = {}
    for section in report["sections"]:
        for block in section["blocks"]:
            if block["kind"] == "table":
                found |= dict.fromkeys(block["groups"])
            elif block["kind"] == "grid":
                found |= dict.fromkeys(line["category"] for line in block["lines"])
    return [name for name in found if name]


def _how(made: Mapping[str, Any]) -> str:
    """Say how pictures were made, as far as the set's `config.json` does."""
    known = {
        "scheduler": "{}",
        "num_inference_steps": "{} steps",
        "guidance_scale": "guidance {}",
        "width": "{} px wide",
        "dtype": "{}",
    }
    return ", ".join(words.format(made[name]) for name, words in known.items() if name in made)


def _definitions(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was used, by name: scorers and embedders with what they say of themselves."""
    known: dict[str, Any] = {}
    for section in report["sections"]:
        known |= section["info"]
    return known
