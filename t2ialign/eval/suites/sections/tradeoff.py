"""The section on trade-offs: what each model has of prompt following, of diversity and of realism at once.

Law of this file: all axes are of the same prompts and pictures' numbers; a point lies on the front with a probability
over resamples, for its values are estimates. A sweep's points are further settings of the same models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.config import option
from t2ialign.eval.pairs import shared_scorers
from t2ialign.eval.suites.findings import Findings, cell, note, number, percent, plot, span, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    import numpy.typing as npt

    from t2ialign.eval.pairs import ScoredSet
    from t2ialign.eval.pareto import Axis, Front, FrontPoint, Point
    from t2ialign.eval.suites.evidence import Evidence, Kind
    from t2ialign.eval.suites.findings import Row

    Real = npt.NDArray[np.float64]

NAME = "tradeoff"
DEFINITION = (
    "Across: the mean score over a prompt's pictures, by the suite's first scorer. Up: the Vendi score (q = 1) of the "
    "same pictures in the embedder's features, averaged over prompts. Where real pictures are named, realism is a "
    "third axis: the share of a prompt's pictures that lie within the third neighbour of a real one in these features "
    "(precision, arXiv 1904.06991). A point is on the front if no other is at least as good in all and better in one; "
    "the probability is the share of bootstrap resamples over prompts in which it is. A sweep's points are the same "
    "prompts and seeds at other settings. The hypervolume is what a model's points dominate above the worst values of "
    "all; it compares the models of this sweep and nothing else."
)
DIVERSITY, REALISM = "diversity", "realism"
RESAMPLES = 2000
"""Of the front, at most; each finds the front again."""


@dataclass
class Options:
    """What is drawn."""

    prompts: list[str] = option([], "Prompt sets with several pictures of each prompt; all where none is named.")
    scorer: str | None = option(None, "Scorer of the axis across, by name; the suite's first.")
    real: str | None = option(None, "Realism too: folder of real pictures, or `mini-world`, drawn from the prompts.")
    count: int = option(500, "Real pictures that are drawn of the mini-world.")


@dataclass(frozen=True)
class _Place:
    """Where the pictures of a point are."""

    evidence: Evidence
    label: str
    model: str
    shown: str
    settings: Mapping[str, Any]


def measure(evidence: Evidence, options: Options) -> Findings:
    """Find the front of the models, and of the sweep."""
    sets = [
        name
        for name in evidence.sets(options.prompts)
        if evidence.plan.suite.prompts[name].images_per_prompt > 1 and len(evidence.plan.prompts[name]) > 1
    ]
    if evidence.plan.suite.embedder is None or not sets:
        reason = "it takes an embedder, and a set of several prompts with several pictures each"
        return Findings.absent(NAME, SECTIONS[NAME], reason, DEFINITION)
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    for prompts in sets:
        places = [_Place(evidence, label, label, label, {}) for label in evidence.plan.labels]
        _one_set(findings, evidence, options, prompts, places)
    if evidence.sweep is not None:
        _sweep(findings, evidence, options)
    return findings


def _sweep(findings: Findings, evidence: Evidence, options: Options) -> None:
    """Find the front over the settings, and how far each model reaches."""
    from t2ialign.eval.pareto import reaches
    from t2ialign.eval.suites.sweep import settings

    assert evidence.sweep is not None
    (prompts,) = evidence.sweep.plan.prompts
    places = [_Place(evidence, label, label, f"{label}, as above", {}) for label in evidence.plan.labels]
    for each in settings(evidence.plan):
        words = ", ".join(f"{_WORDS[name]} {_short(value)}" for name, value in each.said.items())
        places.append(_Place(evidence.sweep, each.label, each.model, f"{each.model}, {words}", each.said))
    places.sort(key=lambda place: evidence.plan.labels.index(place.model))
    front, points = _one_set(findings, evidence, options, prompts, places, swept=True)
    groups = [place.model for place in places]
    resamples = min(RESAMPLES, evidence.plan.resamples)
    found = reaches(
        points, groups, front.axes, front.reference, base=evidence.base, resamples=resamples, seed=evidence.plan.seed
    )
    lines: list[list[Any]] = []
    shared: dict[str, Any] = {"prompts": prompts, "n": front.prompts, "group": "sweep"}
    whole = findings.add(
        "hypervolume", front.hypervolume, key=(prompts, "sweep"), **_ends(front.hypervolume_interval),
        method=f"of {len(points)} settings; bootstrap over prompts", **shared,
    )  # fmt: skip
    shown = ["all", str(len(points)), cell(number(whole.value), whole), cell(span(whole.low, whole.high), whole)]
    lines.append([*shown, "–", "–", str(front.prompts)])
    for reach in found:
        row = findings.add(
            "hypervolume", reach.volume, key=(prompts, "sweep", reach.group), model=reach.group,
            **_ends(reach.interval), method=f"of {reach.points} settings; bootstrap over prompts", **shared,
        )  # fmt: skip
        shown = [reach.group, str(reach.points), cell(number(row.value), row), cell(span(row.low, row.high), row)]
        if reach.difference is None:
            lines.append([*shown, "–", "–", str(front.prompts)])
            continue
        change = findings.add(
            "hypervolume_difference", reach.difference, key=(prompts, "sweep", reach.group), model=reach.group,
            against=evidence.base, **_ends(reach.difference_interval),
            method="the same prompts drawn for both; bootstrap over prompts", **shared,
        )  # fmt: skip
        _say(findings, row, change, [axis.name for axis in front.axes])
        difference = [cell(f"{change.value:+.3g}", change), cell(span(change.low, change.high), change)]
        lines.append([*shown, *difference, str(front.prompts)])
    head = ["model", "settings", "hypervolume", "95 % interval", "difference", "95 % interval", "n"]
    findings.blocks.append(table(f"How far each model's settings reach, {prompts}", head, lines))


_WORDS = {"checkpoint": "checkpoint", "guidance_scale": "guidance", "num_inference_steps": "steps"}


def _short(value: Any) -> str:
    return (value.removeprefix("step-").lstrip("0") or "0") if isinstance(value, str) else f"{value:g}"


def _ends(interval: Any) -> dict[str, Any]:
    return {"low": None, "high": None} if interval is None else {"low": interval.low, "high": interval.high}


def _say(findings: Findings, row: Row, change: Row, axes: Sequence[str]) -> None:
    said = (
        f"hypervolume of {', '.join(axes[:-1])} and {axes[-1]} {number(row.value)}, difference from {change.against} "
        f"{change.value:+.3g}, 95 % interval {span(change.low, change.high)}, {change.n} prompts, {change.prompts}"
    )
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        text = f"Over the sweep, no difference between what {change.model} and {change.against} can reach is shown"
        findings.say(f"{text}: {said}.", [change, row], "open", headline=True)
        return
    word, tone = ("farther", "better") if change.value > 0 else ("less far", "worse")
    text = f"Over the sweep, the settings of {change.model} reach {word} than {change.against}'s"
    findings.say(f"{text}: {said}.", [change, row], tone, headline=True)


def _one_set(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    prompts: str,
    places: Sequence[_Place],
    *,
    swept: bool = False,
) -> tuple[Front, list[Point]]:
    from t2ialign.eval.pareto import Axis, pareto_front

    scored = [place.evidence.scored(prompts, place.label) for place in places]
    kind = _kind(evidence, options, scored)
    higher = bool(scored[0].infos.get(kind, {}).get("higher_is_better", True))
    axes = [Axis(kind[0], higher=higher), Axis(DIVERSITY)]
    real = _real(findings, evidence, options, prompts)
    axes += [] if real is None else [Axis(REALISM)]
    fewest = evidence.sweep if swept and evidence.sweep is not None else evidence
    keys = list(fewest.records(prompts, fewest.plan.labels[0]))
    points = [_point(place, prompts, kind, keys, real, evidence.plan.seed) for place in places]
    resamples = max(100, min(RESAMPLES, evidence.plan.resamples))
    front = pareto_front(points, axes, seed=evidence.plan.seed, resamples=resamples)
    shared = {"prompts": prompts, "n": front.prompts, "group": "sweep" if swept else ""}
    key = (prompts, "sweep") if swept else (prompts,)
    rows = [
        _rows(findings, evidence, place, found, kind, key, shared)
        for place, found in zip(places, front.points, strict=True)
    ]
    title = f"{', '.join(axis.name for axis in axes[:-1])} and {axes[-1].name}, {prompts}"
    _plots(findings, places, rows, axes, f"Sweep: {title}" if swept else title, joined=swept)
    head = ["setting" if swept else "model", *(part for axis in axes for part in (axis.name, "95 % interval"))]
    head += ["on the front", "in how many resamples", "n"]
    lines = [
        _line(place, found, row, axes, front.prompts)
        for place, found, row in zip(places, front.points, rows, strict=True)
    ]
    findings.blocks.append(table(f"{'Sweep' if swept else 'Trade-off'}, {prompts}", head, lines))
    for said in front.notes:
        if "hypervolume" in said and not swept:
            continue  # it is not shown here
        findings.blocks.append(note(f"{said[0].upper()}{said[1:].rstrip('.')}."))
    on = [place.shown for place, found in zip(places, front.points, strict=True) if found.on_front]
    listed = "; ".join(on) if swept else ", ".join(on)
    over = f"Over the sweep of {len(points)} settings, on" if swept else "On"
    findings.say(
        f"{over} the front of {', '.join(axis.name for axis in axes[:-1])} and {axes[-1].name}: {listed} ({prompts}, "
        f"{front.prompts} prompts)."
    )
    return front, points


def _kind(evidence: Evidence, options: Options, scored: Sequence[ScoredSet]) -> Kind:
    """Return the scorer of the axis across: the one that is asked for, else the suite's first that all sets have."""
    if options.scorer is not None:
        return shared_scorers(scored[0], scored[1:], [options.scorer])[0]
    there = shared_scorers(scored[0], scored[1:], None)
    heads = [spec.partition("@")[0].partition("?")[0] for spec in evidence.plan.suite.scorers]
    return next((kind for head in heads for kind in there if kind[0] == head), there[0])


