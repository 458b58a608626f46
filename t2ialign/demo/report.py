"""The demo's page: one self-contained HTML file, drawn from `report.json` and the run's metrics."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2ialign.data.files import write_text
from t2ialign.engine.metrics import read_metrics

CURVES = {
    "margin": "Margin: how much more the tuned model prefers the chosen side than the base does",
    "implicit_accuracy": "Share of training pairs whose margin is above zero",
    "loss": "Diffusion-DPO loss; a model that has not moved has ln 2 = 0.693",
}
WIDTH, HEIGHT, PAD = 520, 170, 44


def write_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write `report.html` from the figures of `report.json` and the files beside it.

    Args:
        folder: The demo's folder, with `grid.png` and `run/metrics.jsonl`.
        report: What `report.json` holds.

    Returns:
        The file written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("t2ialign.demo"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    lines = read_metrics(folder / "run" / "metrics.jsonl")
    curves = [
        (text, curve_svg([(m["step"], m[name]) for m in lines if m.get(name) is not None]))
        for name, text in CURVES.items()
    ]
    page = environment.get_template("report.html").render(
        report=report,
        summary=summary(report),
        grid=base64.b64encode((folder / "grid.png").read_bytes()).decode(),
        curves=curves,
        attributes=sorted(report["base"]["attributes"]),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def summary(report: Mapping[str, Any]) -> str:
    """Say in a sentence what the intervals allow to say, and no more.

    Following prompts is judged by whether pictures are entirely right; the oracle's graded score also
    weighs how cleanly they are drawn.
    """
    rate = report["win_rate"]["entirely right"]
    verdict = report["comparison"]["entirely right"]["verdict"]
    low, high = rate["ci95"]
    figures = f"{100 * rate['value']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}, {rate['n']} prompts)"
    if verdict in ("better", "worse"):
        said = f"After tuning, mini-SD follows held-out prompts {verdict}"
    else:
        said = "No difference in following held-out prompts is shown"
    return f"{said}: by pictures that are entirely right, its win rate over the base is {figures}."


def smooth(values: Sequence[float], width: int = 15) -> list[float]:
    """Return the running mean over up to `width` values, those before included."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i + 1 - width) : i + 1]
        means.append(sum(window) / len(window))
    return means


def curve_svg(points: Sequence[tuple[float, float]]) -> str:
    """Draw a curve with its running mean as inline SVG; an empty string where there are no points."""
    if len(points) < 2:
        return ""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(ys), max(ys)
    span = high - low or 1.0

    def place(x: float, y: float) -> str:
        across = PAD + (WIDTH - PAD - 8) * (x - xs[0]) / (xs[-1] - xs[0])
        return f"{across:.1f},{HEIGHT - 24 - (HEIGHT - 34) * (y - low) / span:.1f}"

    raw = " ".join(place(x, y) for x, y in points)
    mean = " ".join(place(x, y) for x, y in zip(xs, smooth(ys), strict=True))
    labels = [
        f'<text x="{PAD - 4}" y="{HEIGHT - 22}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{PAD - 4}" y="16" text-anchor="end">{high:.3g}</text>',
        f'<text x="{PAD}" y="{HEIGHT - 6}">step {xs[0]:.0f}</text>',
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">{xs[-1]:.0f}</text>',
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><polyline class="raw" points="{html.escape(raw)}"/>'
        f'<polyline class="mean" points="{html.escape(mean)}"/>{"".join(labels)}</svg>'
    )
