"""Options of DCPO (arXiv 2502.06023). Law of this file: it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from t2ialign.config import option
from t2ialign.trainers.dpo_config import DPOConfig


@dataclass(kw_only=True)
class DCPOConfig(DPOConfig):
    """Everything `t2ialign train dcpo` can be told: what DPO can, on pairs with a caption a side."""

    COMPATS: ClassVar[tuple[str, ...]] = ("none", "dcpo_official")

    compat: str = option(
        "none",
        "dcpo_official treats pictures and captions left open as the published script does, and like it regresses a "
        "v-prediction model on epsilon: for comparing with its numbers, not for use.",
        choices=COMPATS,
    )
