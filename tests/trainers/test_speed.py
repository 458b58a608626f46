"""What is faster computes the same: channels-last layout, compiled networks, fused AdamW."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.training import dpo_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.metrics import read_metrics
from t2ialign.generation.sampler import generate_images
from t2ialign.models.speed import speed_up
from t2ialign.trainers.dpo import DiffusionDPOTrainer


def run(output: Path, pairs: PairDataset, **changes: Any) -> list[float]:
    DiffusionDPOTrainer(dpo_config(output, **changes), tiny_model(), pairs).train()
    return [line["loss"] for line in read_metrics(output / "metrics.jsonl")]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_channels_last_is_the_same_training(tmp_path: Path, pairs: PairDataset, method: str) -> None:
    changes = {"method": method, "learning_rate": 1e-4}
    plain = run(tmp_path / "plain", pairs, **changes)
    other = run(tmp_path / "other", pairs, channels_last=True, **changes)
    assert plain[-1] != plain[0]
    assert other == pytest.approx(plain, rel=1e-4)


def test_a_resumed_run_in_channels_last_layout_equals_a_straight_one(tmp_path: Path, pairs: PairDataset) -> None:
    changes = {"method": "full", "channels_last": True, "ema": True, "checkpoint_every": 2}
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    straight = run(whole, pairs, **changes)
    shutil.copytree(whole / "checkpoints" / "step-000002", halves / "checkpoints" / "step-000002")
    lines = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)
    (halves / "metrics.jsonl").write_text("".join(lines[:2]))
    assert run(halves, pairs, **changes, resume="latest") == straight
    for name in ("trainable", "optimizer", "average"):
        one, two = (load_file(run / "checkpoints/step-000004" / f"{name}.safetensors") for run in (whole, halves))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())


def test_channels_last_draws_the_same_pictures() -> None:
    plain, other = tiny_model(), tiny_model()
    speed_up(other, channels_last=True)
    weight = other.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    arguments: dict[str, Any] = {"prompts": ["a red dot"], "seeds": [3], "num_inference_steps": 2}
    one, two = (next(iter(generate_images(model, **arguments))) for model in (plain, other))
    difference = max(abs(a - b) for a, b in zip(one.tobytes(), two.tobytes(), strict=True))
    assert difference <= 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_compiled_run_is_the_same_and_saves_the_same_names(tmp_path: Path, pairs: PairDataset, method: str) -> None:
    pytest.importorskip("torch._inductor.cpp_builder")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler")
    changes = {"method": method, "learning_rate": 1e-4, "checkpoint_every": 4}
    plain = run(tmp_path / "plain", pairs, **changes)
    other = run(tmp_path / "other", pairs, compile=True, **changes)
    assert other == pytest.approx(plain, rel=1e-4)
    files = [tmp_path / name / "checkpoints/step-000004/trainable.safetensors" for name in ("plain", "other")]
    assert load_file(files[0]).keys() == load_file(files[1]).keys()
