"""A training run in a process of its own: `python train_tiny.py ALGORITHM OPTIONS OUTPUT PAIRS STEPS [RESUME]`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main(algorithm: str, options: str, output: str, pairs: str, steps: str, resume: str | None = None) -> None:
    import torch

    from helpers.training import short_config, tiny_model, trainer_of

    torch.set_num_threads(1)
    usual = {
        "lr_scheduler": "constant",
        "learning_rate": 2e-4,
        "checkpoint_every": 1,
        "keep_checkpoints": 2,
        "batch_size": 4 // int(os.environ.get("WORLD_SIZE", "1")),
    }
    given = {"pairs": pairs, "steps": int(steps), "resume": resume}
    config = short_config(algorithm, Path(output), **{**usual, **json.loads(options), **given})
    trainer_of(algorithm)(config, model=tiny_model()).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
