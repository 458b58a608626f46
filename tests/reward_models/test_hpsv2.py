"""HPSv2 against the official computation: letterbox, open_clip's model and tokenizer, the bare cosine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.clip import IMAGE_SIZE, TINY_ARCHITECTURE, save_clip
from helpers.zoo import KINDS, colours, letterbox_pixels, save_zoo
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.hpsv2 import FILE_DIGESTS, HPSv2

PROMPTS = ["a red circle", "fish &amp; chips", "the artist’s hand", "word " * 100, *("a blue star",) * 8]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file as the authors' is: `state_dict` beside other things; and its architecture."""
    import open_clip

    folder = tmp_path_factory.mktemp("hps")
    (folder / "tiny-hps.json").write_text(json.dumps(TINY_ARCHITECTURE), encoding="utf-8")
    open_clip.add_model_config(folder / "tiny-hps.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**TINY_ARCHITECTURE)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, folder / "HPS_v2_compressed.pt")
    torch.save({"state_dict": {k: v * 1.01 for k, v in model.state_dict().items()}}, folder / "HPS_v2.1_compressed.pt")
    return folder


def tiny(weights: Path, **settings: object) -> HPSv2:
    return HPSv2(str(weights), architecture="tiny-hps", device="cpu", **settings)  # type: ignore[arg-type]


def official(weights: Path, prompts: list[str], files: list[Path], antialias: bool) -> torch.Tensor:
    import open_clip

    model = open_clip.CLIP(**TINY_ARCHITECTURE).eval()
    model.load_state_dict(torch.load(weights / "HPS_v2_compressed.pt")["state_dict"])
    tokenizer, scores = open_clip.SimpleTokenizer(), []
    for prompt, file in zip(prompts, files, strict=True):
        with torch.no_grad():
            image = model.encode_image(letterbox_pixels(file, IMAGE_SIZE, antialias)[None], normalize=True)
            text = model.encode_text(tokenizer([prompt]), normalize=True)
            scores.append(torch.diagonal(image @ text.T)[0])
    return torch.stack(scores)


@pytest.mark.parametrize("antialias", [True, False])
def test_equals_the_official_computation(weights: Path, zoo: dict[str, Path], antialias: bool) -> None:
    files = [zoo[kind] for kind in KINDS]
    expected = official(weights, PROMPTS, files, antialias)
    assert float(expected.std()) > 0.01
    scores = tiny(weights, antialias=antialias, batch_size=5).score(PROMPTS, files)
    assert torch.allclose(scores, expected, atol=1e-5, rtol=0)
    percent = tiny(weights, antialias=antialias, mode="percent").score(PROMPTS, files)
    assert torch.allclose(percent, 100 * expected, atol=1e-3, rtol=0)


def test_what_was_computed_is_recorded(weights: Path) -> None:
    plain, rough, newer = tiny(weights), tiny(weights, antialias=False), tiny(weights, release="2.1")
    assert (plain.name, newer.name) == ("hpsv2", "hpsv2.1")
    assert plain.version.startswith("official:HPS_v2_compressed.pt@")
    assert rough.version.startswith("official,antialias=false:HPS_v2_compressed.pt@")
    assert newer.version.startswith("official:HPS_v2.1_compressed.pt@")
    assert plain.info()["preprocessing"]["antialias"] is True
    assert rough.info()["preprocessing"]["antialias"] is False
    assert plain.info()["activation"] == "gelu"
    assert len({scorer.version for scorer in (plain, rough, newer)}) == 3
    picture = colours(0, (90, 60), grain=40)
    scores = [float(scorer.score(["a"], [picture])[0]) for scorer in (plain, rough, newer)]
    assert len({round(score, 5) for score in scores}) == 3


def test_checkpoints_of_transformers(tmp_path: Path) -> None:
    """The letterbox stays HPSv2's whatever holds the weights."""
    from transformers import AutoTokenizer, CLIPModel

    folder = save_clip(tmp_path, activation="gelu")
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    picture = colours(3, (70, 41))
    picture.save(tmp_path / "picture.png")
    with torch.no_grad():
        pixels = letterbox_pixels(tmp_path / "picture.png", IMAGE_SIZE)[None]
        image = model.get_image_features(pixel_values=pixels).pooler_output
        text = model.get_text_features(**tokenizer(["a star"], return_tensors="pt")).pooler_output
    expected = torch.nn.functional.cosine_similarity(image, text)
    assert torch.allclose(HPSv2(str(folder), device="cpu").score(["a star"], [picture]), expected, atol=1e-5, rtol=0)


def test_what_is_wrong_is_named(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"unknown HPSv2 release '3'; choose one of 2.0, 2.1"):
        HPSv2(release="3")
    with pytest.raises(ConfigError, match="unknown HPSv2 mode"):
        HPSv2(mode="x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"hf download xswu/HPSv2 HPS_v2.1_compressed.pt$"):
        HPSv2(release="2.1")
    digest = tiny(weights).backend.digest
    monkeypatch.setitem(FILE_DIGESTS, digest, "2.1")
    with pytest.raises(ModelError, match=r"holds HPSv2.1, but 2.0 is asked for; name hpsv2.1"):
        tiny(weights)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "HPS_v2_compressed.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelError, match="opening it would run code"):
        HPSv2(str(tmp_path))
    assert not Trap.sprung
    (tmp_path / "HPS_v2_compressed.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"holds more than tensors|no readable weight file"):
        HPSv2(str(tmp_path))


class Trap:
    """Unpickling it calls `spring`."""

    sprung = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return spring, ()


def spring() -> None:
    Trap.sprung = True
