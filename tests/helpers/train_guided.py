"""A guided run in a process of its own: `python train_guided.py ALGORITHM OUTPUT`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main(algorithm: str, output: str) -> None:
    import torch

    from helpers.guided import train_guided

    torch.set_num_threads(1)
    own: dict[str, Any] = {
        "ddpo": {"updates_per_round": 2, "clip_range": 0.1},
        "refl": {"objective": "draft", "draft_steps": 2},
    }
    batch = 4 // int(os.environ.get("WORLD_SIZE", "1"))
    options = {"steps": 3, "learning_rate": 2e-4, "reference_weight": 0.1, "batch_size": batch, "watch_every": 2}
    train_guided(algorithm, Path(output), watch_count=2, **options, **own[algorithm])


if __name__ == "__main__":
    main(*sys.argv[1:])
