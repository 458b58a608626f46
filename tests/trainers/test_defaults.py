from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from helpers.training import dpo_config
from t2ialign.errors import ConfigError
from t2ialign.trainers.defaults import COMPATS, beta_convention, family_defaults, resolve
from t2ialign.trainers.dpo_config import DPOConfig


def asked(**changes: object) -> DPOConfig:
    return DPOConfig(output_dir=Path("run"), model="m", pairs="p", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "mini-sd", "sd"])
def test_every_option_is_known_for_every_family(family: str, method: str) -> None:
    config = resolve(asked(method=method), family=family, resolution=512)
    unknown = {field.name for field in fields(config) if getattr(config, field.name) is None}
    asked_for = {"resume", "tracker", "revision", "pairs_revision", "push_to_hub", "cache_latents", "cache_text"}
    asked_for |= {"cache_dir", "cache_batch_size", "estimate_file"}
    asked_for |= {"bucket_step", "bucket_group"}  # filled where buckets are asked for
    assert unknown == asked_for
    assert config.lora.alpha == config.lora.rank


def test_buckets_take_their_step_and_their_group_where_they_are_asked_for() -> None:
    found = [
        resolve(asked(aspect_buckets=True, **more), family=family, resolution=512)
        for family, more in (("sdxl", {}), ("mini-sd", {}), ("sd15", {"batch_size": 3, "bucket_step": 32}))
    ]
    assert [(config.bucket_step, config.bucket_group) for config in found] == [(64, 1), (8, 16), (32, 3)]
    assert resolve(asked(aspect_buckets=True, bucket_group=8), family="sd15", resolution=512).bucket_group == 8


def test_what_the_user_gave_stays() -> None:
    config = resolve(asked(steps=3, beta=100.0, caption_dropout=0.0, method="full"), family="sdxl", resolution=1024)
    assert (config.steps, config.beta, config.caption_dropout) == (3, 100.0, 0.0)
    assert (config.optimizer, config.lr_warmup_steps, config.resolution) == ("adafactor", 200, 1024)


def test_the_rate_of_full_tuning_grows_with_the_pairs_of_a_step_as_in_the_official_launchers() -> None:
    official = asked(method="full", batch_size=1, gradient_accumulation_steps=128)
    assert resolve(official, family="sd15", resolution=512, processes=16).learning_rate == pytest.approx(2.048e-5)
    assert resolve(asked(method="full"), family="sd15", resolution=512).learning_rate == pytest.approx(1.28e-6)


def test_compat_reads_beta_and_fills_what_is_open_as_the_script_does() -> None:
    assert resolve(asked(compat="hf_sd"), family="sd15", resolution=512).beta == 2500
    assert resolve(asked(compat="hf_sdxl"), family="sdxl", resolution=1024).beta == 5000
    assert beta_convention("hf_sd") != beta_convention("hf_sdxl") == beta_convention("none")
    official = resolve(asked(compat="diffusion_dpo_official"), family="sdxl", resolution=1024)
    assert (official.caption_dropout, official.flip, official.time_ids) == (0.2, "independent", "fixed")
    mine = resolve(asked(compat="diffusion_dpo_official", flip="none"), family="sdxl", resolution=1024)
    assert mine.flip == "none"
    assert set(COMPATS) > set(DPOConfig.COMPATS)


def test_the_defaults_cannot_be_changed_by_accident() -> None:
    family_defaults("sd15", "lora")["steps"] = 1
    assert family_defaults("sd15", "lora")["steps"] == 2000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", 0.0),
        ("caption_dropout", 1.5),
        ("resolution", 100),
        ("method", "dora"),
        ("flip", "both"),
        ("compat", "mine"),
        ("objective", "ppo"),
    ],
)
def test_an_option_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        dpo_config(Path("run"), **{name: value})
