"""Options of `t2ialign train reward`. Law of this file: it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from t2ialign.config import REQUIRED, option
from t2ialign.engine.config import TrainConfig
from t2ialign.errors import ConfigError

HEADS = ("cosine", "aspects", "pal", "cyclic")
METHODS = ("full", "head")
TIES = ("keep", "drop")
POINTS = ("fixed", "prompt")

DEFAULTS = {
    "steps": 4000,
    "batch_size": 16,
    "gradient_accumulation_steps": 8,
    "learning_rate": 3e-6,
    "lr_scheduler": "linear",
    "lr_warmup_steps": 500,
    "optimizer": "adamw",
}
"""PickScore's trainer: rate 3e-6, 4000 steps, 500 of warm-up, linear decay; 128 pairs a step as in its paper."""


@dataclass(kw_only=True)
class PalOptions:
    """The mixture of ideal points over users, when --head is pal."""

    prototypes: int = option(8, "Number of ideal points that users are mixtures of; 1 is one preference for all.")
    points: str = option(
        "fixed", "fixed: points in the space of pictures; prompt: functions of the prompt.", choices=POINTS
    )
    width: int = option(64, "Dimensions of the space in which pictures and ideal points lie.")
    user_scale: float = option(10.0, "A user's logits are this times the trained numbers: a rate of their own.")
    shots: int = option(4, "Pairs of a user who was not trained on, from which the mixture is fitted.")
    draws: int = option(20, "How often the shots are drawn anew when unseen users are measured.")
    prior: float = option(0.1, "Hold of the average mixture when a new user is fitted, per squared logit.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("prototypes", "width", "shots", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"pal.{name} is {getattr(self, name)}; it must be at least 1")
        if not self.user_scale > 0:
            raise ConfigError(f"pal.user_scale is {self.user_scale}; it must be above 0")
        if not self.prior > 0:
            raise ConfigError(f"pal.prior is {self.prior}; it must be above 0")
        if self.points not in POINTS:
            raise ConfigError(f"pal.points is {self.points!r}; choose from {', '.join(POINTS)}")


@dataclass(kw_only=True)
class CyclicOptions:
    """The general preference, when --head is cyclic."""

    planes: int = option(4, "Planes of rotation: the preference embedding has twice as many dimensions.")

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.planes < 1:
            raise ConfigError(f"cyclic.planes is {self.planes}; it must be at least 1")


@dataclass(kw_only=True)
class RewardConfig(TrainConfig):
    """Everything `t2ialign train reward` can be told; rates and steps default to PickScore's."""

    model: str = option(REQUIRED, "mini-clip, or a folder or hub id of a transformers CLIPModel.")
    revision: str | None = option(None, "Revision of a model on the hub.")
    pairs: str = option(
        REQUIRED,
        "mini-pairs, mini-user-pairs, a folder of pairs, a hub dataset id, or with --images a file of rankings.",
    )
    pairs_revision: str | None = option(None, "Revision of a pair set on the hub.")
    split: str = option("train", "Split of the pair set to train on.")
    images: Path | None = option(None, "Folder of the ranked pictures, when --pairs is a file of rankings.")
    eval_split: str | None = option(None, "Split to measure on. Default: a held-out share of the prompts.")
    holdout: float = option(0.1, "Share of the prompts that is measured and not trained on, without --eval_split.")

    head: str = option(
        "cosine",
        "cosine: PickScore's; aspects: a score for each aspect; pal: a mixture of ideal points over users; cyclic: a "
        "general preference that need not be transitive.",
        choices=HEADS,
    )
    pal: PalOptions = field(default_factory=PalOptions)
    cyclic: CyclicOptions = field(default_factory=CyclicOptions)
    method: str = option(
        "full", "Train CLIP and head, or with a head other than cosine the head alone.", choices=METHODS
    )
    frozen_layers: float = option(0.0, "Share of each tower's layers, from the input on, that stay as they are.")
    ties: str = option("keep", "Whether pairs without a winner are trained on, with the label one half.", choices=TIES)
    prompt_weights: bool | None = option(
        None, "Weigh a pair by one over the pairs of its prompt, as PickScore. Default: for pairs, not for rankings."
    )
    dual_captions: bool = option(
        False,
        "Train on each pair the other way round too, by the caption of its rejected picture (column rejected_prompt): "
        "the words alone decide, never the picture alone.",
    )
    gradient_checkpointing: bool = option(False, "Recompute activations in the backward pass: less memory, more time.")
    save_precision: str = option(
        "no", "Number format of the weights in final/: no is float32.", choices=("no", "fp16")
    )

    def __post_init__(self) -> None:
        """Fill the open defaults, and refuse values outside their range.

        Raises:
            ConfigError: naming the option and the range.
        """
        for name, value in DEFAULTS.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        super().__post_init__()
        for name, choices in (
            ("head", HEADS),
            ("method", METHODS),
            ("ties", TIES),
            ("save_precision", ("no", "fp16")),
        ):
            self._check_choice(name, choices)
        if self.dual_captions and self.images is not None:
            raise ConfigError("dual_captions: rankings have no captions of their own; leave it out")
        for name in ("holdout", "frozen_layers"):
            self._check(name, lower=0)
            if not getattr(self, name) <= (0.9 if name == "holdout" else 1.0):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be between 0 and 1 (holdout: 0.9)")
        if self.sample_every:
            raise ConfigError("sample_every: a scorer draws no sample pictures; leave it 0")
        if self.method == "head" and self.head == "cosine":
            raise ConfigError("method head with head cosine leaves nothing to train; use --method full")
