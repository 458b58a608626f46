"""Options of MaPO (arXiv 2406.06424). Law of this file: it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from t2ialign.config import option
from t2ialign.errors import ConfigError
from t2ialign.trainers.preference_config import PreferenceConfig


@dataclass(kw_only=True)
class MaPOConfig(PreferenceConfig):
    """Everything `t2ialign train mapo` can be told."""

    COMPATS: ClassVar[tuple[str, ...]] = ("none", "mapo_official")

    beta: float | None = option(
        None, "Weight of the preference term beside the error of the preferred picture, beta_mapo. Default: 0.1."
    )
    snr: float = option(0.5, "Strength s of the odds score, snr_value in the published code: one constant, above 0.")
    compat: str = option(
        "none", "mapo_official treats pictures and captions left open as the published script does.", choices=COMPATS
    )

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        super().__post_init__()
        for name in ("beta", "snr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; it must be above 0")
        self._check_choice("compat", self.COMPATS)