def _real(findings: Findings, evidence: Evidence, options: Options, prompts: str) -> Real | None:
    """Return the features of real pictures, where they are named and mean something for these prompts."""
    if options.real is None or (options.real == "mini-world" and evidence.oracle_world(prompts)):
        return None
    from t2ialign.eval.suites.sections.fidelity import real_features

    found = real_features(evidence, options.real, options.count, [prompts])
    findings.info["real pictures of trade-offs"] = {"source": options.real.rpartition("/")[2], "n": len(found)}
    return found


def _point(
    place: _Place, prompts: str, kind: Kind, keys: Sequence[tuple[str, int]], real: Real | None, seed: int
) -> Point:
    from t2ialign.eval.fidelity.manifolds import inside
    from t2ialign.eval.pareto import Point
    from t2ialign.eval.vendi import vendi_within

    features = place.evidence.features(prompts, place.label)
    rows = {key: number for number, key in enumerate(features.keys)}
    values = features.values[[rows[key] for key in keys]]
    scores = place.evidence.scored(prompts, place.label).scores[kind]
    order = list(dict.fromkeys(prompt_id for prompt_id, _ in keys))
    within = vendi_within(values, [prompt_id for prompt_id, _ in keys], 1.0, seed=seed)
    vendi = dict(zip(map(str, within.prompts), within.per_prompt[1.0], strict=True))
    by_prompt = {kind[0]: _means(keys, [scores[key] for key in keys], order)}
    by_prompt[DIVERSITY] = [float(vendi[prompt_id]) for prompt_id in order]
    if real is not None:
        by_prompt[REALISM] = _means(keys, inside(real, values).astype(float).tolist(), order)
    return Point(place.shown, per_prompt=by_prompt, settings=place.settings)


