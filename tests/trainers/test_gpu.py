"""What only a GPU can run: half precision, xformers, 8-bit AdamW. `scripts/check_gpu.py` runs these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.training import FAMILIES, dpo_config, short_config, tiny_model, trainer_of
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.metrics import read_metrics
from t2ialign.models.attention import set_attention
from t2ialign.trainers.dpo import DiffusionDPOTrainer

pytestmark = pytest.mark.gpu


def run(
    output: Path, pairs: PairDataset, family: str = "sd15", prediction_type: str | None = None, **changes: Any
) -> Any:
    config = dpo_config(output, **changes)
    model = tiny_model(family, prediction_type)
    if config.method == "lora" and config.mixed_precision in ("fp16", "bf16"):
        model.to(dtype={"fp16": torch.float16, "bf16": torch.bfloat16}[config.mixed_precision])
    report = DiffusionDPOTrainer(config, model=model, pairs=pairs).train()
    return report, read_metrics(output / "metrics.jsonl")


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "no"])
@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_every_family_trains_in_every_precision(
    tmp_path: Path, pairs: PairDataset, family: str, prediction_type: str, precision: str, method: str
) -> None:
    changes: dict[str, Any] = {
        "mixed_precision": precision,
        "method": method,
        "lr_scheduler": "constant",
        "beta": 50.0,
    }
    report, lines = run(tmp_path / "run", pairs, family, prediction_type, **changes, ema=True, sample_every=4)
    assert report["device"].startswith("cuda")
    assert report["peak_memory_bytes"] > 0
    assert lines[0]["loss"] == pytest.approx(0.6931471805599453, abs=1e-6)
    assert lines[0]["margin"] == 0.0
    assert lines[-1]["loss"] is not None
    assert (tmp_path / "run" / "samples" / "step-000004.png").is_file()


@pytest.mark.parametrize("changes", [{"optimizer": "adamw8bit"}, {"gradient_checkpointing": True}])
def test_what_saves_memory_trains(tmp_path: Path, pairs: PairDataset, changes: dict[str, Any]) -> None:
    if "optimizer" in changes:
        pytest.importorskip("bitsandbytes")
    _, lines = run(tmp_path / "run", pairs, mixed_precision="bf16", **changes)
    assert lines[0]["loss"] == pytest.approx(0.6931471805599453, abs=1e-6)
    assert lines[-1]["margin"] != 0.0


def test_xformers_gives_the_same_first_gradient(tmp_path: Path, pairs: PairDataset) -> None:
    pytest.importorskip("xformers")
    norms = []
    for backend in ("sdpa", "xformers"):
        model = tiny_model()
        model.to("cuda")
        set_attention(model, backend)
        config = dpo_config(tmp_path / backend, steps=1)
        DiffusionDPOTrainer(config, model=model, pairs=pairs).train()
        norms.append(read_metrics(tmp_path / backend / "metrics.jsonl")[0]["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_an_fp16_run_resumes_with_its_scale(tmp_path: Path, pairs: PairDataset) -> None:
    changes: dict[str, Any] = {"mixed_precision": "fp16", "lr_scheduler": "constant", "checkpoint_every": 2}
    run(tmp_path / "straight", pairs, **changes)
    run(tmp_path / "parts", pairs, **{**changes, "steps": 2})
    _, lines = run(tmp_path / "parts", pairs, **changes, resume="latest")
    straight = read_metrics(tmp_path / "straight" / "metrics.jsonl")
    assert lines[-1]["loss"] == pytest.approx(straight[-1]["loss"], abs=1e-3)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("mapo", {}),
        ("kto", {"beta": 50.0}),
        ("sft", {}),
        ("ppd", {"beta": 50.0, "extractor": "clip:mini-clip", "shots": 2, "shot_pool": 2, "embeddings": 1}),
        ("dpo", {"beta": 50.0, "objective": "group_robust"}),
        ("dpo", {"beta": 50.0, "objective": "dr_dpo"}),
        ("dpo", {"beta": 50.0, "objective": "fdpo", "fdpo.divergence": "forward_kl"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_algorithm_trains_in_half_precision(
    tmp_path: Path, rich: PairDataset, algorithm: str, changes: dict[str, Any], precision: str
) -> None:
    config = short_config(
        algorithm, tmp_path / "run", mixed_precision=precision, gradient_accumulation_steps=2, steps=6, **changes
    )
    model = tiny_model("sdxl")
    model.to(dtype={"fp16": torch.float16, "bf16": torch.bfloat16}[precision])
    report = trainer_of(algorithm)(config, model=model, pairs=rich).train()
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert report["device"].startswith("cuda")
    assert lines[-1]["loss"] is not None
    assert lines[-1]["skipped"] is False
