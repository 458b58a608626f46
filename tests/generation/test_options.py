"""Options: ranges, and which models, adapters and labels go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from t2ialign.errors import ConfigError
from t2ialign.generation.labels import model_label, variants
from t2ialign.generation.options import GenerateOptions


def options(**more: Any) -> GenerateOptions:
    return GenerateOptions(**{"model": ["a"], "prompts": "p.txt", "output_dir": Path("out"), **more})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("images_per_prompt", 0, "images_per_prompt is 0"),
        ("num_inference_steps", 0, "num_inference_steps is 0"),
        ("batch_size", -1, "batch_size is -1"),
        ("limit", 0, "limit is 0"),
        ("guidance_scale", -0.5, "guidance_scale is -0.5"),
        ("height", 60, "height is 60"),
        ("width", 4, "width is 4"),
        ("model", [], "no model"),
        ("label", ["a", "b"], "2 labels for 1 models"),
        ("label", ["../up"], "cannot be a folder"),
        ("label", [".."], "cannot be a folder"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**{name: value})


def test_adapters_must_fit_the_models() -> None:
    with pytest.raises(ConfigError, match="3 adapters for 2 models"):
        options(model=["a", "b"], adapter=["x", "y", "z"])
    with pytest.raises(ConfigError, match="given twice"):
        options(model=["a", "b"], label=["x", "x"])


def test_variants() -> None:
    assert variants(options(model=["mini-sd"])) == [("mini-sd", None, "mini-sd")]
    one = options(model=["mini-sd"], adapter=["none", "runs/first/final", "runs/second/final"])
    assert variants(one) == [
        ("mini-sd", None, "mini-sd"),
        ("mini-sd", "runs/first/final", "first"),
        ("mini-sd", "runs/second/final", "second"),
    ]
    two = options(model=["org/one", "org/two"], adapter=["none", "r/final"], label=["base", "tuned"])
    assert variants(two) == [("org/one", None, "base"), ("org/two", "r/final", "tuned")]


def test_equal_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="both be called 'model'"):
        variants(options(model=["here/model", "there/model"]))


@pytest.mark.parametrize(
    ("model", "adapter", "label"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", None, "stable-diffusion-v1-5"),
        ("checkpoints/dream.safetensors", None, "dream"),
        ("runs/first/final", None, "first"),
        ("base", "runs/first/final/pytorch_lora_weights.safetensors", "first"),
        ("a b:c", None, "a-b-c"),
    ],
)
def test_model_label(model: str, adapter: str | None, label: str) -> None:
    assert model_label(model, adapter) == label


def test_options_module_is_light() -> None:
    """The command line imports it for --help."""
    import subprocess
    import sys

    code = "import sys, t2ialign.generation.options; print('torch' in sys.modules, 'PIL' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]
