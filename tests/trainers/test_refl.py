"""ReFL and DRaFT: gradients through the last steps, held against finite differences and a plain twin."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor

from helpers.guided import Red, SmoothRed, first_batch, ready, train_guided
from helpers.plain_step import plain_text, shake
from helpers.training import FAMILIES
from t2ialign.cli.train import main
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.errors import ConfigError
from t2ialign.models.loading import load_model
from t2ialign.reward_models.base import Differentiable
from t2ialign.trainers.refl_config import ReFLConfig

LORA = "pytorch_lora_weights.safetensors"
DRAFT = {"objective": "draft", "draft_steps": 2}


def config(**changes: Any) -> ReFLConfig:
    return ReFLConfig(model="mini-sd", scorer="clipscore", output_dir=Path("run"), **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "draft", "draft_steps": 0}, "draft_steps is 0"),
        ({"objective": "draft", "draft_steps": 9, "num_inference_steps": 8}, "draft_steps is 9"),
        ({"objective": "draft", "draft_steps": 2, "draft_draws": 2}, "needs draft_steps 1"),
        ({"draft_steps": 2}, "choose --objective draft"),
        ({"objective": "draft", "first_stop": 3}, "choose --objective refl"),
        ({"objective": "reinforce"}, "objective is"),
        ({"num_inference_steps": 8, "last_stop": 8}, "can not stop"),
        ({"num_inference_steps": 8, "first_stop": 6, "last_stop": 5}, "can not stop"),
        ({"pairs": "mini-pairs"}, "give both, or neither"),
        ({"pretrain_weight": 1.0}, "give both, or neither"),
        ({"reference_weight": -1.0}, "reference_weight"),
        ({"watch": "oracle", "watch_every": 0}, "watch_every is 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


def test_the_published_range_of_stops_is_the_default() -> None:
    assert config(num_inference_steps=40).stops == (30, 39)
    assert config(num_inference_steps=40, first_stop=5, last_stop=7).stops == (5, 7)


def test_more_steps_with_gradient_than_the_default_chain_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draft_steps is 5, but the chain has 4"):
        ready("refl", tmp_path, objective="draft", draft_steps=5, num_inference_steps=4)


def test_a_scorer_without_gradients_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="red has no gradients, which refl needs; take `t2ialign train ddpo`"):
        train_guided("refl", tmp_path / "run", scorer_object=Red())
    assert isinstance(SmoothRed(), Differentiable)
    assert not (tmp_path / "run").exists()


def test_the_command_hands_the_scorers_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    told = ["refl", "--model", "mini-sd", "--output_dir", str(output)]
    with pytest.raises(ConfigError, match="oracle has no gradients, which refl needs"):
        main([*told, "--scorer", "oracle"])
    assert not output.exists()
    small = ["--steps", "1", "--batch_size", "1", "--num_inference_steps", "2", "--watch_count", "2"]
    assert main([*told, "--scorer", "clipscore@mini-clip", "--watch", "oracle", *small]) == 0
    shown = capsys.readouterr().out
    assert "watched.last.watch_reward" in shown
    report = json.loads((output / "report.json").read_text())
    assert (report["scorer"], report["watch"]) == ("clipscore@mini-clip", "oracle")
    assert report["watched"]["change"]["reward"]["n"] == 2
    assert report["prompts"]["name"] == "mini-prompts"


def plain_reward(pixels: Tensor, prompts: list[str]) -> Tensor:
    """The scorer's formula, written once more."""
    longer = torch.tensor([len(prompt) / 100 for prompt in prompts])
    return pixels[:, 0].mean(dim=(1, 2)) - pixels[:, 1:].mean(dim=(1, 2, 3)) ** 2 + longer


