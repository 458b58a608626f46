"""The section on fidelity: how far pictures lie from real ones, in the features of the suite's embedder.

Law of this file: a figure is named after its features, so that nothing is called FID that is none; without real
pictures there is no fidelity. In the mini-world, real pictures are drawn by its rules from the prompts themselves.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.config import option
from t2ialign.errors import ConfigError, DataError
from t2ialign.eval.suites.findings import Findings, Row, cell, note, number, span, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.eval.fidelity import Fidelity
    from t2ialign.eval.suites.evidence import Evidence

NAME = "fidelity"
DEFINITION = (
    "Distances between the distributions of generated and real pictures in an embedder's features (lower is better), "
    "and by neighbourhoods: precision and density say how many generated pictures look like real ones, recall and "
    "coverage how many real ones are reached. All depend on the numbers of pictures, which stand beside them; "
    "figures of different numbers do not compare. Intervals by subsampling prompts and real pictures."
)


@dataclass
class Options:
    """What is measured."""

    prompts: list[str] = option([], "Prompt sets, whose pictures are taken together; all where none is named.")
    real: str | None = option(None, "Folder of real pictures, or `mini-world`, drawn from the prompts.")
    count: int = option(500, "Real pictures that are drawn of the mini-world.")
    resamples: int = option(50, "Subsamples of the intervals.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Measure every model's pictures against real ones, and the difference from the base."""
    from t2ialign.eval.fidelity import fidelity, fidelity_difference

    if evidence.plan.suite.embedder is None:
        return Findings.absent(NAME, SECTIONS[NAME], "no embedder is named", DEFINITION)
    if options.real is None:
        reason = "no real pictures are named (real, under fidelity in the suite)"
        return Findings.absent(NAME, SECTIONS[NAME], reason, DEFINITION)
    sets = evidence.sets(options.prompts)
    if options.real == "mini-world" and (reason := next(filter(None, map(evidence.oracle_world, sets)), "")):
        return Findings.absent(NAME, SECTIONS[NAME], reason, DEFINITION)
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    real = real_features(evidence, options.real, options.count, sets)
    info = dict(evidence.embedder.info())
    findings.info["real pictures"] = {"source": Path(options.real).name, "n": len(real)}
    settings: dict[str, Any] = {
        "features": _name(evidence.plan.suite.embedder),
        "resamples": options.resamples,
        "seed": evidence.plan.seed,
    }
    clouds = {label: _cloud(evidence, sets, label) for label in evidence.plan.labels}
    found = {label: fidelity(real, values, ids, **settings) for label, (values, ids) in clouds.items()}
    base, base_ids = clouds[evidence.base]
    changes = {
        label: fidelity_difference(real, base, clouds[label][0], base_ids, clouds[label][1], **settings)
        for label in evidence.others
    }
    named = f"{info.get('scorer', 'embedder')} ({info.get('version', '')})"
    findings.info.setdefault(named, info)
    _show(findings, evidence, found, changes, {"prompts": "+".join(sets), "scorer": named})
    return findings


def _name(spec: str) -> str:
    """Name the features by the checkpoint, `mini-clip`, or else by the scorer."""
    head = spec.partition("?")[0]
    return Path(head.partition("@")[2]).name or head


def _cloud(evidence: Evidence, sets: list[str], label: str) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str]]:
    features = [evidence.features(name, label) for name in sets]
    ids = [f"{name}/{key[0]}" for name, each in zip(sets, features, strict=True) for key in each.keys]
    return np.concatenate([each.values for each in features]), ids


