"""What may be said of an agreement, in sentences, from the content of `agreement.json`.

Law of this file: it computes nothing; each sentence says no more than the figures and intervals that it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2ialign.eval.report import p_text, percent

FOUND, NOT_SHOWN, NOT_TESTABLE = "found", "not shown", "not testable"
"""What is said of a bias."""
CHANCE = 0.5
Found = Mapping[str, Any]

BIAS_TITLES = {
    "position": "position",
    "rationale_length": "length of the rationale",
    "caption_length": "length of the prompt",
    "brightness": "brightness",
    "sharpness": "sharpness",
    "size": "size",
}


def sentences(result: Found) -> list[str]:
    """Write the conclusions, the most important first.

    Args:
        result: The content of `agreement.json` but for the sentences.
    """
    said = [_matched(result)]
    said += [_accuracy(each, result) for each in result["comparisons"] if _leading(each, result)]
    said += _ratings(result)
    said += _ceilings(result)
    said += _swaps(result)
    said += [_bias(name, verdict, result) for name, verdict in result["bias_verdicts"].items()]
    if result["annotator"]["not_ok"]:
        problems = ", ".join(f"{name} {count}" for name, count in sorted(result["annotator"]["problems"].items()))
        said.append(
            f"{result['annotator']['not_ok']} of {result['annotator']['annotations']} answers lack a rating "
            f"({problems}); nothing was filled in for them, and the figures say nothing of them."
        )
    return said


def headline(result: Found) -> Found:
    """Return the comparison that is named first: of the aggregate where there is one."""
    leading = [each for each in result["comparisons"] if _leading(each, result)]
    found: Found = (leading or result["comparisons"])[0]
    return found


def _leading(comparison: Found, result: Found) -> bool:
    aggregates = [each for each in result["comparisons"] if each["aspect"] == "aggregate"]
    return comparison["verdicts"] is not None and comparison in (aggregates or result["comparisons"])


def _matched(result: Found) -> str:
    matched, mine, theirs = result["matched"], result["annotator"]["name"], result["reference"]["name"]
    text = (
        f"{matched['pictures']:,} pictures of {matched['prompts']:,} prompts are in both {mine} and {theirs}; "
        f"{matched['annotator_only']:,} are in {mine} alone, {matched['reference_only']:,} in {theirs} alone."
    )
    if matched["without_digest"]:
        text += f" {matched['without_digest']:,} could not be matched: neither a sha256 nor the file is there."
    return text


def chance_verdict(decided: Found) -> str:
    """Say how an accuracy on decided pairs stands to chance.

    Both of its intervals have to agree, and the exact sign test over prompts: over few, intervals are too narrow.

    Args:
        decided: `decided` of a comparison of verdicts.
    """
    if decided["ci95"] is None:
        return "nothing can be said of chance"
    low = min(decided["ci95"][0], decided["ci95_wilson"][0])
    high = max(decided["ci95"][1], decided["ci95_wilson"][1])
    sign = decided["sign"]
    sure, above = sign["p"] < 0.05, 2 * sign["prompts_above"] > sign["n"]
    if low > CHANCE and sure and above:
        return "more often than chance"
    return "less often than chance" if high < CHANCE and sure and not above else "not shown to differ from chance"


def _accuracy(comparison: Found, result: Found) -> str:
    decided, mine = comparison["verdicts"]["decided"], result["annotator"]["name"]
    theirs = result["reference"]["name"]
    aspect = comparison["aspect"].replace("_", "-")
    if decided["value"] is None:
        return f"By the {aspect}, no pair is decided by both {mine} and {theirs}: nothing can be said of accuracy."
    text = (
        f"By the {aspect}, {mine} agrees with {theirs} on {percent(decided['value'])} of the {decided['n_pairs']:,} "
        f"pairs that neither calls a tie ({decided['n_prompts']:,} prompts"
    )
    if decided["ci95"] is None:
        return text + "; an interval needs at least 2): nothing can be said of chance."
    low = min(decided["ci95"][0], decided["ci95_wilson"][0])
    high = max(decided["ci95"][1], decided["ci95_wilson"][1])
    text += f"; 95 % intervals reach from {percent(low)} to {percent(high)}): {chance_verdict(decided)}."
    accuracy = comparison["verdicts"]["accuracy"]
    if accuracy["value"] is not None:
        whole = f"{percent(accuracy['value'])}{_between(accuracy, True)}"
        text += f" With ties by the policy {accuracy['policy']} it is {whole}."
    return text


def _between(figure: Found, rate: bool = False) -> str:
    if figure["ci95"] is None:
        return " (no interval)"
    if figure["ci95"][0] == figure["ci95"][1]:
        return " (the same in every resample: the data say nothing of its spread)"
    low, high = (percent(end) if rate else f"{end:z.2f}" for end in figure["ci95"])
    return f" (95 % interval {low} to {high})"


def _ratings(result: Found) -> list[str]:
    compared = [each for each in result["comparisons"] if each["ratings"] is not None]
    if not compared:
        return []
    parts = []
    for each in compared:
        kappa = each["ratings"]["kappa_quadratic"]
        if kappa["value"] is None:
            parts.append(f"{each['aspect']}: none, for want of variety")
        else:
            parts.append(f"{each['aspect']} {kappa['value']:.2f}{_between(kappa)}")
    return [
        "Agreement of ratings beyond chance (kappa, quadratic weights; 0 is chance, 1 perfect): "
        + "; ".join(parts)
        + "."
    ]


def _ceilings(result: Found) -> list[str]:
    said = []
    for side, name in (("reference", result["reference"]["name"]), ("annotator", result["annotator"]["name"])):
        for aspect, found in result["within"][side].items():
            if aspect not in ("aggregate", "overall"):
                continue
            if "same" in found and found["decided"]["value"] is not None:
                said.append(
                    f"The users of {name} agree among themselves on {percent(found['decided']['value'])}"
                    f"{_between(found['decided'], True)} where neither calls a tie, by {found['n_pairs']:,} pairs "
                    f"that several judged ({found['n_prompts']:,} prompts): beside this the annotator's figure is to "
                    "be read."
                )
            elif "alpha_interval" in found and found["alpha_interval"]["value"] is not None:
                alpha = found["alpha_interval"]
                said.append(
                    f"The {found['n_raters']} annotators of {name} agree among themselves with an alpha of "
                    f"{alpha['value']:.2f}{_between(alpha)} ({found['n_pictures']:,} pictures, {aspect})."
                )
    return said


def _swaps(result: Found) -> list[str]:
    swaps = result["swaps"]
    if not swaps:
        return ["Order-swap consistency is not known: no two pictures were shown in both orders (annotate twice)."]
    found = swaps.get("aggregate") or next(iter(swaps.values()))
    same, flipped = (
        f"{percent(found[name]['value'])}{_between(found[name], True)}" for name in ("consistency", "flip_rate")
    )
    return [
        f"Shown the other way round, the verdict on two pictures stays the same in {same} of {found['n_pairs']:,} "
        f"pairs, and turns into its opposite in {flipped}; of these flips {found['to_first']:,} favour the picture "
        f"shown first, {found['to_last']:,} the one shown last ({found['n_prompts']:,} prompts)."
    ]


def _bias(name: str, verdict: Found, result: Found) -> str:
    title = f"Bias by {BIAS_TITLES[name]}"
    if verdict["verdict"] == NOT_TESTABLE:
        return f"{title}: not testable ({verdict['reason']})."
    entries = [each for each in result["biases"] if each["bias"] == name and each["p"] is not None]
    if verdict["verdict"] == FOUND:
        surest = min((each for each in entries if each["verdict"] == FOUND), key=lambda each: each["p"])
        others = [aspect for aspect in verdict["aspects"] if aspect != surest["aspect"]]
        also = f"; also in {', '.join(others)}" if others else ""
        return f"{title}: found. {_effect(surest)}{also}.{_caution(name, surest)}"
    least = min(entries, key=lambda each: each["p"])
    return f"{title}: not shown ({_effect(least)}). This does not show that there is none."


def _effect(entry: Found) -> str:
    figures = f"p {p_text(entry['p'])}, Holm {p_text(entry['p_holm'])}, {entry['n_prompts']:,} prompts"
    if entry["bias"] == "position":
        slope = entry["slope"]
        size = "" if slope["value"] is None else f" {slope['value']:+z.2f} points a place{_between(slope)}"
        return f"{entry['aspect']}{size}, {figures}"
    size = entry["correlation"]
    shown = "" if size["value"] is None else f" r {size['value']:+z.2f}{_between(size)}"
    return f"{entry['aspect']}{shown}, {figures}"


def _caution(name: str, entry: Found) -> str:
    if name == "position":
        return ""
    if name == "rationale_length":
        return " The text may be longer because of the rating: it is an association."
    if entry["judged"] == "rating":
        return " It is judged by the rating itself: whether the reference has it too is not known."
    return " It is what the annotator has more, or less, of than the reference; it is an association."


def table(result: Found) -> list[str]:
    """Lay the comparisons out in lines of equal columns, for a terminal."""
    head = ("aspect", "against", "accuracy", "decided", "pairs", "kappa", "ratings' kappa", "alpha", "prompts")
    rows = [head, *(_row(each) for each in result["comparisons"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(comparison: Found) -> Sequence[str]:
    verdicts, ratings = comparison["verdicts"], comparison["ratings"]
    cells = [comparison["aspect"], comparison["against"]]
    if verdicts is None:
        cells += ["-"] * 4
    else:
        cells += [figure(verdicts["accuracy"], rate=True), figure(verdicts["decided"], rate=True)]
        cells += [str(verdicts["n_pairs"]), figure(verdicts["kappa"])]
    cells += ["-", "-"] if ratings is None else [figure(ratings["kappa_quadratic"]), figure(ratings["alpha_interval"])]
    return [*cells, str((verdicts or ratings)["n_prompts"])]


def figure(value: Found, *, rate: bool = False) -> str:
    """Write a figure with its interval, short."""
    if value["value"] is None:
        return "-"
    scale, digits = (100, 1) if rate else (1, 2)
    text, *ends = (f"{scale * number:z.{digits}f}" for number in (value["value"], *(value["ci95"] or ())))
    return f"{text} [{', '.join(ends)}]" if ends else text
