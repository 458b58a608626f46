"""Diffusion-DPO from options to `final/`, on tiny random pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.caches import latents_of
from helpers.pairs import BLUE, RED, colour_pairs
from helpers.tiny import save_tiny, tiny_pipeline
from helpers.training import dpo_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.loop import fit
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.processes import make_accelerator
from t2ialign.engine.randomness import Draws
from t2ialign.errors import ConfigError
from t2ialign.objectives import dpo
from t2ialign.trainers.caches.latents import LatentCache
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.dpo import DiffusionDPOTrainer, train
from t2ialign.trainers.dpo_config import DPOConfig
from t2ialign.trainers.preference import PreferenceTask

PROMISED = {
    "step",
    "loss",
    "implicit_accuracy",
    "error_chosen",
    "error_rejected",
    "reference_error_chosen",
    "reference_error_rejected",
    "margin",
    "margin_p05",
    "margin_p25",
    "margin_p50",
    "margin_p75",
    "margin_p95",
    "grad_norm",
    "learning_rate",
    "pairs_per_second",
}


def run(config: DPOConfig, pairs: PairDataset, **model: Any) -> dict[str, Any]:
    return DiffusionDPOTrainer(config, model=tiny_model(**model), pairs=pairs).train()


def lora_of(output: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(output / "final" / "pytorch_lora_weights.safetensors"))


def assert_same_lora(one: Path, other: Path, atol: float) -> None:
    mine, theirs = lora_of(one), lora_of(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol)


def test_a_run_leaves_what_the_design_promises(tmp_path: Path, pairs: PairDataset) -> None:
    output = tmp_path / "run"
    report = run(dpo_config(output, sample_every=4, checkpoint_every=4, ema=True), pairs)
    lines = read_metrics(output / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) >= PROMISED
    assert lines[0]["loss"] == pytest.approx(0.6931471805599453, abs=1e-6)
    assert lines[0]["margin"] == 0.0
    assert lines[1]["margin"] != 0.0
    assert (output / "samples" / "step-000004.png").is_file()
    assert (output / "checkpoints" / "step-000004" / "manifest.json").is_file()
    assert {"t2ialign.json", "README.md"} < {path.name for path in (output / "final").iterdir()}
    assert json.loads((output / "report.json").read_text()) == json.loads(json.dumps(report))
    assert (report["status"], report["steps"], report["pairs"]["count"]) == ("done", 4, len(pairs))
    assert report["cached"] == {"latents": True, "text": True}
    assert report["model"]["trainable_parameters"] == sum(tensor.numel() for tensor in lora_of(output).values())


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_plain_diffusers_loads_the_lora_and_sees_the_trained_model(
    tmp_path: Path, pairs: PairDataset, family: str
) -> None:
    config = dpo_config(tmp_path / "run", learning_rate=0.05)
    config.lora.rank, config.lora.alpha = 4, 2.0
    trainer = DiffusionDPOTrainer(config, model=tiny_model(family), pairs=pairs)
    trainer.train()
    assert trainer.model is not None
    assert trainer.task is not None
    batch = trainer.task.examples.collate([trainer.task.examples.read(0, Draws(0, 0))])
    noisy, conditioning = trainer.task.encode(batch), trainer.task.condition(batch)
    timesteps = batch.timesteps.repeat(2)
    pipeline = tiny_pipeline(family)
    with torch.no_grad():
        trained = trainer.model.predict(noisy, timesteps, conditioning)
        before = trainer.model.predict(noisy, timesteps, conditioning, unet=pipeline.unet)
        pipeline.load_lora_weights(tmp_path / "run" / "final")
        loaded = trainer.model.predict(noisy, timesteps, conditioning, unet=pipeline.unet)
    assert (trained - before).abs().max() > 1e-3
    torch.testing.assert_close(loaded, trained, rtol=1e-4, atol=1e-5)


def test_full_tuning_writes_a_pipeline(tmp_path: Path, pairs: PairDataset) -> None:
    from diffusers import StableDiffusionPipeline

    report = run(
        dpo_config(tmp_path / "run", method="full", steps=2, learning_rate=1e-4, lr_scheduler="constant"), pairs
    )
    assert report["model"]["trainable_parameters"] == report["model"]["parameters"]
    assert report["first"]["loss"] == pytest.approx(0.6931471805599453, abs=1e-6)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "run" / "final", use_safetensors=True)
    change = [
        (new - old).abs().max().item()
        for new, old in zip(pipeline.unet.parameters(), tiny_pipeline("sd15").unet.parameters(), strict=True)
    ]
    assert max(change) > 1e-5


def test_a_run_begins_from_names_alone(tmp_path: Path) -> None:
    colour_pairs(tmp_path / "pairs", 4)
    folder = save_tiny(tmp_path, "sd15")
    config = dpo_config(tmp_path / "run", model=str(folder), pairs=str(tmp_path / "pairs"), steps=1)
    assert train(config)["status"] == "done"


def test_batches_of_four_and_four_of_one_are_the_same_run(tmp_path: Path, pairs: PairDataset) -> None:
    rate = {"learning_rate": 2e-4}
    run(dpo_config(tmp_path / "whole", batch_size=4, gradient_accumulation_steps=1, **rate), pairs)
    run(dpo_config(tmp_path / "parts", batch_size=1, gradient_accumulation_steps=4, **rate), pairs)
    assert_same_lora(tmp_path / "whole", tmp_path / "parts", atol=1e-5)
    for one, other in zip(
        *(read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")), strict=True
    ):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert one["error_chosen"] == pytest.approx(other["error_chosen"], abs=1e-5)


@pytest.mark.parametrize("cached", [True, False])
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path: Path, pairs: PairDataset, cached: bool) -> None:
    changes: dict[str, Any] = {"checkpoint_every": 2, "cache_latents": cached, "cache_text": cached, "ema": True}
    changes |= {"batch_size": 3, "lr_scheduler": "constant"}
    run(dpo_config(tmp_path / "straight", **changes), pairs)
    run(dpo_config(tmp_path / "parts", **{**changes, "steps": 2}), pairs)
    report = run(dpo_config(tmp_path / "parts", **changes, resume="latest"), pairs)
    assert report["resumed_from"] == 2
    assert_same_lora(tmp_path / "straight", tmp_path / "parts", atol=0)
    last = "checkpoints/step-000004/{}.safetensors"
    for name in ("trainable", "optimizer", "average"):
        assert (tmp_path / "straight" / last.format(name)).read_bytes() == (
            tmp_path / "parts" / last.format(name)
        ).read_bytes()
    for one, other in zip(
        *(read_metrics(tmp_path / name / "metrics.jsonl") for name in ("straight", "parts")), strict=True
    ):
        assert {**one, "pairs_per_second": 0} == {**other, "pairs_per_second": 0}


def test_caches_change_nothing_but_rounding(tmp_path: Path, pairs: PairDataset) -> None:
    rate = {"learning_rate": 2e-4}
    run(dpo_config(tmp_path / "cached", cache_latents=True, cache_text=True, **rate), pairs, family="sdxl")
    run(dpo_config(tmp_path / "online", cache_latents=False, cache_text=False, **rate), pairs, family="sdxl")
    assert_same_lora(tmp_path / "cached", tmp_path / "online", atol=2e-5)


def task_of(pairs: PairDataset, **changes: Any) -> PreferenceTask:
    config = resolve(dpo_config(Path("unused"), **changes), family="sd15", resolution=64)
    return PreferenceTask(tiny_model(), pairs, dpo(500), config)


def test_exchanging_chosen_and_rejected_turns_the_margin_round(tmp_path: Path) -> None:
    size = ((64, 64), (64, 64))
    straight = task_of(colour_pairs(tmp_path / "one", 2, sizes=size))
    turned = task_of(colour_pairs(tmp_path / "two", 2, chosen=BLUE, rejected=RED, sizes=size))
    margins = []
    for task, swap in ((straight, False), (turned, True)):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in task.module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        batch = straight.examples.collate([straight.examples.read(index, Draws(0, index)) for index in (0, 1)])
        assert batch.pixels is not None
        assert batch.posterior is not None
        if swap:
            batch = type(batch)(
                batch.timesteps,
                batch.noise,
                batch.prompts,
                pixels=batch.pixels.roll(2, 0),
                posterior=batch.posterior.roll(2, 0),
            )
        margins.append(task.loss(task.module, batch).margin)
    assert margins[0].abs().min() > 1e-3
    torch.testing.assert_close(margins[1], -margins[0], rtol=1e-3, atol=1e-3)


def separable(seed: int) -> LatentCache:
    """Latents of eight pairs that differ by a constant a channel, with noise of their own."""
    sign = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1, 1) * torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 4, 1, 1)
    noise = torch.randn(8, 2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return latents_of(sign + 0.3 * noise, torch.full_like(noise, 0.1))


def test_training_teaches_the_preference_to_pairs_it_has_not_seen(tmp_path: Path, pairs: PairDataset) -> None:
    changes: dict[str, Any] = {"steps": 10, "batch_size": 8, "learning_rate": 1e-2, "cache_latents": False}
    config = resolve(dpo_config(tmp_path / "run", **changes), family="sd15", resolution=64)
    task = PreferenceTask(tiny_model(), pairs, dpo(500), config)
    task.examples.latents = separable(0)
    fit(task, config, make_accelerator(config))
    task.examples.latents = separable(1)
    examples = [task.examples.read(n % len(pairs), Draws(99, n)) for n in range(32)]
    with torch.no_grad():
        output = task.loss(task.module, task.examples.collate(examples))
    assert output.metrics["implicit_accuracy"].mean() >= 0.75
    assert output.margin.mean() > 0


def test_a_folder_in_use_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    with pytest.raises(ConfigError, match="not empty"):
        train(dpo_config(tmp_path, model="no such model", pairs="no such pairs"))


def test_an_estimate_measures_and_writes_nothing(tmp_path: Path, pairs: PairDataset) -> None:
    report = run(dpo_config(tmp_path / "run", estimate=True), pairs)
    assert not (tmp_path / "run").exists()
    assert 0 < report["trainable_share"] < 1
    assert report["trainable_parameters"] == report["trainable_share"] * report["parameters"]
    memory = report["memory_bytes"]
    assert memory["reference"] == memory["average"] == 0
    assert memory["gradients"] == 4 * report["trainable_parameters"]
    assert memory["optimizer"] > 2 * memory["gradients"]
    assert memory["activations"] > 0
    assert memory["sum"] == sum(value for name, value in memory.items() if name != "sum")
    assert report["seconds"]["run"] > report["seconds"]["step"] > 0
    full = run(dpo_config(tmp_path / "run", estimate=True, method="full"), pairs)
    assert full["memory_bytes"]["reference"] == full["memory_bytes"]["unet"]
