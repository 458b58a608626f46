"""ImageReward and VP-Score against the official modules in plain torch."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.official_blip import IMAGE_SIZE, MEAN, STD, save_imagereward
from helpers.zoo import KINDS, colours, edges, save_zoo, torchvision_pixels
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.aesthetic import AestheticScore
from t2ialign.reward_models.base import Differentiable, Prepares, RewardModel
from t2ialign.reward_models.blip import mapped_name
from t2ialign.reward_models.imagereward import ImageReward
from t2ialign.reward_models.registry import load_scorer

PROMPTS = [
    "a red circle",
    "Zwölf Boxkämpfer — 漢字!",
    "",
    "word " * 60,
    "word " * 33,
    "word " * 34,
    "A [ENC] painting [DEC] of [MASK]",
    *("a blue star", "the painting of a star, a star.") * 2,
    "a red circle",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return save_imagereward(tmp_path_factory.mktemp("imagereward"), seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    zoo = save_zoo(tmp_path_factory.mktemp("zoo"))
    return [zoo[kind] for kind in KINDS]


def official(model: Any, prompts: list[str], files: list[Any]) -> torch.Tensor:
    pairs = zip(prompts, files, strict=True)
    return torch.tensor([model.score(torchvision_pixels(file, IMAGE_SIZE), prompt) for prompt, file in pairs])


def test_equals_the_official_computation(tiny: tuple[Path, Any], files: list[Path]) -> None:
    folder, model = tiny
    expected = official(model, PROMPTS, files)
    assert float(expected.std()) > 0.1
    assert len({round(float(x), 4) for x in official(model, PROMPTS[:1] * 12, files)}) == 12, "pictures matter"
    assert len({round(float(x), 4) for x in official(model, PROMPTS, files[:1] * 12)}) == 7, "words matter"
    for batch_size in (1, 5, 32):
        scores = ImageReward(str(folder), device="cpu", batch_size=batch_size).score(PROMPTS, files)
        assert scores.dtype == torch.float32
        assert torch.allclose(scores, expected, atol=1e-5, rtol=0)


def test_the_twin_is_bidirectional(tiny: tuple[Path, Any]) -> None:
    """A later word changes what the first one sees: a decoder's mask would hide it."""
    folder, _ = tiny
    scorer, picture = ImageReward(str(folder), device="cpu"), colours(0, (40, 40))
    one, two = scorer.score(["a red circle", "a red star"], [picture] * 2)
    assert abs(float(one - two)) > 1e-2


def test_vpscore_is_the_same_without_the_constants(tiny: tuple[Path, Any], files: list[Path]) -> None:
    folder, model = tiny
    expected = official(model, PROMPTS, files) * STD + MEAN
    scorer: Any = load_scorer(f"vpscore@{folder / 'ImageReward.pt'}", device="cpu")
    assert scorer.name == "vpscore"
    assert torch.allclose(scorer.score(PROMPTS, files), expected, atol=1e-5, rtol=0)
    given: Any = load_scorer(f"vpscore@{folder / 'ImageReward.pt'}?mean={MEAN}&std={STD}", device="cpu")
    assert torch.allclose(given.score(PROMPTS, files), official(model, PROMPTS, files), atol=1e-5, rtol=0)
    assert given.version != scorer.version
    with pytest.raises(ModelError, match=r"vpscore has no public weights .*vpscore@FILE"):
        load_scorer("vpscore")


def test_prompts_of_more_than_35_tokens_are_cut_and_counted(tiny: tuple[Path, Any]) -> None:
    folder, _ = tiny
    scorer, picture = ImageReward(str(folder), device="cpu"), colours(0, (40, 40))
    assert scorer.count_truncated(["word " * 33]) == 0
    assert scorer.count_truncated(["word " * 34, "word " * 34, "word " * 60, "a"]) == 2
    a, b, c = scorer.score(["word " * 33, "word " * 34, "word " * 34 + "star"], [picture] * 3)
    assert a == b == c
    assert scorer.info()["n_truncated"] == 3
    assert scorer.info()["max_tokens"] == 35


def test_pictures_may_be_prepared_elsewhere(tiny: tuple[Path, Any], files: list[Path], tmp_path: Path) -> None:
    from helpers.clip import save_clip, save_head

    scorer = ImageReward(str(tiny[0]), device="cpu")
    assert all(isinstance(scorer, form) for form in (RewardModel, Prepares))
    away = pickle.loads(pickle.dumps(scorer.preparation))
    prepared = torch.stack([away(file) for file in files])
    assert prepared.dtype == torch.uint8
    scores = scorer.score(PROMPTS, files)
    assert torch.allclose(scorer.score_prepared(PROMPTS, prepared), scores, atol=1e-5, rtol=0)
    turned = scorer.score(PROMPTS[::-1], files[::-1]).flip(0)
    assert torch.allclose(turned, scores, atol=1e-5, rtol=0)
    aesthetic = AestheticScore(str(save_head(tmp_path)), clip=str(save_clip(tmp_path)), device="cpu")
    assert scorer.preparation == aesthetic.preparation, "both use the same transform, so the work is shared"


