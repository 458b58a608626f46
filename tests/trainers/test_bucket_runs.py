"""Runs on pictures of many shapes: every algorithm; resumed, split, cached, with broken pairs, in two processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.pairs import picture
from helpers.training import dpo_config, short_config, tiny_model, trainer_of
from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.checkpoints import list_checkpoints
from t2ialign.engine.metrics import read_metrics
from t2ialign.errors import ConfigError

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "train_tiny.py"
LN_2 = 0.6931471805599453
SHAPES = [
    (64, 64),
    (96, 96),
    (80, 48),
    (48, 80),
    (128, 32),
    (64, 64),
    (90, 50),
    (64, 64),
    (30, 130),
    (51, 82),
    (64, 70),
]
BUCKETS: dict[str, Any] = {"aspect_buckets": True, "bucket_step": 8}
PPD = {"extractor": "clip:mini-clip", "shots": 2, "embeddings": 1, "shot_pool": 2}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 500.0},
    "mapo": {},
    "dcpo": {"beta": 500.0},
    "sft": {},
    "kto": {"beta": 500.0},
    "ppd": {"beta": 500.0, **PPD},
}
STEADY: dict[str, Any] = {"adam_epsilon": 1e-2}
"""So that Adam does not blow up the last bits of tiny gradients, in which two ways of adding up differ."""
TAME: dict[str, Any] = {**STEADY, "beta": 20.0}
"""Nor the loss those of the errors, which it multiplies by half of beta."""
FIRST_LOSS = {"dpo": LN_2, "dcpo": LN_2, "ppd": LN_2, "kto": 0.5}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """Fourteen pairs of eleven shapes; the sides of a pair differ in size, those of some in shape."""
    rows: list[dict[str, Any]] = []
    for number in range(14):
        width, height = SHAPES[number % len(SHAPES)]
        other = (height, width) if number == 6 else (2 * width, 2 * height + number % 3)
        rows.append(
            {
                "prompt": f"a picture {number % 3}",
                "chosen": picture((200, 30, 30), 2 * number, (width, height)),
                "rejected": picture((30, 30, 200), 2 * number + 1, other),
                "chosen_prompt": f"a red picture {number % 4}",
                "rejected_prompt": "a blue one",
                "user_id": "ann" if number % 2 else "bob",
            }
        )
    return load_pairs(write_pairs(rows, tmp_path_factory.mktemp("mixed") / "pairs"))


def train(algorithm: str, output: Path, data: PairDataset, *, family: str = "sd15", **changes: Any) -> Any:
    config = short_config(algorithm, output, **{**ALGORITHMS[algorithm], **BUCKETS, **changes})
    given: Any = UnpairedDataset.from_pairs(data) if algorithm in ("sft", "kto") else data
    trainer = trainer_of(algorithm)(config, model=tiny_model(family), pairs=given)
    return trainer, trainer.train()


def weights(output: Path) -> dict[str, torch.Tensor]:
    (file,) = (output / "final").glob("*.safetensors")
    return dict(load_file(file))


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(output / "metrics.jsonl")]


def assert_same(one: Path, other: Path, atol: float = 0.0) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol)


def stop_at(output: Path, step: int) -> None:
    """Makes a finished run one that was killed after a step."""
    for path in list_checkpoints(output / "checkpoints"):
        if int(path.name[-6:]) > step:
            shutil.rmtree(path)
    shutil.rmtree(output / "final")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_trains_in_buckets(tmp_path: Path, mixed: PairDataset, algorithm: str) -> None:
    trainer, report = train(algorithm, tmp_path / "run", mixed, steps=6, cache_latents=False)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert all(line["loss"] is not None and line["grad_norm"] > 0 for line in lines)
    assert lines[0]["loss"] == pytest.approx(FIRST_LOSS.get(algorithm, lines[0]["loss"]), abs=1e-6)
    told = report["buckets"]
    assert told == trainer.task.examples.bucketing.report(2)
    assert sum(row["entries"] for row in told["table"]) == len(trainer.task.examples)
    assert len(told["table"]) > 4
    assert told["cut"]["mean"] < told["cut_as_squares"]["mean"] / 2
    assert lines[-1]["epoch"] == pytest.approx(12 / told["examples_per_epoch"])


def test_sdxl_trains_in_buckets_with_a_cache_as_without(tmp_path: Path, mixed: PairDataset) -> None:
    for cached in (True, False):
        options = {"family": "sdxl", "steps": 5, "cache_latents": cached, "cache_text": cached, **TAME}
        _, report = train("dpo", tmp_path / str(cached), mixed, **options)
        assert report["cached"]["latents"] == cached
    assert_same(tmp_path / "True", tmp_path / "False", atol=1e-5)
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), abs=1e-5)


@pytest.mark.parametrize(("step", "workers"), [(3, 0), (9, 0), (4, 2)])
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, mixed: PairDataset, step: int, workers: int
) -> None:
    """In the first epoch, which has 22 examples or so, and in the second one."""
    options: dict[str, Any] = {"steps": 13, "lr_scheduler": "constant", "checkpoint_every": 1, "keep_checkpoints": 0}
    options |= {"crop": "random", "flip": "joint"}
    train("dpo", tmp_path / "run", mixed, **options)
    straight = weights(tmp_path / "run"), losses(tmp_path / "run")
    stop_at(tmp_path / "run", step)
    _, report = train("dpo", tmp_path / "run", mixed, resume="latest", workers=workers, **options)
    assert report["resumed_from"] == step
    resumed = weights(tmp_path / "run")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in straight[0].items())
    assert losses(tmp_path / "run") == straight[1]


@pytest.mark.parametrize(
    ("algorithm", "changes"), [("dpo", {}), ("dpo", {"objective": "dr_dpo"}), ("kto", {}), ("sft", {})], ids=str
)
def test_a_step_of_two_buckets_is_the_same_however_it_is_split(
    tmp_path: Path, mixed: PairDataset, algorithm: str, changes: dict[str, Any]
) -> None:
    """Groups of two in steps of four: losses over the whole step see the examples of both buckets."""
    same = {"bucket_group": 2, "steps": 5, **(STEADY if algorithm == "sft" else TAME), **changes}
    train(algorithm, tmp_path / "two", mixed, batch_size=2, gradient_accumulation_steps=2, **same)
    train(algorithm, tmp_path / "one", mixed, batch_size=1, gradient_accumulation_steps=4, **same)
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), abs=1e-5)
    assert_same(tmp_path / "one", tmp_path / "two", atol=1e-5)


def test_a_run_goes_on_under_another_split_but_not_in_other_buckets(tmp_path: Path, mixed: PairDataset) -> None:
    options: dict[str, Any] = {"steps": 4, "lr_scheduler": "constant", "checkpoint_every": 2}
    train("dpo", tmp_path / "run", mixed, batch_size=2, gradient_accumulation_steps=2, **options)
    stop_at(tmp_path / "run", 2)
    again: dict[str, Any] = {**options, "resume": "latest", "batch_size": 1, "gradient_accumulation_steps": 4}
    with pytest.raises(ConfigError, match="bucket_group: 2 then, 1 now"):
        train("dpo", tmp_path / "run", mixed, **again)
    with pytest.raises(ConfigError, match=r"buckets: '[0-9a-f]{16}' then"):
        train("dpo", tmp_path / "run", mixed, **again, bucket_group=2, bucket_ratio=2.0)
    with pytest.raises(ConfigError, match="aspect_buckets: True then, False now"):
        train("dpo", tmp_path / "run", mixed, **{**again, "aspect_buckets": False, "bucket_step": None})
    _, report = train("dpo", tmp_path / "run", mixed, **again, bucket_group=2)
    assert report["resumed_from"] == 2


def test_a_broken_pair_is_replaced_by_one_of_its_bucket(tmp_path: Path) -> None:
    shapes = [(64, 64), (80, 48)] * 4
    lines = []
    for number, size in enumerate(shapes):
        picture((200, 30, 30), number, size).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"prompt": "a", "chosen": f"{number}.png", "rejected": f"{number}.png"}))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    output = tmp_path / "run"
    more: dict[str, Any] = {"steps": 5, "on_bad_pair": "drop", "max_bad_share": 0.5, "cache_latents": False}
    _, report = train("dpo", output, load_pairs(tmp_path), **more)
    assert report["bad_pairs"]["count"] == 2
    assert report["buckets"]["unread"] == 1
    assert all(loss is not None for loss in losses(output))


def test_options_out_of_range_are_refused(tmp_path: Path, mixed: PairDataset) -> None:
    for wrong in ({"bucket_step": 12}, {"bucket_step": 0}, {"bucket_ratio": 0.5}, {"bucket_group": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            dpo_config(tmp_path, **wrong)
    with pytest.raises(ConfigError, match="multiple of the batch size"):
        train("dpo", tmp_path / "run", mixed, bucket_group=3)
    with pytest.raises(ConfigError, match="choose a smaller bucket_step"):
        train("dpo", tmp_path / "run", mixed, bucket_step=40)


@pytest.mark.slow
def test_two_processes_with_a_bucket_each_do_the_run_of_one(
    tmp_path: Path, mixed: PairDataset, tmp_path_factory: pytest.TempPathFactory, run_tiny: Callable[..., None]
) -> None:
    folder = next(tmp_path_factory.getbasetemp().glob("mixed*")) / "pairs"
    options = {**BUCKETS, **TAME, "bucket_group": 2, "batch_size": 2}
    for processes in (1, 2):
        told = json.dumps({**options, "gradient_accumulation_steps": 2 // processes})
        run_tiny("dpo", told, tmp_path / str(processes), folder, 6, processes=processes)
    alone, together = (read_metrics(tmp_path / name / "metrics.jsonl") for name in "12")
    assert len(alone) == len(together) == 6
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert_same(tmp_path / "1", tmp_path / "2", atol=1e-5)


@pytest.fixture
def run_tiny() -> Callable[..., None]:
    """Trains in processes of their own."""
    import os

    def run(*arguments: object, processes: int) -> None:
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        path = os.pathsep.join([str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")])
        own = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            [*launcher, str(SCRIPT), *map(str, arguments)], env=own, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run
