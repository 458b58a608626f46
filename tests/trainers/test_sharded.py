"""Training with parameters spread over two processes (FSDP2) against training with whole ones.

Accelerate's own wrapping runs here, on gloo (`helpers.cpu_sharding`). What needs GPUs, NCCL and communication beside
computation, is not tested.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.pairs import colour_pairs
from t2ialign.engine.metrics import read_metrics

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "train_many.py"
pytestmark = pytest.mark.slow

CALM = {"beta": 5.0, "learning_rate": 2e-3, "adam_epsilon": 1e-2}
"""With its usual epsilon Adam's first steps divide rounding by rounding, and a large beta shows it in the loss."""
FULL = {**CALM, "method": "full", "ema": True}
LORA = {
    **CALM,
    "objective": "group_robust",
    "gradient_checkpointing": True,
    "gradient_accumulation_steps": 2,
    "sample_every": 4,
}
PPD = {**CALM, "extractor": "clip:mini-clip", "shots": 2, "shot_pool": 2, "embeddings": 1}
TWO = {"processes": 2, "sharded": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs, made by one command."""
    folder = tmp_path_factory.mktemp("sharded")
    colour_pairs(folder / "pairs", 12, user_id=lambda n: "ann" if n % 2 else "bob", group=lambda n: f"group {n % 3}")

    def job(name: str, algorithm: str, options: dict[str, Any], steps: int = 4, **more: Any) -> dict[str, Any]:
        output, pairs = str(folder / name), str(folder / "pairs")
        return {"algorithm": algorithm, "options": options, "output": output, "pairs": pairs, "steps": steps, **more}

    jobs = [
        job("full one", "dpo", FULL),
        job("full two", "dpo", FULL, **TWO),
        job("full two then one", "dpo", FULL, begun=str(folder / "full two"), resume="step-000002"),
        job("full one then two", "dpo", FULL, begun=str(folder / "full one"), resume="step-000002", **TWO),
        job("lora one", "dpo", LORA | {"batch_size": 2}),
        job("lora two", "dpo", LORA | {"batch_size": 1}, **TWO),
        job("ppd one", "ppd", PPD, steps=2),
        job("ppd two", "ppd", PPD, steps=2, **TWO),
        job("poisoned", "dpo", FULL, steps=3, processes=2, poison=1),
        job("poisoned two", "dpo", FULL, steps=3, poison=1, **TWO),
        job("half two", "dpo", FULL | {"mixed_precision": "bf16"}, steps=1, **TWO),
    ]
    path = os.pathsep.join([str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(jobs)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """What a run's `final/` holds."""
    files = sorted((folder / "final").rglob("*.safetensors"))
    return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(
    ("alone", "parted"),
    [
        ("full one", "full two"),
        ("full one", "full two then one"),
        ("full one", "full one then two"),
        ("lora one", "lora two"),
        ("ppd one", "ppd two"),
        ("poisoned", "poisoned two"),
    ],
)
def test_parts_train_as_the_whole_does(runs: Path, alone: str, parted: str) -> None:
    ones, twos = (read_metrics(runs / name / "metrics.jsonl") for name in (alone, parted))
    assert len(ones) == len(twos) >= 2
    for one, two in zip(ones, twos, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert two["skipped"] == one["skipped"] == (alone == "poisoned" and one["step"] == 2)
        if not one["skipped"]:
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    whole, parts = trained(runs / alone), trained(runs / parted)
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=2e-6)


def test_a_checkpoint_of_parts_has_the_form_of_any(runs: Path) -> None:
    one, two = (runs / name / "checkpoints" / "step-000002" for name in ("full one", "full two"))
    names = sorted(path.name for path in one.iterdir())
    assert sorted(path.name for path in two.iterdir()) == names
    assert (one / "optimizer.json").read_text() == (two / "optimizer.json").read_text()
    for name in names:
        if name.endswith(".safetensors"):
            mine, theirs = load_file(two / name), load_file(one / name)
            assert {key: value.shape for key, value in mine.items()} == {
                key: value.shape for key, value in theirs.items()
            }
            for key, value in theirs.items():
                torch.testing.assert_close(mine[key], value, rtol=0, atol=2e-6, equal_nan=True)


def test_final_is_a_plain_pipeline_and_pictures_are_drawn(runs: Path) -> None:
    config = json.loads((runs / "full two" / "final" / "unet" / "config.json").read_text())
    assert config["_class_name"] == "UNet2DConditionModel"
    assert (runs / "full two" / "final" / "model_index.json").read_text() == (
        runs / "full one" / "final" / "model_index.json"
    ).read_text()
    assert (runs / "lora two" / "samples" / "step-000004.png").stat().st_size > 1000


def test_in_half_precision_policy_and_reference_begin_as_the_same(runs: Path) -> None:
    (line,) = read_metrics(runs / "half two" / "metrics.jsonl")
    assert line["margin"] == 0.0
    assert line["loss"] == pytest.approx(math.log(2), rel=1e-6)
    report = json.loads((runs / "half two" / "report.json").read_text())
    assert (report["mixed_precision"], report["processes"]) == ("bf16", 2)
