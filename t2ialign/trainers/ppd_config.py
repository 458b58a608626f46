"""Options of PPD (arXiv 2501.06655). Law of this file: it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.trainers.dpo_config import DPOConfig


@dataclass(kw_only=True)
class PPDConfig(DPOConfig):
    """Everything `t2ialign train ppd` can be told: what DPO can, on pairs that say who chose."""

    METHODS: ClassVar[tuple[str, ...]] = ("user_adapter",)
    COMPATS: ClassVar[tuple[str, ...]] = ("none",)

    method: str = option(
        "user_adapter",
        "A cross-attention to the user beside each one to the text; all else is frozen.",
        choices=METHODS,
    )
    compat: str = option("none", "There is no published script of this stage to imitate.", choices=COMPATS)
    users: Path | None = option(
        None,
        "Folder of users' files (`t2ialign users embed`); users who have none yet are embedded into it. "
        "Default: OUTPUT_DIR/users.",
    )
    extractor: str | None = option(
        None,
        "What embeds users: clip:CHECKPOINT or vlm:MODEL. Default: clip:mini-clip for mini-SD, else LLaVA-OneVision.",
    )
    shots: int = option(4, "Pairs of a user that one embedding is made from.")
    embeddings: int | None = option(
        None, "Embeddings of a user, each of other shots; training meets one of them at a time. Default: by family."
    )
    shot_pool: int | None = option(
        None, "Pairs of a user that shots are drawn from, and that are not trained on. Default: by family."
    )
    user_dropout: float = option(
        0.0,
        "Chance that a pair trains without its user. Without one the model is the base model exactly, whatever was "
        "trained, so such a pair teaches nothing.",
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        for name in ("shots", "embeddings", "shot_pool"):
            self._check(name, lower=1)
        if not 0 <= self.user_dropout <= 1:
            raise ConfigError(f"user_dropout is {self.user_dropout}; it must be between 0 and 1")
