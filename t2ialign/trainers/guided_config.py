"""Options of training by a scorer: which prompts, which scorer, how pictures are drawn, what is watched.

Law of this file: it imports nothing heavy, because the command line reads it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from t2ialign.config import REQUIRED, option
from t2ialign.errors import ConfigError
from t2ialign.trainers.model_config import ModelConfig


@dataclass(kw_only=True)
class GuidedConfig(ModelConfig):
    """What training by a scorer needs to know beside the model's options."""

    prompts: str | None = option(
        None, "Prompt file (txt, jsonl, json, csv, tsv), or mini-prompts. Default: mini-prompts for mini-SD."
    )
    scorer: str = option(
        REQUIRED, "What is raised, as in `t2ialign score`: NAME, NAME@PATH_OR_ID, NAME?setting=value."
    )
    num_inference_steps: int | None = option(None, "Denoising steps of a picture. Default: by model family.")
    guidance_scale: float | None = option(
        None, "Classifier-free guidance, in drawing and in training alike; 1 for none. Default: by model family."
    )
    reference_weight: float = option(
        0.0, "Weight of the hold on the model that training starts from; 0 for none, which invites over-optimisation."
    )

    watch: str | None = option(
        None, "A scorer that is not trained on, measured beside the trained one, to notice over-optimisation."
    )
    watch_every: int = option(50, "Optimizer steps between two measurements; 0 measures nothing.")
    watch_prompts: str | None = option(None, "Prompt file of the measurements. Default: the first of the prompts.")
    watch_count: int = option(16, "How many prompts are measured, a picture each, always from the same seeds.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        for name in ("num_inference_steps", "watch_count"):
            self._check(name, lower=1)
        for name in ("guidance_scale", "reference_weight", "watch_every"):
            self._check(name, lower=0)
        if self.watch is not None and not self.watch_every:
            raise ConfigError(f"watch is {self.watch!r}, but watch_every is 0; give --watch_every 1 or more")
