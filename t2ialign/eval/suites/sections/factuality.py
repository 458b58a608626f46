"""The section on factuality: what a diversity intervention costs in facts.

Law of this file: instances (events, and which groups took part) come from the file of a prompt set; somebody who looks
at pictures says who is to be seen. Without instances it does not apply, without a judge it is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2ialign.config import option
from t2ialign.errors import DataError, MissingDependencyError, ModelError
from t2ialign.eval.report import p_text
from t2ialign.eval.statistics import clustered_bootstrap, holm, sign_test
from t2ialign.eval.suites.findings import Findings, Row, cell, note, percent, plot, span_percent, table
from t2ialign.eval.suites.judges import check_judge, judge_identity, without_folder
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.factuality import FactualityResult, Figure, Instance
    from t2ialign.eval.suites.evidence import Evidence

    Results = Mapping[tuple[str, str], FactualityResult]

NAME = "factuality"
DEFINITION = (
    "After DoFaiR (arXiv 2407.00377): pictures of events whose participants are known, made without and with a "
    "diversity intervention in the prompt. A vision-language model says of each picture and group whether it is seen; "
    "accuracy is the share of right answers. The factuality tax is accuracy without less accuracy with the "
    "intervention, paired by instance. The unit is the instance; intervals are BCa bootstraps over instances, tests "
    "exact sign tests, corrected by Holm over models and interventions. Definitions are ours and not the paper's."
)
JUDGES = ("judge",)
REASON = (
    "it takes instances (events and the groups that took part). Write a prompt set whose source is a file of them, "
    "the same once more with a suffix, and name both under factuality (docs/factuality.md)"
)
MINI = "in the mini-world there are neither people nor events, and "
MEND = (
    "nobody is named who looks at the pictures; name one with --judge (or judge, under factuality in the suite): "
    "hf:MODEL is a vision-language model here, openai:MODEL one behind an endpoint; the same command then measures "
    "this section alone"
)


@dataclass
class Options:
    """Which prompt sets are compared, and who says what is to be seen."""

    plain: str | None = option(None, "Prompt set of the instances as they are.")
    interventions: list[str] = option([], "Prompt sets of the same instances with an intervention, or rewritten.")
    judge: str = option("auto", "Who looks at pictures: hf:MODEL or openai:MODEL; auto is nobody.")

    @property
    def prompts(self) -> list[str]:
        """All prompt sets that are asked for."""
        return [name for name in (self.plain, *self.interventions) if name is not None]

    def __post_init__(self) -> None:
        """Refuse what names no judge."""
        check_judge(self.judge)


def identity(options: Options) -> dict[str, Any]:
    """Say who looks at pictures."""
    return judge_identity(options.judge)


def measure(evidence: Evidence, options: Options) -> Findings:
    """Measure every model's factuality tax, of every intervention, and the difference from the base's."""
    if options.plain is None or not options.interventions:
        mini = not any(evidence.oracle_world(name) for name in evidence.plan.prompts)
        return Findings.absent(NAME, SECTIONS[NAME], (MINI if mini else "") + REASON, DEFINITION)
    if options.judge in ("auto", "oracle"):
        oracle = "the mini-world's oracle knows no people, and " if options.judge == "oracle" else ""
        return Findings.lacking(NAME, SECTIONS[NAME], oracle + MEND, DEFINITION)
    instances = _instances(evidence, options)
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    try:
        results = _results(evidence, options, instances)
    except (DataError, ModelError, MissingDependencyError) as error:
        said = without_folder(str(error), options.judge).rstrip(".")
        reason = f"{said}. When that is mended, run again with --redo {NAME}"
        return Findings.lacking(NAME, SECTIONS[NAME], reason, DEFINITION)
    findings.info["answers of factuality"] = next(iter(results.values())).info
    _show(findings, evidence, options, results)
    return findings


def _instances(evidence: Evidence, options: Options) -> list[Instance]:
    """Read the instances of the plain prompts' lines.

    Raises:
        DataError: If a line is none, or an intervention has other instances.
    """
    from t2ialign.eval.factuality import Instance

    assert options.plain is not None
    found = [
        Instance.from_dict({**prompt.extra, "prompt": prompt.prompt}, f"{options.plain}, prompt {prompt.prompt_id}")
        for prompt in evidence.plan.prompts[options.plain]
    ]
    names = {each.name for each in found}
    for other in options.interventions:
        if not names & {prompt.prompt_id for prompt in evidence.plan.prompts[other]}:
            raise DataError(f"the prompts {options.plain} and {other} share no instance; give both one file as source")
    return found


def _results(evidence: Evidence, options: Options, instances: list[Instance]) -> Results:
    from t2ialign.eval.attributes import ChatAnswers
    from t2ialign.eval.attributes.kept import KeptAnswers
    from t2ialign.eval.factuality import measure_factuality

    plan = evidence.plan
    asked = ChatAnswers(evidence.chat(options.judge), seed=plan.seed)
    answers = KeptAnswers(asked, plan.folder / "answers" / f"{NAME}.jsonl")
    assert options.plain is not None
    return {
        (label, other): measure_factuality(
            evidence.image_set(options.plain, label),
            evidence.image_set(other, label),
            instances,
            answers,
            resamples=plan.resamples,
            seed=plan.seed,
        )
        for label in plan.labels
        for other in options.interventions
    }


def _show(findings: Findings, evidence: Evidence, options: Options, results: Results) -> None:
    adjusted = holm([result.test.p_value for result in results.values()])
    lines: list[list[Any]] = []
    bars: dict[str, list[dict[str, Any]]] = {}
    for ((label, other), result), p_holm in zip(results.items(), adjusted, strict=True):
        shared = {"key": (other, label), "model": label, "prompts": other, "scorer": str(_name(result))}
        rows = {
            name: _figure(findings, name, getattr(result, name), shared)
            for name in ("plain", "intervention", "plain_exact", "intervention_exact", "exact_tax")
        }
        tax = _figure(findings, "tax", result.tax, shared, p=result.test.p_value, p_holm=p_holm)
        _say(findings, label, other, rows, tax)
        for name in ("plain", "intervention"):
            shown = {"series": options.plain if name == "plain" else other, "value": rows[name].value}
            bars.setdefault(f"{label}, {other}", []).append(
                shown | {"low": rows[name].low, "high": rows[name].high, "row": rows[name].id}
            )
        figures = [part for row in (rows["plain"], rows["intervention"], tax) for part in _cells(row)]
        lines.append([other, label, *figures, cell(p_text(p_holm), tax), str(tax.n)])
        _left(findings, result, label, other)
    groups = [{"label": label, "bars": each} for label, each in bars.items()]
    findings.blocks.append(plot("bars", "Right answers about who is seen", groups=groups, percent=True, top=1.0))
    head = ["intervention", "model", "right without", "95 % interval", "right with", "95 % interval"]
    head += ["tax", "95 % interval", "sign test, Holm", "instances"]
    findings.blocks.append(table("Factuality tax", head, lines))
    for other in options.interventions:
        for label in evidence.others:
            _against_base(findings, evidence, results[evidence.base, other], results[label, other], label, other)


def _name(result: FactualityResult) -> Any:
    return dict(result.info.get("answers", {})).get("model", {}).get("model", "")


def _figure(findings: Findings, name: str, found: Figure, shared: Mapping[str, Any], **more: Any) -> Row:
    low, high = (None, None) if found.interval is None else found.interval
    method = "mean over instances; BCa bootstrap over instances"
    return findings.add(
        name, found.value, low=low, high=high, n=found.n, unit="instance", method=method, **shared, **more
    )


def _cells(row: Row) -> list[Any]:
    bounds = "–" if row.low is None or row.high is None else cell(span_percent(row.low, row.high), row)
    return [cell(percent(row.value), row), bounds]


def _say(findings: Findings, label: str, other: str, rows: Mapping[str, Row], tax: Row) -> None:
    bounds = "" if tax.low is None or tax.high is None else f", 95 % interval {span_percent(tax.low, tax.high)}"
    figures = (
        f"answers about {label}'s pictures are right in {percent(rows['plain'].value)} without and "
        f"{percent(rows['intervention'].value)} with {other}; tax {100 * tax.value:+.1f} points{bounds}, {tax.n} "
        f"instances, sign test corrected p = {p_text(1.0 if tax.p_holm is None else tax.p_holm)}"
    )
    used = [tax, rows["plain"], rows["intervention"]]
    beyond = tax.low is None or tax.high is None or tax.low > 0 or tax.high < 0
    if not beyond or tax.value == 0 or (1.0 if tax.p_holm is None else tax.p_holm) >= 0.05:
        findings.say(f"No factuality tax of {other} is shown for {label}: {figures}.", used, "open", headline=True)
        return
    word, tone = ("costs facts", "worse") if tax.value > 0 else ("brings facts", "better")
    findings.say(f"{other} {word} in {label}'s pictures: {figures}.", used, tone, headline=True)


def _left(findings: Findings, result: FactualityResult, label: str, other: str) -> None:
    missing = sum(result.unanswered.values())
    if missing or result.unpaired:
        findings.blocks.append(
            note(
                f"{label}, {other}: {missing} pictures have a question without an answer and are in no figure; "
                f"{len(result.unpaired)} instances have no answered picture on a side."
            )
        )


def _against_base(
    findings: Findings,
    evidence: Evidence,
    base: FactualityResult,
    found: FactualityResult,
    label: str,
    other: str,
) -> None:
    """Compare a model's tax with the base's, instance by instance."""
    one, two = base.taxes(), found.taxes()
    both = [name for name in one if name in two]
    if len(both) < 2:
        return
    change = np.array([two[name] - one[name] for name in both])
    change[np.abs(change) < 1e-9] = 0.0
    plan = evidence.plan
    low, high = (None, None)
    if np.ptp(change) > 0:
        low, high = clustered_bootstrap(change, resamples=plan.resamples, seed=plan.seed)
    test = sign_test(change)
    row = findings.add(
        "tax_difference", float(change.mean()), key=(other, label), low=low, high=high, n=len(both), unit="instance",
        model=label, against=plan.base, prompts=other, p=test.p_value,
        method="paired by instance; BCa bootstrap over instances; exact sign test, not corrected",
    )  # fmt: skip
    bounds = "no interval" if low is None or high is None else f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    shown = test.p_value < 0.05 and (low is None or high is None or low > 0 or high < 0)
    word = "differs from" if shown else "is not shown to differ from"
    tone = "open" if not shown else "worse" if row.value > 0 else "better"
    findings.say(
        f"{label}'s tax of {other} {word} {plan.base}'s: by {100 * row.value:+.1f} points, {bounds}, {row.n} "
        f"instances, sign test p = {p_text(test.p_value)}.",
        [row],
        tone,
    )
