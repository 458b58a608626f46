"""A training run in a process of its own: `python train_tiny.py OUTPUT PAIRS STEPS [RESUME]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main(output: str, pairs: str, steps: str, resume: str | None = None) -> None:
    import torch

    from helpers.training import dpo_config, tiny_model
    from t2ialign.data.pairs import load_pairs
    from t2ialign.trainers.dpo import DiffusionDPOTrainer

    torch.set_num_threads(1)
    config = dpo_config(
        Path(output),
        steps=int(steps),
        lr_scheduler="constant",
        learning_rate=2e-4,
        checkpoint_every=1,
        keep_checkpoints=2,
        batch_size=4 // int(os.environ.get("WORLD_SIZE", "1")),
        resume=resume,
    )
    DiffusionDPOTrainer(config, model=tiny_model(), pairs=load_pairs(pairs)).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
