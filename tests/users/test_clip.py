"""The light extractor against the picture tower written out by hand from its weights, and its invariants."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.clip import IMAGE_SIZE, save_clip
from t2ialign.data.pairs import PreferencePair, load_pairs
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.users.clip import ClipExtractor
from t2ialign.users.extractors import load_extractor, named, unit_tokens

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEADS, PATCH, LAYERS = 4, 8, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def extractor(folder: Path) -> ClipExtractor:
    return ClipExtractor(str(folder))


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def shot(seed: int, size: tuple[int, int] = (32, 32)) -> PreferencePair:
    return PreferencePair(seed, f"prompt {seed}", picture(2 * seed, size), picture(2 * seed + 1, size))


def plain_pixels(image: Image.Image) -> Tensor:
    """Shorter side to 32 by Pillow's bicubic, the middle, [0, 1], mean and deviation."""
    short = min(image.size)
    width, height = (int(IMAGE_SIZE * side / short) for side in image.size)
    left, top = (width - IMAGE_SIZE) // 2, (height - IMAGE_SIZE) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    cropped = resized.crop((left, top, left + IMAGE_SIZE, top + IMAGE_SIZE))
    values = torch.from_numpy(np.asarray(cropped).copy()).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def plain_states(weights: dict[str, Tensor], image: Image.Image) -> list[Tensor]:
    """States [1 + patches, width] of one picture in every layer, that of the embeddings first."""
    side = IMAGE_SIZE // PATCH
    cut = plain_pixels(image).reshape(3, side, PATCH, side, PATCH).permute(1, 3, 0, 2, 4).reshape(side * side, -1)

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    patches = cut @ weights["embeddings.patch_embedding.weight"].flatten(1).T
    x = torch.cat([weights["embeddings.class_embedding"][None], patches])
    x = norm("pre_layrnorm", x + weights["embeddings.position_embedding.weight"])
    states = [x]
    for layer in (f"encoder.layers.{number}" for number in range(LAYERS)):
        y = norm(f"{layer}.layer_norm1", x)
        q, k, v = (linear(f"{layer}.self_attn.{name}_proj", y).reshape(len(y), HEADS, -1) for name in "qkv")
        weight = torch.einsum("ihd,jhd->hij", q, k) / q.shape[-1] ** 0.5
        mixed = torch.einsum("hij,jhd->ihd", weight.softmax(-1), v).flatten(1)
        x = x + linear(f"{layer}.self_attn.out_proj", mixed)
        y = linear(f"{layer}.mlp.fc1", norm(f"{layer}.layer_norm2", x))
        x = x + linear(f"{layer}.mlp.fc2", y * torch.sigmoid(1.702 * y))
        states.append(x)
    return states


@pytest.mark.parametrize("size", [(32, 32), (80, 48)])
def test_it_is_the_mean_vote_of_every_layer(folder: Path, extractor: ClipExtractor, size: tuple[int, int]) -> None:
    prefix = "vision_model."
    stored = load_file(folder / "model.safetensors")
    weights = {name.removeprefix(prefix): value.float() for name, value in stored.items() if name.startswith(prefix)}
    shots = [shot(seed, size) for seed in range(3)]
    votes = []
    for each in shots:
        chosen, rejected = plain_states(weights, each.chosen), plain_states(weights, each.rejected)
        rows = [c[1:].mean(0) - r[1:].mean(0) for c, r in zip(chosen, rejected, strict=True)]
        rows += [c[0] - r[0] for c, r in zip(chosen[1:], rejected[1:], strict=True)]
        votes.append(torch.stack([row / row.square().mean().sqrt() for row in rows]))
    mean = sum(votes[1:], votes[0]) / len(votes)
    wanted = mean / mean.square().mean(-1, keepdim=True).sqrt()
    tokens = extractor.extract(shots)
    assert tokens.shape == (2 * LAYERS + 1, 32)
    assert tokens.dtype == torch.float32
    assert torch.allclose(tokens, wanted, atol=1e-4, rtol=1e-4)


def test_the_same_shots_give_the_same_bits_whatever_came_before(folder: Path, extractor: ClipExtractor) -> None:
    first = extractor.extract([shot(0), shot(1)])
    extractor.extract([shot(2)])
    assert torch.equal(extractor.extract([shot(0), shot(1)]), first)
    assert torch.equal(ClipExtractor(str(folder)).extract([shot(0), shot(1)]), first)
    assert torch.allclose(extractor.extract([shot(1), shot(0)]), first, atol=1e-6)


