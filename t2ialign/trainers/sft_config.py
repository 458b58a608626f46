"""Options of supervised fine-tuning. Law of this file: it imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from t2ialign.trainers.preference_config import PreferenceConfig


@dataclass(kw_only=True)
class SFTConfig(PreferenceConfig):
    """Everything `t2ialign train sft` can be told; `--pairs` names pairs, or single pictures with labels."""
