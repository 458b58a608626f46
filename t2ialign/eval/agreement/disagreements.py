"""The pairs of pictures on which an annotator and the reference disagree, the surest first.

Law of this file: a disagreement is two opposite verdicts; a tie on either side is none. They come in an order that
depends on nothing but the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from t2ialign.eval.agreement.sides import AGGREGATE, OVERALL, Key, Rated, Verdict


@dataclass
class Disagreement:
    """Two pictures of a prompt of which the annotator prefers one and the reference the other.

    Attributes:
        prompt: The prompt.
        aspect: What the annotator judged.
        against: What the reference judged.
        annotators: Picture that the annotator prefers.
        reference: Picture that the reference prefers.
        margin: By how much the annotator prefers it, in rating points.
        users: Who of the reference prefers the other.
        ratings: The annotator's, by aspect: of its own picture and of the reference's.
        reference_ratings: The reference's, where it rates.
        rationales: The annotator's texts, by aspect, of the two pictures.
        reference_rationales: The reference's.
    """

    prompt: str
    aspect: str
    against: str
    annotators: Key
    reference: Key
    margin: float
    users: list[str] = field(default_factory=list)
    ratings: dict[str, list[float | None]] = field(default_factory=dict)
    reference_ratings: dict[str, list[float | None]] = field(default_factory=dict)
    rationales: dict[str, list[str]] = field(default_factory=dict)
    reference_rationales: dict[str, list[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; pictures by the sha256 of their files."""
        values = {**self.__dict__}
        values["annotators"], values["reference"] = self.annotators.digest, self.reference.digest
        return values


def find_disagreements(
    mine: Rated, verdicts: Mapping[str, Sequence[Verdict]], theirs: Rated | None
) -> list[Disagreement]:
    """Find all disagreements.

    Args:
        mine: The annotator's side.
        verdicts: The reference's, by what was judged. An aspect is held against its own; overall verdicts against the
            aggregate.
        theirs: The reference's ratings, where it has any.

    Returns:
        Those with the largest margin first. A pair of pictures that differs in the aggregate comes there alone.
    """
    found: dict[tuple[str, Key, Key], Disagreement] = {}
    for asked, said in verdicts.items():
        aspect = AGGREGATE if asked == OVERALL else asked
        ratings = mine.ratings.get(aspect, {})
        for verdict in said:
            if verdict.label == 0.5 or verdict.first not in ratings or verdict.second not in ratings:
                continue
            margin = ratings[verdict.first] - ratings[verdict.second]
            if abs(margin) < 1e-9 or (margin > 0) == (verdict.label == 1):
                continue
            ours, other = (verdict.first, verdict.second) if margin > 0 else (verdict.second, verdict.first)
            each = found.setdefault(
                (aspect, ours, other), Disagreement(ours.prompt, aspect, asked, ours, other, abs(margin))
            )
            if verdict.user and verdict.user not in each.users:
                each.users.append(verdict.user)
    aggregated = {(d.annotators, d.reference) for d in found.values() if d.aspect == AGGREGATE}
    kept = [d for d in found.values() if d.aspect == AGGREGATE or (d.annotators, d.reference) not in aggregated]
    kept.sort(key=lambda d: (-d.margin, d.aspect != AGGREGATE, d.prompt, d.annotators, d.reference, d.aspect))
    for each in kept:
        sides = (each.annotators, each.reference)
        each.ratings, each.rationales = _ratings(mine, sides), _rationales(mine, sides)
        if theirs is not None:
            each.reference_ratings, each.reference_rationales = _ratings(theirs, sides), _rationales(theirs, sides)
    return kept


def _ratings(rated: Rated, sides: tuple[Key, Key]) -> dict[str, list[float | None]]:
    return {aspect: [marks.get(key) for key in sides] for aspect, marks in rated.ratings.items()}


def _rationales(rated: Rated, sides: tuple[Key, Key]) -> dict[str, list[str]]:
    texts = {a: ["\n".join(of.get(key, [])) for key in sides] for a, of in rated.rationales.items()}
    return {aspect: two for aspect, two in texts.items() if any(two)}
