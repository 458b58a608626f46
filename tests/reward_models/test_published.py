"""Published examples: found by digest, compared, and never called right unseen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.official_blip import IMAGE_SIZE, save_imagereward
from helpers.zoo import colours, torchvision_pixels
from t2ialign.cli.main import main
from t2ialign.errors import ConfigError
from t2ialign.reward_models.published import EXAMPLES, Example, Noise, PublishedPicture, find_picture, noise, verify


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return save_imagereward(tmp_path_factory.mktemp("published"))


def published(folder: Path, model: Any, weights: Path, error: float = 0.0) -> Example:
    """Two pictures with the values that the plain official model gives them, the second of them off by `error`."""
    pictures, values = [], []
    for i in range(2):
        path = folder / f"{i}.png"
        colours(i, (50, 40)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        pictures.append(PublishedPicture((f"elsewhere/{i}.png", path.name), digest, f"picture {i} of the authors"))
        values.append(model.score(torchvision_pixels(path, IMAGE_SIZE), "a red circle"))
    values[1] += error
    return Example(f"imagereward@{weights}", "a red circle", tuple(pictures), tuple(values), 0.01, "somewhere")


@pytest.mark.parametrize(
    ("error", "status"), [(0.0, "agrees"), (0.009, "agrees"), (0.011, "differs"), (-1, "differs")]
)
def test_values_are_compared(tiny: tuple[Path, Any], tmp_path: Path, error: float, status: str) -> None:
    folder, model = tiny
    (found,) = verify(folder=tmp_path, device="cpu", examples=[published(tmp_path, model, folder, error)])
    assert (found.status, found.scorer, found.reason) == (status, "imagereward", "")
    assert found.difference == pytest.approx(abs(error), abs=1e-4)
    assert len(found.computed) == 2
    assert found.version.startswith("official:ImageReward.pt@")


def test_what_is_not_here_is_unchecked(
    tiny: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = tiny
    monkeypatch.delenv("T2IALIGN_REAL_DATA", raising=False)
    example = published(tmp_path, model, tmp_path / "gone.pt")
    (found,) = verify(folder=tmp_path, device="cpu", examples=[example])
    assert (found.status, found.difference, found.computed) == ("unchecked", None, ())
    assert "gone.pt" in found.reason
    (own,) = verify([f"imagereward@{folder}"], folder=tmp_path, device="cpu", examples=[example])
    assert own.status == "agrees"
    (nowhere,) = verify(examples=[example])
    assert "set T2IALIGN_REAL_DATA or give --data" in nowhere.reason
    monkeypatch.setenv("T2IALIGN_REAL_DATA", str(tmp_path))
    assert "gone.pt" in verify(device="cpu", examples=[example])[0].reason
    colours(7, (50, 40)).save(tmp_path / "1.png")
    (other,) = verify([f"imagereward@{folder}"], device="cpu", examples=[example])
    assert other.status == "unchecked"
    assert other.reason.startswith("1.png is another picture than the published one")
    (tmp_path / "1.png").unlink()
    (none,) = verify([f"imagereward@{folder}"], device="cpu", examples=[example])
    assert none.reason == "elsewhere/1.png is not in the folder; get picture 1 of the authors"
    with pytest.raises(ConfigError, match="no published values of pickscore are known; there are some of clipscore, "):
        verify(["pickscore"])


def test_the_published_values() -> None:
    """As they stand in ImageReward's README and in torchmetrics' documentation."""
    known = {example.name: example for example in EXAMPLES}
    assert known["imagereward"].values == (
        0.5811622738838196,
        0.2745276093482971,
        -1.4131819009780884,
        -2.029569625854492,
    )
    assert known["clipscore"].values == (24.4260,)
    assert known["clipscore"].pictures == (Noise(42),)
    state = torch.random.get_rng_state()
    drawn = noise(42)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(42)
    assert torch.equal(drawn, torch.randint(255, (3, 224, 224)).to(torch.uint8))
    assert all(len(example.pictures) == len(example.values) for example in EXAMPLES)


def test_the_pictures_are_the_published_ones(real_data: Path) -> None:
    for example in EXAMPLES:
        for picture in example.pictures:
            assert not isinstance(find_picture(picture, real_data), str)


def test_the_command_tells_what_differs(
    tiny: tuple[Path, Any], real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights on the real pictures: they must not pass."""
    output = tmp_path / "made" / "verified.json"
    words = ["--with", f"imagereward@{tiny[0]}", "--data", str(real_data), "--output", str(output), "--device", "cpu"]
    assert main(["scorers", "verify", *words]) == 1
    said = capsys.readouterr().out
    assert ": differs, off by at most" in said
    assert "0.5812     0.2745    -1.4132    -2.0296  (README of THUDM/ImageReward)" in said
    assert said.splitlines()[-1] == "not verified"
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["verified"] is False
    (example,) = written["examples"]
    assert example["status"] == "differs"
    assert len(example["computed"]) == 4


def test_nothing_checked_is_not_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    assert main(["scorers", "verify", "--data", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert said.count("unchecked") == 3
    assert "imagereward_1.webp is not in the folder" in said
    assert "hf download openai/clip-vit-base-patch16" in said
    assert main(["scorers", "verify", "--with", "pickscore"]) == 2


def test_a_value_that_is_no_number_never_agrees() -> None:
    from t2ialign.cli.scorers_verify import _plain
    from t2ialign.reward_models.published import Verification, largest_difference

    nan, inf = float("nan"), float("inf")
    assert largest_difference([1.0, nan], [1.0, 2.0]) == inf
    assert largest_difference([nan, 1.0], [1.0, 1.0]) == inf
    assert largest_difference([1.0, 2.5], [1.25, 2.0]) == 0.5
    plain = _plain(Verification("a", "v", "differs", (1.0,), (nan,), inf, 0.1, "", "s"))
    json.dumps(plain, allow_nan=False)
    assert (plain["computed"], plain["difference"]) == ([None], None)


def test_when_a_run_counts_as_verified() -> None:
    from dataclasses import replace

    from t2ialign.cli.scorers_verify import is_verified
    from t2ialign.reward_models.published import Verification

    good = Verification("a", "v", "agrees", (1.0,), (1.0,), 0.0, 0.1, "", "s")
    bad, unseen = replace(good, status="differs"), replace(good, status="unchecked")
    assert is_verified([good], everything=True)
    assert is_verified([good, unseen], everything=False)
    assert not is_verified([good, unseen], everything=True)
    assert not is_verified([good, bad], everything=False)
    assert not is_verified([unseen], everything=False)
    assert not is_verified([], everything=False)
