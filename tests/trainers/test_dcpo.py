"""DCPO: a caption a side, through both text encoders; with equal captions it is DPO, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.pairs import colour_pairs
from helpers.plain_step import BETA, LORA, plain_loss, shake, twin_with_lora
from helpers.tiny import tiny_pipeline
from helpers.training import FAMILIES, short_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.engine.randomness import Draws
from t2ialign.errors import DataError
from t2ialign.objectives import dpo
from t2ialign.trainers.dcpo import DCPOTask, DCPOTrainer
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.dpo import DiffusionDPOTrainer

WEIGHTS = Path("final") / "pytorch_lora_weights.safetensors"


def task_of(pairs: PairDataset, family: str, prediction_type: str, **changes: Any) -> DCPOTask:
    config = short_config("dcpo", Path("unused"), beta=BETA, **changes)
    config.lora.rank, config.lora.alpha = int(LORA["rank"]), LORA["alpha"]
    resolved = resolve(config, family=family, resolution=64, algorithm="dcpo")
    task = DCPOTask(tiny_model(family, prediction_type), pairs, dpo(BETA), resolved)
    shake(task.module)
    return task


def check_against_the_formula(task: DCPOTask, family: str, prediction_type: str, *, velocity: bool) -> None:
    """Loss and gradient of one step against the plain one, on each side's own caption."""
    batch = task.examples.collate([task.examples.read(index, Draws(0, index)) for index in (0, 1, 5)])
    assert batch.prompts[:3] == [f"a red picture {n}" for n in (0, 1, 1)]
    assert batch.prompts[3:] == [f"a blue one, number {n}" for n in (0, 1, 0)]
    output = task.loss(task.module, batch)
    output.loss.backward()
    other = tiny_pipeline(family, prediction_type)
    reference = copy.deepcopy(other.unet)
    policy = twin_with_lora(other.unet, task.model.unet)
    inputs = {"t": batch.timesteps, "eps": batch.noise, "posterior": batch.posterior, "pixels": batch.pixels}
    loss, margins = plain_loss(other, policy, reference, velocity, {**inputs, "prompts": batch.prompts})
    loss.backward()
    assert margins.abs().min() > 1e-3
    torch.testing.assert_close(output.margin, margins, rtol=1e-4, atol=1e-3)
    ours = {name: part.grad for name, part in task.module.named_parameters() if part.requires_grad}
    for name, part in policy.named_parameters():
        if part.requires_grad:
            mine = ours[name]
            assert mine is not None
            torch.testing.assert_close(mine, part.grad, rtol=2e-3, atol=2e-4 * part.grad.abs().max().item() + 1e-6)


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
def test_each_side_is_trained_on_its_own_caption(rich: PairDataset, family: str, prediction_type: str) -> None:
    task = task_of(rich, family, prediction_type)
    check_against_the_formula(task, family, prediction_type, velocity=prediction_type == "v_prediction")


def test_the_official_preset_holds_v_outputs_against_the_noise(rich: PairDataset) -> None:
    task = task_of(rich, "sd2", "v_prediction", compat="dcpo_official")
    assert task.config.caption_dropout == 0.0
    check_against_the_formula(task, "sd2", "v_prediction", velocity=False)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_with_equal_captions_it_is_dpo_bit_for_bit(tmp_path: Path, family: str, cached: bool) -> None:
    same: dict[str, Any] = {side: lambda n: f"a picture {n % 3}" for side in ("chosen_prompt", "rejected_prompt")}
    pairs = colour_pairs(tmp_path / "pairs", **same)
    options: dict[str, Any] = {"beta": BETA, "cache_text": cached, "cache_latents": cached, "batch_size": 3}
    for algorithm, trainer in (("dpo", DiffusionDPOTrainer), ("dcpo", DCPOTrainer)):
        config = short_config(algorithm, tmp_path / algorithm, **options)
        trainer(config, model=tiny_model(family), pairs=pairs).train()
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("dpo", "dcpo"))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_caches_hold_the_captions_of_both_sides(tmp_path: Path, rich: PairDataset) -> None:
    trainers = []
    for cached in (True, False):
        config = short_config("dcpo", tmp_path / str(cached), beta=BETA, cache_text=cached, steps=1)
        trainers.append(DCPOTrainer(config, model=tiny_model("sdxl"), pairs=rich))
        trainers[-1].train()
    tasks = [trainer.task for trainer in trainers]
    assert tasks[0] is not None
    assert tasks[1] is not None
    assert tasks[0].notes["captions"] == 4 + 5
    batches = [task.examples.collate([task.examples.read(7, Draws(0, 7))]) for task in tasks if task is not None]
    assert batches[0].text is not None
    assert batches[1].text is None
    one, other = tasks[0].condition(batches[0]), tasks[1].condition(batches[1])
    torch.testing.assert_close(one.hidden, other.hidden, rtol=1e-5, atol=1e-5)
    assert one.pooled is not None
    assert other.pooled is not None
    torch.testing.assert_close(one.pooled, other.pooled, rtol=1e-5, atol=1e-5)
    assert not torch.equal(one.hidden[0], one.hidden[1])


def test_a_dropped_caption_is_dropped_on_both_sides(rich: PairDataset) -> None:
    task = task_of(rich, "sd15", "epsilon", caption_dropout=1.0)
    assert task.examples.read(3, Draws(0, 0)).prompts == ("", "")


def test_a_pair_without_captions_is_named_with_the_mend(tmp_path: Path, pairs: PairDataset) -> None:
    with pytest.raises(DataError, match=r"row 0 has no chosen_prompt.*t2ialign data captions"):
        DCPOTrainer(short_config("dcpo", tmp_path / "run"), model=tiny_model(), pairs=pairs).train()
    some = colour_pairs(
        tmp_path / "some", 4, chosen_prompt=lambda n: "red", rejected_prompt=lambda n: None if n == 2 else "blue"
    )
    with pytest.raises(DataError, match="row 2 has no rejected_prompt"):
        DCPOTrainer(short_config("dcpo", tmp_path / "run"), model=tiny_model(), pairs=some).train()
