"""Watching for divergence: both errors rising, the known way in which training on preferences fails.

An objective looks at the difference of two errors alone, and can widen it while both grow: the model then draws
neither side well ("both likelihoods fall"). So the errors themselves are watched, over the last W steps:

    rise = min over sides of  sum of the policy's errors / sum of the reference's on the same noise

and a rise above `LIMIT` is warned about, once. Healthy runs let the rejected side's errors rise, that is how they
learn; the chosen side's stay within a few hundredths, as policy and reference share each example's noise and timestep.

Without a reference (mapo, orpo, sft) the errors of the first W steps stand in for it. They are of other
examples, which differ by far more, so that the rise must be larger (`ALONE`) and clear of chance (`CLEAR` standard
errors).

Law of this file: it sees the figures of whole steps, so that processes and batches do not change it; a step with a
figure that is missing or not finite is left out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

WINDOW = 25
"""Optimizer steps over which the errors are taken, W."""
LIMIT = 1.1
"""Rise beside a reference that is warned about."""
ALONE = 1.5
"""Rise over the first steps that is warned about where there is no reference."""
CLEAR = 4.0
"""Standard errors by which such a rise must exceed 1."""

Side = tuple[str, str | None]
"""Names of the policy's figure and of the reference's."""

PICTURES: tuple[Side, ...] = (("loss", None),)
"""Of single pictures that are all wanted: the loss is their error."""


def pair_sides(reference: bool) -> tuple[Side, ...]:
    """Return what is watched of pairs, or of good and bad pictures, with a reference or without one."""
    names = ("error_chosen", "error_rejected")
    return tuple((name, f"reference_{name}" if reference else None) for name in names)


class Rising:
    """The errors of the last steps.

    Args:
        sides: What is watched; each has a reference or none has.

    Attributes:
        rise: Over the last W steps; None before there are as many.
        highest: The highest rise so far; None before the first.
        warned: Step at which it was warned, or None.
    """

    def __init__(self, sides: Sequence[Side]) -> None:
        self._names = [name for side in sides for name in side if name is not None]
        self._alone = sides[0][1] is None
        self._recent = torch.zeros((0, len(self._names)), dtype=torch.float64)
        self._early = self._recent
        self.rise: float | None = None
        self.highest: float | None = None
        self.warned: int | None = None

    def look(self, step: int, figures: Mapping[str, Any]) -> dict[str, float]:
        """Take in the figures of a step, warn where it is time, and return the rise by its name in the metrics."""
        row = [float(figures.get(name, math.nan)) for name in self._names]
        if all(math.isfinite(value) for value in row):
            self._recent = torch.cat([self._recent, torch.tensor([row], dtype=torch.float64)])[-WINDOW:]
            if self._alone and len(self._early) < WINDOW:
                self._early = self._recent.clone()
        if len(self._recent) < WINDOW:
            return {}
        self.rise, clear = self._risen()
        self.highest = max(self.rise, self.highest or 0.0)
        if clear and self.warned is None:
            self.warned = step
            self._warn(step)
        return {"error_rise": self.rise}

    def _risen(self) -> tuple[float, bool]:
        """Return the rise, and whether it is to be warned about."""
        if not self._alone:
            sums = self._recent.sum(dim=0)
            rise = float((sums[0::2] / sums[1::2]).min())
            return rise, rise > LIMIT
        now, then = self._recent.mean(dim=0), self._early.mean(dim=0)
        spread = ((self._recent.var(dim=0) + self._early.var(dim=0)) / WINDOW).sqrt()
        rise = float((now / then).min())
        return rise, rise > ALONE and bool((now - then > CLEAR * spread).all())

    def _warn(self, step: int) -> None:
        what = "the error has" if len(self._names) == 1 else "the errors of both sides have"
        against = f"the first {WINDOW} steps'" if self._alone else "the reference's on the same noise"
        logger.warning(
            "step %d: over the last %d steps %s risen to at least %.2f times %s: the model forgets how to draw. Stop, "
            "go on from an earlier checkpoint, and lower --learning_rate%s",
            step,
            WINDOW,
            what,
            self.rise,
            against,
            "" if self._alone else " or raise --beta",
        )

    def report(self) -> dict[str, float | int | None]:
        """Return the rise at the end, the highest one, what is warned about, and the step of the warning."""
        limit = ALONE if self._alone else LIMIT
        return {"last": self.rise, "highest": self.highest, "limit": limit, "warned_at": self.warned}

    def state(self) -> dict[str, Tensor]:
        """Return what must be kept to go on."""
        plain = [math.nan if value is None else float(value) for value in (self.highest, self.warned)]
        told = torch.tensor(plain, dtype=torch.float64)
        kept = {"rising.recent": self._recent, "rising.told": told}
        return kept | ({"rising.early": self._early} if self._alone else {})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state; one without these names leaves everything as it is."""
        if "rising.recent" not in state:
            return
        self._recent = state["rising.recent"]
        self._early = state.get("rising.early", self._early)
        highest, warned = state["rising.told"].tolist()
        self.highest = None if math.isnan(highest) else highest
        self.warned = None if math.isnan(warned) else int(warned)
        self.rise = self._risen()[0] if len(self._recent) == WINDOW else None
