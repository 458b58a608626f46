"""What holds for every neural scorer of CLIP's family: independence, the prepared path, the differentiable path."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.clip import IMAGE_SIZE, save_clip, save_head, save_mps, save_open_clip
from helpers.zoo import KINDS, colours, edges, save_zoo
from t2ialign.reward_models.base import Differentiable, Embedder, Prepares, RewardModel
from t2ialign.reward_models.registry import load_scorer

PROMPTS = ["a red circle", "a blue star", "", "word " * 70, *("a red circle",) * 8]
NAMES = ("clipscore", "clipscore-open", "pickscore", "hpsv2", "hpsv2.1", "aesthetic", "mps")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("neural")
    clip, opened, mps = save_clip(folder, seed=2), save_open_clip(folder), save_mps(folder / "mps", seed=1)
    specs = {
        "clipscore": f"clipscore@{clip}?definition=cosine",
        "clipscore-open": f"clipscore@{opened}?definition=cosine",
        "pickscore": f"pickscore@{clip}?mode=cosine",
        "hpsv2": f"hpsv2@{opened}",
        "hpsv2.1": f"hpsv2.1@{clip}?antialias=false",
        "aesthetic": f"aesthetic@{save_head(folder)}?clip={clip}",
        "mps": f"mps@{mps}",
    }

    def load(name: str, **settings: Any) -> Any:
        given = "&".join(f"{key}={value}" for key, value in settings.items())
        return load_scorer(specs[name] + ("&" if "?" in specs[name] else "?") * bool(given) + given, device="cpu")

    return load


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    zoo = save_zoo(tmp_path_factory.mktemp("zoo"))
    return [zoo[kind] for kind in KINDS]


def scale_of(scorer: Any) -> float:
    return float(scorer.backend.logit_scale) if scorer.name == "mps" else 1.0


@pytest.mark.parametrize("name", NAMES)
def test_a_score_depends_on_its_pair_alone(load: Callable[..., Any], files: list[Path], name: str) -> None:
    scorer = load(name, batch_size=5)
    scores = scorer.score(PROMPTS, files)
    assert scores.dtype == torch.float32
    assert scores.shape == (12,)
    assert scores.device.type == "cpu"
    assert scores.std() > 1e-3
    alone = torch.cat([scorer.score([p], [f]) for p, f in zip(PROMPTS, files, strict=True)])
    turned = scorer.score(PROMPTS[::-1], files[::-1]).flip(0)
    for other in (alone, turned, load(name, batch_size=1).score(PROMPTS, files)):
        assert torch.allclose(scores, other, atol=1e-5 * scale_of(scorer), rtol=0)
    assert scorer.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 prompts for 2 pictures"):
        scorer.score(["a"], files[:2])
    with pytest.raises(ValueError, match="one string"):
        scorer.score("a", files[:1])


@pytest.mark.parametrize("name", NAMES)
def test_pictures_may_be_prepared_elsewhere(load: Callable[..., Any], files: list[Path], name: str) -> None:
    scorer = load(name)
    assert all(isinstance(scorer, form) for form in (RewardModel, Prepares))
    away = pickle.loads(pickle.dumps(scorer.preparation))
    assert away == scorer.preparation
    assert len(pickle.dumps(scorer.preparation)) < 1000
    prepared = [away(file) for file in files]
    expected = scorer.score(PROMPTS, files)
    tolerance = 1e-5 * scale_of(scorer)
    assert torch.allclose(scorer.score_prepared(PROMPTS, prepared), expected, atol=tolerance, rtol=0)
    assert torch.allclose(scorer.score_prepared(PROMPTS, torch.stack(prepared)), expected, atol=tolerance, rtol=0)


def test_who_shares_a_preparation(load: Callable[..., Any]) -> None:
    keys = {name: load(name).preparation for name in NAMES}
    assert keys["clipscore"] == keys["pickscore"] == keys["mps"]
    assert keys["clipscore-open"] == keys["aesthetic"]
    assert len(set(keys.values())) == 4


@pytest.mark.parametrize("name", NAMES)
def test_info_repeats_the_number(load: Callable[..., Any], name: str, tmp_path: Path) -> None:
    scorer = load(name)
    scorer.score(["word " * 100, "short"], [colours(0, (40, 40))] * 2)
    info = scorer.info()
    text = json.dumps(info)
    assert str(tmp_path.parent) not in text, "where files lie on this machine is nobody's business"
    assert info["scorer"] == scorer.name
    assert info["version"] == scorer.version
    assert len(info["weights_sha256"]) == 64
    assert info["weights_sha256"][:8] in scorer.version
    assert {"dtype", "activation", "max_tokens", "preprocessing", "versions", "revision", "formula"} <= set(info)
    assert info["preprocessing"]["size"] == IMAGE_SIZE
    assert info["n_truncated"] == (0 if name == "aesthetic" else 1)
    assert scorer.count_truncated(["word " * 100, "word " * 100, "short"]) == (0 if name == "aesthetic" else 1)
    assert load(name).version == scorer.version


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("aesthetic", "mps")])
def test_features(load: Callable[..., Any], files: list[Path], name: str) -> None:
    scorer = load(name, batch_size=5)
    assert all(isinstance(scorer, form) for form in (Embedder, RewardModel))
    pictures, texts = scorer.embed_images(files), scorer.embed_texts(PROMPTS)
    assert pictures.shape == texts.shape == (12, 16)
    assert abs(float(pictures.norm(dim=1).mean()) - 1) > 0.01, "features are raw"
    cosines = torch.nn.functional.cosine_similarity(texts[:, None], pictures[None], dim=-1)
    assert torch.allclose(scorer.score_matrix(PROMPTS, files), cosines, atol=1e-5)
    assert torch.allclose(scorer.score(PROMPTS, files), cosines.diagonal(), atol=1e-5)
    with pytest.raises(ValueError, match="give at least one"):
        scorer.embed_images([])
    with pytest.raises(ValueError, match="give a list"):
        scorer.embed_texts("a star")


def tensors(pictures: list[Any]) -> torch.Tensor:
    from torchvision.transforms.functional import to_tensor

    return torch.stack([to_tensor(picture) for picture in pictures])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_pixels(load: Callable[..., Any], name: str) -> None:
    """Against finite differences along the gradient, in float64 arithmetic of the pixels."""
    scorer = load(name)
    assert all(isinstance(scorer, form) for form in (Differentiable, RewardModel))
    images = 0.2 + 0.6 * tensors([colours(0, (48, 40)), colours(1, (48, 40))])
    images.requires_grad_(True)
    prompts = ["a red circle", "a blue star"]
    scores = scorer.score_tensors(prompts, images)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert torch.isfinite(gradient).all()
    assert all(float(each.abs().max()) > 0 for each in gradient)
    step = 2e-3 * gradient / gradient.abs().max()
    with torch.no_grad():
        up, down = (scorer.score_tensors(prompts, images + sign * step).sum() for sign in (1, -1))
    assert float(up - down) == pytest.approx(float(2 * (gradient * step).sum()), rel=0.05)
    assert all(not p.requires_grad and p.grad is None for p in scorer.backend.model.parameters())
    with pytest.raises(ValueError, match=r"must be \[B, 3, H, W\]"):
        scorer.score_tensors(["a"], images[0][None, :1])
    with pytest.raises(ValueError, match="must be floating"):
        scorer.score_tensors(["a"], torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="1 prompts for 2 pictures"):
        scorer.score_tensors(["a"], images)


@pytest.mark.parametrize("size", [(512, 512), (512, 384), (384, 512)])
@pytest.mark.parametrize("name", ["clipscore", "pickscore", "hpsv2", "aesthetic", "mps"])
def test_the_differentiable_path_gives_the_ordinary_score(
    load: Callable[..., Any], name: str, size: tuple[int, int]
) -> None:
    """Within 0.01 in cosine; on hard edges, flat white, stripes and noise, with random weights, it is far nearer."""
    scorer = load(name)
    pictures = [colours(0, size, grain=30), edges(1).resize(size), colours(2, size)]
    prompts = ["a red circle", "a blue star", "something else"]
    smooth = scorer.score_tensors(prompts, tensors(pictures))
    plain = scorer.score(prompts, pictures)
    assert float((smooth - plain).abs().max()) < 1e-2 * scale_of(scorer)


def test_at_the_size_of_real_checkpoints(tmp_path: Path) -> None:
    clip = save_clip(tmp_path, seed=3, activation="gelu", image_size=224, patch_size=32)
    pictures = [colours(0, (512, 512), grain=40), edges(1), edges(2)]
    prompts = ["a red circle", "a blue star", "something else"]
    for spec in (f"pickscore@{clip}?mode=cosine", f"hpsv2@{clip}", f"clipscore@{clip}?definition=cosine"):
        scorer: Any = load_scorer(spec, device="cpu")
        smooth, plain = scorer.score_tensors(prompts, tensors(pictures)), scorer.score(prompts, pictures)
        assert float((smooth - plain).abs().max()) < 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_near(load: Callable[..., Any], name: str) -> None:
    exact, rough = load(name), load(name, dtype="bfloat16")
    assert rough.info()["dtype"] == "bfloat16"
    pictures, prompts = [colours(i, (40, 50)) for i in range(3)], ["a red circle", "a blue star", ""]
    difference = (rough.score(prompts, pictures) - exact.score(prompts, pictures)).abs()
    assert 0 < float(difference.max()) < 0.15 * scale_of(exact)
