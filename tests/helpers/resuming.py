"""Short runs of every algorithm that trains, and what two of them must share to be the same run.

    prepare(folder)                         twelve pairs and a tiny CLIP
    trainer_for("dpo", folder, output)      a trainer of a tiny model, not yet run
    assert_same_run(one, other)             files of the last checkpoint and of final/, every figure, samples

`python resuming.py CASE FOLDER OUTPUT OPTIONS` runs one in a process of its own; OPTIONS is JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PPD = {"extractor": "clip:mini-clip", "shots": 2, "embeddings": 1, "shot_pool": 2}
WATCHED = {"watch_every": 2, "watch_count": 2, "reference_weight": 0.1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "dpo": ("dpo", {"beta": 500.0}),
    "group robust": ("dpo", {"beta": 500.0, "objective": "group_robust"}),
    "maxmin": ("dpo", {"beta": 500.0, "objective": "maxmin", "maxmin.by": "user_id"}),
    "curriculum": ("dpo", {"beta": 500.0, "curriculum_stages": 2}),
    "mapo": ("mapo", {}),
    "dcpo": ("dcpo", {"beta": 500.0}),
    "ppd": ("ppd", {"beta": 500.0, **PPD}),
    "kto": ("kto", {"beta": 500.0}),
    "refl": ("refl", WATCHED),
    "ddpo": ("ddpo", {"updates_per_round": 2, "inner_epochs": 2, "clip_range": 0.1, **WATCHED}),
    "reward": ("reward", {"head": "aspects"}),
}
"""Algorithm and options of each case."""

COMMON: dict[str, Any] = {
    "steps": 5,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "mixed_precision": "no",
    "checkpoint_every": 1,
    "keep_checkpoints": 0,
}
"""Steps of four examples; with twelve pairs an epoch is three of them."""


def prepare(folder: Path) -> Path:
    """Writes what the runs read into a folder."""
    from helpers.clip import save_clip
    from helpers.pairs import colour_pairs

    colour_pairs(
        folder / "pairs",
        12,
        chosen_prompt=lambda n: f"a red picture {n % 4}",
        rejected_prompt=lambda n: f"a blue one, number {n % 5}",
        user_id=lambda n: "ann" if n % 2 else "bob",
        group=lambda n: f"group {n % 3}",
        aspect=lambda n: ("quality", "prompt")[n % 2],
        margin=lambda n: 0.1 * (n * 5 % 12),
    )
    save_clip(folder)
    return folder


def trainer_for(case: str, folder: Path, output: Path, **changes: Any) -> Any:
    """A trainer of a tiny model with the options of a case and others."""
    algorithm, own = CASES[case]
    options = {**COMMON, **own, **changes}
    if algorithm in ("refl", "ddpo"):
        from helpers.guided import Blue, guided

        return guided(algorithm, output, watch_object=Blue(), **options)
    from helpers.training import short_config, tiny_model, trainer_of

    if algorithm == "reward":
        from t2ialign.cli.train import load_object
        from t2ialign.config import load
        from t2ialign.data.pairs import load_pairs
        from t2ialign.reward_models.training.trainer import RewardTrainer
        from t2ialign.trainers.registry import ALGORITHMS

        given = {"model": str(folder / "tiny-clip"), "pairs": str(folder / "pairs"), "output_dir": str(output)}
        config = load(load_object(ALGORITHMS["reward"].config), None, {**given, **options})
        return RewardTrainer(config, load_pairs(folder / "pairs"), None)
    config = short_config(algorithm, output, **{"pairs": str(folder / "pairs"), **options})
    return trainer_of(algorithm)(config, model=tiny_model())


def signal_at(trainer: Any, call: int, number: int = signal.SIGTERM) -> None:
    """Has a trainer of a diffusion model send this process a signal in forward pass `call` of those with gradient."""
    import torch

    seen = [0]

    def look(*_: Any) -> None:
        if torch.is_grad_enabled():
            seen[0] += 1
            if seen[0] == call:
                os.kill(os.getpid(), number)

    trainer.model.unet.register_forward_pre_hook(look)


def poison(trainer: Any, calls: list[int]) -> None:
    """Has the UNet of a trainer predict something that is no number in those forward passes with gradient."""
    import torch

    seen = [0]

    def spoil(module: Any, given: Any, output: Any) -> Any:
        seen[0] += torch.is_grad_enabled()
        if torch.is_grad_enabled() and seen[0] in calls:
            output = (output[0] * float("nan"),)
        return output

    trainer.model.unet.register_forward_hook(spoil)


def lines(output: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without timings."""
    from t2ialign.engine.metrics import read_metrics

    found = read_metrics(output / "metrics.jsonl")
    return [{name: each for name, each in line.items() if not name.endswith("per_second")} for line in found]


def assert_same_run(one: Path, other: Path, *, pictures: bool = False) -> None:
    """Two runs ended in the same bits and logged the same figures."""
    assert lines(one) == lines(other)
    last = sorted(path.name for path in (one / "checkpoints").glob("step-*"))[-1]
    for name in (f"checkpoints/{last}", "final", *(["samples"] if pictures else [])):
        mine, theirs = (_contents(folder / name) for folder in (one, other))
        assert mine
        assert mine.keys() == theirs.keys(), name
        for file, content in mine.items():
            assert content == theirs[file], f"{name}/{file}"


def _contents(folder: Path) -> dict[str, Any]:
    """Tensors by file and name as bytes, pictures and JSON files but the manifest as they are."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if path.suffix == ".safetensors":
            found |= {f"{path.name}: {name}": each.numpy().tobytes() for name, each in load_file(path).items()}
        elif path.suffix in (".png", ".json") and path.name != "manifest.json":
            found[path.name] = path.read_bytes()
    return found


def main(case: str, folder: str, output: str, options: str) -> None:
    """Runs one; entries `signal_at` and `poison` are no options: the rank and the forward passes of each."""
    import torch

    torch.set_num_threads(1)
    given = json.loads(options)
    rank = int(os.environ.get("RANK", "0"))
    signalled, poisoned = (given.pop(name, {}).get(str(rank)) for name in ("signal_at", "poison"))
    trainer = trainer_for(case, Path(folder), Path(output), **given)
    if signalled is not None:
        signal_at(trainer, signalled)
    if poisoned is not None:
        poison(trainer, poisoned)
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
