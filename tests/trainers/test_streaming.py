"""Training on streamed sets: the run that the same set gives when it is opened whole, and exact resume."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import resuming
from helpers.hub_server import dataset_hub
from helpers.resuming import assert_same_run, lines, trainer_for
from helpers.shards import heavy_pair, write_shards
from t2ialign.cli.train import load_object
from t2ialign.config import load
from t2ialign.data import shards
from t2ialign.data.pairs import load_pairs
from t2ialign.data.sources import BUFFER_MIB
from t2ialign.data.streaming import BLOCKS_AT_ONCE, StreamedRows
from t2ialign.engine.order import WINDOW, Schedule
from t2ialign.errors import ConfigError, SourceError
from t2ialign.trainers.preference_config import PreferenceConfig
from t2ialign.trainers.registry import ALGORITHMS

BARE: dict[str, Any] = {"cache_latents": False, "streaming_buffer": 1}
"""Pictures are read in every step."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs in eighteen row groups and four shards, of which a quarter MiB is two or three row groups."""
    top = tmp_path_factory.mktemp("streamed")
    rows = [heavy_pair(n, margin=0.1 * (n * 7 % 40), group=f"group {n % 3}") for n in range(40)]
    write_shards(top / "pairs", [[2, 2, 2, 2, 2], [3, 1, 3], [4, 2, 1, 1, 2], [3, 2, 3, 3, 2]], rows)
    return top


def run(case: str, folder: Path, output: Path, **options: Any) -> dict[str, Any]:
    report: dict[str, Any] = trainer_for(case, folder, output, **{**BARE, **options}).train()
    return report


def resumed(case: str, folder: Path, whole: Path, output: Path, step: int, **options: Any) -> Any:
    """Goes on from a step of a straight run, as a kill behind it leaves the folder."""
    shutil.copytree(whole, output)
    shutil.rmtree(output / "final")
    for later in (output / "checkpoints").glob("step-*"):
        if int(later.name[5:]) > step:
            shutil.rmtree(later)
    trainer = trainer_for(case, folder, output, **{**BARE, "resume": "latest", "streaming": True, **options})
    trainer.train()
    return trainer


def test_what_must_agree_agrees() -> None:
    assert BLOCKS_AT_ONCE == WINDOW
    default = PreferenceConfig.__dataclass_fields__["streaming_buffer"].default
    assert default == BUFFER_MIB == inspect.signature(load_pairs).parameters["buffer_mib"].default
    config = load_object(ALGORITHMS["dpo"].config)
    with pytest.raises(ConfigError, match="streaming_buffer is 0; it must be at least 1"):
        load(config, None, {"pairs": "x", "output_dir": "x", "model": "x", "streaming_buffer": 0})