def real_features(evidence: Evidence, real: str, count: int, sets: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the embedder's features of real pictures, [n, D].

    Args:
        evidence: Whose embedder it is.
        real: Folder of real pictures, or `mini-world`.
        count: Pictures that are drawn of the mini-world.
        sets: Prompt sets from which these are drawn.

    Raises:
        ConfigError: If there is no such folder.
        DataError: If it holds too few pictures.
    """
    found: np.ndarray[Any, np.dtype[np.float64]] = evidence.embedder.embed_images(
        drawn(evidence, sets, count) if real == "mini-world" else _files(real)
    ).numpy()
    return found.astype(np.float64)


def _files(real: str) -> list[Path]:
    folder = Path(real).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"there is no folder of real pictures {real!r}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if len(files) < 10:
        raise DataError(f"{folder} holds {len(files)} pictures; fidelity needs hundreds of real ones")
    return files


def drawn(evidence: Evidence, sets: list[str], count: int) -> list[Image.Image]:
    """Draw pictures of the mini-world that answer the prompts in turn, free attributes at random.

    A prompt's scene is drawn anew each time, as the world's sampler places and sizes objects.
    """
    from t2ialign.mini.world import parse, render

    prompts = [prompt for name in sets for prompt in evidence.plan.prompts[name]]
    pictures = []
    for place in range(count):
        prompt = prompts[place % len(prompts)]
        digest = hashlib.sha256(f"{prompt.prompt_id}/{place // len(prompts)}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        pictures.append(render(_filled(parse(prompt.prompt), rng)))
    return pictures


def _filled(asked: Any, rng: np.random.Generator) -> Any:
    """Fill what a request leaves free, from a draw of the same kind."""
    from t2ialign.mini.flags import FLAGS
    from t2ialign.mini.world import sample_double, sample_single

    if asked.kind == "flag":
        names = [key for key, flag in FLAGS.items() if asked.continent in (None, flag.continent)]
        return replace(asked, country=asked.country or names[int(rng.integers(len(names)))])
    sampler = sample_double if len(asked.things) == 2 else sample_single
    for _ in range(200):
        free = sampler(rng)
        sizes = [want.size in (None, have.size) for want, have in zip(asked.things, free.things, strict=True)]
        if asked.relation in (None, free.relation) and all(sizes):
            break
    things = tuple(
        replace(have, shape=want.shape, color=want.color or have.color)
        for want, have in zip(asked.things, free.things, strict=True)
    )
    return replace(free, things=things, background=asked.background or free.background)


def _show(
    findings: Findings,
    evidence: Evidence,
    found: dict[str, Fidelity],
    changes: dict[str, Fidelity],
    shared: dict[str, Any],
) -> None:
    lines: list[list[Any]] = []
    base = found[evidence.base]
    for metric in base.estimates:
        for label in evidence.plan.labels:
            row = _row(findings, found[label], metric, label, "", shared)
            change = (
                None if label not in changes else _row(findings, changes[label], metric, label, evidence.base, shared)
            )
            cells: list[Any] = ["–", "–"]
            if change is not None:
                cells = [cell(f"{change.value:+.3g}", change), cell(span(change.low, change.high), change)]
                _say(findings, metric, base, label, row, change)
            counts = f"{found[label].n_generated} generated, {found[label].n_real} real"
            lines.append(
                [
                    base.title(metric),
                    label,
                    cell(number(row.value), row),
                    cell(span(row.low, row.high), row),
                    *cells,
                    counts,
                ]
            )
    head = ["measure", "model", "value", "95 % interval", "difference", "95 % interval", "pictures"]
    findings.blocks.append(table(f"Fidelity in {base.features} features", head, lines))
    for each in dict.fromkeys(said for one in found.values() for said in one.notes):
        findings.blocks.append(note(each[0].upper() + each[1:].rstrip(".") + "."))


def _row(findings: Findings, found: Fidelity, metric: str, label: str, against: str, shared: dict[str, Any]) -> Row:
    each = found.estimates[metric]
    return findings.add(
        f"{metric}_difference" if against else metric,
        each.value,
        key=(label,),
        low=None if each.interval is None else each.interval.low,
        high=None if each.interval is None else each.interval.high,
        n=found.n_generated,
        unit="picture",
        model=label,
        against=against,
        group=found.features,
        method=f"{found.n_real} real pictures; {found.resamples} subsamples over {found.prompts} prompts",
        **shared,
    )


def _say(findings: Findings, metric: str, base: Fidelity, label: str, row: Row, change: Row) -> None:
    from t2ialign.eval.fidelity.measure import HIGHER_IS_BETTER

    if metric != next(iter(base.estimates)):
        return
    before = number(base.estimates[metric].value)
    figures = f"{before} to {number(row.value)}, difference {change.value:+.3g}"
    if change.low is None or change.high is None:
        findings.say(f"{base.title(metric)} of {label}: {figures}, without an interval.", [change, row], "open")
        return
    figures += f", 95 % interval {span(change.low, change.high)}, {change.n} pictures each"
    if change.low <= 0 <= change.high:
        text = f"No difference between {label} and {change.against} is shown in the {base.title(metric)}: {figures}."
        findings.say(text, [change, row], "open", headline=True)
        return
    better = (change.value > 0) == HIGHER_IS_BETTER[metric]
    word = "nearer to" if better else "farther from"
    text = f"{label}'s pictures are {word} real ones than {change.against}'s ({base.title(metric)}: {figures})."
    findings.say(text, [change, row], "better" if better else "worse", headline=True)