def test_gradients_reach_the_pixels(tiny: tuple[Path, Any]) -> None:
    from torchvision.transforms.functional import to_tensor

    scorer = ImageReward(str(tiny[0]), device="cpu")
    assert isinstance(scorer, Differentiable)
    prompts = ["a red circle", "a blue star"]
    images = 0.2 + 0.6 * torch.stack([to_tensor(colours(i, (48, 40))) for i in range(2)])
    images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(scorer.score_tensors(prompts, images).sum(), images)
    assert all(float(each.abs().max()) > 0 for each in gradient)
    step = 2e-3 * gradient / gradient.abs().max()
    with torch.no_grad():
        up, down = (scorer.score_tensors(prompts, images + sign * step).sum() for sign in (1, -1))
    assert float(up - down) == pytest.approx(float(2 * (gradient * step).sum()), rel=0.05)
    assert all(not p.requires_grad for p in scorer.model.parameters())
    pictures = [colours(0, (512, 384), grain=30), edges(1)]
    for prompt, picture in zip(prompts, pictures, strict=True):
        smooth = scorer.score_tensors([prompt], to_tensor(picture)[None])
        assert float((smooth - scorer.score([prompt], [picture])).abs()) < 0.02
    with pytest.raises(ValueError, match="must be floating"):
        scorer.score_tensors(["a"], torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_info_repeats_the_number(tiny: tuple[Path, Any]) -> None:
    import hashlib

    folder, _ = tiny
    scorer = ImageReward(str(folder), device="cpu")
    info = scorer.info()
    assert str(folder.parent) not in json.dumps(info)
    digest = hashlib.sha256((folder / "ImageReward.pt").read_bytes()).hexdigest()
    assert info["weights_sha256"] == digest
    assert scorer.version == f"official:ImageReward.pt@{digest[:8]}"
    assert (info["mean"], info["std"]) == (MEAN, STD)
    assert info["preprocessing"]["size"] == IMAGE_SIZE
    rough = ImageReward(str(folder), dtype="bfloat16", device="cpu")
    assert rough.info()["dtype"] == "bfloat16"
    pictures, prompts = [colours(i, (40, 50)) for i in range(2)], ["a red circle", "a star"]
    difference = (rough.score(prompts, pictures) - scorer.score(prompts, pictures)).abs()
    assert 0 < float(difference.max()) < 0.2


def test_other_forms_of_the_file(tiny: tuple[Path, Any], tmp_path: Path) -> None:
    """As safetensors, in half precision, and as a parallel training run saves it."""
    import shutil

    from safetensors.torch import save_file

    folder, model = tiny
    shutil.copy(folder / "vocab.txt", tmp_path)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "trained.pt")
    torch.save(
        {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
        tmp_path / "half.pt",
    )
    picture, prompt = colours(0, (50, 40)), "a red circle"
    expected = float(official(model, [prompt], [picture]))
    assert float(ImageReward(str(tmp_path), device="cpu").score([prompt], [picture])) == pytest.approx(
        expected, abs=1e-5
    )
    trained = ImageReward(str(tmp_path / "trained.pt"), device="cpu").score([prompt], [picture])
    assert float(trained) == pytest.approx(expected, abs=1e-5)
    half = ImageReward(str(tmp_path / "half.pt"), device="cpu").score([prompt], [picture])
    assert 0 < abs(float(half) - expected) < 0.02


def test_every_official_weight_has_one_place(tiny: tuple[Path, Any]) -> None:
    _, model = tiny
    names = list(model.state_dict())
    mapped = [new for name in names if (new := mapped_name(name)) is not None]
    left = {name for name in names if mapped_name(name) is None}
    assert len(set(mapped)) == len(mapped)
    assert left == {f"blip.{side}_proj.{kind}" for side in ("vision", "text") for kind in ("weight", "bias")} | {
        "blip.text_encoder.embeddings.position_ids"
    }


def test_the_official_architecture() -> None:
    """The shapes of the released weights are read as BLIP ViT-L/16 at 224 px and BERT-base; nothing is computed."""
    from t2ialign.reward_models.blip import build_blip

    sizes: dict[str, tuple[int, ...]] = {
        "blip.visual_encoder.cls_token": (1, 1, 1024),
        "blip.visual_encoder.pos_embed": (1, 197, 1024),
        "blip.visual_encoder.patch_embed.proj.weight": (1024, 3, 16, 16),
        "blip.visual_encoder.patch_embed.proj.bias": (1024,),
        "blip.visual_encoder.norm.weight": (1024,),
        "blip.visual_encoder.norm.bias": (1024,),
        "blip.text_encoder.embeddings.word_embeddings.weight": (30524, 768),
        "blip.text_encoder.embeddings.position_embeddings.weight": (512, 768),
        "blip.text_encoder.embeddings.LayerNorm.weight": (768,),
        "blip.text_encoder.embeddings.LayerNorm.bias": (768,),
    }
    linear = {
        "blip.visual_encoder.blocks.{}.attn.qkv": (24, 3072, 1024),
        "blip.visual_encoder.blocks.{}.attn.proj": (24, 1024, 1024),
        "blip.visual_encoder.blocks.{}.mlp.fc1": (24, 4096, 1024),
        "blip.visual_encoder.blocks.{}.mlp.fc2": (24, 1024, 4096),
        "blip.visual_encoder.blocks.{}.norm1": (24, 1024, 0),
        "blip.visual_encoder.blocks.{}.norm2": (24, 1024, 0),
        "blip.text_encoder.encoder.layer.{}.intermediate.dense": (12, 3072, 768),
        "blip.text_encoder.encoder.layer.{}.output.dense": (12, 768, 3072),
        "blip.text_encoder.encoder.layer.{}.output.LayerNorm": (12, 768, 0),
    }
    for kind, seen in (("attention", 768), ("crossattention", 1024)):
        at = "blip.text_encoder.encoder.layer.{}." + kind
        linear |= {f"{at}.self.query": (12, 768, 768), f"{at}.self.key": (12, 768, seen)}
        linear |= {f"{at}.self.value": (12, 768, seen), f"{at}.output.dense": (12, 768, 768)}
        linear[f"{at}.output.LayerNorm"] = (12, 768, 0)
    for name, (count, outer, inner) in linear.items():
        for i in range(count):
            sizes[name.format(i) + ".weight"] = (outer, inner) if inner else (outer,)
            sizes[name.format(i) + ".bias"] = (outer,)
    for i, inner, outer in ((0, 768, 1024), (2, 1024, 128), (4, 128, 64), (6, 64, 16), (7, 16, 1)):
        sizes[f"mlp.layers.{i}.weight"], sizes[f"mlp.layers.{i}.bias"] = (outer, inner), (outer,)
    state = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
    model = build_blip(state, Path("ImageReward.pt"))
    vision, text = model.vision.config, model.text.config
    assert (vision.num_attention_heads, vision.num_hidden_layers, vision.image_size) == (16, 24, 224)
    assert (text.num_attention_heads, text.num_hidden_layers, text.encoder_hidden_size) == (12, 12, 1024)
    assert sum(p.numel() for p in model.parameters()) == sum(value.numel() for value in state.values())


class Bad:
    """Something that a file of tensors must not hold."""

    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_what_is_wrong_is_named(
    tiny: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = tiny
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    torch.save(model.state_dict() | {"x": Bad()}, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match=r"bad.pt holds more than tensors"):
        ImageReward(str(tmp_path / "bad.pt"))
    assert "ran" not in capsys.readouterr().out
    state = model.state_dict()
    torch.save({name: value for name, value in state.items() if "mlp.layers.6" not in name}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"a.pt is no ImageReward: it lacks the weights of head.6.weight"):
        ImageReward(str(tmp_path / "a.pt"))
    torch.save({name: value for name, value in state.items() if "blocks.1.norm1" not in name}, tmp_path / "b.pt")
    with pytest.raises(ModelError, match=r"lacks 2 weights, among them vision.encoder.layers.1.layer_norm1.bias"):
        ImageReward(str(tmp_path / "b.pt"))
    torch.save(state | {"blip.visual_encoder.norm.bias": torch.zeros(3)}, tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"c.pt do not fit one another"):
        ImageReward(str(tmp_path / "c.pt"))
    (tmp_path / "vocab.txt").write_text(vocabulary + "more\n", encoding="utf-8")
    torch.save(state, tmp_path / "d.pt")
    with pytest.raises(ModelError, match=r"knows (\d+) tokens and the tokenizer has \d+; put the vocab.txt"):
        ImageReward(str(tmp_path / "d.pt"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"hf download google-bert/bert-base-uncased"):
        ImageReward(str(tmp_path / "d.pt"))
    with pytest.raises(ModelError, match=r"hf download THUDM/ImageReward ImageReward.pt$"):
        ImageReward()
    with pytest.raises(ConfigError, match=r"std is 0.0"):
        ImageReward(str(folder), std=0.0)
    with pytest.raises(ConfigError, match=r"unknown release 'x'; choose one of imagereward, vpscore"):
        ImageReward(str(folder), release="x")
