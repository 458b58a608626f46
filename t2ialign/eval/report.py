"""The words around a comparison: `compare.md` from the content of `compare.json`.

Law of this file: it computes nothing; each sentence says no more than the figures beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2ialign.eval.statistics import SIGNIFICANT


def percent(value: float) -> str:
    """Write a rate with one decimal, in percent."""
    return f"{100 * value:.1f} %"


def p_text(value: float) -> str:
    """Write a p value with two digits; very small ones as a bound."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def sentence(comparison: Mapping[str, Any], base: str) -> str:
    """Say in one sentence what a comparison shows, and what it does not."""
    rate = comparison["win_rate"]
    low, high = min(rate["ci95"][0], rate["ci95_wilson"][0]), max(rate["ci95"][1], rate["ci95_wilson"][1])
    figures = (
        f"{comparison['set']} wins {percent(rate['value'])} of {rate['n']} prompts against {base} by "
        f"{comparison['scorer']} (95 % intervals reach from {percent(low)} to {percent(high)}; ties count half)"
    )
    if comparison["verdict"] == "no difference shown":
        sign = p_text(comparison["tests"]["sign"]["p"])
        reason = "which includes 50 %" if low <= 0.5 <= high else f"but the exact sign test gives p = {sign}"
        return f"No difference shown: {figures}, {reason}. This does not show that the two are equal."
    text = f"{comparison['set']} is {comparison['verdict']} by this measure: {figures}."
    adjusted = comparison["tests"]["sign"].get("p_holm")
    if adjusted is not None and adjusted >= SIGNIFICANT:
        text += (
            f" It is one of several comparisons: adjusted for their number (Holm) the sign test gives p = "
            f"{p_text(adjusted)}, so it may be chance."
        )
    return text


def to_markdown(result: Mapping[str, Any]) -> str:
    """Write the report of a comparison.

    Args:
        result: The content of `compare.json`.
    """
    lines = [f"# Compared with {_cell(result['base'])}", ""]
    for comparison in result["comparisons"]:
        lines.append(f"- {sentence(comparison, result['base'])}")
    lines += ["", "## Win rates", "", *_table(_WIN_HEAD, [_win_row(c) for c in result["comparisons"]])]
    lines += ["", "## Scores", "", *_table(_SCORE_HEAD, [_score_row(c) for c in result["comparisons"]])]
    lines += ["", "## Tests", "", *_table(_TEST_HEAD, [_test_row(c) for c in result["comparisons"]])]
    lines += ["", "## How to read this", "", *_notes(result)]
    return "\n".join(lines) + "\n"


_WIN_HEAD = (
    "set",
    "scorer",
    "win rate",
    "95 % bootstrap",
    "95 % Wilson",
    "wins / ties / losses",
    "prompts",
    "verdict",
)
_SCORE_HEAD = ("set", "scorer", "base mean", "set mean", "mean difference", "95 % bootstrap", "effect size")
_TEST_HEAD = ("set", "scorer", "sign test p", "Holm", "Wilcoxon p", "Holm")


def _win_row(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    rate = comparison["win_rate"]
    counts = f"{rate['wins']} / {rate['ties']} / {rate['losses']}"
    intervals = [" to ".join(percent(end) for end in rate[name]) for name in ("ci95", "ci95_wilson")]
    head = (comparison["set"], comparison["scorer"], percent(rate["value"]))
    return (*head, *intervals, counts, str(rate["n"]), comparison["verdict"])


def _score_row(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    found = comparison["difference"]
    effect = "none" if found["effect_size"] is None else f"{found['effect_size']:.2f}"
    ends = " to ".join(f"{end:+.4g}" for end in found["ci95"])
    means = (f"{found['mean_base']:.4g}", f"{found['mean_set']:.4g}", f"{found['mean']:+.4g}")
    return (comparison["set"], comparison["scorer"], *means, ends, effect)


def _test_row(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    tests = comparison["tests"]
    values = [p_text(tests[name][key]) for name in ("sign", "wilcoxon") for key in ("p", "p_holm")]
    return (comparison["set"], comparison["scorer"], *values)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _notes(result: Mapping[str, Any]) -> list[str]:
    resamples = result["bootstrap"]["resamples"]
    notes = [
        "- The unit is the prompt: pictures of one prompt are averaged first. A tie counts half.",
        f"- Bootstrap: BCa over prompts, {resamples} resamples. Wilson: over prompts. A set is called better or worse "
        "only if both intervals exclude 50 % and the sign test's p is below 0.05.",
        "- Tests are two-sided and paired; Holm corrects for all comparisons in this file. Effect size is the mean "
        "difference over its standard deviation.",
        "- A scorer that was used in training, or to choose between runs, is no evidence of its own: look at another.",
    ]
    if not result["seeds_matched"]:
        notes.append("- Seeds were allowed to differ: pairs share the prompt, but not the noise.")
    left_out = {c["set"]: c["unpaired"] for c in result["comparisons"] if any(c["unpaired"].values())}
    for name, counts in left_out.items():
        notes.append(
            f"- Not compared, for want of a partner: {counts['base_only']} pictures of {result['base']}, "
            f"{counts['set_only']} of {name}."
        )
    cut = [(s["scorer"], s["info"].get("n_truncated", 0)) for s in result["scorers"]]
    notes += [f"- Prompts that {name} could not read to their end: {count}." for name, count in cut if count]
    for known in result["scorers"]:
        notes.append(f"- {known['scorer']} is {known['version']}" + _formula(known["info"]) + ".")
    return notes


def _formula(info: Mapping[str, Any]) -> str:
    return f": {info['formula']}" if info.get("formula") else ""
