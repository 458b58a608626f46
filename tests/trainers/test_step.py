"""The whole step against one written plainly from the published formulas (`helpers.plain_step`)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from helpers.plain_step import BETA, LORA, plain_loss, shake, twin_with_lora
from helpers.tiny import tiny_pipeline
from helpers.training import FAMILIES, dpo_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.order import Schedule
from t2ialign.engine.randomness import Draws
from t2ialign.objectives import dpo
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.preference import PreferenceTask


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_the_step_equals_the_published_formula(
    tmp_path: Path, pairs: PairDataset, family: str, prediction_type: str, method: str
) -> None:
    config = dpo_config(tmp_path, method=method, beta=BETA, empty_caption="encoded")
    config.lora.rank, config.lora.alpha = int(LORA["rank"]), LORA["alpha"]
    model = tiny_model(family, prediction_type)
    task = PreferenceTask(model, pairs, dpo(BETA), resolve(config, family=family, resolution=64))
    shake(model.unet)
    batch = task.examples.collate([task.examples.read(index, Draws(0, index)) for index in (0, 1, 5)])
    output = task.loss(task.module, batch)
    output.loss.backward()

    other = tiny_pipeline(family, prediction_type)
    reference = copy.deepcopy(other.unet)
    policy = copy.deepcopy(model.unet) if method == "full" else twin_with_lora(other.unet, model.unet)
    policy.zero_grad()
    inputs = {
        "t": batch.timesteps,
        "eps": batch.noise,
        "posterior": batch.posterior,
        "pixels": batch.pixels,
        "prompts": batch.prompts,
    }
    loss, margins = plain_loss(other, policy, reference, prediction_type == "v_prediction", inputs)
    loss.backward()

    assert margins.abs().min() > 1e-3
    assert output.loss.item() == pytest.approx(loss.item(), abs=1e-4 * max(1.0, margins.abs().max().item()))
    torch.testing.assert_close(output.margin, margins, rtol=1e-4, atol=1e-3)
    ours = {name: part.grad for name, part in model.unet.named_parameters() if part.requires_grad}
    theirs = {name: part.grad for name, part in policy.named_parameters() if part.requires_grad}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        mine = ours[name]
        assert gradient is not None
        assert mine is not None
        torch.testing.assert_close(mine, gradient, rtol=2e-3, atol=2e-4 * gradient.abs().max().item() + 1e-6)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_loss_is_ln_2_and_every_margin_zero(
    tmp_path: Path, pairs: PairDataset, family: str, prediction_type: str, cached: bool, checkpointing: bool
) -> None:
    config = dpo_config(tmp_path, cache_latents=cached, cache_text=cached, gradient_checkpointing=checkpointing)
    resolved = resolve(config, family=family, resolution=64)
    task = PreferenceTask(tiny_model(family, prediction_type), pairs, dpo(5000), resolved)
    task.setup(torch.device("cpu"), Schedule(0, len(pairs), 4, 2), lambda: False)
    batch = task.examples.collate([task.examples.read(index, Draws(0, index)) for index in (0, 3)])
    output = task.loss(task.module, batch)
    assert output.loss.item() == pytest.approx(0.6931471805599453, abs=1e-6)
    assert output.margin.tolist() == [0.0, 0.0]
    output.loss.backward()
    assert any(part.grad is not None and part.grad.abs().max() > 0 for part in task.module.parameters())


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("empty", ["zeros", "encoded"])
def test_sdxls_empty_caption_is_what_its_pipeline_guides_with_or_encoded(
    tmp_path: Path, pairs: PairDataset, empty: str, cached: bool
) -> None:
    config = dpo_config(tmp_path, caption_dropout=1.0, empty_caption=empty, cache_text=cached, cache_latents=False)
    model = tiny_model("sdxl")
    task = PreferenceTask(model, pairs, dpo(BETA), resolve(config, family="sdxl", resolution=64))
    task.setup(torch.device("cpu"), Schedule(0, len(pairs), 4, 2), lambda: False)
    text = task.condition(task.examples.collate([task.examples.read(0, Draws(0, 0))]))
    assert text.pooled is not None
    guided = model.pipeline.encode_prompt("a", do_classifier_free_guidance=True)
    if empty == "zeros":
        torch.testing.assert_close(text.hidden[:1], guided[1])
        torch.testing.assert_close(text.pooled[:1], guided[3])
        assert not text.hidden.any()
    else:
        assert text.hidden.abs().mean() > 0.01
