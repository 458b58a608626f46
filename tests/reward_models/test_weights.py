"""Weights: found on the hub's cache, in folders and in files; read as tensors alone; commits and digests."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helpers.clip import TINY_ARCHITECTURE, save_clip
from t2ialign.errors import ModelError
from t2ialign.reward_models.hpsv2 import HPSv2
from t2ialign.reward_models.pickscore import PickScore
from t2ialign.reward_models.weights import commit_of, file_digest, find_weights, looks_like_a_path, read_state

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, off line."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def in_cache(cache: Path, repository: str) -> Path:
    """Makes the folder of a repository's commit, as a download leaves it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    return folder / "snapshots" / COMMIT


def test_by_hub_id_with_the_commit_recorded(cache: Path, tmp_path: Path) -> None:
    import open_clip

    (tmp_path / "cached-hps.json").write_text(json.dumps(TINY_ARCHITECTURE), encoding="utf-8")
    open_clip.add_model_config(tmp_path / "cached-hps.json")
    state = open_clip.CLIP(**TINY_ARCHITECTURE).state_dict()
    file = in_cache(cache, "xswu/HPSv2") / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": state}, file)
    scorer = HPSv2(release="2.1", architecture="cached-hps", device="cpu")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    info = scorer.info()
    assert (info["revision"], info["weights_sha256"], info["checkpoint"]) == (COMMIT, digest, file.name)
    with pytest.raises(ModelError, match=r"hf download xswu/HPSv2 HPS_v2_compressed.pt --revision v9$"):
        HPSv2(revision="v9", architecture="cached-hps")

    shutil.copytree(save_clip(tmp_path, activation="gelu"), in_cache(cache, "me/pick"), dirs_exist_ok=True)
    pick = PickScore("me/pick", device="cpu")
    assert (pick.info()["revision"], pick.info()["checkpoint"]) == (COMMIT, "me/pick")
    assert pick.version == f"official:me/pick@{pick.info()['weights_sha256'][:8]}"


def test_a_checkpoint_without_tokenizer_takes_the_architecture_s(cache: Path, tmp_path: Path) -> None:
    folder = save_clip(tmp_path, activation="gelu")
    (folder / "preprocessor_config.json").unlink()
    bare = PickScore(str(folder), device="cpu")
    assert bare.info()["preprocessing"]["size"] == 32
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for file in folder.glob("*"):
        if "token" in file.name or file.name in ("vocab.json", "merges.txt"):
            file.rename(tokenizer / file.name)
    with pytest.raises(ModelError, match=r"hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K --exclude"):
        PickScore(str(folder), device="cpu")
    shutil.copytree(tokenizer, in_cache(cache, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"), dirs_exist_ok=True)
    again = PickScore(str(folder), device="cpu")
    from PIL import Image

    picture = Image.new("RGB", (40, 30), (200, 20, 90))
    assert torch.equal(again.score(["a star"], [picture]), bare.score(["a star"], [picture]))


def test_finds(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "b.pt").touch()
    assert find_weights(str(tmp_path), ["a.pt", "b.pt"]) == tmp_path / "b.pt"
    assert find_weights(str(tmp_path / "b.pt"), ["a.pt"]) == tmp_path / "b.pt"
    with pytest.raises(ModelError, match=r"none of the weight files a.pt"):
        find_weights(str(tmp_path), ["a.pt"])
    with pytest.raises(ModelError, match="there is no weight file"):
        find_weights(str(tmp_path / "c.pt"), ["a.pt"])
    with pytest.raises(ModelError, match=r"hf download org/name a.pt$"):
        find_weights("org/name", ["a.pt"])
    assert commit_of(tmp_path / "b.pt") is None
    assert commit_of(Path(f"/x/models--a--b/snapshots/{COMMIT}/sub/a.pt")) == COMMIT
    paths = ("/a", "./a", "~/a", "a/b/c", "a.safetensors", "org/a.pt")
    assert [looks_like_a_path(text) for text in (*paths, "org/name", "name")] == [True] * 6 + [False] * 2


def test_reads_tensors_alone(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.float16)}
    wrapped: dict[str, Any] = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(state, tmp_path / "plain.pt")
    torch.save(wrapped, tmp_path / "wrapped.pth")
    save_file(state, tmp_path / "safe.safetensors")
    for name in ("plain.pt", "wrapped.pth", "safe.safetensors"):
        read = read_state(tmp_path / name)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) and read[key].dtype == state[key].dtype for key in state)
    assert file_digest(tmp_path / "plain.pt") == hashlib.sha256((tmp_path / "plain.pt").read_bytes()).hexdigest()


def test_refuses_what_is_no_state(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ModelError, match=r"module.pt holds more than tensors, and opening it would run code"):
        read_state(tmp_path / "module.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="holds a list, no named tensors"):
        read_state(tmp_path / "list.pt")
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match="holds no tensors"):
        read_state(tmp_path / "empty.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(ModelError, match=r"cut.safetensors is no readable weight file"):
        read_state(tmp_path / "cut.safetensors")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "jit.pt"))
    with pytest.raises(ModelError, match="is no readable weight file"):
        read_state(tmp_path / "jit.pt")