@pytest.mark.parametrize("case", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_streamed_in_one_block_is_the_run_of_the_set_opened_whole(tmp_path: Path, folder: Path, case: str) -> None:
    options = {"crop": "random", "flip": "joint", "caption_dropout": 0.2, "steps": 4}
    whole = run(case, folder, tmp_path / "whole", **options)
    streamed = run(case, folder, tmp_path / "streamed", streaming=True, streaming_buffer=512, **options)
    assert lines(tmp_path / "streamed") == lines(tmp_path / "whole")
    assert_same_weights(tmp_path / "streamed", tmp_path / "whole")
    assert whole["pairs"]["streamed"] is None
    assert streamed["pairs"]["streamed"] | {"bytes": 0} == {"shards": 4, "row_groups": 18, "bytes": 0, "commit": None}
    assert streamed["pairs"]["count"] == whole["pairs"]["count"]


def assert_same_weights(one: Path, other: Path) -> None:
    mine, theirs = (load_file(folder / "final/pytorch_lora_weights.safetensors") for folder in (one, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Callable[..., Path]:
    """Makes a run of thirteen steps, an epoch being ten, once for each set of options."""
    top = tmp_path_factory.mktemp("straight")

    def make(case: str, **options: Any) -> Path:
        output = top / (case + json.dumps(options)).replace(" ", "-").replace('"', "")
        if not output.exists():
            run(case, folder, output, streaming=True, steps=13, **options)
        return output

    return make


@pytest.mark.parametrize(("step", "workers"), [pytest.param(3, 0, marks=pytest.mark.slow), (7, 2), (12, 0)])
def test_resume_is_the_straight_run_and_replays_nothing(
    tmp_path: Path, folder: Path, straight: Callable[..., Path], step: int, workers: int
) -> None:
    whole = straight("dpo")
    trainer = resumed("dpo", folder, whole, tmp_path / "run", step, steps=13, workers=workers)
    assert_same_run(tmp_path / "run", whole)
    rows = trainer.pairs._table.dataset
    assert isinstance(rows, StreamedRows)
    if workers:
        assert rows.groups.fetched == 0  # the training process reads nothing itself
        return
    assert len(groups_read(trainer, step)) - 4 * 3 <= rows.groups.fetched <= len(groups_read(trainer, step))
    assert rows.groups.fetched <= {3: 24, 12: 4}[step]


def groups_read(trainer: Any, step: int) -> set[tuple[int, int]]:
    """Epoch and row group of all examples from a step on, by the order of the run."""
    config, pairs = trainer.config, trainer.pairs
    schedule = Schedule(config.seed, len(pairs), config.steps, config.batch_size, 2, blocks=pairs.blocks)
    place = pairs._table.dataset.groups.place
    return {(n // len(pairs), place(pairs.row(schedule.index(n)))[0]) for n in range(step * 4, config.steps * 4)}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["curriculum", "group robust", "sft"])
def test_other_algorithms_resume_too(tmp_path: Path, folder: Path, straight: Callable[..., Path], case: str) -> None:
    whole = straight(case)
    resumed(case, folder, whole, tmp_path / "run", 7, steps=13, workers=2)
    assert_same_run(tmp_path / "run", whole)


def test_another_buffer_is_another_order_and_is_refused(
    tmp_path: Path, folder: Path, straight: Callable[..., Path]
) -> None:
    whole = straight("dpo")
    with pytest.raises(ConfigError, match=r"streaming_buffer: 1 then, 2 now"):
        resumed("dpo", folder, whole, tmp_path / "run", 3, steps=13, streaming_buffer=2)
    with pytest.raises(ConfigError, match=r"streaming: True then, False now"):
        resumed("dpo", folder, whole, tmp_path / "other", 3, steps=13, streaming=False)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_shard_that_vanishes_ends_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, folder: Path, straight: Callable[..., Path], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "WAITS", (0.01,) * 4)
    whole = straight("dpo")
    shutil.copytree(folder / "pairs", tmp_path / "pairs")
    options = {
        "pairs": str(folder / "pairs"),
        "steps": 13,
        "workers": workers,
        "on_bad_pair": "drop",
        "streaming": True,
    }
    trainer = trainer_for("dpo", folder, tmp_path / "run", **{**BARE, **options})
    trainer.pairs = load_pairs(tmp_path / "pairs", streaming=True, buffer_mib=1)
    assert trainer.pairs.fingerprint
    gone = tmp_path / "pairs/train-00002-of-00004.parquet"
    away = gone.rename(tmp_path / "away")
    with pytest.raises(SourceError) as caught:
        trainer.train()
    assert str(caught.value).startswith("train-00002-of-00004.parquet, row group ")
    assert str(caught.value).count("\n") == 0
    kept = sorted((tmp_path / "run/checkpoints").glob("step-*"))
    assert kept
    away.rename(gone)
    again = trainer_for("dpo", folder, tmp_path / "run", **{**BARE, **options, "resume": "latest"})
    again.train()
    assert lines(tmp_path / "run") == lines(whole)
    assert_same_weights(tmp_path / "run", whole)


@pytest.mark.slow
def test_two_processes_stream_the_run_of_one_and_resume_exactly(
    tmp_path: Path, folder: Path, straight: Callable[..., Path]
) -> None:
    whole, output = straight("dpo"), tmp_path / "run"
    options = {**BARE, "streaming": True, "steps": 13, "gradient_accumulation_steps": 1, "workers": 1}
    launch(folder, output, options)
    for one, two in zip(lines(whole), lines(output), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    shutil.copytree(output, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/final")
    for later in (tmp_path / "resumed/checkpoints").glob("step-*"):
        if int(later.name[5:]) > 7:
            shutil.rmtree(later)
    launch(folder, tmp_path / "resumed", {**options, "resume": "latest", "workers": 0})
    assert lines(tmp_path / "resumed") == lines(output)
    assert_same_weights(tmp_path / "resumed", output)


def launch(folder: Path, output: Path, options: dict[str, Any]) -> None:
    """Runs DPO in two processes."""
    script = Path(resuming.__file__)
    path = os.pathsep.join([str(script.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, str(script), "dpo", str(folder), str(output), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_a_run_from_the_hub_stays_at_its_commit(tmp_path: Path, folder: Path, straight: Callable[..., Path]) -> None:
    (tmp_path / "old/own/er").mkdir(parents=True)
    shutil.copytree(folder / "pairs", tmp_path / "old/own/er/data")
    write_shards(tmp_path / "new/own/er/data", [[3], [3]], [heavy_pair(n) for n in range(6)])
    options = {**BARE, "pairs": "own/er", "streaming": True, "steps": 13, "workers": 1, "signal_at": {"0": 10}}
    with dataset_hub(tmp_path / "old") as hub:
        old, own = hub.commit, {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        own["HF_HOME"] = str(tmp_path / "home")
        output = tmp_path / "run"
        assert from_hub(own, output, options).returncode == 0
        assert json.loads((output / "report.json").read_text())["pairs"]["streamed"]["commit"] == old
        assert f"pairs_revision: '{old}'" in (output / "config.yaml").read_text()
        hub.commits[old], hub.root, hub.commit = hub.root, tmp_path / "new", "2" * 40
        again = {**options, "resume": "latest", "signal_at": {}}
        refused = from_hub(own, output, again)
        assert refused.returncode != 0
        assert "examples: " in refused.stderr
        assert f"pairs_revision: '{old}'" in (output / "config.yaml").read_text()
        assert from_hub(own, output, again | {"pairs_revision": old}).returncode == 0
    assert lines(output) == lines(straight("dpo"))
    assert_same_weights(output, straight("dpo"))


def from_hub(environment: dict[str, str], output: Path, options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Runs DPO in a process that knows a hub."""
    command = [sys.executable, resuming.__file__, "dpo", "nowhere", str(output), json.dumps(options)]
    path = os.pathsep.join([str(Path(resuming.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    known = {**os.environ, **environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(command, env=known, capture_output=True, text=True, timeout=300, check=False)
