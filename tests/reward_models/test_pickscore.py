"""PickScore against the README's formula, computed by transformers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.clip import IMAGE_SIZE, save_clip
from helpers.zoo import KINDS, colours, save_zoo, transformers_pixels
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.pickscore import PickScore

PROMPTS = ["a red circle", "Zwölf Boxkämpfer — 漢字", "", "word " * 60, *("a blue star",) * 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("pick"), activation="gelu")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_zoo(tmp_path_factory.mktemp("zoo"))


def official(folder: Path, prompts: list[str], files: list[Path]) -> torch.Tensor:
    """A pair at a time: exp(logit_scale) * text @ image.T on features of length 1."""
    from transformers import AutoTokenizer, CLIPModel

    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    scores = []
    for prompt, file in zip(prompts, files, strict=True):
        ids = tokenizer(prompt, padding=True, truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            text = model.get_text_features(**ids).pooler_output
            image = model.get_image_features(transformers_pixels(file, IMAGE_SIZE)[None]).pooler_output
            text, image = text / torch.norm(text), image / torch.norm(image)
            scores.append(model.logit_scale.exp() * (text @ image.T)[0, 0])
    return torch.stack(scores)


def test_equals_the_official_formula(folder: Path, zoo: dict[str, Path]) -> None:
    files = [zoo[kind] for kind in KINDS]
    expected = official(folder, PROMPTS, files)
    scorer = PickScore(str(folder), device="cpu", batch_size=5)
    scores = scorer.score(PROMPTS, files)
    assert float(expected.std()) > 0.1
    scale = float(scorer.backend.model.logit_scale.exp())
    assert torch.allclose(scores, expected, atol=1e-5 * scale, rtol=0)
    cosines = PickScore(str(folder), mode="cosine", device="cpu").score(PROMPTS, files)
    assert torch.allclose(cosines, expected / scale, atol=1e-5, rtol=0)
    matrix = scorer.score_matrix(PROMPTS, files)
    assert torch.allclose(matrix.diagonal(), expected, atol=1e-5 * scale, rtol=0)


def test_preference_is_the_softmax_of_the_two(folder: Path) -> None:
    first, second = [colours(0, (40, 40)), colours(1, (40, 40))], [colours(2, (40, 40)), colours(0, (40, 40))]
    prompts = ["a red circle", "a blue star"]
    for mode in ("official", "cosine"):
        scorer = PickScore(str(folder), mode=mode, device="cpu")
        scale = 1.0 if mode == "official" else float(scorer.backend.model.logit_scale.exp())
        one, two = scorer.score(prompts, first), scorer.score(prompts, second)
        chance = scorer.preference(prompts, first, second)
        assert chance.shape == (2, 2)
        assert torch.allclose(chance.sum(dim=1), torch.ones(2))
        assert torch.allclose(chance[:, 0], torch.sigmoid(scale * (one - two)), atol=1e-5)
        assert not torch.allclose(chance[:, 0], torch.full((2,), 0.5), atol=1e-3)


def test_a_weight_file_and_its_folder_agree(folder: Path) -> None:
    picture, prompt = colours(0, (50, 40)), "a red circle"
    whole = PickScore(str(folder), device="cpu")
    alone = PickScore(str(folder / "model.safetensors"), device="cpu")
    assert torch.equal(alone.score([prompt], [picture]), whole.score([prompt], [picture]))
    assert alone.version.startswith("official:model.safetensors@")


def test_old_weight_files(folder: Path, tmp_path: Path) -> None:
    """A `.bin` with the positions among the weights, in half precision, as older versions of transformers saved."""
    import shutil

    from safetensors.torch import load_file

    shutil.copytree(folder, tmp_path / "old")
    state = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "old/pick.bin")
    old, whole = PickScore(str(tmp_path / "old/pick.bin"), device="cpu"), PickScore(str(folder), device="cpu")
    one, two = (scorer.score(["a red circle"], [colours(0, (50, 40))]) for scorer in (old, whole))
    assert 0 < float((one - two).abs()) < 0.02 * float(two.abs())


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown PickScore mode 'softmax'; choose one of official, cosine"):
        PickScore(str(folder), mode="softmax")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"hf download yuvalkirstain/PickScore_v1$"):
        PickScore()
    with pytest.raises(ModelError, match=r"there is no checkpoint ./nowhere"):
        PickScore("./nowhere/model.safetensors")
    (tmp_path / "alone.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"alone.safetensors do not fit CLIP ViT-H-14"):
        PickScore(str(tmp_path / "alone.safetensors"))


def test_the_official_architecture() -> None:
    """Shapes and sizes of CLIP ViT-H/14, by open_clip's own file; the weights are not made."""
    import open_clip
    from transformers import CLIPConfig, CLIPModel

    from t2ialign.reward_models.clip_backends import VIT_H_14, VIT_L_14

    for ours in (VIT_H_14, VIT_L_14):
        theirs = open_clip.get_model_config(ours.open_clip)
        with torch.device("meta"):
            model = CLIPModel(CLIPConfig(**ours.config))
            other = open_clip.CLIP(**theirs)
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in other.parameters())
        vision, text = ours.config["vision_config"], ours.config["text_config"]
        assert vision["hidden_size"] // vision["num_attention_heads"] == theirs["vision_cfg"].get("head_width", 64)
        assert text["num_attention_heads"] == theirs["text_cfg"]["heads"]
    assert VIT_H_14.config["vision_config"]["hidden_act"] == VIT_H_14.config["text_config"]["hidden_act"] == "gelu"
    assert VIT_L_14.config["vision_config"]["hidden_act"] == "quick_gelu"
