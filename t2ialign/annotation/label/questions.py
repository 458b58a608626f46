"""Questions: which two pictures a person is shown, in which order, and which of them on the left.

Law of this file: the order and the sides are a function of (seed, user, couple) alone, so that a set that grew, or a
program that was killed, changes nothing of a question; whether one was answered is known by its id, in which neither
seed nor user has a part.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from t2ialign.annotation import draws
from t2ialign.annotation.label.sources import Couple


@dataclass(frozen=True)
class Question:
    """Two pictures side by side.

    Attributes:
        number: Its place in the order, from 0.
        id: 32 hexadecimal digits of what is asked: the prompt and the two pictures, whichever is on the left.
        couple: The pictures.
        left: Which of the couple, 0 or 1, is on the left.
    """

    number: int
    id: str
    couple: Couple
    left: int

    def place(self, side: str) -> int:
        """Return which of the couple is on a side, `left` or `right`."""
        return self.left if side == "left" else 1 - self.left

    def name(self, side: str) -> str:
        """Return what the source calls the picture on a side."""
        return self.couple.names[self.place(side)]


def question_id(couple: Couple) -> str:
    """Name what is asked, whoever is asked and however it is shown."""
    parts = (couple.prompt_id, couple.prompt, *sorted(couple.names))
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def ask_order(
    couples: Iterable[Couple], seed: int, user: str, *, per_prompt: int | None = None, limit: int | None = None
) -> list[Question]:
    """Put couples in the order in which a person is asked.

    A first round takes one couple of every prompt, a second round another, and so on: whoever stops early has seen as
    many prompts as possible. Prompts come in an order of chance, another one in every round.

    Args:
        couples: What may be asked.
        seed: Seed of the order and of the sides.
        user: Who is asked; two users see another order and other sides.
        per_prompt: Rounds; `None` for as many as there are.
        limit: Questions in all.
    """
    prompts: dict[tuple[str, str], list[tuple[int, str, Couple]]] = defaultdict(list)
    for couple in couples:
        name = question_id(couple)
        prompts[couple.prompt_id, couple.prompt].append((draws.number(seed, user, "first", name), name, couple))
    rounds: list[tuple[int, int, str, Couple]] = []
    for (prompt_id, _), listed in prompts.items():
        for turn, (_, name, couple) in enumerate(sorted(listed, key=lambda each: each[:2])[:per_prompt]):
            rounds.append((turn, draws.number(seed, user, "prompt", prompt_id, str(turn)), name, couple))
    rounds.sort(key=lambda each: each[:3])
    return [
        Question(number, name, couple, _left(seed, user, name, couple))
        for number, (_, _, name, couple) in enumerate(rounds[:limit])
    ]


def _left(seed: int, user: str, name: str, couple: Couple) -> int:
    """Draw who is on the left, by name and not by place, for a set may list its pictures in another order."""
    lower = 0 if couple.names[0] <= couple.names[1] else 1
    return lower if draws.number(seed, user, "left", name) % 2 == 0 else 1 - lower
