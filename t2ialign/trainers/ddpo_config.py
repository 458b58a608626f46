"""Options of DDPO (arXiv 2305.13301). Law of this file: it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from t2ialign.config import option
from t2ialign.engine.config import known
from t2ialign.errors import ConfigError
from t2ialign.trainers.guided_config import GuidedConfig


@dataclass(kw_only=True)
class DDPOConfig(GuidedConfig):
    """Everything `t2ialign train ddpo` can be told."""

    clip_range: float = option(
        1e-4,
        "The ratio of probabilities is held within 1 +- this; their logarithms are means over a latent's numbers.",
    )
    advantage_clip: float = option(5.0, "Advantages are held within +- this.")
    updates_per_round: int | None = option(
        None, "Optimizer steps that share one round of drawing, in each inner epoch. Default: by model family."
    )
    inner_epochs: int = option(1, "How often the pictures of a round are gone through before new ones are drawn.")
    pictures_per_prompt: int | None = option(
        None, "Pictures of a prompt that are drawn one after the other. Default: by model family."
    )
    timestep_fraction: float | None = option(
        None, "Share of a chain's steps that is trained on, chosen at random. Default: by model family."
    )
    statistics: int = option(32, "Scores remembered of each prompt, for its mean and deviation; 0 uses the round's.")
    statistics_from: int = option(
        4, "Scores that a prompt must have before its own mean and deviation are used; the round's until then."
    )

    @property
    def steps_per_round(self) -> int:
        """Optimizer steps from one drawing to the next."""
        return known(self.updates_per_round, "updates_per_round") * self.inner_epochs

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        for name in ("updates_per_round", "inner_epochs", "pictures_per_prompt"):
            self._check(name, lower=1)
        self._check("statistics", lower=0)
        self._check("statistics_from", lower=2)
        for name in ("clip_range", "advantage_clip", "timestep_fraction"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; it must be above 0")
        if self.timestep_fraction is not None and self.timestep_fraction > 1:
            raise ConfigError(f"timestep_fraction is {self.timestep_fraction}; it must be at most 1")
        if 0 < self.statistics < self.statistics_from:
            raise ConfigError(
                f"statistics is {self.statistics}, fewer than statistics_from {self.statistics_from}; a prompt's own "
                "would never be used: raise --statistics, or give 0"
            )
