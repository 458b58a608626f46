"""The page of an agreement: one HTML file that needs no network, with the disagreements as pictures.

Law of this file: every text is escaped by the template, and the page forbids itself to load anything; pictures are in
it, shrunk.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_text
from t2ialign.data.images import open_image
from t2ialign.errors import DataError
from t2ialign.eval.agreement.disagreements import Disagreement
from t2ialign.eval.agreement.sides import Key
from t2ialign.eval.agreement.words import BIAS_TITLES, figure, headline
from t2ialign.eval.report import p_text

SIDE = 384
"""Longest side of a picture on the page, in pixels; smaller ones stay as they are."""
Source = Callable[[Key], Path | bytes | None]


def write_page(path: Path, result: Mapping[str, Any], wrong: Sequence[Disagreement], source: Source) -> Path:
    """Write the page.

    Args:
        path: The HTML file.
        result: The content of `agreement.json`.
        wrong: The disagreements that are shown.
        source: Finds a picture's file or bytes.

    Returns:
        `path`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("t2ialign.eval.agreement"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"figure": figure, "p_text": p_text, "mark": _mark}
    page = environment.get_template("agreement.html").render(
        result=result,
        lead=result["sentences"][1] if len(result["sentences"]) > 1 else result["sentences"][0],
        headline=headline(result),
        titles=BIAS_TITLES,
        cases=[(each, [data_uri(key, source) for key in (each.annotators, each.reference)]) for each in wrong],
    )
    write_text(path, page)
    return path


def data_uri(key: Key, source: Source) -> str:
    """Return a picture as a `data:` address, or nothing where it is not there or can not be read."""
    try:
        place = source(key)
        if place is None:
            return ""
        image = open_image(place, name=key.digest[:12])
    except (DataError, OSError):
        return ""
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    kind = "PNG" if max(image.size) <= 128 else "JPEG"
    image.save(buffer, format=kind, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mark(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
