"""Power: how many prompts would settle a question, and what so many prompts can settle.

Law of this file: a number of prompts is for a two-sided test at the level and power that are named, and is rounded up.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Needed:
    """What it would take to settle an observed difference.

    Attributes:
        effect: The observed mean difference from the null.
        deviation: Its standard deviation over prompts.
        n: Prompts that there are.
        needed: Prompts that show such an effect with `power`; `None` where the effect is 0.
        detectable: The smallest effect that `n` prompts show with `power`.
        level: Of the two-sided test.
        power: Probability of showing the effect.
    """

    effect: float
    deviation: float
    n: int
    needed: int | None
    detectable: float
    level: float
    power: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def prompts_for_win_rate(rate: float, *, ties: float = 0.0, level: float = LEVEL, power: float = POWER) -> int:
    r"""Return how many prompts, one pair each, show a win rate with the given power.

    .. math:: n = \left(\frac{z_{1-\alpha/2}\,\sigma_0 + z_{power}\,\sigma_1}{W - 1/2}\right)^2, \qquad
              \sigma_0^2 = \frac{1-t}{4}, \quad \sigma_1^2 = \frac{1-t}{4} - (W - 1/2)^2

    with ties counted half: the variance of a win (1), a tie (1/2) and a loss (0) when a share t ties. Without ties it
    is the usual formula of a proportion: 783 prompts for 55 %, 194 for 60 %.

    Args:
        rate: In (0, 1), not 1/2.
        ties: Share of ties, in [0, 1); `|rate - 1/2|` can not exceed `(1 - ties) / 2`.
        level: Of the two-sided test.
        power: Wanted.

    Raises:
        ValueError: If a value is out of range.
    """
    gap = abs(rate - 0.5)
    if not 0 <= ties < 1 or not 0 < gap <= (1 - ties) / 2:
        raise ValueError(
            f"a win rate of {rate} with a share {ties} of ties is no question; the rate must differ from 0.5 and fit"
        )
    first, second = _quantiles(level, power)
    null = math.sqrt((1 - ties) / 4)
    return math.ceil(((first * null + second * math.sqrt(max(0.0, (1 - ties) / 4 - gap * gap))) / gap) ** 2 - 1e-9)


def prompts_to_settle(
    values: npt.ArrayLike, null: float = 0.0, *, level: float = LEVEL, power: float = POWER
) -> Needed:
    r"""Return how many prompts would settle an observed mean, were the true effect as observed.

    .. math:: n = \left(\frac{(z_{1-\alpha/2} + z_{power})\,s}{\bar d}\right)^2

    An effect that was found by looking for a large one is smaller in truth, so the number is a lower bound then.

    Args:
        values: One number a prompt, [P], P at least 2: win rates (null 1/2) or differences (null 0).
        null: What there would be without an effect.
        level: Of the two-sided test.
        power: Wanted.

    Raises:
        ValueError: If there are fewer than 2 prompts, or a value is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise ValueError("give one finite number for each of at least 2 prompts")
    factor = sum(_quantiles(level, power))
    effect, spread = float(array.mean()) - null, float(array.std(ddof=1))
    needed = math.ceil((factor * spread / effect) ** 2 - 1e-9) if effect else None
    return Needed(
        effect=effect,
        deviation=spread,
        n=len(array),
        needed=None if needed is None else max(2, needed),
        detectable=factor * spread / math.sqrt(len(array)),
        level=level,
        power=power,
    )


def _quantiles(level: float, power: float) -> tuple[float, float]:
    if not 0 < level < 1 or not 0 < power < 1:
        raise ValueError(f"level {level} and power {power} must lie between 0 and 1; 0.05 and 0.8 are usual")
    return NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
