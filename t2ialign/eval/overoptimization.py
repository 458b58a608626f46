"""Over-optimisation: the reward that is trained on goes on rising while what it stands for falls.

Law of this file: the verdict is by a scorer that was not trained on, on the same prompts and noise at every
checkpoint, and having looked at many checkpoints is paid for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from t2ialign.eval.statistics import Array, clustered_bootstrap, holm, wilcoxon

Verdict = Literal["over-optimised", "not shown", "reward did not rise"]


@dataclass(frozen=True)
class Point:
    """A checkpoint.

    Attributes:
        step: Optimizer steps.
        divergence: From the reference, as measured in training (for instance the KL in nats); `None` if unknown.
        reward: Mean over prompts of the reward that is trained on.
        reward_ci95: Bootstrap over prompts.
        watched: Mean over prompts of the scorer that is not.
        watched_ci95: Bootstrap over prompts.
    """

    step: int
    divergence: float | None
    reward: float
    reward_ci95: tuple[float, float]
    watched: float
    watched_ci95: tuple[float, float]


@dataclass(frozen=True)
class Watch:
    """Reward and watched scorer over training, and what may be said.

    Attributes:
        points: By step.
        peak: Step at which the watched scorer's mean is highest.
        fall: Mean difference of the watched scorer, last checkpoint less the peak; 0 if the peak is the last.
        fall_ci95: Bootstrap over prompts; the peak was picked for being high, so it leans towards a fall.
        p: Wilcoxon's test of the fall, adjusted by Holm over all earlier checkpoints against the last.
        rise: Mean difference of the reward, last checkpoint less the peak's.
        rise_ci95: Bootstrap over prompts.
        verdict: `over-optimised` if the watched scorer fell from its peak (p below 0.05, in mean and in signed ranks)
            and the reward is not shown to have fallen there (its interval does not lie below 0);
            `reward did not rise` if the reward's last mean does not exceed its first; else `not shown`.
        n: Prompts.
    """

    points: tuple[Point, ...]
    peak: int
    fall: float
    fall_ci95: tuple[float, float]
    p: float
    rise: float
    rise_ci95: tuple[float, float]
    verdict: Verdict
    n: int

    def sentence(self) -> str:
        """Say it in a sentence."""
        last = self.points[-1].step
        if self.verdict == "reward did not rise":
            return f"the reward did not rise over {last} steps, so there is nothing to over-optimise"
        if self.verdict == "over-optimised":
            low, high = self.fall_ci95
            reward = "the reward rises" if self.rise_ci95[0] > 0 else "no fall of the reward is shown"
            return (
                f"over-optimised after step {self.peak}: the scorer that is not trained on falls by {-self.fall:.3g} "
                f"(95 % interval {-high:.3g} to {-low:.3g}) until step {last}, while {reward}"
            )
        return f"no over-optimisation is shown over {last} steps, on {self.n} prompts"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def watch(
    steps: Sequence[int],
    reward: npt.ArrayLike,
    watched: npt.ArrayLike,
    divergence: Sequence[float] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Watch:
    """Hold the reward against a scorer that is not trained on, over checkpoints.

    Args:
        steps: Of the checkpoints, rising, [C], C at least 2; begin with 0, the model before training.
        reward: [C, P], the reward on the same P prompts at each checkpoint (pictures of a prompt averaged).
        watched: [C, P], of the scorer that is not trained on.
        divergence: [C], from the reference.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, or there are fewer than 2 checkpoints or prompts.
    """
    first, second = np.asarray(reward, dtype=np.float64), np.asarray(watched, dtype=np.float64)
    _check(steps, first, second, divergence)

    def interval(values: Array) -> tuple[float, float]:
        low, high = clustered_bootstrap(values, resamples=resamples, seed=seed)
        return low, high

    peak = int(np.argmax(second.mean(1)))
    falls, rise = second[-1] - second[:-1], first[-1] - first[peak]
    adjusted = holm([wilcoxon(each).p_value for each in falls])
    fall = second[-1] - second[peak]
    p = adjusted[peak] if peak < len(adjusted) else 1.0
    points = tuple(
        Point(
            step=int(step),
            divergence=None if divergence is None else float(divergence[i]),
            reward=float(first[i].mean()),
            reward_ci95=interval(first[i]),
            watched=float(second[i].mean()),
            watched_ci95=interval(second[i]),
        )
        for i, step in enumerate(steps)
    )
    rise_interval = interval(rise)
    return Watch(
        points=points,
        peak=int(steps[peak]),
        fall=float(fall.mean()),
        fall_ci95=interval(fall),
        p=p,
        rise=float(rise.mean()),
        rise_ci95=rise_interval,
        verdict=_verdict(first, p if _fell(fall) else 1.0, rise_interval[1]),
        n=first.shape[1],
    )


def _fell(fall: Array) -> bool:
    """Whether the signed ranks point down, as the mean does; the test is two-sided, so its p does not say."""
    from scipy import stats

    return float((stats.rankdata(np.abs(fall)) * np.sign(fall)).sum()) < 0


def _check(steps: Sequence[int], first: Array, second: Array, divergence: Sequence[float] | None) -> None:
    """Refuse what can not be compared."""
    if first.ndim != 2 or first.shape != second.shape or len(first) != len(steps) or min(first.shape) < 2:
        raise ValueError(
            f"scores of shapes {first.shape} and {second.shape} for {len(steps)} checkpoints; give [C, P] with at "
            "least 2 checkpoints and 2 prompts"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a score is not finite")
    if any(later <= sooner for sooner, later in itertools.pairwise(steps)):
        raise ValueError(f"the steps {list(steps)} do not rise")
    if divergence is not None and len(divergence) != len(steps):
        raise ValueError(f"{len(divergence)} divergences for {len(steps)} checkpoints")


def _verdict(reward: Array, p: float, highest_rise: float) -> Verdict:
    if reward[-1].mean() <= reward[0].mean():
        return "reward did not rise"
    return "over-optimised" if p < 0.05 and highest_rise >= 0 else "not shown"
