"""The section on attributes: which colour, size and background a model gives what its prompt leaves open.

Law of this file: only what a prompt does not say is asked about; a picture that the oracle cannot read is in no
distribution and is counted. Each prompt is a concept of its own, so that pictures of different prompts are not taken
for independent pictures of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.config import option
from t2ialign.eval.report import p_text
from t2ialign.eval.statistics import clustered_bootstrap, holm, sign_test
from t2ialign.eval.suites.findings import Findings, Row, cell, note, number, percent, span, span_percent, table
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.attributes import AttributeScore, AttributesResult, Concept
    from t2ialign.eval.statistics import Test
    from t2ialign.eval.suites.evidence import Evidence

NAME = "attributes"
DEFINITION = (
    "After GRADE (arXiv 2410.22592): of what a prompt leaves open, which values do pictures have, how evenly? The "
    "mini-world's oracle answers. Entropy is normalised: 0 if all pictures have one value, 1 if all values are as "
    "frequent as each other; it is corrected for few pictures after Miller and Madow, which leaves bias where "
    "pictures are fewer than values. A default is a value whose share, with its 95 % interval (Wilson, over "
    "pictures of this prompt), lies above the threshold. "
    "Models are compared over prompts: BCa bootstrap and exact sign test, Holm over models."
)
LEAST = 6
"""Prompts below which no difference is looked for: the exact sign test cannot reach 0.05 on fewer."""


@dataclass
class Options:
    """What is measured."""

    prompts: list[str] = option([], "Sets of open prompts, with several pictures each; all where none is named.")
    threshold: float = option(0.8, "Share above which a value is a default; it takes 16 alike pictures to exceed 0.8.")


def measure(evidence: Evidence, options: Options) -> Findings:
    """Ask the oracle about all that prompts leave open."""
    if not 0 < options.threshold < 1:
        from t2ialign.errors import ConfigError

        raise ConfigError(f"threshold {options.threshold} is not between 0 and 1; 0.8 is usual")
    wanted = evidence.sets(options.prompts)
    if all(evidence.oracle_world(name) for name in wanted):
        reason = f"who answers is the mini-world's oracle, and {evidence.oracle_world(wanted[0])}"
        return Findings.absent(NAME, SECTIONS[NAME], reason, DEFINITION)
    found = {name: open_concepts(evidence, name) for name in wanted if not evidence.oracle_world(name)}
    if not any(found.values()):
        reason = "no prompt with several pictures leaves a colour, size, background or country open"
        return Findings.absent(NAME, SECTIONS[NAME], reason, DEFINITION)
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    for name, concepts in found.items():
        if concepts:
            _one_set(findings, evidence, options, name, concepts)
    return findings


def open_concepts(evidence: Evidence, prompts: str) -> list[Concept]:
    """Return a concept for each prompt of the mini-world that leaves something open, with just those attributes."""
    from t2ialign.eval.attributes import Concept, mini_concepts
    from t2ialign.mini.world import parse

    if evidence.plan.suite.prompts[prompts].images_per_prompt < 2:
        return []
    known = {each.name: {a.name: a for a in each.attributes} for each in mini_concepts()}
    found: dict[str, Concept] = {}
    for prompt in evidence.plan.prompts[prompts]:
        words, spec = " ".join(prompt.prompt.split()), parse(prompt.prompt)
        if words == "a flag":
            asked = [known["flag"]["continent"]]
        elif spec.kind == "scene" and len(spec.things) == 1:  # the oracle tells two objects apart by shape only
            (thing,) = spec.things
            said = {"color": thing.color, "size": thing.size, "background": spec.background}
            asked = [known[thing.shape][name] for name, value in said.items() if value is None]
        else:
            asked = []
        if asked:
            found[words] = Concept(words, tuple(asked), (words,))
    return list(found.values())


def _one_set(findings: Findings, evidence: Evidence, options: Options, prompts: str, concepts: list[Concept]) -> None:
    from t2ialign.eval.attributes import OracleAnswers, measure_attributes

    plan = evidence.plan
    results = {
        label: measure_attributes(
            evidence.image_set(prompts, label),
            concepts,
            OracleAnswers(),
            threshold=options.threshold,
            resamples=plan.resamples,
            seed=plan.seed,
        )
        for label in plan.labels
    }
    findings.info["answers"] = OracleAnswers().info()
    shared: dict[str, Any] = {"prompts": prompts, "scorer": "oracle"}
    _differences(findings, evidence, results, shared)
    _defaults(findings, evidence, options, results, shared)
    lines = [
        _line(findings, results[label].scores[place], label, shared)
        for place in range(len(results[plan.base].scores))
        for label in plan.labels
    ]
    head = ["prompt", "attribute", "model", "entropy", "95 % interval", "commonest value", "share, interval", "n"]
    findings.blocks.append(table(f"Values of what is left open, {prompts}", head, lines))
    for label in plan.labels:
        _unread(findings, results[label], label, shared)


def _line(findings: Findings, score: AttributeScore, label: str, shared: dict[str, Any]) -> list[Any]:
    start = [score.concept, score.attribute, label]
    if score.entropy is None:
        return [*start, "no picture could be read", "–", "–", "–", "0"]
    interval = score.entropy.interval
    part = f"{score.concept}, {score.attribute}"
    more = {"model": label, "n": score.entropy.n, "unit": "picture", **shared}
    row = findings.add(
        "entropy",
        score.entropy.miller_madow,
        key=(shared["prompts"], label, part),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        group=part,
        method=f"normalised entropy, Miller-Madow; interval over {score.entropy.over}",
        **more,
    )
    value, (share, ends) = max(score.shares.items(), key=lambda each: each[1][0])
    most = findings.add(
        "commonest_share",
        share,
        key=(shared["prompts"], label, part, value),
        low=ends.low,
        high=ends.high,
        group=f"{part}: {value}",
        method="Wilson over pictures; the commonest was picked for being so, and leans high",
        **more,
    )
    shown = cell(f"{percent(share)}, {span_percent(ends.low, ends.high)}", most)
    return [*start, cell(number(row.value), row), cell(span(row.low, row.high), row), value, shown, str(row.n)]


def _by_prompt(result: AttributesResult) -> dict[str, float]:
    """Return the mean entropy over the attributes of each prompt."""
    found: dict[str, list[float]] = {}
    for score in result.scores:
        if score.entropy is not None:
            found.setdefault(score.concept, []).append(score.entropy.miller_madow)
    return {name: sum(each) / len(each) for name, each in found.items()}


def _differences(
    findings: Findings, evidence: Evidence, results: dict[str, AttributesResult], shared: dict[str, Any]
) -> None:
    """Compare every model with the base, over prompts."""
    means = {label: _by_prompt(result) for label, result in results.items()}
    base = evidence.base
    changes, tests = {}, {}
    for label in evidence.others:
        both = [name for name in means[base] if name in means[label]]
        if len(both) < LEAST:
            findings.say(
                f"Evenness of {label} and {base} ({shared['prompts']}): not compared, {len(both)} prompts can be read "
                f"in both, and it takes {LEAST}.",
                tone="open",
            )
            continue
        changes[label] = np.array([means[label][name] - means[base][name] for name in both])
        tests[label] = sign_test(np.where(np.abs(changes[label]) < 1e-9, 0.0, changes[label]))
    adjusted = holm([test.p_value for test in tests.values()])
    for (label, values), p_holm in zip(changes.items(), adjusted, strict=True):
        _say(findings, evidence, label, (values, tests[label], p_holm), shared)


def _say(
    findings: Findings, evidence: Evidence, label: str, found: tuple[Any, Test, float], shared: dict[str, Any]
) -> None:
    values, test, p_holm = found
    plan = evidence.plan
    low, high = (
        (None, None) if np.ptp(values) == 0 else clustered_bootstrap(values, resamples=plan.resamples, seed=plan.seed)
    )
    row = findings.add(
        "entropy_difference",
        float(values.mean()),
        key=(shared["prompts"], label),
        low=low,
        high=high,
        n=len(values),
        model=label,
        against=plan.base,
        p=test.p_value,
        p_holm=p_holm,
        method="mean over a prompt's attributes; BCa bootstrap over prompts; exact sign test",
        **shared,
    )
    bounds = "no interval, all prompts are alike" if low is None else f"95 % interval {span(low, high)}"
    said = (
        f"the mean normalised entropy differs by {number(row.value)} ({bounds}, sign test corrected p = "
        f"{p_text(p_holm)}, {row.n} prompts, {shared['prompts']})"
    )
    shown = p_holm < 0.05 and (low is None or high is None or low > 0 or high < 0)
    if not shown:
        findings.say(f"No difference in evenness of {label} and {plan.base} is shown: {said}.", [row], "open")
        return
    word, tone = ("more", "better") if row.value > 0 else ("less", "worse")
    findings.say(
        f"{label} fills in what prompts leave open {word} evenly than {plan.base}: {said}.", [row], tone, headline=True
    )


def _defaults(
    findings: Findings,
    evidence: Evidence,
    options: Options,
    results: dict[str, AttributesResult],
    shared: dict[str, Any],
) -> None:
    lines: list[list[Any]] = []
    for label, result in results.items():
        rows: list[Row] = []
        for each in result.defaults:
            part = f"{each.concept}, {each.attribute}: {each.value}"
            row = findings.add(
                "default", each.share, key=(shared["prompts"], label, part), low=each.interval.low,
                high=each.interval.high, n=each.n, unit="picture", model=label, group=part,
                method=f"share above {each.threshold}; Wilson over pictures", **shared,
            )  # fmt: skip
            rows.append(row)
            cells = [cell(percent(row.value), row), cell(span_percent(*each.interval), row), str(row.n)]
            lines.append([label, each.concept, each.attribute, each.value, *cells])
        asked = len(result.scores)
        count = findings.add(
            "defaults", len(rows), key=(shared["prompts"], label), n=asked, unit="attribute", model=label,
            method=f"values whose interval lies above {options.threshold}", **shared,
        )  # fmt: skip
        said = "; ".join(f"{row.group} ({percent(row.value)})" for row in rows[:3])
        more = f": {said}{' and others' if len(rows) > 3 else ''}" if rows else ""
        findings.say(
            f"{label} has {len(rows)} default{'' if len(rows) == 1 else 's'} above {percent(options.threshold)} among "
            f"{asked} attributes that prompts leave open{more} ({shared['prompts']}).",
            [count, *rows[:3]],
        )
    if lines:
        head = ["model", "prompt", "attribute", "value", "share", "95 % interval", "pictures"]
        findings.blocks.append(table(f"Default behaviours, {shared['prompts']}", head, lines))
        findings.blocks.append(
            note(
                "A default of one model that the other lacks is no difference by itself: compare the intervals. Each "
                "interval is of one value; none is corrected for the many values that are looked at."
            )
        )


def _unread(findings: Findings, result: AttributesResult, label: str, shared: dict[str, Any]) -> None:
    asked = sum(score.n_pictures for score in result.scores)
    missed = sum(score.n_other + score.n_no_answer for score in result.scores)
    row = findings.add(
        "not_answered", missed / asked, key=(shared["prompts"], label), n=asked, unit="question", model=label,
        method="share of questions about pictures without a value", **shared,
    )  # fmt: skip
    said = f"{label}: {missed} of {asked} questions about pictures had no value for an answer; they are in no figure."
    findings.say(said, [row])