def test_liking_the_opposite_is_the_opposite(extractor: ClipExtractor) -> None:
    shots = [shot(seed) for seed in range(4)]
    turned = [PreferencePair(s.index, s.prompt, s.rejected, s.chosen) for s in shots]
    assert torch.allclose(extractor.extract(turned), -extractor.extract(shots), atol=1e-5)


def test_captions_do_not_matter(extractor: ClipExtractor) -> None:
    one = shot(0)
    other = PreferencePair(9, "something else", one.chosen, one.rejected)
    assert torch.equal(extractor.extract([one]), extractor.extract([other]))


def test_shots_that_show_nothing_are_refused(extractor: ClipExtractor) -> None:
    same = PreferencePair(0, "p", picture(0), picture(0))
    with pytest.raises(DataError, match="look alike"):
        extractor.extract([same, same])
    assert torch.allclose(extractor.extract([same, shot(1)]), extractor.extract([shot(1)]), atol=1e-6)
    with pytest.raises(DataError, match="at least one"):
        extractor.extract([])


def test_the_name_follows_weights_and_preparation(folder: Path, extractor: ClipExtractor, tmp_path: Path) -> None:
    assert extractor.name.startswith("clip:tiny-clip@")
    copy = save_clip(tmp_path / "copy")
    assert ClipExtractor(str(copy)).name == extractor.name
    assert ClipExtractor(str(save_clip(tmp_path / "other", seed=1))).name != extractor.name
    settings = copy / "preprocessor_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "image_mean": [0.5, 0.5, 0.5]}))
    assert ClipExtractor(str(copy)).name != extractor.name


def test_a_name_with_digits_takes_that_very_one(folder: Path, extractor: ClipExtractor) -> None:
    digits = extractor.name.partition("@")[2]
    assert load_extractor(f"clip:{folder}@{digits}", "cpu").name == extractor.name
    with pytest.raises(ModelError, match="get the checkpoint of that digest"):
        load_extractor(f"clip:{folder}@00000000", "cpu")


def test_the_packaged_one(caplog: pytest.LogCaptureFixture) -> None:
    mini = load_extractor("clip:mini-clip", "cpu")
    pairs = load_pairs("mini-user-pairs")
    with caplog.at_level(logging.WARNING, "t2ialign"):
        tokens = mini.extract([pairs[number] for number in range(4)])
        assert not caplog.records
        mini.extract([shot(0, (80, 48))])
        mini.extract([shot(1, (80, 48))])
    assert tokens.shape == (9, 128)
    assert torch.allclose(tokens.square().mean(-1), torch.ones(9), atol=1e-5)
    assert len(caplog.records) == 1
    assert "mini-world" in caplog.text


def without(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file({key: value for key, value in weights.items() if name not in key}, folder / "model.safetensors")

    return spoil


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def another_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip"}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("vision_model.encoder.layers.1"), "lacks"),
        (pickled, "safetensors"),
        (another_kind, "siglip"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "CLIPModel"),
        (lambda folder: (folder / "config.json").unlink(), "CLIPModel"),
    ],
)
def test_a_spoilt_checkpoint_is_refused(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = save_clip(tmp_path)
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        ClipExtractor(str(folder))


def test_what_is_not_there_is_named_with_the_command() -> None:
    with pytest.raises(ModelError, match="hf download openai/clip-vit-large-patch14"):
        load_extractor("clip:openai/clip-vit-large-patch14", "cpu")


@pytest.mark.parametrize("spec", ["clop:mini-clip", "mini-clip", "clip:", ""])
def test_an_unknown_extractor_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="clip:"):
        load_extractor(spec)


def test_unit_tokens() -> None:
    tokens = unit_tokens(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, -1e-30]], dtype=torch.float64))
    assert torch.allclose(tokens[0], torch.tensor([3.0, 4.0]) / 12.5**0.5)
    assert torch.equal(tokens[1], torch.zeros(2))
    assert tokens.dtype == torch.float32


def test_a_name_holds_no_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert named("clip", str(tmp_path / "mine"), 1).startswith("clip:mine@")
    assert named("clip", "owner/name", 1).startswith("clip:owner/name@")
    assert named("clip", "owner/name", 1) != named("clip", "owner/name", 2)
