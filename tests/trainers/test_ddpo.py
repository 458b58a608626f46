"""DDPO: probabilities of the chain against plain Gaussians, rounds, advantages, and runs that go on."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from helpers.guided import PROMPTS, Blue, Red, first_batch, guided, ready, train_guided
from helpers.plain_step import plain_text, shake
from helpers.training import FAMILIES
from t2ialign.engine.metrics import read_metrics
from t2ialign.engine.randomness import Draws, Stream
from t2ialign.errors import ConfigError, DataError
from t2ialign.models.loading import load_model
from t2ialign.trainers.advantages import RunningStatistics
from t2ialign.trainers.ddpo_config import DDPOConfig

LORA = "pytorch_lora_weights.safetensors"
SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "train_guided.py"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_range": 0.0}, "clip_range is 0"),
        ({"timestep_fraction": 0.0}, "timestep_fraction is 0"),
        ({"timestep_fraction": 1.5}, "at most 1"),
        ({"inner_epochs": 0}, "inner_epochs is 0"),
        ({"updates_per_round": 0}, "updates_per_round is 0"),
        ({"pictures_per_prompt": 0}, "pictures_per_prompt is 0"),
        ({"statistics": 4, "statistics_from": 8}, "would never be used"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DDPOConfig(model="mini-sd", scorer="oracle", output_dir=Path("run"), **changes)


class Twin:
    """DDIM with eta = 1 under guidance, written plainly: means and deviations of every step."""

    def __init__(self, pipeline: Any, prompts: list[str]) -> None:
        self.pipeline, self.unet = pipeline, copy.deepcopy(pipeline.unet)
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(4)
        self.timesteps = scheduler.timesteps.tolist()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.signal = torch.cumprod(1 - betas, 0)
        with torch.no_grad():
            told, pooled = plain_text(pipeline, prompts)
            free, _ = plain_text(pipeline, [""] * len(prompts))
        self.more: dict[str, Any] = {}
        if pooled is not None:
            free, ids = torch.zeros_like(free), torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])
            both = torch.cat([torch.zeros_like(pooled), pooled])
            self.more = {"added_cond_kwargs": {"text_embeds": both, "time_ids": ids.repeat(2 * len(prompts), 1)}}
        self.text = torch.cat([free, told])

    def gaussian(self, latents: Tensor, number: int, unet: Any = None) -> Normal:
        t = self.timesteps[number]
        a, b = float(self.signal[t]), float(self.signal[max(t - 250, 0)])
        out = (unet or self.unet)(torch.cat([latents] * 2), t, self.text, **self.more).sample
        free, told = out.chunk(2)
        out = free + 3.0 * (told - free)
        if self.pipeline.scheduler.config.prediction_type == "v_prediction":
            x0, eps = a**0.5 * latents - (1 - a) ** 0.5 * out, a**0.5 * out + (1 - a) ** 0.5 * latents
        else:
            x0, eps = (latents - (1 - a) ** 0.5 * out) / a**0.5, out
        variance = (1 - b) / (1 - a) * (1 - a / b)
        return Normal(b**0.5 * x0 + (1 - b - variance) ** 0.5 * eps, math.sqrt(variance))


def begun(tmp_path: Path, **changes: Any) -> tuple[Any, Any]:
    """A task whose first round is drawn, and its first batch."""
    task = ready("ddpo", tmp_path, **changes)
    task.begin_step(0)
    return task, first_batch(task)


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_a_round_is_a_plain_twin(tmp_path: Path, family: str, prediction_type: str) -> None:
    """States from the draws, and log-probabilities against torch.distributions."""
    task, batch = begun(tmp_path, family=family, prediction_type=prediction_type, batch_size=4)
    rollout = task._rollouts[0]
    twin = Twin(task.model.pipeline, batch.prompts)
    draws = [Draws(0, int(n)) for n in batch.numbers]
    latents = torch.stack([each.normal(Stream.NOISE, (4, 8, 8)) for each in draws])
    noise = torch.stack([each.normal(Stream.CHAIN, (4, 4, 8, 8)) for each in draws])
    for number in range(4):
        torch.testing.assert_close(rollout.states[number], latents, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            step = twin.gaussian(rollout.states[number], number)
        log_p = step.log_prob(rollout.states[number + 1]).mean(dim=(1, 2, 3))
        torch.testing.assert_close(rollout.probabilities[number], log_p, rtol=0, atol=1e-4)
        latents = step.loc + step.scale * noise[:, number]
    expected = Red().of(batch.prompts, pixels(task, rollout.states[-1]))
    torch.testing.assert_close(rollout.scores, expected, rtol=0, atol=3e-3)


def pixels(task: Any, latents: Tensor) -> Tensor:
    vae = task.model.pipeline.vae
    with torch.no_grad():
        decoded: Tensor = vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5
    return decoded.clamp(0, 1)


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_the_loss_is_the_clipped_objective_with_an_exact_divergence(
    tmp_path: Path, family: str, prediction_type: str
) -> None:
    changes = {"family": family, "prediction_type": prediction_type, "batch_size": 4, "clip_range": 1e-3}
    task, batch = begun(tmp_path, reference_weight=0.3, **changes)
    old = copy.deepcopy(task.model.unet)
    shake(task.model.unet)
    twin = Twin(task.model.pipeline, batch.prompts)
    parts = task.parts(batch)
    assert len(parts) == 4
    ratios = []
    for part in parts:
        mine = task.loss(task.module, part)
        losses, divergences = [], []
        for row, number in enumerate(part.steps.tolist()):
            step = twin.gaussian(part.before, number)
            with torch.no_grad():
                before = twin.gaussian(part.before, number, old)
            log_p = [each.log_prob(part.after).mean(dim=(1, 2, 3))[row] for each in (step, before)]
            ratio, advantage = (log_p[0] - log_p[1]).exp(), part.advantages[row]
            ratios.append(ratio.item())
            losses.append(torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - 1e-3, 1 + 1e-3)))
            divergences.append(kl_divergence(step, before)[row].sum())
        theirs = torch.stack(losses).mean() + 0.3 * torch.stack(divergences).mean() / 256
        assert mine.loss.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-5)
        torch.testing.assert_close(mine.metrics["divergence"], torch.stack(divergences).detach(), rtol=1e-3, atol=1e-3)
        named = {name: each for name, each in task.module.named_parameters() if each.requires_grad}
        known = {name: each for name, each in twin.unet.named_parameters() if each.requires_grad}
        found = torch.autograd.grad(mine.loss, list(named.values()))
        for gradient, other in zip(found, torch.autograd.grad(theirs, list(known.values())), strict=True):
            torch.testing.assert_close(gradient, other, rtol=2e-3, atol=1e-5)
    assert any(abs(ratio - 1) > 1e-3 for ratio in ratios)


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_the_ratio_is_exactly_one_until_an_update(tmp_path: Path, family: str, prediction_type: str) -> None:
    options = {"updates_per_round": 2, "inner_epochs": 2, "steps": 5, "clip_range": 1e-3, "reference_weight": 0.1}
    train_guided("ddpo", tmp_path / "run", family=family, prediction_type=prediction_type, **options)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["ratio"] == 1.0 for line in lines] == [True, False, False, False, True]
    assert lines[0]["divergence"] == 0.0
    assert lines[1]["divergence"] > 0


def test_a_round_is_gone_through_again_on_the_same_pictures(tmp_path: Path) -> None:
    task = ready("ddpo", tmp_path, updates_per_round=2, inner_epochs=3)
    numbers = [[task.examples.number(n) for n, _ in task.schedule.batch(step, 0)] for step in range(8)]
    assert numbers == [[0, 1], [2, 3]] * 3 + [[4, 5], [6, 7]]
    entries = [task.examples.read(0, Draws(0, n))[1] for n in range(8)]
    assert entries[0::2] == entries[1::2]
    assert len(task.examples) == len(PROMPTS) * 2 * 3


def test_only_a_share_of_the_steps_is_trained_on(tmp_path: Path) -> None:
    task, batch = begun(tmp_path, timestep_fraction=0.5, batch_size=4)
    parts = task.parts(batch)
    assert len(parts) == 2
    chosen = torch.stack([part.steps for part in parts])
    assert all(len(set(column.tolist())) == 2 for column in chosen.T)
    assert len({tuple(column.tolist()) for column in chosen.T}) > 1


def test_advantages_are_normalised_by_prompt() -> None:
    statistics = RunningStatistics(3, 4, 2)
    scores = torch.tensor([1.0, 3.0, 10.0, 30.0, 7.0])
    found = statistics.advantages(torch.tensor([0, 0, 1, 1, 2]), scores)
    known = (7 - scores.mean().item()) / scores.std(correction=0).item()
    torch.testing.assert_close(found, torch.tensor([-1, 1, -1, 1, known]).double(), rtol=1e-5, atol=1e-5)
    later = statistics.advantages(torch.tensor([0, 2]), torch.tensor([5.0, 9.0]))
    torch.testing.assert_close(later, torch.tensor([2 / math.sqrt(8 / 3), 1.0]).double(), rtol=1e-5, atol=1e-5)
    statistics.advantages(torch.tensor([0, 0]), torch.tensor([6.0, 8.0]))
    assert statistics.table[0].tolist() == [3.0, 5.0, 6.0, 8.0]


def test_what_is_not_scored_counts_nowhere() -> None:
    statistics = RunningStatistics(1, 4, 2)
    found = statistics.advantages(torch.tensor([0, 0, 0]), torch.tensor([1.0, math.nan, 3.0]))
    torch.testing.assert_close(found, torch.tensor([-1.0, 0.0, 1.0]).double(), rtol=1e-5, atol=1e-5)
    assert not statistics.advantages(torch.tensor([0]), torch.tensor([math.nan])).any()
    same = RunningStatistics(1, 4, 2).advantages(torch.tensor([0, 0]), torch.tensor([2.0, 2.0]))
    assert same.tolist() == [0.0, 0.0]


def test_without_statistics_the_round_is_the_measure() -> None:
    found = RunningStatistics(2, 0, 2).advantages(torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 1.0, 3.0, 3.0]))
    torch.testing.assert_close(found, torch.tensor([-1.0, -1.0, 1.0, 1.0]).double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_it_trains_every_family(tmp_path: Path, family: str, prediction_type: str) -> None:
    output = tmp_path / "run"
    options = {"steps": 2, "sample_every": 2, "scorer_object": Red(), "watch_object": Blue(), "watch_every": 1}
    _, report = train_guided("ddpo", output, family=family, prediction_type=prediction_type, **options)
    lines = read_metrics(output / "metrics.jsonl")
    assert report["status"] == "done"
    assert all(line["grad_norm"] > 0 and line["watch"] > 0 and line["watch_divergence"] > 0 for line in lines)
    assert report["watched"]["first"]["step"] == 0
    assert report["watched"]["last"]["watch_reward"] == lines[-1]["watch_reward"]
    assert (output / "samples" / "step-000002.png").is_file()
    assert (output / "final" / LORA).is_file()


def test_it_trains_every_weight(tmp_path: Path) -> None:
    _, report = train_guided("ddpo", tmp_path / "run", method="full", steps=2, learning_rate=1e-4)
    assert report["model"]["trainable_parameters"] == report["model"]["parameters"]
    load_model(tmp_path / "run" / "final")


def test_a_step_of_four_is_four_of_one(tmp_path: Path) -> None:
    options = {"learning_rate": 2e-4, "steps": 3, "updates_per_round": 2, "clip_range": 0.1}
    train_guided("ddpo", tmp_path / "whole", batch_size=4, **options)
    train_guided("ddpo", tmp_path / "parts", batch_size=1, gradient_accumulation_steps=4, **options)
    mine, theirs = (load_file(tmp_path / name / "final" / LORA) for name in ("whole", "parts"))
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(tmp_path: Path, step: int, method: str) -> None:
    """Step 4 begins a round of four steps; 1 and 3 lie within the first."""
    options: dict[str, Any] = {
        "steps": 6,
        "checkpoint_every": 1,
        "keep_checkpoints": 0,
        "updates_per_round": 2,
        "inner_epochs": 2,
        "clip_range": 0.1,
        "method": method,
        "learning_rate": 1e-3 if method == "lora" else 1e-5,
        "watch_every": 2,
        "watch_count": 3,
        "watch_object": Blue(),
        "ema": True,
    }
    train_guided("ddpo", tmp_path / "straight", **options)
    train_guided("ddpo", tmp_path / "other", **options)
    checkpoint = tmp_path / "other" / "checkpoints" / f"step-{step:06d}"
    _, report = train_guided("ddpo", tmp_path / "other", **options, resume=str(checkpoint))
    assert report["resumed_from"] == step
    folders = [tmp_path / name / "checkpoints" / "step-000006" for name in ("straight", "other")]
    for file in folders[0].glob("*.safetensors"):
        assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name
    assert same_lines(tmp_path / "straight") == same_lines(tmp_path / "other")


def same_lines(output: Path) -> list[dict[str, Any]]:
    lines = read_metrics(output / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.endswith("per_second")} for line in lines]


def test_scores_of_other_prompts_are_refused(tmp_path: Path) -> None:
    task = ready("ddpo", tmp_path)
    with pytest.raises(DataError, match="other prompts"):
        task.load_state({"statistics": torch.zeros(3, 4)})


def test_a_chain_without_noise_is_refused(tmp_path: Path) -> None:
    trainer = guided("ddpo", tmp_path / "run", num_inference_steps=1)
    pipeline = trainer.model.pipeline
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, set_alpha_to_one=True)
    with pytest.raises(ConfigError, match="num_inference_steps is 1, and no step"):
        trainer.train()


def test_the_reward_rises(tmp_path: Path) -> None:
    options = {"steps": 30, "batch_size": 16, "learning_rate": 1e-2, "guidance_scale": 1.0}
    train_guided("ddpo", tmp_path / "run", scorer_object=Red(), pictures_per_prompt=4, **{"statistics": 8, **options})
    rewards = [line["reward"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert sum(rewards[-6:]) / 6 > sum(rewards[:6]) / 6 + 0.02


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    for processes in (1, 2):
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        for algorithm in ("refl", "ddpo"):
            output = tmp_path / f"{algorithm}-{processes}"
            subprocess.run(
                [*launcher, str(SCRIPT), algorithm, str(output)],
                check=True,
                env=os.environ
                | {
                    "ACCELERATE_USE_CPU": "true",
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(
                        [str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")]
                    ),
                },
            )
    for algorithm in ("refl", "ddpo"):
        mine, theirs = (load_file(tmp_path / f"{algorithm}-{count}" / "final" / LORA) for count in (1, 2))
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-5)
        lines = [read_metrics(tmp_path / f"{algorithm}-{count}" / "metrics.jsonl") for count in (1, 2)]
        for one, two in zip(*lines, strict=True):
            assert one["reward"] == pytest.approx(two["reward"], abs=1e-4), json.dumps([one, two])
