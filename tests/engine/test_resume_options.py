"""Which options may differ on resume: every option of every algorithm is one or the other, and is treated so."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from helpers.toy_task import ToyTask, toy_config
from t2ialign.cli.train import load_object
from t2ialign.engine.checkpoints import Checkpoint
from t2ialign.engine.loop import fit
from t2ialign.engine.processes import make_accelerator
from t2ialign.engine.resume import FREE, check_config, flatten
from t2ialign.errors import ConfigError
from t2ialign.trainers.registry import ALGORITHMS

HARMLESS = {
    "output_dir",
    "resume",
    "workers",
    "checkpoint_every",
    "keep_checkpoints",
    "sample_every",
    "sample_prompts",
    "tracker",
    "push_to_hub",
    "max_bad_steps",
    "batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "pairs",
}
DECISIVE = {
    "seed",
    "learning_rate",
    "lr_scheduler",
    "lr_warmup_steps",
    "max_grad_norm",
    "optimizer",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "ema",
    "ema_decay",
    "mixed_precision",
    "model",
    "revision",
    "method",
    "lora.rank",
    "lora.alpha",
    "lora.targets",
    "resolution",
    "crop",
    "flip",
    "caption_dropout",
    "time_ids",
    "empty_caption",
    "objective",
    "beta",
    "compat",
    "curriculum_stages",
    "group_robust.rate",
    "rdpo.flip_rate",
    "reference_weight",
    "scorer",
    "watch",
    "watch_every",
    "guidance_scale",
    "num_inference_steps",
    "updates_per_round",
    "shots",
    "head",
    "pal.prototypes",
    "holdout",
    "examples",
    "examples per step",
}


def names_of(cls: Any) -> set[str]:
    """Dotted names of the options of a class."""
    found = set()
    for field in fields(cls):
        nested: Any = field.default_factory
        inside = names_of(nested) if isinstance(nested, type) and hasattr(nested, "__dataclass_fields__") else None
        found |= {field.name} if inside is None else {f"{field.name}.{name}" for name in inside}
    return found


EVERY = set().union(*(names_of(load_object(algorithm.config)) for algorithm in ALGORITHMS.values()))


def test_what_may_differ_are_options_that_exist_and_the_harmless_ones_are_among_them() -> None:
    assert FREE <= EVERY
    assert FREE >= HARMLESS
    assert not DECISIVE & FREE
    assert EVERY | {"examples", "examples per step"} >= DECISIVE


@pytest.mark.parametrize("name", sorted(DECISIVE))
def test_each_decisive_option_is_refused_and_shown(name: str) -> None:
    checkpoint = Checkpoint(step=1, trainable={}, optimizer={}, config={"seed": 0, "steps": 5, name: 1})
    with pytest.raises(ConfigError, match=f"{name}: 1 then, 2 now"):
        check_config(checkpoint, {"seed": 0, "steps": 5, name: 2})


def test_the_harmless_ones_do_not_refuse(tmp_path: Path) -> None:
    output = tmp_path / "run"
    fit(ToyTask(), toy_config(output), make_accelerator(toy_config(output)))
    moved = tmp_path / "moved"
    output.rename(moved)
    changed = toy_config(
        moved,
        resume="latest",
        workers=1,
        checkpoint_every=1,
        keep_checkpoints=1,
        sample_every=3,
        max_bad_steps=3,
        deterministic=True,
        batch_size=2,
        gradient_accumulation_steps=2,
    )
    assert fit(ToyTask(), changed, make_accelerator(changed)).resumed_from == 6


def test_an_option_that_a_run_did_not_have_is_shown_too() -> None:
    checkpoint = Checkpoint(step=1, trainable={}, optimizer={}, config=flatten({"lora": {"rank": 8}}))
    with pytest.raises(ConfigError) as refused:
        check_config(checkpoint, flatten({"lora": {"rank": 8, "alpha": 4.0}}))
    assert "lora.alpha: None then, 4.0 now" in str(refused.value)


def test_the_precision_that_is_compared_is_the_one_that_is_used(tmp_path: Path) -> None:
    """ "auto" means another one on another machine; named or not, the same one goes on."""
    output = tmp_path / "run"
    begun = toy_config(output, mixed_precision="auto")
    fit(ToyTask(), begun, make_accelerator(begun))
    same = toy_config(output, mixed_precision="no", resume="latest")
    assert fit(ToyTask(), same, make_accelerator(same)).resumed_from == 6
    other = toy_config(output, mixed_precision="bf16", resume="latest")
    with pytest.raises(ConfigError, match="mixed_precision: 'no' then, 'bf16' now"):
        fit(ToyTask(), other, make_accelerator(other))
