"""Options of reward feedback: ReFL (arXiv 2304.05977) and DRaFT-K (arXiv 2309.17400).

Law of this file: it imports nothing heavy, because the command line reads it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.trainers.guided_config import GuidedConfig

OBJECTIVES = ("refl", "draft")
_OWN: dict[str, dict[str, int | None]] = {
    "refl": {"first_stop": None, "last_stop": None},
    "draft": {"draft_steps": 1, "draft_draws": 1},
}
"""Options that belong to one objective, with their defaults."""


@dataclass(kw_only=True)
class ReFLConfig(GuidedConfig):
    """Everything `t2ialign train refl` can be told."""

    objective: str = option(
        "refl",
        "refl: one denoising step with gradient, at a random place late in the chain, and the picture guessed from "
        "it; draft: the last steps of the whole chain.",
        choices=OBJECTIVES,
    )
    first_stop: int | None = option(
        None, "refl: first step, counted from 0, at which the chain may stop. Default: three quarters of the chain."
    )
    last_stop: int | None = option(None, "refl: last such step. Default: the last one of the chain.")
    draft_steps: int = option(1, "draft: how many of the last steps carry gradient, K.")
    draft_draws: int = option(
        1, "draft with K = 1: noised copies of the finished picture that the last step is done from (DRaFT-LV)."
    )
    reward_margin: float | None = option(
        None, "Scores above it teach nothing: the loss is max(0, margin - score). Default: the loss is -score."
    )
    reward_scale: float = option(1.0, "Multiplier of the score's loss; it counts beside the other terms alone.")
    pairs: str | None = option(
        None, "Pairs or pictures for the loss of the model's own training beside the score's; the preferred ones."
    )
    split: str = option("train", "Split of the pair set.")
    pretrain_weight: float = option(0.0, "Weight of that loss.")

    @property
    def data_name(self) -> str | None:
        """Name of the pictures of the pre-training loss."""
        return self.pairs

    def __post_init__(self) -> None:
        """Refuse values outside their range, and options of the objective that is not chosen."""
        super().__post_init__()
        self._check_choice("objective", OBJECTIVES)
        for objective, options in _OWN.items():
            for name, plain in options.items():
                if objective != self.objective and getattr(self, name) != plain:
                    raise ConfigError(
                        f"{name} is given, but the objective is {self.objective!r}; choose --objective {objective}, "
                        "or leave it out"
                    )
        for name in ("draft_steps", "draft_draws"):
            self._check(name, lower=1)
        for name in ("first_stop", "last_stop", "reward_scale", "pretrain_weight"):
            self._check(name, lower=0)
        if self.draft_draws > 1 and self.draft_steps != 1:
            raise ConfigError(f"draft_draws is {self.draft_draws}, which needs draft_steps 1, not {self.draft_steps}")
        if (self.pairs is None) != (self.pretrain_weight == 0):
            raise ConfigError(
                f"pairs is {self.pairs!r} and pretrain_weight {self.pretrain_weight}; give both, or neither"
            )
        self._check_steps()

    def _check_steps(self) -> None:
        steps = self.num_inference_steps
        if steps is None:
            return
        if self.draft_steps > steps:
            raise ConfigError(f"draft_steps is {self.draft_steps}, but the chain has {steps}; give at most as many")
        first, last = self.stops
        if not first <= last < steps:
            raise ConfigError(
                f"the chain of {steps} steps can not stop between {first} and {last}; give "
                f"first_stop <= last_stop <= {steps - 1}"
            )

    @property
    def stops(self) -> tuple[int, int]:
        """First and last step at which the chain may stop, once the number of steps is known."""
        steps = self.num_inference_steps or 1
        last = steps - 1 if self.last_stop is None else self.last_stop
        return (min(3 * steps // 4, last) if self.first_stop is None else self.first_stop), last
