from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from t2ialign.engine.config import TrainConfig, known
from t2ialign.engine.processes import choose_precision, make_accelerator
from t2ialign.engine.resume import check_output, flatten
from t2ialign.errors import ConfigError


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"adam_beta2": 1.0},
        {"ema_decay": 1.5},
        {"seed": -1},
        {"optimizer": "sgd"},
        {"lr_scheduler": "sawtooth"},
        {"mixed_precision": "fp8"},
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        TrainConfig(output_dir=Path("run"), **options)


def test_a_value_that_nobody_filled_is_an_error() -> None:
    assert known(3, "steps") == 3
    with pytest.raises(ConfigError, match="--steps"):
        known(None, "steps")


def test_fp16_on_a_cpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        make_accelerator(TrainConfig(output_dir=tmp_path, mixed_precision="fp16"))


def test_the_precision_asked_for_is_taken() -> None:
    assert choose_precision("bf16") == "bf16"


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="notebook"):
        make_accelerator(TrainConfig(output_dir=tmp_path, tracker="notebook"))


def test_a_folder_may_be_new_or_empty(tmp_path: Path) -> None:
    check_output(tmp_path / "new", None)
    check_output(tmp_path, None)
    (tmp_path / "file").touch()
    check_output(tmp_path, "latest")
    with pytest.raises(ConfigError, match="--resume latest"):
        check_output(tmp_path, None)


def test_nested_options_become_flat_and_plain() -> None:
    nested = {"a": {"b": (1, 2), "c": Path("x")}, "d": None}
    assert flatten(nested) == {"a.b": [1, 2], "a.c": "x", "d": None}


def test_a_checkpoint_of_another_run_is_refused_for_a_new_folder_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is of another run"):
        check_output(tmp_path / "new", str(tmp_path / "old/checkpoints/step-000100"))
    check_output(tmp_path / "old", str(tmp_path / "old/checkpoints/step-000100"))
