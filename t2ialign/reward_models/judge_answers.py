"""A judge's questions and answers: what is asked, and the strict reading of what comes back.

Law of this file: an answer is one JSON object of exactly the form asked for, or it is none. A code fence around the
whole answer is taken off, because models put it there; nothing else is repaired, searched for or guessed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["first", "second", "tie", "inconsistent"]
"""What comes of asking twice: one of the two in both orders, a tie in both, or different answers."""

POINTWISE = """You judge a picture that a text-to-image model made from a prompt.
The prompt, as a JSON string: {prompt}
How well does the picture do what the prompt asks for, and how good is it as a picture? Choose one:
5: excellent. Everything asked for is there, and nothing is wrong with the picture.
4: good. Small faults that one has to look for.
3: fair. Something asked for is missing or wrong, or there are plain faults.
2: poor. Much of what was asked for is missing or wrong, or the faults are heavy.
1: bad. Not what was asked for, or not to be recognised.
Answer with one JSON object and nothing else: {"reason": "one or two sentences", "score": a number from 1 to 5}"""
"""The question about one picture. Words stand beside the numbers because models keep to words more steadily."""

PAIRWISE = """You compare two pictures that text-to-image models made from the same prompt. The first picture is A, \
the second picture is B.
The prompt, as a JSON string: {prompt}
Which of the two does better what the prompt asks for, and is the better picture? The order in which they are shown \
says nothing. If neither is better, it is a tie.
Answer with one JSON object and nothing else: {"reason": "one or two sentences", "better": "A", "B" or "tie"}"""
"""The question about two pictures."""


@dataclass(frozen=True)
class Rating:
    """What a judge says of one picture.

    Attributes:
        score: 1 to 5; `None` where there is no readable answer.
        reason: The judge's own words.
        problem: Why there is no score; empty where there is one.
        raw: The last answer as it came; empty where there was none.
    """

    score: int | None
    reason: str = ""
    problem: str = ""
    raw: str = ""


@dataclass(frozen=True)
class Preference:
    """What a judge says of two pictures, asked in both orders.

    Attributes:
        verdict: See `Verdict`; `None` where one of the two answers is not readable.
        forward: The answer with the first picture shown first: `"first"`, `"second"`, `"tie"` or `None`.
        swapped: The answer with the second picture shown first, in the same words.
        reasons: The judge's own words, of both answers.
        problem: Why there is no verdict; empty where there is one.
    """

    verdict: Verdict | None
    forward: str | None
    swapped: str | None
    reasons: tuple[str, str] = ("", "")
    problem: str = ""


@dataclass(frozen=True)
class PreferenceCounts:
    """Preferences, counted.

    Attributes:
        first: Pairs of which the first picture was preferred in both orders.
        second: Likewise the second.
        tie: Ties in both orders.
        inconsistent: Pairs whose two answers differ.
        unanswered: Pairs without two readable answers; they count nowhere else.
        consistency: Share of the answered pairs whose answers agree; `None` without any.
        first_shown: Of the pairs for which the same place was preferred twice, the share in which it was the first
            place: 0.5 without a bias of position; `None` without any.
        win_rate: Share of the answered pairs won by the second picture, ties and inconsistent ones half; `None`
            without any.
    """

    first: int
    second: int
    tie: int
    inconsistent: int
    unanswered: int
    consistency: float | None
    first_shown: float | None
    win_rate: float | None


def question(template: str, prompt: str) -> str:
    """Put a prompt into a template, as a JSON string, so that nothing in it ends the quotation."""
    return template.replace("{prompt}", json.dumps(prompt, ensure_ascii=False))


def read_rating(text: str) -> Rating:
    """Read the answer about one picture; where it is not of the form asked for, the rating has a problem."""
    found, problem = _read(text, "score")
    score = found.get("score")
    if not problem and (type(score) is not int or not 1 <= score <= 5):
        problem = f"the score is {json.dumps(score)}, no whole number from 1 to 5"
    if problem:
        return Rating(None, problem=problem, raw=text)
    return Rating(score, str(found.get("reason", "")), raw=text)


def read_choice(text: str) -> tuple[str | None, str, str]:
    """Read the answer about two pictures.

    Returns:
        `"A"`, `"B"`, `"tie"` or `None`; the judge's reason; the problem, empty where there is none.
    """
    found, problem = _read(text, "better")
    better = found.get("better")
    if not problem and better not in ("A", "B", "tie"):
        problem = f"better is {json.dumps(better)}, none of A, B and tie"
    if problem:
        return None, "", problem
    return str(better), str(found.get("reason", "")), ""


def _read(text: str, needed: str) -> tuple[dict[str, Any], str]:
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*)\n\s*```", text.strip(), re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return {}, f"the answer is no JSON object ({str(error).splitlines()[0]})"
    if not isinstance(found, dict):
        return {}, f"the answer is JSON, but a {type(found).__name__} and no object"
    strange = set(found) - {needed, "reason"}
    if needed not in found or strange:
        return {}, f"the answer has the keys {', '.join(sorted(found)) or 'none'}; asked for are reason and {needed}"
    if not isinstance(found.get("reason", ""), str):
        return {}, "the reason is no text"
    return found, ""


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_SHOWN = {False: {"A": "first", "B": "second", "tie": "tie"}, True: {"A": "second", "B": "first", "tie": "tie"}}


def preference(forward: tuple[str | None, str, str], swapped: tuple[str | None, str, str]) -> Preference:
    """Bring the two answers about a pair together; both as `read_choice` returns them."""
    one = None if forward[0] is None else _SHOWN[False][forward[0]]
    two = None if swapped[0] is None else _SHOWN[True][swapped[0]]
    reasons = (forward[1], swapped[1])
    if one is None or two is None:
        return Preference(None, one, two, reasons, forward[2] or swapped[2])
    verdicts: dict[str, Verdict] = {"first": "first", "second": "second", "tie": "tie"}
    return Preference(verdicts[one] if one == two else "inconsistent", one, two, reasons)


def count_preferences(preferences: list[Preference]) -> PreferenceCounts:
    """Count verdicts, and say how far the order mattered."""
    counts = {verdict: sum(each.verdict == verdict for each in preferences) for verdict in (*_VERDICTS, None)}
    answered = len(preferences) - counts[None]
    placed = [each.forward for each in preferences if {each.forward, each.swapped} == {"first", "second"}]
    halves = counts["tie"] + counts["inconsistent"]
    return PreferenceCounts(
        counts["first"],
        counts["second"],
        counts["tie"],
        counts["inconsistent"],
        counts[None],
        (answered - counts["inconsistent"]) / answered if answered else None,
        placed.count("first") / len(placed) if placed else None,
        (counts["second"] + 0.5 * halves) / answered if answered else None,
    )


_VERDICTS: tuple[Verdict, ...] = ("first", "second", "tie", "inconsistent")
