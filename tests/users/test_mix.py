"""Mixes: how they are written, and that they are sums by the weights as given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from t2ialign.errors import ConfigError, DataError
from t2ialign.users.files import UserEmbedding, save_user
from t2ialign.users.mix import load_mix, parse_mix


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("a.safetensors", [("a.safetensors", 1.0)]),
        ("a.safetensors:0.3,b.safetensors:0.7", [("a.safetensors", 0.3), ("b.safetensors", 0.7)]),
        ("u/a.safetensors, u/b.safetensors:-1e-1", [("u/a.safetensors", 1.0), ("u/b.safetensors", -0.1)]),
        ("http:x.safetensors", [("http:x.safetensors", 1.0)]),
        ("x:y.safetensors:2", [("x:y.safetensors", 2.0)]),
    ],
)
def test_a_mix_is_read(spec: str, parts: list[tuple[str, float]]) -> None:
    assert parse_mix(spec) == parts


@pytest.mark.parametrize("spec", ["", "a.safetensors,", ":0.5", "a.safetensors:much", "a.safetensors:nan", "a:inf"])
def test_what_is_no_mix_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse_mix(spec)


def files(folder: Path) -> tuple[Path, Path]:
    tokens = {"ann": [[[1.0, 2.0]], [[3.0, 4.0]]], "bob": [[[10.0, -10.0]]]}
    made = [
        save_user(
            UserEmbedding(name, torch.tensor(values), "x:y@1", (("s",),) * len(values), "set"),
            folder / f"{name}.safetensors",
        )
        for name, values in tokens.items()
    ]
    return made[0], made[1]


def test_a_mix_is_the_weighted_sum_of_means(tmp_path: Path) -> None:
    ann, bob = files(tmp_path)
    label, tokens, extractor = load_mix(f"{ann}:0.5,{bob}:0.2")
    assert torch.allclose(tokens, torch.tensor([[0.5 * 2 + 0.2 * 10, 0.5 * 3 - 0.2 * 10]]))
    assert (label, extractor) == ("0.5 ann + 0.2 bob", "x:y@1")
    label, tokens, _ = load_mix(str(ann))
    assert torch.equal(tokens, torch.tensor([[2.0, 3.0]]))
    assert label == "ann"
    label, tokens, _ = load_mix(f"{bob}:-2")
    assert torch.equal(tokens, torch.tensor([[-20.0, 20.0]]))
    assert label == "-2 bob"


def test_users_of_different_kinds_are_not_mixed(tmp_path: Path) -> None:
    ann, _ = files(tmp_path)
    other = UserEmbedding("eve", torch.ones(1, 1, 2), "x:z@2", (("s",),), "set")
    with pytest.raises(DataError, match=r"x:y@1 .* x:z@2"):
        load_mix(f"{ann},{save_user(other, tmp_path / 'eve.safetensors')}")
    wide = UserEmbedding("dan", torch.ones(1, 2, 3), "x:y@1", (("s",),), "set")
    with pytest.raises(DataError, match=r"\[1, 2\].*\[2, 3\]"):
        load_mix(f"{ann},{save_user(wide, tmp_path / 'dan.safetensors')}")
