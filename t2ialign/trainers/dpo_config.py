"""Options of Diffusion-DPO (arXiv 2311.12908).

Law of this file: it imports nothing heavy, because the command line reads it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.trainers.preference_config import PreferenceConfig

OBJECTIVES = ("dpo",)
COMPATS = ("none", "diffusion_dpo_official", "hf_sdxl", "hf_sd")


@dataclass(kw_only=True)
class DPOConfig(PreferenceConfig):
    """Everything `t2ialign train dpo` can be told."""

    objective: str = option("dpo", "The loss on the margin of a pair.", choices=OBJECTIVES)
    beta: float | None = option(
        None, "Hold on the reference, in the official convention (the margin carries beta / 2). Default: by family."
    )
    compat: str = option(
        "none",
        "Read beta and fill the options left open as this published script does: "
        "diffusion_dpo_official, hf_sdxl (both beta / 2) or hf_sd (beta itself).",
        choices=COMPATS,
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        if self.beta is not None and not self.beta > 0:
            raise ConfigError(f"beta is {self.beta}; it must be above 0")
        self._check_choice("objective", OBJECTIVES)
        self._check_choice("compat", COMPATS)