class Twin:
    """DDIM under guidance, written plainly: nothing of ours but the draws."""

    def __init__(self, task: Any, batch: Any) -> None:
        pipeline = task.model.pipeline
        self.vae, self.unet = pipeline.vae, copy.deepcopy(pipeline.unet)
        self.prompts = batch.prompts
        self.start = torch.stack([Draws(0, int(n)).normal(Stream.NOISE, (4, 8, 8)) for n in batch.numbers])
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(4)
        self.timesteps = scheduler.timesteps.tolist()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.signal = torch.cumprod(1 - betas, 0)
        self.velocity = pipeline.scheduler.config.prediction_type == "v_prediction"
        with torch.no_grad():
            told, pooled = plain_text(pipeline, batch.prompts)
            free, free_pooled = plain_text(pipeline, [""] * len(batch.prompts))
        if pooled is not None and pipeline.config.force_zeros_for_empty_prompt:
            free, free_pooled = torch.zeros_like(free), torch.zeros_like(pooled)
        self.text = torch.cat([free, told])
        self.more: dict[str, Any] = {}
        if pooled is not None and free_pooled is not None:
            ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]).repeat(len(self.text), 1)
            self.more = {"added_cond_kwargs": {"text_embeds": torch.cat([free_pooled, pooled]), "time_ids": ids}}

    def both(self, latents: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Picture and noise that the guided network sees at a step."""
        t = self.timesteps[number]
        out = self.unet(torch.cat([latents, latents]), t, self.text, **self.more).sample
        free, told = out.chunk(2)
        out, a = free + 3.0 * (told - free), self.signal[t].float()
        if self.velocity:
            return a**0.5 * latents - (1 - a) ** 0.5 * out, a**0.5 * out + (1 - a) ** 0.5 * latents
        return (latents - (1 - a) ** 0.5 * out) / a**0.5, out

    def after(self, number: int) -> float:
        return float(self.signal[max(self.timesteps[number] - 250, 0)])

    def step(self, latents: Tensor, number: int) -> Tensor:
        picture, noise = self.both(latents, number)
        moved: Tensor = self.after(number) ** 0.5 * picture + (1 - self.after(number)) ** 0.5 * noise
        return moved

    def reward(self, latents: Tensor) -> Tensor:
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor).sample / 2 + 0.5
        return plain_reward(pixels, self.prompts)


def gradient_of(unet: Any, loss: Tensor) -> dict[str, Tensor]:
    named = {name: part for name, part in unet.named_parameters() if part.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_draft_is_a_plain_twin(tmp_path: Path, family: str, prediction_type: str, steps: int) -> None:
    options = {"objective": "draft", "draft_steps": steps, "family": family, "prediction_type": prediction_type}
    task = ready("refl", tmp_path, **options)
    shake(task.model.unet)
    batch = first_batch(task)
    twin = Twin(task, batch)
    mine = task.loss(task.module, batch)
    latents = twin.start
    for number in range(4):
        with torch.set_grad_enabled(number >= 4 - steps):
            latents = twin.step(latents, number)
    theirs = -twin.reward(latents).mean()
    assert mine.loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    found, known = gradient_of(task.module, mine.loss), gradient_of(twin.unet, theirs)
    for name, gradient in known.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_refl_is_a_plain_twin(tmp_path: Path, family: str, prediction_type: str) -> None:
    """Pictures stop at steps of their own; the score is clipped at a margin."""
    options = {"first_stop": 1, "last_stop": 3, "batch_size": 4, "reward_scale": 0.5, "reward_margin": 0.45}
    task = ready("refl", tmp_path, family=family, prediction_type=prediction_type, **options)
    shake(task.model.unet)
    batch = first_batch(task)
    stops = [1 + Draws(0, int(n)).integer(Stream.STOP, 3) for n in batch.numbers]
    assert len(set(stops)) > 1
    twin = Twin(task, batch)
    rows = []
    for row, stop in enumerate(stops):
        latents = twin.start
        with torch.no_grad():
            for number in range(stop):
                latents = twin.step(latents, number)
        rows.append(twin.both(latents, stop)[0][row])
    reward = twin.reward(torch.stack(rows))
    assert (reward > 0.45).any() or (reward < 0.45).any()
    theirs = 0.5 * torch.relu(0.45 - reward).mean()
    mine = task.loss(task.module, batch)
    torch.testing.assert_close(mine.metrics["reward"], reward.detach(), rtol=0, atol=1e-5)
    assert mine.loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    found, known = gradient_of(task.module, mine.loss), gradient_of(twin.unet, theirs)
    for name, gradient in known.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{}, DRAFT, {"reference_weight": 5.0}, {**DRAFT, "reference_weight": 5.0}],
    ids=["refl", "draft", "refl held", "draft held"],
)
def test_the_gradient_is_that_of_finite_differences(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Along the gradient itself, with a chain that has gradient from its first step on."""
    whole = {"first_stop": 0, "last_stop": 0} if "objective" not in changes else {}
    if changes.get("draft_steps"):
        whole = {"draft_steps": 4}
    task = ready("refl", tmp_path, **{**changes, **whole})
    shake(task.model.unet)
    batch = first_batch(task)
    gradient = gradient_of(task.module, task.loss(task.module, batch).loss)
    size = math.sqrt(sum(float((each.double() ** 2).sum()) for each in gradient.values()))
    named = dict(task.module.named_parameters())

    def at(distance: float) -> float:
        with torch.no_grad():
            for name, each in gradient.items():
                named[name].add_(each, alpha=distance / size)
            value = float(task.loss(task.module, batch).loss)
            for name, each in gradient.items():
                named[name].sub_(each, alpha=distance / size)
        return value

    h = 0.02
    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert size > 1e-4
    assert slope == pytest.approx(size, rel=0.02)


def test_draft_lv_averages_over_noised_copies(tmp_path: Path) -> None:
    task = ready("refl", tmp_path, objective="draft", draft_draws=3)
    shake(task.model.unet)
    batch = first_batch(task)
    twin = Twin(task, batch)
    latents = twin.start
    for number in range(4):
        with torch.set_grad_enabled(number == 3):
            latents = twin.step(latents, number)
    rewards = [twin.reward(latents)]
    fresh = torch.stack([Draws(0, int(n)).normal(Stream.CHAIN, (2, 4, 8, 8)) for n in batch.numbers])
    signal = twin.signal[twin.timesteps[3]].float()
    for copy_number in range(2):
        noised = signal**0.5 * latents.detach() + (1 - signal) ** 0.5 * fresh[:, copy_number]
        rewards.append(twin.reward(twin.step(noised, 3)))
    theirs, mine = -torch.cat(rewards).mean(), task.loss(task.module, batch)
    assert mine.loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    found, known = gradient_of(task.module, mine.loss), gradient_of(twin.unet, theirs)
    for name, gradient in known.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-7)


