"""The section on over-optimisation: the trained reward against what was watched during training.

Law of this file: only what the run wrote down is shown. `metrics.jsonl` holds means over prompts and none of single
prompts, so there is neither an interval nor a test, and none is claimed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.eval.suites.findings import Findings, Row, cell, number, plot, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.suites.contenders import Contender
    from t2ialign.eval.suites.evidence import Evidence

NAME = "overoptimization"
DEFINITION = (
    "What training by a reward wrote down as it ran: the mean reward on the watched prompts, the mean of the scorer "
    "that is not trained on, and the distance from the reference. The sign of over-optimisation is a reward that goes "
    "on rising while the watched scorer falls. Values of single prompts are not kept there, so figures have no "
    "interval and no test: they show what was measured on these prompts, and not whether it would be so on others."
)
KEYS = {"reward": "watch_reward", "watched": "watch", "divergence": "watch_divergence"}
"""Figures, and their names in `metrics.jsonl`."""
Point = dict[str, float]


@dataclass
class Options:
    """There is nothing to choose."""


def measure(evidence: Evidence, options: Options) -> Findings:
    """Show what each model's run watched."""
    found = {each.label: points for each in evidence.plan.models if (points := watched_points(each))}
    if not found:
        reason = "no model lies in a run that watched a scorer (watch_every and watch of training by a reward)"
        return Findings.absent(NAME, SECTIONS[NAME], reason, DEFINITION)
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    for label, points in found.items():
        _one_run(findings, label, points)
    return findings


def watched_points(model: Contender) -> list[Point]:
    """Read the checkpoints that were watched, by step; empty where there are none.

    Args:
        model: Its adapter, or its model where it has none, is looked for as `RUN/final`, beside which
            `RUN/metrics.jsonl` lies; what an adapter's base was trained by is not this model's training.
    """
    folder = Path(model.adapter or model.model).expanduser()
    file = folder.resolve().parent / "metrics.jsonl"
    return _points(file) if folder.is_dir() and file.is_file() else []


def _points(file: Path) -> list[Point]:
    points: dict[int, Point] = {}
    for text in file.read_text(encoding="utf-8").splitlines():
        try:
            line: Any = json.loads(text)
        except ValueError:  # a run that was killed may leave half a line
            continue
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            continue
        values = {name: line[key] for name, key in KEYS.items() if _is_finite(line.get(key))}
        if {"reward", "watched"} <= set(values):
            points[line["step"]] = {"step": line["step"], **values}
    return [points[step] for step in sorted(points)]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _one_run(findings: Findings, label: str, points: list[Point]) -> None:
    rows: list[dict[str, Row]] = []
    lines: list[list[Any]] = []
    for point in points:
        step = f"{point['step']:.0f}"
        made = {
            name: findings.add(
                name, point[name], key=(label, f"step {step}"), unit="checkpoint", model=label, group=f"step {step}",
                method="mean over the run's watched prompts, as training wrote it; no interval, for want of values of "
                "single prompts",
            )
            for name in KEYS
            if name in point
        }  # fmt: skip
        rows.append(made)
        shown = [cell(number(made[name].value), made[name]) if name in made else "–" for name in KEYS]
        lines.append([step, *shown])
    _say(findings, label, points, rows)
    if len(points) > 1:
        for name, key in KEYS.items():
            curve = [
                {"x": p["step"], "value": p[name], "row": r[name].id, "label": f"step {p['step']:.0f}"}
                for p, r in zip(points, rows, strict=True)
                if name in p
            ]
            if len(curve) > 1:
                title = f"{name.capitalize()} over steps, {label}"
                series = [{"label": key, "points": curve}]
                findings.blocks.append(plot("lines", title, series=series, x="step", y=name))
    head = ["step", "reward (trained on)", "watched scorer", "divergence"]
    findings.blocks.append(table(f"What training watched, {label}", head, lines))


def _say(findings: Findings, label: str, points: list[Point], rows: list[dict[str, Row]]) -> None:
    first, last = points[0], points[-1]
    if len(points) == 1:
        findings.say(
            f"{label}: a single checkpoint was watched (step {first['step']:.0f}), which shows no course.",
            [rows[0]["reward"], rows[0]["watched"]],
            "open",
        )
        return
    peak = max(range(len(points)), key=lambda place: points[place]["watched"])
    top = points[peak]
    used = [row for place in dict.fromkeys([0, peak, len(points) - 1]) for row in rows[place].values()]
    course = (
        f"from step {first['step']:.0f} to {last['step']:.0f} the mean reward goes from {first['reward']:.4g} to "
        f"{last['reward']:.4g}, the watched scorer from {first['watched']:.4g} to {last['watched']:.4g} "
        f"(highest {top['watched']:.4g} at step {top['step']:.0f}, of {len(points)} checkpoints)"
    )
    apart = last["watched"] < top["watched"] and last["reward"] > top["reward"]
    word = (
        "after that peak the means part as they do in over-optimisation; whether by more than chance cannot be told"
        if apart
        else "the means do not part as they would in over-optimisation, which does not show that there is none"
    )
    findings.say(f"{label}: {course}. {word[0].upper()}{word[1:]} without values of single prompts.", used, "open")
