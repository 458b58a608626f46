"""The ledger: tokens and money, counted as answers come, and the budget that ends asking.

Law of this file: what was paid in an earlier run counts too. A question is asked only if the budget has room for it
and for those under way, each taken for as dear as the dearest answer so far.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from t2ialign.chat.base import Usage
from t2ialign.errors import ModelError

MILLION = 1e6


@dataclass(frozen=True)
class Prices:
    """What tokens cost, and how much may be spent.

    Attributes:
        prompt: Per million tokens read, in the user's currency; `None` where it is not known.
        completion: Per million tokens written.
        budget: The most that all answers of a folder may cost; `None` for no bound.
    """

    prompt: float | None = None
    completion: float | None = None
    budget: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """Return what an answer cost; `None` where prices or tokens are not known."""
        if self.prompt is None or self.completion is None:
            return None
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / MILLION


class Ledger:
    """Counts usage; several threads may enter.

    Attributes:
        prices: See `Prices`.
        spent: What all answers cost so far, where it is known.
    """

    def __init__(self, prices: Prices, used: Iterable[Usage] = ()) -> None:
        """Begin with what was used before."""
        self.prices = prices
        self.spent = 0.0
        self._dearest = 0.0
        self._untold = 0
        self._tokens = {"prompt_tokens": 0, "completion_tokens": 0, "requests": 0}
        self._lock = threading.Lock()
        for usage in used:
            self._enter(usage)

    def enter(self, usage: Usage | None, who: str, *, refused: bool = False) -> None:
        """Count an answer.

        Args:
            usage: What it took.
            who: Who gave it.
            refused: Whether it is a refusal; one by an error of the endpoint tells no tokens, and takes none.

        Raises:
            ModelError: If there is a budget and an answer's tokens are not told: it could not be kept.
        """
        with self._lock:
            known = usage is not None and self._enter(usage)
        if self.prices.budget is not None and not known and not refused:
            raise ModelError(
                f"{who} does not say how many tokens an answer takes, so no budget can be kept; leave it out"
            )

    def _enter(self, usage: Usage) -> bool:
        for name in self._tokens:
            self._tokens[name] += getattr(usage, name) or 0
        self._untold += usage.prompt_tokens is None or usage.completion_tokens is None
        cost = self.prices.cost(usage)
        if cost is None:
            return False
        self.spent += cost
        self._dearest = max(self._dearest, cost)
        return True

    def room(self, under_way: int) -> bool:
        """Whether one more question may be asked while so many are under way."""
        budget = self.prices.budget
        with self._lock:
            if budget is None:
                return True
            return self.spent < budget and self.spent + (under_way + 1) * self._dearest <= budget

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, for the report."""
        priced = self.prices.prompt is not None and self.prices.completion is not None
        return {
            **self._tokens,
            "answers_without_token_counts": self._untold,
            "cost": round(self.spent, 9) if priced else None,
            "price_prompt": self.prices.prompt,
            "price_completion": self.prices.completion,
            "budget": self.prices.budget,
        }