def test_the_hold_is_a_squared_distance_of_noise(tmp_path: Path) -> None:
    task = ready("refl", tmp_path, reference_weight=2.0, prediction_type="v_prediction", family="sd2")
    batch = first_batch(task)
    fresh = task.loss(task.module, batch)
    assert not fresh.metrics["divergence"].any()
    shake(task.model.unet)
    moved = task.loss(task.module, batch)
    reward, distance = moved.metrics["reward"].mean().item(), moved.metrics["divergence"].mean().item()
    assert distance > 0
    assert moved.loss.item() == pytest.approx(-reward + 2.0 * distance, rel=1e-5)


def test_pictures_are_trained_on_beside(tmp_path: Path) -> None:
    trainer, _ = train_guided("refl", tmp_path / "run", pairs="mini-pairs", pretrain_weight=0.5, steps=2)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    for line in lines:
        assert line["error"] > 0
        assert line["loss"] == pytest.approx(-line["reward"] + 0.5 * line["error"], rel=1e-4)
    assert len(trainer.task.examples.singles) > 0


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
@pytest.mark.parametrize("changes", [{}, DRAFT], ids=["refl", "draft"])
def test_it_trains_every_family(tmp_path: Path, family: str, prediction_type: str, changes: dict[str, Any]) -> None:
    output = tmp_path / "run"
    options = {"steps": 2, "sample_every": 2, "gradient_checkpointing": True, **changes}
    _, report = train_guided("refl", output, family=family, prediction_type=prediction_type, **options)
    assert report["status"] == "done"
    assert all(line["grad_norm"] > 0 for line in read_metrics(output / "metrics.jsonl"))
    assert (output / "samples" / "step-000002.png").is_file()
    assert (output / "final" / "pytorch_lora_weights.safetensors").is_file()


