"""MaPO's step against the published formula, on every family; its presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.plain_step import shake
from helpers.training import FAMILIES, short_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.randomness import Draws
from t2ialign.errors import ConfigError
from t2ialign.objectives import family
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.mapo import MaPOTrainer


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(("family_name", "prediction_type"), FAMILIES)
def test_the_step_is_the_published_loss_of_the_errors(
    rich: PairDataset, family_name: str, prediction_type: str, method: str
) -> None:
    config = resolve(
        short_config("mapo", Path("unused"), method=method), family=family_name, resolution=64, algorithm="mapo"
    )
    trainer = MaPOTrainer(config)
    task = trainer.build(tiny_model(family_name, prediction_type), rich, torch.no_grad)
    assert task.reference is None
    shake(task.module)
    batch = task.examples.collate([task.examples.read(index, Draws(0, index)) for index in range(4)])
    output = task.loss(task.module, batch)
    e_w, e_l = (output.metrics[f"error_{side}"].double() for side in ("chosen", "rejected"))
    odds = [0.5 * e / (torch.exp(0.5 * e) - 1) for e in (e_w, e_l)]  # mapo utils.py:286-301
    margin = 1000 * (odds[0] - odds[1])
    assert output.loss.item() == pytest.approx((e_w - 0.1 * torch.log(torch.sigmoid(margin))).mean().item(), abs=1e-4)
    torch.testing.assert_close(output.margin.double(), margin, rtol=1e-3, atol=1e-2)
    assert "reference_error_chosen" not in output.metrics


def test_the_options_reach_the_objective(rich: PairDataset) -> None:
    config = resolve(
        short_config("mapo", Path("unused"), snr=0.7, beta=0.3), family="sd15", resolution=64, algorithm="mapo"
    )
    objective = MaPOTrainer(config).build(tiny_model(), rich, torch.no_grad).objective
    assert objective == family.mapo(weight=0.3, strength=0.7, scale=1000.0)


def test_defaults_and_preset() -> None:
    config = resolve(short_config("mapo", Path("run")), family="sdxl", resolution=1024, algorithm="mapo")
    assert (config.beta, config.snr, config.caption_dropout) == (0.1, 0.5, 0.0)
    official = short_config("mapo", Path("run"), compat="mapo_official")
    official = resolve(official, family="sdxl", resolution=1024, algorithm="mapo")
    assert (official.flip, official.time_ids, official.beta) == ("joint", "shared", 0.1)


@pytest.mark.parametrize(("name", "value"), [("beta", 0.0), ("snr", -1.0), ("compat", "hf_sd"), ("method", "dora")])
def test_an_option_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        short_config("mapo", Path("run"), **{name: value})
