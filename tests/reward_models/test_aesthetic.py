"""The aesthetic predictor against the authors' computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.clip import IMAGE_SIZE, save_clip, save_head
from helpers.zoo import KINDS, colours, save_zoo, torchvision_pixels
from t2ialign.errors import ModelError
from t2ialign.reward_models.aesthetic import AestheticScore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aesthetic")
    save_head(folder)
    return save_clip(folder)


def load(folder: Path, **settings: Any) -> AestheticScore:
    return AestheticScore(str(folder.parent), clip=str(folder), device="cpu", **settings)


def test_equals_the_official_computation(folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel

    zoo = save_zoo(tmp_path)
    files = [zoo[kind] for kind in KINDS]
    model = CLIPModel.from_pretrained(folder).eval()
    places = [torch.nn.Linear(a, b) for a, b in ((16, 12), (12, 8), (8, 6), (6, 4), (4, 1))]
    one, two, three, four, five = places
    drop = torch.nn.Dropout(0.2)
    head = torch.nn.ModuleDict({"layers": torch.nn.Sequential(one, drop, two, drop, three, drop, four, five)}).eval()
    head.load_state_dict(torch.load(folder.parent / "sac+logos+ava1-l14-linearMSE.pth"))
    expected = []
    for file in files:
        with torch.no_grad():
            feature = model.get_image_features(torchvision_pixels(file, IMAGE_SIZE)[None]).pooler_output
            expected.append(head["layers"](feature / feature.norm(dim=-1, keepdim=True))[0, 0])
    scorer = load(folder, batch_size=5)
    scores = scorer.score(["whatever"] * len(files), files)
    assert float(torch.stack(expected).std()) > 0.1
    assert torch.allclose(scores, torch.stack(expected), atol=1e-5 * float(scores.abs().max()), rtol=0)
    assert torch.equal(scores, scorer.score([""] * len(files), files))


def test_both_checkpoints_are_recorded(folder: Path, tmp_path: Path) -> None:
    scorer = load(folder)
    info = scorer.info()
    assert info["head"]["checkpoint"] == "sac+logos+ava1-l14-linearMSE.pth"
    assert scorer.version == (
        f"v2:sac+logos+ava1-l14-linearMSE.pth@{info['head']['weights_sha256'][:8]}+{info['weights_sha256'][:8]}"
    )
    other = AestheticScore(str(save_head(tmp_path, seed=1)), clip=str(folder), device="cpu")
    assert other.version != scorer.version
    assert scorer.count_truncated(["x" * 1000]) == 0


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"reads features of 15 numbers and .* makes 16; give the CLIP"):
        AestheticScore(str(save_head(tmp_path, width=15)), clip=str(folder), device="cpu")
    torch.save({"layers.0.weight": torch.ones(2, 16), "layers.3.weight": torch.ones(1, 2)}, tmp_path / "relu.pth")
    with pytest.raises(ModelError, match=r"no aesthetic predictor v2 of linear layers: it holds layers.0.weight"):
        AestheticScore(str(tmp_path / "relu.pth"), clip=str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"hf download trl-lib/ddpo-aesthetic-predictor aesthetic-model.pth$"):
        AestheticScore(clip=str(folder))
    with pytest.raises(ModelError, match=r"hf download openai/clip-vit-large-patch14$"):
        AestheticScore(str(save_head(tmp_path)))
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match=r"none of the weight files aesthetic-model.pth"):
        AestheticScore(str(tmp_path / "none"), clip=str(folder))


def test_the_clip_may_be_of_open_clip(folder: Path, tmp_path: Path) -> None:
    from helpers.clip import save_open_clip

    scorer = AestheticScore(str(folder.parent), clip=str(save_open_clip(tmp_path)), device="cpu")
    assert scorer.score(["a"], [colours(0, (40, 50))]).shape == (1,)