def test_it_trains_every_weight(tmp_path: Path) -> None:
    trainer, report = train_guided("refl", tmp_path / "run", method="full", steps=2, learning_rate=1e-4)
    assert trainer.task.reference is None
    assert report["model"]["trainable_parameters"] == report["model"]["parameters"]
    load_model(tmp_path / "run" / "final")


@pytest.mark.parametrize("changes", [{"reference_weight": 0.1}, DRAFT], ids=["refl", "draft"])
def test_a_step_of_four_is_four_of_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    options = {"learning_rate": 2e-4, "steps": 2, **changes}
    train_guided("refl", tmp_path / "whole", batch_size=4, **options)
    train_guided("refl", tmp_path / "parts", batch_size=1, gradient_accumulation_steps=4, **options)
    mine, theirs = (load_file(tmp_path / name / "final" / LORA) for name in ("whole", "parts"))
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5)


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "checkpoint_every": 1,
        "gradient_accumulation_steps": 2,
        "reference_weight": 0.1,
        "watch_every": 2,
        "watch_count": 3,
        "ema": True,
        "pairs": "mini-pairs",
        "pretrain_weight": 0.1,
    }
    train_guided("refl", tmp_path / "straight", **options)
    train_guided("refl", tmp_path / "other", **options)
    checkpoint = tmp_path / "other" / "checkpoints" / "step-000002"
    train_guided("refl", tmp_path / "other", **options, resume=str(checkpoint))
    folders = [tmp_path / name / "checkpoints" / "step-000004" for name in ("straight", "other")]
    for file in folders[0].glob("*.safetensors"):
        assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name
    assert same_lines(tmp_path / "straight") == same_lines(tmp_path / "other")


def same_lines(output: Path) -> list[dict[str, Any]]:
    lines = read_metrics(output / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.endswith("per_second")} for line in lines]


def test_the_reward_rises(tmp_path: Path) -> None:
    train_guided("refl", tmp_path / "run", steps=40, learning_rate=1e-2, **{**DRAFT, "draft_steps": 4})
    rewards = [line["reward"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 0.02


def test_an_estimate_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refl has no --estimate"):
        train_guided("refl", tmp_path / "run", estimate=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_reward_rises_on_mini_sd(tmp_path: Path) -> None:
    """The recipe's own run: on prompts that are not trained on, by more than chance."""
    from t2ialign.reward_models.registry import load_scorer
    from t2ialign.trainers.prompts import mini_prompts
    from t2ialign.trainers.refl import ReFLTrainer

    lines = [json.dumps({"prompt": each}) for each in mini_prompts("validation", 64, seed=1)]
    (tmp_path / "held_out.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options: dict[str, Any] = {
        "steps": 25,
        "batch_size": 16,
        "num_inference_steps": 16,
        "learning_rate": 1e-3,
        "watch_prompts": str(tmp_path / "held_out.jsonl"),
        "watch_count": 64,
        "watch_every": 25,
        "mixed_precision": "no",
    }
    given = ReFLConfig(model="mini-sd", scorer="clipscore@mini-clip", output_dir=tmp_path / "run", **options)
    report = ReFLTrainer(given, load_scorer("clipscore@mini-clip"), load_scorer("oracle")).train()
    assert report["watched"]["change"]["reward"]["low"] > 0
