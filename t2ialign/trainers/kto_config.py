"""Options of Diffusion-KTO (arXiv 2404.04465). Law of this file: it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.trainers.preference_config import PreferenceConfig


@dataclass(kw_only=True)
class KTOConfig(PreferenceConfig):
    """Everything `t2ialign train kto` can be told; `--pairs` names single pictures with labels, or pairs."""

    COMPATS: ClassVar[tuple[str, ...]] = ("none", "diffusion_kto")

    beta: float | None = option(
        None, "Hold on the reference, in the official DPO convention (the log-ratio carries beta / 2). Default: 2000."
    )
    desirable_weight: float = option(1.0, "Weight of a picture whose label is true, lambda_d.")
    undesirable_weight: float = option(1.0, "Weight of one whose label is false, lambda_u.")
    value: str = option(
        "sigmoid",
        "Value function: Kahneman and Tversky's sigmoid, loss_averse (log sigmoid) or risk_seeking.",
        choices=("sigmoid", "loss_averse", "risk_seeking"),
    )
    compat: str = option(
        "none",
        "diffusion_kto reads beta without the half, and treats pictures and captions left open as that script does.",
        choices=COMPATS,
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.beta is not None and not self.beta > 0:
            raise ConfigError(f"beta is {self.beta}; it must be above 0")
        for name in ("desirable_weight", "undesirable_weight"):
            self._check(name, lower=0)
        self._check_choice("compat", self.COMPATS)
