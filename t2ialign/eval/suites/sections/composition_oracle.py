"""Composition in the mini-world, by the oracle's own reading of pictures, attribute by attribute.

Law of this file: a picture that the oracle cannot read is wrong in every part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.eval.compare import compare_scores
from t2ialign.eval.report import p_text
from t2ialign.eval.statistics import cluster_means, clustered_bootstrap, holm, wilson
from t2ialign.eval.suites.findings import Findings, Row, cell, percent, plot, span_percent, table

if TYPE_CHECKING:
    from t2ialign.eval.pairs import PairKey
    from t2ialign.eval.suites.evidence import Evidence

DEFINITION = (
    "The mini-world's oracle reads each picture back into attributes without learning, and compares them with the "
    "prompt. Entirely right: all that the prompt asks for is there. Readable: the oracle could read the picture; one "
    "that it cannot read is wrong in every attribute. The unit is the prompt, intervals are BCa bootstraps over "
    "prompts; the test is the exact sign test over prompts, corrected by Holm over this section."
)
WHOLE, READABLE = "entirely right", "readable"

Answers = dict[str, dict["PairKey", float]]
"""For each part, whether each picture that is asked for it has it."""


def by_oracle(findings: Findings, evidence: Evidence, prompts: str) -> None:
    """Judge every picture of a set, by part of the prompt."""
    from t2ialign.reward_models.oracle import OracleScorer

    findings.info["oracle"] = OracleScorer().info()
    _one_set(findings, evidence, prompts)


def _answers(evidence: Evidence, prompts: str, label: str) -> Answers:
    from t2ialign.mini.oracle import judge

    found: Answers = {}
    for key, record in evidence.records(prompts, label).items():
        verdict = judge(record.prompt, evidence.picture(prompts, label, record))
        parts: dict[str, list[bool]] = {WHOLE: [verdict.right], READABLE: [verdict.reading.readable]}
        for name, right in verdict.attributes.items():
            parts.setdefault(name.split(" ")[0], []).append(right)
        for name, each in parts.items():
            found.setdefault(name, {})[key] = sum(each) / len(each)
    return found


def _one_set(findings: Findings, evidence: Evidence, prompts: str) -> None:
    answers = {label: _answers(evidence, prompts, label) for label in evidence.plan.labels}
    parts = list(dict.fromkeys([WHOLE, READABLE, *sorted(name for each in answers.values() for name in each)]))
    shared: dict[str, Any] = {"prompts": prompts, "scorer": "oracle"}
    rows = {
        (label, part): _share(findings, evidence, answers[label][part], label, part, shared)
        for label in evidence.plan.labels
        for part in parts
    }
    changes = _changes(findings, evidence, answers, parts, shared)
    for label in evidence.others:
        _say(findings, evidence.base, label, rows, changes[label, WHOLE], prompts)
    groups = [
        {"label": part, "bars": [_bar(label, rows[label, part]) for label in evidence.plan.labels]} for part in parts
    ]
    findings.blocks.append(plot("bars", f"Pictures that are right, {prompts}", groups=groups, percent=True, top=1.0))
    lines: list[list[Any]] = []
    for part in parts:
        for label in evidence.plan.labels:
            row, change = rows[label, part], changes.get((label, part))
            bounds = span_percent(row.low or 0.0, 0.0 if row.high is None else row.high)
            cells: list[Any] = ["–", "–", "–"]
            if change is not None:
                points = [100 * end for end in (change.value, change.low or 0.0, change.high or 0.0)]
                cells = [
                    cell(f"{points[0]:+.1f}", change),
                    cell(f"{points[1]:+.1f} to {points[2]:+.1f}", change),
                    cell(p_text(1.0 if change.p_holm is None else change.p_holm), change),
                ]
            lines.append([part, label, cell(percent(row.value), row), cell(bounds, row), *cells, str(row.n)])
    head = ["part", "model", "right", "95 % interval", "difference, points", "95 % interval", "sign test, Holm", "n"]
    findings.blocks.append(table(f"By part of the prompt, {prompts}", head, lines))
    _tasks(findings, evidence, answers, prompts, shared)


def _share(
    findings: Findings,
    evidence: Evidence,
    values: Mapping[PairKey, float],
    label: str,
    part: str,
    shared: dict[str, Any],
    group: str = "",
) -> Row:
    means = cluster_means(list(values.values()), [prompt_id for prompt_id, _ in values])
    low: float | None = None
    high: float | None = None
    method = "mean over prompts; BCa bootstrap over prompts"
    if len(means) > 1 and np.ptp(means) == 0:  # a bootstrap of equal prompts has no width; Wilson's interval has
        low, high = wilson(float(means.sum()), len(means))
        method = "mean over prompts; Wilson over prompts, which are all alike"
    elif len(means) > 1:
        low, high = clustered_bootstrap(means, resamples=evidence.plan.resamples, seed=evidence.plan.seed)
    return findings.add(
        "right",
        float(means.mean()),
        key=(shared["prompts"], label, part, *([group] if group else [])),
        low=low,
        high=high,
        n=len(means),
        model=label,
        group=group or part,
        method=method,
        **shared,
    )


def _changes(
    findings: Findings, evidence: Evidence, answers: Mapping[str, Answers], parts: list[str], shared: dict[str, Any]
) -> dict[tuple[str, str], Row]:
    """Compare each part with the base's, picture by picture; the family of Holm's method is the set's parts."""
    found = {}
    base = answers[evidence.base]
    for label in evidence.others:
        for part in parts:
            keys = [key for key in base[part] if key in answers[label].get(part, {})]
            ids = [prompt_id for prompt_id, _ in keys]
            if len(set(ids)) > 1:
                sides = [[side[part][key] for key in keys] for side in (base, answers[label])]
                settings = {"resamples": evidence.plan.resamples, "seed": evidence.plan.seed}
                found[label, part] = compare_scores(sides[0], sides[1], ids, **settings)
    adjusted = holm([each["tests"]["sign"]["p"] for each in found.values()])
    rows = {}
    for ((label, part), each), p_holm in zip(found.items(), adjusted, strict=True):
        difference = each["difference"]
        rows[label, part] = findings.add(
            "right_difference",
            difference["mean"],
            key=(shared["prompts"], label, part),
            low=difference["ci95"][0],
            high=difference["ci95"][1],
            n=each["n_prompts"],
            model=label,
            against=evidence.base,
            group=part,
            p=each["tests"]["sign"]["p"],
            p_holm=p_holm,
            method="paired by prompt and seed; BCa bootstrap over prompts; exact sign test",
            **shared,
        )
    return rows


