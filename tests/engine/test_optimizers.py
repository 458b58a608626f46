from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.toy_task import toy_config
from t2ialign.engine.config import SCHEDULES
from t2ialign.engine.optimizers import build_optimizer, rate_factor, set_rate
from t2ialign.errors import MissingDependencyError


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_at_a_step_is_that_of_diffusers(name: str) -> None:
    from diffusers.optimization import get_scheduler

    config = toy_config(Path("unused"), lr_scheduler=name, lr_warmup_steps=3, steps=12)
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    scheduler = get_scheduler(name, theirs, num_warmup_steps=3, num_training_steps=12)
    factor = rate_factor(config)
    for step in range(12):
        assert 0.05 * factor(step) == pytest.approx(scheduler.get_last_lr()[0])
        theirs.step()
        scheduler.step()


def test_adamw_has_the_published_settings() -> None:
    optimizer = build_optimizer(toy_config(Path("unused")), [nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert optimizer.defaults["weight_decay"] == 1e-2
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_adafactor_takes_the_given_rate() -> None:
    optimizer = build_optimizer(toy_config(Path("unused"), optimizer="adafactor"), [nn.Parameter(torch.zeros(2, 2))])
    assert optimizer.defaults["relative_step"] is False
    assert optimizer.defaults["scale_parameter"] is False
    assert optimizer.defaults["lr"] == 0.05


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_a_missing_bitsandbytes_names_its_extra() -> None:
    with pytest.raises(MissingDependencyError, match=r"t2ialign\[bitsandbytes\]"):
        build_optimizer(toy_config(Path("unused"), optimizer="adamw8bit"), [nn.Parameter(torch.zeros(1))])


@pytest.mark.gpu
def test_adamw8bit_trains_and_its_state_survives_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from helpers.toy_task import ToyTask
    from t2ialign.engine.loop import fit
    from t2ialign.engine.processes import make_accelerator

    output = tmp_path / "run"
    config = toy_config(output, optimizer="adamw8bit", lr_scheduler="constant")
    fit(ToyTask(), config, make_accelerator(config))
    longer = toy_config(output, optimizer="adamw8bit", lr_scheduler="constant", steps=8, resume="latest")
    assert fit(ToyTask(), longer, make_accelerator(longer)).steps == 8
