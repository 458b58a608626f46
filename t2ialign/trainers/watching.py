"""Watching for over-optimisation: the trained scorer, one that is not trained on, and the distance to the reference.

All are measured on pictures of the same prompts from the same noise. Law of this file: a change is called one if its
95 % interval over the prompts, each compared with itself before training, leaves out zero.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from t2ialign.models.conditioning import Conditioning
from t2ialign.trainers.rewards import Reward
from t2ialign.trainers.rollouts import Drawer, Predict, nothing

logger = logging.getLogger(__name__)

_LOOKS = 5
"""Steps of a chain at which the distance to the reference is taken, evenly spaced."""


class Watch:
    """Draws fixed prompts from fixed noise and scores them.

    Args:
        drawer: How; its chain draws nothing anew.
        prompts: N of them.
        seed: Of the run.
        reward: What is trained on.
        other: What is not, or None.
        batch_size: Pictures drawn at once.

    Attributes:
        first: Scores before training, `[2, N]`, those of the trained scorer first; None before the first measurement.
        changes: Of the trained and the watched score since before training: mean, 95 % interval and count of prompts,
            as last measured.
        warned: Steps at which the reward had risen and the watched score fallen.
    """

    def __init__(
        self, drawer: Drawer, prompts: Sequence[str], seed: int, reward: Reward, other: Reward | None, batch_size: int
    ) -> None:
        from t2ialign.generation.seeds import image_seed

        self.drawer, self.prompts, self.batch_size = drawer, list(prompts), batch_size
        self.reward, self.other = reward, other
        self.seeds = [image_seed(seed, f"watch-{number}", 0) for number in range(len(prompts))]
        self.first: Tensor | None = None
        self.changes: dict[str, dict[str, float]] = {}
        self.warned: list[int] = []
        if other is not None and reward.related(other):
            logger.warning(
                "the watched scorer %s is of the family of %s, which is trained on: both may be fooled by the same "
                "pictures; watch another kind",
                other.name,
                reward.name,
            )

    def measure(
        self, step: int, predict: Predict, reference: Predict | None, between: Callable[[], object] = nothing
    ) -> dict[str, float]:
        """Draw and score, warn where the scores part, and return figures.

        Args:
            step: Optimizer steps done.
            predict: The policy.
            reference: The model as it was, where there is one.
            between: Called before each step of drawing and each scoring; what it raises ends the measurement, and
                leaves nothing of it.
        """
        scores, distances = [], []
        for start in range(0, len(self.prompts), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            found, distance = self._batch(self.prompts[chosen], self.seeds[chosen], predict, reference, between)
            scores.append(found)
            distances.append(distance)
        table = torch.cat(scores, dim=1)
        self.first = table if self.first is None else self.first
        self._compare(step, table)
        figures = self._means(table)
        if reference is not None:
            figures["watch_divergence"] = torch.cat(distances).mean().item()
        return figures

    def before(self, reference: bool) -> dict[str, float]:
        """Return the figures of the first measurement, before training.

        Args:
            reference: Whether the distance to a reference is measured; it was 0.
        """
        assert self.first is not None
        return self._means(self.first) | ({"watch_divergence": 0.0} if reference else {})

    def _means(self, table: Tensor) -> dict[str, float]:
        figures = {"watch_reward": table[0].nanmean().item()}
        return figures if self.other is None else figures | {"watch": table[1].nanmean().item()}

    @torch.no_grad()
    def _batch(
        self,
        prompts: list[str],
        seeds: list[int],
        predict: Predict,
        reference: Predict | None,
        between: Callable[[], object],
    ) -> tuple[Tensor, Tensor]:
        drawer, device = self.drawer, self.drawer.model.device
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        start = torch.stack([torch.randn(drawer.shape, generator=each) for each in generators]).to(device)
        told = drawer.condition(prompts)
        states, _ = drawer.draw(predict, start, told, between=between)
        pictures = drawer.pictures(states[-1], between)
        between()
        rewards = self.reward.of_pictures(prompts, pictures)
        others = torch.full_like(rewards, math.nan)
        if self.other is not None:
            others = self.other.of_pictures(prompts, pictures)
        distance = torch.zeros(0) if reference is None else self._distance(states, told, predict, reference)
        return torch.stack([rewards, others]), distance

    def _distance(self, states: Tensor, told: Conditioning, predict: Predict, reference: Predict) -> Tensor:
        """Return the mean squared distance of the noise predictions, `[B]`, over steps of the chain."""
        count = len(self.drawer.chain)
        looks = sorted({round(place * (count - 1) / (_LOOKS - 1)) for place in range(_LOOKS)})
        found = []
        for look in looks:
            latents, steps = states[look], torch.full((states.shape[1],), look)
            sides = [
                self.drawer.chain.split(self.drawer.output(which, latents, steps, told), latents, steps)[1]
                for which in (predict, reference)
            ]
            found.append(((sides[0] - sides[1]) ** 2).mean(dim=(1, 2, 3)).cpu())
        return torch.stack(found).mean(dim=0)

    def _compare(self, step: int, table: Tensor) -> None:
        """Note the changes since the first measurement, and warn where the reward rose and the watched score fell."""
        assert self.first is not None
        rows = dict(zip(("reward", "watch"), table - self.first, strict=True))
        intervals = {name: mean_interval(row) for name, row in rows.items()}
        self.changes = {
            name: {"mean": mean, "low": mean - half, "high": mean + half, "n": int((~rows[name].isnan()).sum())}
            for name, (mean, half) in intervals.items()
            if name == "reward" or self.other is not None
        }
        if self.other is None:
            return
        (gain, gain_half), (change, change_half) = intervals.values()
        if gain - gain_half > 0 and change + change_half < 0:
            self.warned.append(step)
            logger.warning(
                "step %d: %s rose by %.4g (+- %.2g) and %s fell by %.4g (+- %.2g) on the watched prompts: the reward "
                "is being over-optimised; take an earlier checkpoint, or raise --reference_weight",
                step,
                self.reward.name,
                gain,
                gain_half,
                self.other.name,
                -change,
                change_half,
            )


def mean_interval(values: Tensor) -> tuple[float, float]:
    """Return the mean of numbers and half the width of its 95 % interval (Student's t); NaN is left out."""
    kept = values[~values.isnan()].double()
    if len(kept) < 2:
        return (kept.mean().item() if len(kept) else math.nan), math.inf
    from scipy import stats

    reach = float(stats.t.ppf(0.975, len(kept) - 1))
    return kept.mean().item(), reach * (kept.std() / math.sqrt(len(kept))).item()