def _say(
    findings: Findings, base: str, label: str, rows: Mapping[tuple[str, str], Row], change: Row, prompts: str
) -> None:
    one, two = rows[base, WHOLE], rows[label, WHOLE]
    low, high = (100 * (end or 0.0) for end in (change.low, change.high))
    figures = (
        f"{percent(one.value)} of {base}'s pictures and {percent(two.value)} of {label}'s are entirely right "
        f"(difference {100 * change.value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, {change.n} prompts, "
        f"{prompts})"
    )
    shown = (low > 0 or high < 0) and (change.p_holm or 1.0) < 0.05
    if not shown:
        why = (
            ""
            if low <= 0 <= high
            else f" The sign test over prompts, corrected, gives p = {p_text(change.p_holm or 1.0)}."
        )
        findings.say(
            f"No difference in following prompts is shown: {figures}.{why}", [change, one, two], "open", headline=True
        )
        return
    better = change.value > 0
    word = "better" if better else "worse"
    findings.say(f"{label} follows prompts {word}: {figures}.", [change, one, two], word, headline=True)


def _tasks(
    findings: Findings, evidence: Evidence, answers: Mapping[str, Answers], prompts: str, shared: dict[str, Any]
) -> None:
    """Show entirely right pictures by category."""
    names = list(dict.fromkeys(evidence.category(prompts, p.prompt_id) for p in evidence.plan.prompts[prompts]))
    if len([name for name in names if name]) < 2:
        return
    lines: list[list[Any]] = []
    groups: list[str] = []
    for name in names:
        for label in evidence.plan.labels:
            kept = {k: v for k, v in answers[label][WHOLE].items() if evidence.category(prompts, k[0]) == name}
            if not kept:
                continue
            row = _share(findings, evidence, kept, label, WHOLE, shared, name)
            bounds = "–" if row.low is None or row.high is None else cell(span_percent(row.low, row.high), row)
            lines.append([name, label, cell(percent(row.value), row), bounds, str(row.n)])
            groups.append(name)
    head = ["category", "model", "entirely right", "95 % interval", "n"]
    findings.blocks.append(table(f"Entirely right by category, {prompts}", head, lines, groups))


def _bar(label: str, row: Row) -> dict[str, Any]:
    value = float(np.clip(row.value, 0, 1))
    return {"series": label, "value": value, "low": row.low, "high": row.high, "row": row.id}
