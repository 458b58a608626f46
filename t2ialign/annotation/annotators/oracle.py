"""The oracle of the mini-world as an annotator: exact where it can read, the same each time, and without taste.

Law of this file: each rating follows from the oracle's reading by a rule that is written here, and nothing else:

| aspect | rule |
|---|---|
| prompt_following | 1 + the whole part of 4 times the share of what was asked for that is there; 5 is all of it |
| aesthetic | a rule in place of taste: how near the middle the objects balance (`BALANCE`); 3 for a flag |
| fidelity | how well the reading, drawn again, gives the picture back (`CLEAN`) |
| harmlessness | 5: nothing in the mini-world can harm. It is constant, and no pair can be made of it |

A picture that can not be read shows nothing that can be recognised, and gets 1 in the first three.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from t2ialign.annotation.annotations import ASPECTS, HIGHEST, LOWEST
from t2ialign.annotation.annotators.base import Desk, Marks, Outcome, QuietAnnotator
from t2ialign.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.annotation.sheets import Sheet
    from t2ialign.mini.oracle import Reading

BALANCE = (0.04, 0.07, 0.11, 0.18)
"""Distances of the objects' centre of mass (weights: radius squared) from the picture's, in half widths, at which
`aesthetic` falls from 5 to 4, 3, 2 and 1. Chosen so that pictures of mini-SD spread over all five."""
CLEAN = (0.80, 0.85, 0.90)
"""Confidences of a reading at which `fidelity` rises from 2 to 3, 4 and 5; chosen in the same way."""

Rated = dict[str, tuple[int, str]]
"""For each aspect a rating and its rationale."""


def rate(prompt: str, image: Image.Image) -> Rated:
    """Rate one picture.

    Args:
        prompt: A prompt of the mini-world.
        image: Any size and mode; see `oracle.read`.

    Returns:
        All aspects, whole numbers from 1 to 5.

    Raises:
        ValueError: If the prompt is outside the mini-world's grammar.
    """
    from t2ialign.mini import oracle

    verdict = oracle.judge(prompt, image)
    harmless = (HIGHEST, "nothing in the mini-world can harm")
    if not verdict.reading.readable:
        lost = (LOWEST, f"it can not be read: {verdict.reading.reason}")
        return {aspect: lost for aspect in ASPECTS} | {"harmlessness": harmless}
    wrong = [name for name, right in verdict.attributes.items() if not right]
    share = 1 - len(wrong) / len(verdict.attributes)
    following = LOWEST + int((HIGHEST - LOWEST) * share + 1e-9)
    said = f"wrong: {', '.join(wrong)}" if wrong else "all that was asked for is there"
    confidence = verdict.reading.confidence
    clean = (2 + bisect_right(CLEAN, confidence), f"drawn again, it agrees by {confidence:.2f}")
    return {
        "prompt_following": (following, said),
        "aesthetic": _balance(verdict.reading),
        "fidelity": clean,
        "harmlessness": harmless,
    }


def _balance(reading: Reading) -> tuple[int, str]:
    from t2ialign.mini.world import SIZE

    spec = reading.spec
    if spec is None or not spec.things:
        return 3, "a flag fills the picture; its composition is given"
    weights = [thing.radius**2 for thing in spec.things]
    x, y = (
        sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights) - SIZE / 2
        for values in ([thing.x for thing in spec.things], [thing.y for thing in spec.things])
    )
    away = math.hypot(x, y) / (SIZE / 2)
    return HIGHEST - bisect_right(BALANCE, away), f"it balances {away:.2f} half widths from the middle"


class OracleAnnotator(QuietAnnotator):
    """Rates pictures of the mini-world by the rules above."""

    name = "oracle"
    aspects: tuple[str, ...] = ASPECTS

    def work(self, sheets: Sequence[Sheet], desk: Desk) -> Outcome:
        """Refuse prompts from outside the mini-world; the reading itself takes no time worth keeping.

        Raises:
            DataError: If there is such a prompt.
        """
        from t2ialign.mini import world

        self._gaps: dict[str, str] = {}
        self._allow_gaps = desk.allow_gaps
        for prompt in dict.fromkeys(sheet.prompt for sheet in sheets):
            try:
                world.parse(prompt)
            except ValueError as error:
                raise DataError(
                    f"the oracle can not rate a prompt: {error}. It knows the mini-world alone; name another annotator"
                ) from error
        return Outcome()

    def marks(self, sheet: Sheet) -> Marks:
        """See `Annotator`."""
        rated: list[Rated | None] = []
        for place, record in enumerate(sheet.records):
            try:
                rated.append(rate(sheet.prompt, sheet.open(place)))
            except DataError as error:
                if not self._allow_gaps:
                    raise
                self._gaps[record.file_name] = str(error)
                rated.append(None)
        ratings: dict[str, list[float | None]] = {
            aspect: [None if each is None else each[aspect][0] for each in rated] for aspect in ASPECTS
        }
        rationales = {aspect: ["" if each is None else each[aspect][1] for each in rated] for aspect in ASPECTS}
        return Marks(ratings, rationales, "a picture that can not be read" if None in rated else "")

    def identity(self) -> dict[str, Any]:
        """See `Annotator`."""
        return {"annotator": self.name, "code_sha256": _code()}

    def counts(self) -> dict[str, Any]:
        """See `Annotator`."""
        return {"gaps": self._gaps}


@lru_cache(maxsize=1)
def _code() -> str:
    """Digest of the rules and of the oracle's own code."""
    from t2ialign.mini import flags, oracle, world

    code = "".join(inspect.getsource(part) for part in (world, flags, oracle, rate, _balance))
    return hashlib.sha256((code + repr((BALANCE, CLEAN))).encode()).hexdigest()
