"""What of FSDP2 needs no second process: what is refused, the twin, tensors that are not in parts."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn

from helpers.tiny import FAMILIES, tiny_unet
from helpers.toy_task import ToyTask, toy_config
from helpers.training import dpo_config
from t2ialign.engine.processes import autocast_of
from t2ialign.engine.sharding import Twin, as_part, check_backend, check_run, gather, local_part, part_of
from t2ialign.errors import ConfigError
from t2ialign.trainers.task import ModelTask


def launched(kind: DistributedType, precision: str = "no", **plugin: Any) -> Any:
    """What the engine asks an accelerator for; its plugin is accelerate's own."""
    state = SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin(**plugin) if plugin else None)
    return SimpleNamespace(distributed_type=kind, mixed_precision=precision, state=state)


@pytest.mark.parametrize("kind", [DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM])
def test_other_backends_are_refused_with_what_to_use(kind: DistributedType) -> None:
    with pytest.raises(ConfigError, match=f"{kind.value} is not supported; launch with FSDP2"):
        check_backend(launched(kind))


@pytest.mark.parametrize(
    ("plugin", "precision", "mend"),
    [
        ({"fsdp_version": 1}, "no", "set fsdp_version: 2"),
        ({"fsdp_version": 2}, "fp16", "use --mixed_precision bf16"),
        ({"fsdp_version": 2, "activation_checkpointing": True}, "no", "use --gradient_checkpointing true"),
        ({"fsdp_version": 2, "cpu_offload": True}, "no", "set it to false"),
    ],
)
def test_settings_that_were_not_tried_are_refused_with_the_mend(
    plugin: dict[str, Any], precision: str, mend: str
) -> None:
    with pytest.raises(ConfigError, match=mend):
        check_backend(launched(DistributedType.FSDP, precision, **plugin))


def test_gradients_are_added_up_in_float32() -> None:
    accelerator = launched(DistributedType.FSDP, "bf16", fsdp_version=2)
    check_backend(accelerator)
    policy = accelerator.state.fsdp_plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("kind", [DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU])
def test_plain_processes_are_let_through(kind: DistributedType) -> None:
    check_backend(launched(kind))


def test_a_task_that_does_not_say_so_is_not_sharded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plain data parallelism"):
        check_run(ToyTask(), toy_config(tmp_path))


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw8bit"])
def test_optimizers_that_look_at_whole_tensors_are_refused(tmp_path: Path, optimizer: str) -> None:
    class Shardable(ToyTask):
        whole_only = None

    check_run(Shardable(), toy_config(tmp_path))
    with pytest.raises(ConfigError, match=rf"optimizer {optimizer} .* --optimizer adamw"):
        check_run(Shardable(), toy_config(tmp_path, optimizer=optimizer))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_twin_holds_nothing_until_it_is_filled_and_nothing_after(family: str) -> None:
    unet = tiny_unet(family).eval()
    twin = Twin(unet)
    assert all(part.is_meta for part in twin.module.parameters())
    parts = dict(unet.named_parameters())
    with twin.filled(parts, torch.device("cpu"), keep=True):
        mine = twin.module.state_dict()
        assert mine.keys() == unet.state_dict().keys()
        assert all(torch.equal(mine[name], value) for name, value in unet.state_dict().items())
        assert type(twin.module) is type(unet)
    assert all(part.is_meta for part in twin.module.parameters())
    assert not any(part.is_meta for part in unet.parameters())
    with twin.filled(parts, torch.device("cpu"), keep=False):
        assert all(part.is_meta for part in twin.module.parameters())


def test_fsdp_casts_the_weights_itself() -> None:
    accelerator: Any = SimpleNamespace(is_fsdp2=True, autocast=None)
    assert autocast_of(accelerator) is nullcontext
    accelerator.is_fsdp2 = False
    assert autocast_of(accelerator) is accelerator.autocast


@pytest.mark.parametrize("name", ["compile", "channels_last"])
def test_what_was_not_tried_on_parts_is_refused(tmp_path: Path, name: str) -> None:
    config = dpo_config(tmp_path, **{name: True}, optimizer="adamw")
    ask: Any = ModelTask.whole_only
    why = ask.fget(SimpleNamespace(_settings=config))
    assert why is not None
    assert f"--{name}" in why
    assert ask.fget(SimpleNamespace(_settings=dpo_config(tmp_path))) is None


def test_whole_tensors_stay_the_very_same() -> None:
    whole = nn.Parameter(torch.ones(3))
    state = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": whole}}, "param_groups": [{"betas": (0.9, 0.99)}]}
    gathered = gather(state, keep=True)
    assert gathered["state"][0]["exp_avg"] is whole
    assert gathered["param_groups"] == [{"betas": (0.9, 0.99)}]
    assert local_part(whole) is whole
    assert as_part(whole, whole) is whole
    assert part_of(whole, whole) is whole
