"""A LoRA out of a checkpoint is the one that the run would have ended with there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from helpers.lora_runs import lora_run
from t2ialign.engine.checkpoints import list_checkpoints
from t2ialign.errors import DataError, ModelError
from t2ialign.models.checkpoint_lora import run_of, save_checkpoint_lora
from t2ialign.models.loading import load_model
from t2ialign.models.lora import WEIGHTS_NAME


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a moving average."""
    return lora_run(tmp_path_factory.mktemp("plain") / "run")


def assert_same_lora(one: Path, two: Path) -> None:
    """The same tensors, and the same metadata, which need not be in one order."""
    ours, theirs = (load_file(folder / WEIGHTS_NAME) for folder in (one, two))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with safe_open(one / WEIGHTS_NAME, "pt") as first, safe_open(two / WEIGHTS_NAME, "pt") as second:
        assert json.loads(first.metadata()["lora_adapter_metadata"]) == json.loads(
            second.metadata()["lora_adapter_metadata"]
        )


def test_the_last_checkpoint_is_the_end_of_the_run(run: Path, tmp_path: Path) -> None:
    last = list_checkpoints(run / "checkpoints")[-1]
    folder = save_checkpoint_lora(last, tmp_path / "last")
    assert_same_lora(folder, run / "final")
    assert (folder / "t2ialign.json").read_bytes() == (run / "final" / "t2ialign.json").read_bytes()


def test_an_earlier_one_is_another_and_holds_what_was_trained(run: Path, tmp_path: Path) -> None:
    first = list_checkpoints(run / "checkpoints")[0]
    folder = save_checkpoint_lora(first, tmp_path / "first")
    ours = load_file(folder / WEIGHTS_NAME)
    trained = load_file(first / "trainable.safetensors")
    assert len(ours) == len(trained)
    plain = {
        name.replace(".lora_A.default.", ".lora.down.").replace(".lora_B.default.", ".lora.up."): value
        for name, value in trained.items()
    }
    for name, value in ours.items():
        assert torch.equal(value, plain[name.removeprefix("unet.")])
    assert any(not torch.equal(value, load_file(run / "final" / WEIGHTS_NAME)[name]) for name, value in ours.items())
    assert load_model(folder).unet is not None


def test_with_a_moving_average_it_is_the_average(tmp_path: Path) -> None:
    run = lora_run(tmp_path / "run", ema=True, ema_decay=0.5)
    last = list_checkpoints(run / "checkpoints")[-1]
    folder = save_checkpoint_lora(last, tmp_path / "last")
    assert_same_lora(folder, run / "final")
    trained = load_file(last / "trainable.safetensors")
    name = next(iter(trained))
    ours = load_file(folder / WEIGHTS_NAME)
    plain = name.replace(".lora_A.default.", ".lora.down.").replace(".lora_B.default.", ".lora.up.")
    assert not torch.equal(ours[f"unet.{plain}"], trained[name])


def test_a_run_still_under_way_has_its_model_from_its_options(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    last = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    folder = save_checkpoint_lora(last, tmp_path / "last")
    assert_same_lora(folder, run / "final")


def test_what_is_no_lora_or_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    last = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    manifest = json.loads((last / "manifest.json").read_text())
    (last / "manifest.json").write_text(json.dumps(manifest | {"config": manifest["config"] | {"method": "full"}}))
    with pytest.raises(ModelError, match="only a LoRA"):
        save_checkpoint_lora(last, tmp_path / "x")
    (last / "manifest.json").write_text(json.dumps(manifest | {"config": manifest["config"] | {"lora.rank": 8}}))
    with pytest.raises(ModelError, match="has shape"):
        save_checkpoint_lora(last, tmp_path / "x")
    (last / "manifest.json").write_text(json.dumps(manifest))
    (last / "trainable.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError):
        save_checkpoint_lora(last, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_run_of_a_place(run: Path, tmp_path: Path) -> None:
    assert run_of(run) == run_of(run / "final") == run
    assert run_of(tmp_path) is None
    assert run_of("mini-sd") is None
