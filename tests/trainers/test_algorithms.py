"""What holds for every algorithm: it trains each family, resumes to the same bits, and a step may be split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.training import FAMILIES, short_config, tiny_model, trainer_of
from t2ialign.data.pairs import PairDataset
from t2ialign.data.unpaired import UnpairedDataset
from t2ialign.engine.metrics import read_metrics
from t2ialign.errors import ConfigError, DataError
from t2ialign.models.loading import load_model

LN_2 = 0.6931471805599453
PPD = {"extractor": "clip:mini-clip", "shots": 2, "embeddings": 1, "shot_pool": 2}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "mapo": {},
    "dcpo": {"beta": 500.0},
    "sft": {},
    "kto": {"beta": 500.0},
    "ppd": {"beta": 500.0, **PPD},
}
FIRST_LOSS = {"dcpo": LN_2, "ppd": LN_2, "kto": 0.5}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ipo": {},
    "hinge": {},
    "orpo": {},
    "cdpo": {},
    "rdpo": {},
    "soft": {},
    "offset": {},
    "fdpo": {"fdpo.divergence": "jensen_shannon"},
    "alpha_dpo": {"alpha_dpo.dynamic": "batch"},
    "modpo": {"modpo.weights": {"good": 0.2, "fine": 0.1}},
    "directional": {"directional.weights": {"good": 1.0}},
    "dr_dpo": {},
    "kl_dro": {},
    "group_robust": {},
    "maxmin": {"maxmin.by": "user_id"},
}
WHOLE_STEP = ("alpha_dpo", "dr_dpo", "kl_dro", "group_robust", "maxmin")


def train(algorithm: str, output: Path, data: PairDataset, *, family: str = "sd15", **changes: Any) -> Any:
    prediction_type = changes.pop("prediction_type", None)
    config = short_config(algorithm, output, **{**ALGORITHMS.get(algorithm, {"beta": 500.0}), **changes})
    given: Any = UnpairedDataset.from_pairs(data) if algorithm in ("sft", "kto") else data
    trainer = trainer_of(algorithm)(config, model=tiny_model(family, prediction_type), pairs=given)
    return trainer, trainer.train()


def weights(output: Path) -> dict[str, torch.Tensor]:
    (file,) = (output / "final").glob("*.safetensors")
    return dict(load_file(file))


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(output / "metrics.jsonl")]


def assert_same(one: Path, other: Path, atol: float) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol)


@pytest.mark.parametrize(("family", "prediction_type"), FAMILIES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_trains_every_family(
    tmp_path: Path, rich: PairDataset, algorithm: str, family: str, prediction_type: str
) -> None:
    output = tmp_path / "run"
    trainer, report = train(
        algorithm, output, rich, family=family, prediction_type=prediction_type, steps=2, sample_every=2
    )
    lines = read_metrics(output / "metrics.jsonl")
    assert report["status"] == "done"
    assert all(line["loss"] is not None and line["grad_norm"] > 0 for line in lines)
    assert lines[0]["loss"] == pytest.approx(FIRST_LOSS.get(algorithm, lines[0]["loss"]), abs=1e-6)
    assert (output / "samples" / "step-000002.png").is_file()
    assert trainer.task.algorithm == algorithm
    assert report["algorithm"] == algorithm
    assert (output / "final" / "README.md").is_file()
    assert sum(tensor.numel() for tensor in weights(output).values()) == report["model"]["trainable_parameters"]


@pytest.mark.parametrize("algorithm", ["mapo", "dcpo", "sft", "kto"])
def test_it_trains_every_weight(tmp_path: Path, rich: PairDataset, algorithm: str) -> None:
    _, report = train(algorithm, tmp_path / "run", rich, method="full", steps=2, learning_rate=1e-4)
    assert report["model"]["trainable_parameters"] == report["model"]["parameters"]
    load_model(tmp_path / "run" / "final")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains(tmp_path: Path, rich: PairDataset, objective: str) -> None:
    options: dict[str, Any] = {"objective": objective, **OBJECTIVES[objective]}
    trainer, _ = train("dpo", tmp_path / "run", rich, steps=3, **options)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert all(line["loss"] is not None and line["grad_norm"] > 0 for line in lines)
    assert lines[-1]["margin"] != lines[0]["margin"]
    assert (trainer.task.reference is None) == (objective == "orpo")


SPLIT: list[tuple[str, dict[str, Any]]] = [
    ("mapo", {}),
    ("kto", {}),
    ("ppd", {}),
    *(("dpo", {"objective": name, **OBJECTIVES[name]}) for name in WHOLE_STEP),
]


@pytest.mark.parametrize(("algorithm", "changes"), SPLIT, ids=lambda value: str(value)[:40])
def test_a_step_of_four_is_four_of_one(
    tmp_path: Path, rich: PairDataset, algorithm: str, changes: dict[str, Any]
) -> None:
    rate: dict[str, Any] = {"learning_rate": 2e-4, "beta": 200.0, **changes}
    if algorithm == "mapo":
        rate["beta"] = 0.1
    train(algorithm, tmp_path / "whole", rich, batch_size=4, **rate)
    train(algorithm, tmp_path / "parts", rich, batch_size=1, gradient_accumulation_steps=4, **rate)
    assert_same(tmp_path / "whole", tmp_path / "parts", atol=1e-5)
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "parts"), abs=1e-4)


RESUMED: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ALGORITHMS),
    ("dpo", {"objective": "group_robust"}),
    ("dpo", {"objective": "dr_dpo"}),
    ("dpo", {"curriculum_stages": 2}),
]


@pytest.mark.parametrize(("algorithm", "changes"), RESUMED, ids=lambda value: str(value)[:40])
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, rich: PairDataset, algorithm: str, changes: dict[str, Any]
) -> None:
    options: dict[str, Any] = {
        "lr_scheduler": "constant",
        "gradient_accumulation_steps": 2,
        "checkpoint_every": 1,
        "ema": True,
    }
    options |= {"gradient_accumulation_steps": 2, **changes}
    train(algorithm, tmp_path / "straight", rich, **options)
    train(algorithm, tmp_path / "other", rich, **options)
    checkpoint = tmp_path / "other" / "checkpoints" / "step-000002"
    _, report = train(algorithm, tmp_path / "other", rich, **options, resume=str(checkpoint))
    assert report["resumed_from"] == 2
    assert_same(tmp_path / "straight", tmp_path / "other", atol=0)
    assert losses(tmp_path / "straight") == losses(tmp_path / "other")
    folders = [tmp_path / name / "checkpoints" / "step-000004" for name in ("straight", "other")]
    for file in folders[0].glob("*.safetensors"):
        assert file.read_bytes() == (folders[1] / file.name).read_bytes(), file.name


def test_the_state_of_an_objective_is_in_the_checkpoint_and_fits_no_other(tmp_path: Path, rich: PairDataset) -> None:
    options: dict[str, Any] = {"objective": "group_robust", "checkpoint_every": 2, "lr_scheduler": "constant"}
    trainer, _ = train("dpo", tmp_path / "run", rich, **options)
    state = load_file(tmp_path / "run" / "checkpoints" / "step-000004" / "task.safetensors")
    assert state["objective"].shape == (3,)
    assert state["objective"].sum().item() == pytest.approx(1.0)
    assert not torch.equal(state["objective"], torch.full((3,), 1 / 3))
    with pytest.raises(DataError, match="state of the objective"):
        trainer.task.load_state({"objective": torch.ones(2)})
    with pytest.raises(DataError, match="state of the objective"):
        trainer.task.load_state({})


def test_a_curriculum_does_not_resume_into_a_run_of_another_length(tmp_path: Path, rich: PairDataset) -> None:
    options: dict[str, Any] = {"curriculum_stages": 2, "lr_scheduler": "constant", "checkpoint_every": 2}
    train("dpo", tmp_path / "run", rich, **options)
    with pytest.raises(ConfigError, match="steps of the curriculum"):
        train("dpo", tmp_path / "run", rich, **options, steps=8, resume="latest")
    straight: dict[str, Any] = {**options, "curriculum_stages": 1}
    train("dpo", tmp_path / "other", rich, **straight)
    _, report = train("dpo", tmp_path / "other", rich, **straight, steps=6, resume="latest")
    assert report["steps"] == 6


def test_without_a_reference_none_is_ever_made(
    tmp_path: Path, rich: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every weight trained, the only copy of the UNet would be the reference."""
    import copy

    copied = []
    plain = copy.deepcopy

    def watched(value: Any, *more: Any) -> Any:
        copied.append(type(value).__name__)
        return plain(value, *more)

    monkeypatch.setattr(copy, "deepcopy", watched)
    for algorithm in ("mapo", "sft"):
        trainer, _ = train(algorithm, tmp_path / algorithm, rich, method="full", steps=1)
        assert trainer.task.reference is None
    assert "UNet2DConditionModel" not in copied
    train("dpo", tmp_path / "dpo", rich, method="full", steps=1)
    assert "UNet2DConditionModel" in copied
