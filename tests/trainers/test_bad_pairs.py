"""Pairs with nasty pictures in a real training: refused by name, or dropped whole, alike with and without caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from helpers.nasty import NASTY, encoded, gradient
from helpers.pairs import BLUE, RED, picture
from helpers.training import short_config, tiny_model, trainer_of
from t2ialign.errors import DataError
from t2ialign.models.lora import lora_parameters

BAD = {2: "cut-5.jpg", 6: "bomb-60000.png"}
COUNT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs; the rejected picture of two of them is nasty."""
    folder = tmp_path_factory.mktemp("pairs")
    sides: dict[str, list[Any]] = {"chosen": [], "rejected": []}
    for number in range(COUNT):
        for place, (side, colour) in enumerate((("chosen", RED), ("rejected", BLUE))):
            sides[side].append(encoded(picture(colour, 2 * number + place), "PNG"))
    for row, name in BAD.items():
        sides["rejected"][row] = NASTY[name].data
    table = {"prompt": [f"a picture {number}" for number in range(COUNT)], **sides}
    pq.write_table(pa.table(table), folder / "train-00000-of-00001.parquet")
    return folder


def train(folder: Path, output: Path, algorithm: str = "dpo", **changes: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """Train four steps, and return the report and the weights."""
    options = {"cache_latents": False, "cache_text": False, "on_bad_pair": "drop", "max_bad_share": 0.5}
    config = short_config(algorithm, output, pairs=str(folder), steps=4, **{**options, **changes})
    trainer = trainer_of(algorithm)(config, model=tiny_model())
    trainer.train()
    weights = torch.cat([part.detach().flatten() for part in lora_parameters(trainer.model.unet).values()])
    return json.loads((output / "report.json").read_text()), weights


@pytest.mark.parametrize("changes", [{"cache_latents": False}, {"cache_latents": True}, {"workers": 2}])
def test_by_default_the_first_ends_the_run(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        train(folder, tmp_path / "run", on_bad_pair="raise", **{"cache_latents": False, **changes})
    assert f"{folder}[train] row" in str(caught.value)
    assert ", rejected: " in str(caught.value)
    assert "--on_bad_pair drop" in str(caught.value)


def test_dropped_alike_with_and_without_caches_workers_and_a_stop(folder: Path, tmp_path: Path) -> None:
    report, weights = train(folder, tmp_path / "plain", checkpoint_every=2)
    assert report["status"] == "done"
    told = report["bad_pairs"]
    assert told["count"] == 2
    assert told["share"] == 0.25
    assert [f"row {row}, rejected: " in text for row, text in zip(BAD, told["which"], strict=True)] == [True, True]
    cached, same = train(folder, tmp_path / "cached", cache_latents=True)
    assert cached["bad_pairs"] == told
    assert cached["cached"]["latents"]
    torch.testing.assert_close(same, weights, rtol=1e-5, atol=1e-7)
    helped, bits = train(folder, tmp_path / "helped", workers=2)
    assert helped["bad_pairs"] == told
    assert torch.equal(bits, weights)
    (tmp_path / "plain/checkpoints/step-000004/manifest.json").unlink()
    resumed, bits = train(folder, tmp_path / "plain", resume="latest", checkpoint_every=2)
    assert resumed["resumed_from"] == 2
    assert resumed["bad_pairs"] == told
    assert torch.equal(bits, weights)


@pytest.mark.parametrize("cache", [False, True])
def test_above_the_share_it_is_refused(folder: Path, tmp_path: Path, cache: bool) -> None:
    with pytest.raises(DataError, match=r"2 pairs can not be read, where max_bad_share 0\.2 allows 1"):
        train(folder, tmp_path / "run", max_bad_share=0.2, cache_latents=cache)


def test_of_single_pictures_the_pictures_are_dropped(folder: Path, tmp_path: Path) -> None:
    report, _ = train(folder, tmp_path / "run", "kto")
    assert set(report["bad_pairs"]["which"]) <= {
        text for text in report["bad_pairs"]["which"] if ", rejected: " in text
    }
    assert report["bad_pairs"]["count"] <= 2
    assert report["status"] == "done"


def test_the_nasty_pixels_that_can_be_read_are_trained_on(tmp_path: Path) -> None:
    """CMYK, 16 bits, transparency, a turned one: no error and nothing dropped."""
    names = ("cmyk.jpg", "16-bit-rgb.png", "alpha.png", "turned-6.jpg", "1x40.png", "palette-alpha.png")
    table = {
        "prompt": [f"a {name}" for name in names],
        "chosen": [encoded(gradient(64, 64), "PNG")] * len(names),
        "rejected": [NASTY[name].data for name in names],
    }
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    report, weights = train(tmp_path / "train.parquet", tmp_path / "run", on_bad_pair="raise")
    assert report["bad_pairs"]["count"] == 0
    assert torch.isfinite(weights).all()


def test_what_a_broken_pair_shares_with_others_is_found_by_them(tmp_path: Path) -> None:
    """A broken pair's good picture stays with the next pair that has it; a broken picture takes each of its pairs."""
    good = [encoded(picture(RED, number), "PNG") for number in range(6)]
    broken = NASTY["cut-5.jpg"].data
    pairs = [(good[0], broken), (good[0], good[1]), (broken, good[2]), (good[3], good[2]), (good[4], good[5])]
    folder = tmp_path / "pairs"
    folder.mkdir()
    table = {"prompt": [f"a picture {number}" for number in range(len(pairs))]}
    sides = dict(zip(("chosen", "rejected"), map(list, zip(*pairs, strict=True)), strict=True))
    pq.write_table(pa.table({**table, **sides}), folder / "train-00000-of-00001.parquet")
    plain, weights = train(folder, tmp_path / "plain")
    assert plain["bad_pairs"]["count"] == 2
    ways: list[dict[str, Any]] = [{"cache_latents": True}, {"cache_dir": str(tmp_path / "cache")}]
    for number, changes in enumerate(ways):
        report, same = train(folder, tmp_path / f"cached-{number}", **changes)
        assert report["bad_pairs"]["count"] == 2
        torch.testing.assert_close(same, weights, rtol=1e-5, atol=1e-7)
