"""A user's file: what goes in comes out, and what is no user's file is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from t2ialign.errors import DataError
from t2ialign.users.files import UserEmbedding, load_user, save_user

SHOTS = (("a", "b"), ("b", "c"))


def user(tokens: torch.Tensor | None = None) -> UserEmbedding:
    return UserEmbedding(
        "zoë/1", torch.arange(12.0).reshape(2, 3, 2) if tokens is None else tokens, "x:y@1", SHOTS, "s"
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path = save_user(user(), tmp_path / "deep" / "zoe.safetensors")
    found = load_user(path)
    assert torch.equal(found.tokens, user().tokens)
    assert (found.user_id, found.extractor, found.shots, found.pairs) == ("zoë/1", "x:y@1", SHOTS, "s")
    assert found.all_shots == {"a", "b", "c"}
    assert torch.equal(found.mean(), torch.tensor([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]))
    assert [each.name for each in path.parent.iterdir()] == ["zoe.safetensors"]


def test_others_can_read_it(tmp_path: Path) -> None:
    with safe_open(save_user(user(), tmp_path / "u.safetensors"), framework="pt") as file:
        assert list(file.keys()) == ["tokens"]
        assert json.loads(file.metadata()["user"])["shots"] == [["a", "b"], ["b", "c"]]


def test_half_precision_is_stored_as_float32(tmp_path: Path) -> None:
    found = load_user(save_user(user(torch.ones(2, 1, 4, dtype=torch.bfloat16)), tmp_path / "u.safetensors"))
    assert found.tokens.dtype == torch.float32


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.ones(2, 3), "not \\[E, T, D\\]"),
        (torch.ones(2, 0, 3), "not \\[E, T, D\\]"),
        (torch.ones(3, 1, 2), "2 lists of shots for 3 embeddings"),
        (torch.full((2, 1, 2), float("nan")), "not finite"),
    ],
)
def test_what_is_no_embedding_is_refused(tokens: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        user(tokens)


def test_what_is_no_user_s_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="t2ialign users embed"):
        load_user(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="file ends in"):
        save_user(user(), tmp_path / "u.pt")
    save_file({"tokens": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="no user's file"):
        load_user(tmp_path / "other.safetensors")
    whole = save_user(user(), tmp_path / "u.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-5])
    with pytest.raises(DataError, match="damaged"):
        load_user(tmp_path / "cut.safetensors")
    about = {"format": "t2ialign user 1", "user": "[1]"}
    save_file({"tokens": torch.ones(1, 1, 1)}, tmp_path / "wrong.safetensors", metadata=about)
    with pytest.raises(DataError, match="damaged"):
        load_user(tmp_path / "wrong.safetensors")


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = save_user(user(), tmp_path / "u.safetensors")
    code = (
        "import os, sys, torch, safetensors.torch as st\n"
        "from t2ialign.users.files import UserEmbedding, save_user\n"
        "write = st.save_file\n"
        "def half(tensors, name, metadata):\n"
        "    write(tensors, name, metadata=metadata); os._exit(9)\n"
        "st.save_file = half\n"
        "save_user(UserEmbedding('eve', torch.ones(1, 1, 1), 'x', (('a',),), 's'), sys.argv[1])\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 9
    assert load_user(path).user_id == "zoë/1"
