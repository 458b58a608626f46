"""Options: ranges, and which models, adapters and labels go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from t2ialign.config import parse_arguments
from t2ialign.errors import ConfigError
from t2ialign.generation.labels import Variant, model_label, user_label, variants
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
        ("user_guidance_scale", -1.0, "user_guidance_scale is -1"),
        ("user_guidance_scale", float("inf"), "user_guidance_scale is inf"),
        ("user_guidance_scale", 2.0, "no user is given"),
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
    assert variants(options(model=["mini-sd"])) == [Variant("mini-sd", None, None, "mini-sd")]
    one = options(model=["mini-sd"], adapter=["none", "runs/first/final", "runs/second/final"])
    assert variants(one) == [
        Variant("mini-sd", None, None, "mini-sd"),
        Variant("mini-sd", "runs/first/final", None, "first"),
        Variant("mini-sd", "runs/second/final", None, "second"),
    ]
    two = options(model=["org/one", "org/two"], adapter=["none", "r/final"], label=["base", "tuned"])
    assert variants(two) == [Variant("org/one", None, None, "base"), Variant("org/two", "r/final", None, "tuned")]


def test_users_are_one_or_one_for_each() -> None:
    run, alice, mix = "runs/ppd/final", "u/alice.safetensors", "a.safetensors:0.3,u/b.safetensors:0.7"
    several = options(model=["mini-sd"], adapter=[run], user=["none", alice, mix])
    assert variants(several) == [
        Variant("mini-sd", run, None, "ppd"),
        Variant("mini-sd", run, alice, "ppd-alice"),
        Variant("mini-sd", run, mix, "ppd-0.3-a-0.7-b"),
    ]
    assert variants(options(model=[run], user=[alice])) == [Variant(run, None, alice, "ppd-alice")]
    each = options(model=["mini-sd"], adapter=["none", run, "runs/two/final"], user=["none", alice, alice])
    assert [(v.adapter, v.user, v.label) for v in variants(each)] == [
        (None, None, "mini-sd"),
        (run, alice, "ppd-alice"),
        ("runs/two/final", alice, "two-alice"),
    ]
    one = options(model=["runs/one/final", "runs/two/final"], user=[alice])
    assert [(v.model, v.user) for v in variants(one)] == [("runs/one/final", alice), ("runs/two/final", alice)]
    named = options(model=[run], user=["none", alice], label=["base", "hers"])
    assert [v.label for v in variants(named)] == ["base", "hers"]
    with pytest.raises(ConfigError, match="3 users for 2 models"):
        options(model=["a", "b"], user=["none", alice, mix])
    with pytest.raises(ConfigError, match="1 labels for 2 models"):
        options(model=["a"], user=["none", alice], label=["x"])
    with pytest.raises(ConfigError, match="both be called 'ppd-alice'"):
        variants(options(model=[run], user=["here/alice.safetensors", "there/alice.safetensors"]))
    with pytest.raises(ConfigError, match="'much'"):
        variants(options(model=[run], user=["a.safetensors:much"]))


def test_users_on_a_command_line() -> None:
    needed = ["--model", "m", "--prompts", "p.txt", "--output_dir", "o"]
    given = ["--user", "a.safetensors:0.3,b.safetensors:0.7", "--user", "none", "--user_guidance_scale", "2"]
    read = parse_arguments(GenerateOptions, [*needed, *given], "t2ialign")
    assert read.user == ["a.safetensors:0.3,b.safetensors:0.7", "none"]
    assert read.user_guidance_scale == 2.0


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("users/alice.safetensors", "alice"),
        ("users/alice.safetensors:1", "alice"),
        ("alice.safetensors:0.5", "0.5-alice"),
        ("alice.safetensors:-0.5,bob smith.safetensors", "-0.5-alice-1-bob-smith"),
    ],
)
def test_user_label(spec: str, label: str) -> None:
    assert user_label(spec) == label


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
        ("base", "runs/first/final/user_adapter.safetensors", "first"),
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