def _means(keys: Sequence[tuple[str, int]], values: Sequence[float], order: Sequence[str]) -> list[float]:
    found: dict[str, list[float]] = {}
    for (prompt_id, _), value in zip(keys, values, strict=True):
        found.setdefault(prompt_id, []).append(value)
    return [float(np.mean(found[prompt_id])) for prompt_id in order]


def _rows(
    findings: Findings,
    evidence: Evidence,
    place: _Place,
    found: FrontPoint,
    kind: Kind,
    key: tuple[str, ...],
    shared: Mapping[str, Any],
) -> dict[str, Row]:
    rows = {}
    own = {**shared, "key": (*key, place.label), "model": place.model}
    for axis, value in found.values.items():
        rows[axis] = findings.add(
            f"{axis}_mean",
            value,
            scorer=f"{kind[0]} ({kind[1]})" if axis == kind[0] else str(evidence.plan.suite.embedder),
            method=f"mean over prompts; bootstrap over prompts{_said(place)}",
            **_ends(found.intervals[axis]),
            **own,
        )
    if found.membership is not None:
        method = f"share of resamples{_said(place)}"
        rows["front"] = findings.add("front_membership", found.membership, method=method, **own)
    return rows


def _said(place: _Place) -> str:
    return "".join(f"; {name} {_short(value)}" for name, value in place.settings.items())


def _line(place: _Place, found: FrontPoint, rows: Mapping[str, Row], axes: Sequence[Axis], n: int) -> list[Any]:
    line: list[Any] = [place.shown]
    for axis in axes:
        row = rows[axis.name]
        line += [cell(number(row.value), row), cell(span(row.low, row.high), row)]
    share = cell(percent(rows["front"].value), rows["front"]) if "front" in rows else "–"
    return [*line, "yes" if found.on_front else "no", share, str(n)]


def _plots(
    findings: Findings,
    places: Sequence[_Place],
    rows: Sequence[Mapping[str, Row]],
    axes: Sequence[Axis],
    title: str,
    *,
    joined: bool,
) -> None:
    """Draw every further axis over the first, a model a colour; a sweep's settings joined in its order."""
    across = axes[0].name
    for up in (axis.name for axis in axes[1:]):
        series: dict[str, list[dict[str, Any]]] = {}
        for place, found in zip(places, rows, strict=True):
            row = found[up]
            point = {"label": place.shown, "x": found[across].value, "value": row.value, "row": row.id}
            point |= {"low": row.low, "high": row.high, "text": _mark(place)}
            series.setdefault(place.model, []).append(point)
        for each in series.values():
            each.sort(key=lambda point: float(point["x"]))
        drawn = [{"label": label, "points": each} for label, each in series.items()]
        named = title if len(axes) == 2 else f"{title}: {up} over {across}"
        findings.blocks.append(plot("lines", named, series=drawn, x=across, y=up, joined=joined))


def _mark(place: _Place) -> str:
    """A short word beside a point: its swept values."""
    return " ".join(map(_short, place.settings.values()))
