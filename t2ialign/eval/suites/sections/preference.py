"""The section on preference and alignment: win rates by every scorer, with intervals and tests.

Law of this file: the unit is the prompt; the family of Holm's correction is all comparisons of the section; a
scorer that a model was trained on is said to be no evidence of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ialign.config import option
from t2ialign.eval import statistics
from t2ialign.eval.compare import compare_scores
from t2ialign.eval.groups import GroupTable, group_table
from t2ialign.eval.pairs import common_pairs, paired_scores, shared_scorers
from t2ialign.eval.report import p_text
from t2ialign.eval.suites.findings import (
    Findings,
    Row,
    cell,
    number,
    percent,
    plot,
    span,
    span_percent,
    table,
    warning,
)
from t2ialign.eval.suites.sections import SECTIONS

if TYPE_CHECKING:
    from t2ialign.eval.suites.evidence import Evidence, Kind

NAME = "preference"
DEFINITION = (
    "The unit is the prompt. A model wins a picture if it scores higher than the base's picture of the same prompt "
    "and seed; a tie counts half; the pictures of a prompt are averaged, then the prompts. Intervals: BCa bootstrap "
    "over prompts, 95 %. Tests: exact sign test and Wilcoxon's signed ranks over prompts, two-sided, corrected by "
    "Holm over all comparisons of this section. A model is called preferred only if the bootstrap and Wilson's "
    "interval both exclude 50 % and the corrected sign test is below 0.05."
)


@dataclass
class Options:
    """What is compared."""

    prompts: list[str] = option([], "Prompt sets; all where none is named.")
    categories: bool = option(True, "Whether to compare by category too.")
    least: int = option(5, "Prompts that a category needs to be shown.")


@dataclass(frozen=True)
class _Comparison:
    """One model against the base, on one prompt set, by one scorer."""

    prompts: str
    label: str
    kind: Kind
    found: dict[str, Any]
    categories: dict[str, dict[str, Any]]
    worst: GroupTable | None


def measure(evidence: Evidence, options: Options) -> Findings:
    """Compare every model with the base."""
    findings = Findings(NAME, SECTIONS[NAME], definition=DEFINITION)
    comparisons = []
    for prompts in evidence.sets(options.prompts):
        if len(evidence.plan.prompts[prompts]) < 2:
            continue
        base = evidence.scored(prompts, evidence.base)
        kinds = shared_scorers(base, [evidence.scored(prompts, label) for label in evidence.others], None)
        for name, version in kinds:
            findings.info.setdefault(f"{name} ({version})", dict(base.infos.get((name, version), {})))
        comparisons += [
            _compare(evidence, options, prompts, label, kind) for label in evidence.others for kind in kinds
        ]
    if not comparisons:
        return Findings.absent(NAME, SECTIONS[NAME], "an interval needs at least 2 prompts, and there are fewer")
    for test in ("sign", "wilcoxon"):
        adjusted = statistics.holm([each.found["tests"][test]["p"] for each in comparisons])
        for each, p_value in zip(comparisons, adjusted, strict=True):
            each.found["tests"][test]["p_holm"] = p_value
    rows = [_rows(findings, each, evidence.base) for each in comparisons]
    for each, row in zip(comparisons, rows, strict=True):
        _say(findings, each, row, evidence.base)
    _warn(findings, evidence, comparisons)
    _show(findings, comparisons, rows)
    _show_categories(findings, comparisons, evidence.base)
    return findings


def _compare(evidence: Evidence, options: Options, prompts: str, label: str, kind: Kind) -> _Comparison:
    base, other = evidence.scored(prompts, evidence.base), evidence.scored(prompts, label)
    planned = evidence.records(prompts, evidence.base)
    shared = [key for key in common_pairs(base, other) if key in planned]
    first, second = paired_scores(base, other, kind, shared)
    ids = [prompt_id for prompt_id, _ in shared]
    settings = {"resamples": evidence.plan.resamples, "seed": evidence.plan.seed}
    found = compare_scores(first, second, ids, **settings)
    groups: dict[str, list[int]] = {}
    for place, prompt_id in enumerate(ids):
        if category := evidence.category(prompts, prompt_id):
            groups.setdefault(category, []).append(place)
    by_group = {}
    for name, places in sorted(groups.items()) if options.categories and len(groups) > 1 else ():
        if len({ids[place] for place in places}) >= max(2, options.least):
            sides = [[side[place] for place in places] for side in (first, second)]
            by_group[name] = compare_scores(sides[0], sides[1], [ids[place] for place in places], **settings)
    return _Comparison(
        prompts, label, kind, found, by_group, _worst(evidence, prompts, ids, (first, second), by_group)
    )


def _worst(
    evidence: Evidence,
    prompts: str,
    ids: list[str],
    sides: tuple[list[float], list[float]],
    categories: Mapping[str, Any],
) -> GroupTable | None:
    """Look for the category in which the model fares worst, among those that are shown."""
    kept = [place for place, prompt_id in enumerate(ids) if evidence.category(prompts, prompt_id) in categories]
    if len(categories) < 2:
        return None
    names = [ids[place] for place in kept]
    rates = statistics.win_rate([sides[0][i] for i in kept], [sides[1][i] for i in kept], names).per_prompt
    groups = [evidence.category(prompts, prompt_id) for prompt_id in dict.fromkeys(names)]
    return group_table(rates, groups, bounds=(0.0, 1.0), seed=evidence.plan.seed)


def _rows(findings: Findings, each: _Comparison, base: str, group: str = "") -> dict[str, Row]:
    """Write the figures of a comparison, or of one category of it, as rows."""
    found = each.categories[group] if group else each.found
    rate, difference, tests = found["win_rate"], found["difference"], found["tests"]
    shared: dict[str, Any] = {
        "key": (each.prompts, each.kind[0], each.label, *([group] if group else [])),
        "n": found["n_prompts"],
        "model": each.label,
        "against": base,
        "prompts": each.prompts,
        "scorer": f"{each.kind[0]} ({each.kind[1]})",
        "group": group,
    }
    rows = {
        "win_rate": findings.add(
            "win_rate",
            rate["value"],
            low=rate["ci95"][0],
            high=rate["ci95"][1],
            p=tests["sign"]["p"],
            p_holm=tests["sign"].get("p_holm"),
            method="BCa bootstrap over prompts; exact sign test",
            **shared,
        ),
        "difference": findings.add(
            "difference",
            difference["mean"],
            low=difference["ci95"][0],
            high=difference["ci95"][1],
            p=tests["wilcoxon"]["p"],
            p_holm=tests["wilcoxon"].get("p_holm"),
            method="BCa bootstrap over prompts; Wilcoxon's signed ranks",
            **shared,
        ),
    }
    for name, value in (("wins", rate["wins"]), ("ties", rate["ties"]), ("losses", rate["losses"])):
        rows[name] = findings.add(name, value, **shared | {"unit": "picture", "n": found["n_pairs"]})
    for name in ("mean_base", "mean_set", "effect_size"):
        if difference[name] is not None:
            rows[name] = findings.add(name, difference[name], **shared)
    low, high = rate["ci95_wilson"]
    rows["wilson"] = findings.add(
        "win_rate_wilson", rate["value"], low=low, high=high, method="Wilson over prompts", **shared
    )
    return rows


def verdict(found: dict[str, Any]) -> str:
    """Say better, worse or open: both intervals exclude one half, and the corrected sign test agrees."""
    said = found["verdict"]
    significant = found["tests"]["sign"].get("p_holm", 1.0) < 0.05
    return said if said in ("better", "worse") and significant else "open"


def _say(findings: Findings, each: _Comparison, rows: dict[str, Row], base: str) -> None:
    rate = each.found["win_rate"]
    low, high = rate["ci95"]
    said = verdict(each.found)
    figures = f"{percent(rate['value'])} of {rate['n']} prompts, 95 % interval {span_percent(low, high)}"
    name = each.kind[0]
    text = {
        "better": f"{each.label} is preferred to {base} on {figures} (by {name}, {each.prompts}).",
        "worse": f"{base} is preferred to {each.label}: {each.label} wins on {figures} (by {name}, {each.prompts}).",
        "open": f"No preference is shown between {each.label} and {base}: {each.label} wins on {figures} "
        f"(by {name}, {each.prompts}). This does not show that they are equal.",
    }[said]
    findings.say(text, [rows["win_rate"]], said, headline=True)
    if each.worst is not None:
        _say_worst(findings, each, base)


def _say_worst(findings: Findings, each: _Comparison, base: str) -> None:
    """Say where the model fares worst, with an interval that pays for having looked for it."""
    worst = each.worst
    if worst is None or worst.worst_ci95 is None:
        return
    row = findings.add(
        "worst_category_win_rate",
        worst.worst_value,
        key=(each.prompts, each.kind[0], each.label),
        low=worst.worst_ci95[0],
        high=worst.worst_ci95[1],
        n=next(group.n for group in worst.groups if group.name == worst.worst),
        model=each.label,
        against=base,
        prompts=each.prompts,
        scorer=f"{each.kind[0]} ({each.kind[1]})",
        group=worst.worst,
        p=worst.p_differ,
        method="lowest of the categories; interval of the lowest true rate (Bonferroni); p: whether they differ",
    )
    findings.say(
        f"{each.label} fares worst in the category {worst.worst}: it wins {percent(row.value)} of {row.n} prompts; "
        f"the lowest true rate of {len(worst.groups)} categories lies between {percent(row.low or 0.0)} and "
        f"{percent(row.high or 0.0)}. Whether categories differ at all: p = {p_text(worst.p_differ)} "
        f"(by {each.kind[0]}, {each.prompts}).",
        [row],
    )


def _warn(findings: Findings, evidence: Evidence, comparisons: list[_Comparison]) -> None:
    """Warn where the reward that is reported is the one that was trained on."""
    judged = {each.kind[0] for each in comparisons}
    for model in evidence.plan.models:
        trained = model.trained_on()
        for name in sorted(judged & trained.keys()):
            others = ", ".join(sorted(judged - trained.keys()))
            look = f"look at {others} instead" if others else "no scorer that it was not trained on is reported here"
            text = (
                f"{model.label} was trained on {name} ({'; '.join(dict.fromkeys(trained[name]))}). That it does well "
                f"by {name} is expected, and no evidence of its own: {look}."
            )
            findings.blocks.append(warning(text))


def _show(findings: Findings, comparisons: list[_Comparison], rows: list[dict[str, Row]]) -> None:
    points = [
        {
            "label": f"{each.label}, {each.kind[0]}, {each.prompts}",
            "value": row["win_rate"].value,
            "low": row["win_rate"].low,
            "high": row["win_rate"].high,
            "row": row["win_rate"].id,
            "tone": verdict(each.found),
        }
        for each, row in zip(comparisons, rows, strict=True)
    ]
    findings.blocks.append(
        plot("intervals", "Win rate against the base, with 95 % intervals", points=points, mark=0.5)
    )
    pairs = list(zip(comparisons, rows, strict=True))
    head = ["model", "scorer", "prompts"]
    rates = ["win rate", "95 % interval", "Wilson", "wins", "ties", "losses", "n", "sign test, Holm", "verdict"]
    findings.blocks.append(table("Win rates", [*head, *rates], [_rate_line(*pair) for pair in pairs]))
    scores = ["base", "model", "difference", "95 % interval", "effect size", "Wilcoxon, Holm"]
    findings.blocks.append(table("Scores, higher is better", [*head, *scores], [_score_line(*pair) for pair in pairs]))


def _rate_line(each: _Comparison, row: dict[str, Row]) -> list[Any]:
    rate, wilson = row["win_rate"], row["wilson"]
    counts = [cell(f"{row[name].value:.0f}", row[name]) for name in ("wins", "ties", "losses")]
    return [
        each.label,
        each.kind[0],
        each.prompts,
        cell(percent(rate.value), rate),
        cell(span_percent(rate.low or 0.0, 1.0 if rate.high is None else rate.high), rate),
        cell(span_percent(wilson.low or 0.0, wilson.high or 0.0), wilson),
        *counts,
        str(rate.n),
        cell(p_text(1.0 if rate.p_holm is None else rate.p_holm), rate),
        {"better": "better", "worse": "worse", "open": "not shown"}[verdict(each.found)],
    ]


def _score_line(each: _Comparison, row: dict[str, Row]) -> list[Any]:
    difference, effect = row["difference"], row.get("effect_size")
    return [
        each.label,
        each.kind[0],
        each.prompts,
        cell(number(row["mean_base"].value), row["mean_base"]),
        cell(number(row["mean_set"].value), row["mean_set"]),
        cell(f"{difference.value:+.3g}", difference),
        cell(span(difference.low, difference.high), difference),
        "–" if effect is None else cell(f"{effect.value:+.2f}", effect),
        cell(p_text(1.0 if difference.p_holm is None else difference.p_holm), difference),
    ]


def _show_categories(findings: Findings, comparisons: list[_Comparison], base: str) -> None:
    lines: list[list[Any]] = []
    groups: list[str] = []
    for each in comparisons:
        for group in each.categories:
            rows = _rows(findings, each, base, group)
            rate, difference = rows["win_rate"], rows["difference"]
            lines.append(
                [
                    group,
                    each.label,
                    each.kind[0],
                    each.prompts,
                    cell(percent(rate.value), rate),
                    cell(span_percent(rate.low or 0.0, 1.0 if rate.high is None else rate.high), rate),
                    cell(f"{difference.value:+.3g}", difference),
                    cell(span(difference.low, difference.high), difference),
                    str(rate.n),
                ]
            )
            groups.append(group)
    if lines:
        head = [
            "category",
            "model",
            "scorer",
            "prompts",
            "win rate",
            "95 % interval",
            "difference",
            "95 % interval",
            "n",
        ]
        findings.blocks.append(table("By category (not corrected for their number)", head, lines, groups))
