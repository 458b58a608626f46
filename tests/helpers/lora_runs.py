"""Short runs of LoRA on mini-SD, with checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.training import short_config, trainer_of


def lora_run(folder: Path, **changes: Any) -> Path:
    """Train DPO on mini-SD for three steps, a checkpoint each; return the run."""
    config = short_config(
        "dpo",
        folder,
        **{
            "model": "mini-sd",
            "pairs": "mini-pairs",
            "split": "test",
            "steps": 3,
            "checkpoint_every": 1,
            "lora.rank": 4,
            "lora.alpha": 2,
            **changes,
        },
    )
    trainer_of("dpo")(config).train()
    return folder
