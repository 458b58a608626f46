"""From image sets to a front: the same prompts for all, settings from the sets, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.image_sets import write_plain_set
from t2ialign.cli.main import main
from t2ialign.errors import ConfigError, DataError
from t2ialign.eval.pareto import pareto_front, points_of_sets
from t2ialign.eval.vendi import vendi_score
from t2ialign.reward_models.base import Embedder, decode
from t2ialign.reward_models.registry import load_scorer
from t2ialign.reward_models.scoring import score_set


class MeanColour:
    """Embeds a picture as its mean colour, and scores redness."""

    name, version, higher_is_better = "redness", "1", True

    def score(self, prompts: Any, images: Any) -> torch.Tensor:
        return self.embed_images(images)[:, 0]

    def info(self) -> dict[str, Any]:
        return {"scorer": self.name, "version": self.version, "higher_is_better": True}

    def count_truncated(self, prompts: Any) -> int:
        return 0

    def aggregate(self, scores: Any) -> float:
        return float(np.mean(scores))

    def embed_images(self, images: Any) -> torch.Tensor:
        pixels = [np.asarray(decode(image).convert("RGB"), dtype=np.float32).mean((0, 1)) for image in images]
        return torch.tensor(np.stack(pixels))


def write_set(path: Path, red: int, spread: int, guidance: float, prompts: int = 6, samples: int = 3) -> Path:
    """Pictures of one colour each: `red` of it, and other colours that differ by `spread` from sample to sample."""
    pictures = []
    for prompt in range(prompts):
        for sample in range(samples):
            colour = (red + prompt, 40 + spread * sample, 40 + spread * (2 - sample))
            fields = {"prompt_id": f"p{prompt}", "prompt": f"prompt {prompt}", "sample": sample, "seed": sample}
            pictures.append((fields, Image.new("RGB", (8, 8), colour)))
    write_plain_set(path, pictures)
    config = {"model": "m", "guidance_scale": guidance, "num_inference_steps": 10}
    (path / "config.json").write_text(json.dumps(config))
    score_set(path, [MeanColour()], path / "scores.parquet", workers=0, progress=False)
    return path


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    places = {"loose": (100, 60, 1.0), "tight": (200, 5, 8.0), "bad": (90, 4, 20.0)}
    return [write_set(tmp_path / name, *place) for name, place in places.items()]


def test_points_carry_means_diversity_and_what_was_set(sets: list[Path]) -> None:
    points, axes = points_of_sets(sets, ["redness", "vendi"], embedder=MeanColour(), q=2)
    assert [point.label for point in points] == ["loose", "tight", "bad"]
    assert [point.settings for point in points] == [{"guidance_scale": g} for g in (1.0, 8.0, 20.0)]
    assert list(np.asarray(points[1].per_prompt["redness"])) == pytest.approx([200.0 + i for i in range(6)])
    colours = [[103, 40 + 60 * sample, 40 + 60 * (2 - sample)] for sample in range(3)]
    assert np.asarray(points[0].per_prompt["vendi"])[3] == pytest.approx(vendi_score(colours, 2).value)
    front = pareto_front(points, axes, resamples=200)
    assert [point.on_front for point in front.points] == [True, True, False]
    assert front.prompts == 6


def test_sets_are_cut_to_what_they_share(tmp_path: Path, sets: list[Path]) -> None:
    fewer = write_set(tmp_path / "fewer", 150, 20, 3.0, prompts=4, samples=2)
    points, _ = points_of_sets([*sets, fewer], ["redness", "vendi"], embedder=MeanColour())
    assert {len(np.asarray(point.per_prompt[name])) for point in points for name in ("redness", "vendi")} == {4}
    assert max(np.asarray(points[0].per_prompt["vendi"])) < 2


def test_one_prompt_with_more_pictures_does_not_push_the_others_out(tmp_path: Path) -> None:
    from t2ialign.eval.pairs import read_scored_set
    from t2ialign.eval.pareto.sweep import _shared

    read = []
    for name in ("a", "b"):
        pictures = [
            (
                {"prompt_id": f"p{prompt}", "prompt": "x", "sample": i, "seed": i},
                Image.new("RGB", (8, 8), (prompt, 0, 0)),
            )
            for prompt, samples in enumerate((2, 2, 2, 5, 1))
            for i in range(samples)
        ]
        write_plain_set(tmp_path / name, pictures)
        score_set(tmp_path / name, [MeanColour()], tmp_path / name / "scores.parquet", workers=0, progress=False)
        read.append(read_scored_set(tmp_path / name, None))
    assert _shared(read) == [(f"p{prompt}", i) for prompt in range(4) for i in range(2)]


def test_what_cannot_be_weighed_is_refused(tmp_path: Path, sets: list[Path]) -> None:
    with pytest.raises(ConfigError, match="--embedder"):
        points_of_sets(sets, ["redness", "vendi"])
    with pytest.raises(DataError, match="'clipscore'"):
        points_of_sets(sets, ["redness", "clipscore"])
    with pytest.raises(ConfigError, match="2 labels for 3"):
        points_of_sets(sets, ["redness"], labels=["a", "b"])
    with pytest.raises(ConfigError, match="at least 2"):
        points_of_sets(sets[:1], ["redness"])


def test_the_command(tmp_path: Path, sets: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pareto", *map(str, sets), "--output_dir", str(tmp_path / "front")]
    assert main([*words, "--axes", "redness,vendi"]) == 2
    assert "--embedder" in capsys.readouterr().err
    assert main([*words, "--axes", "redness"]) == 2
    capsys.readouterr()
    assert main([*words, "--axes", "redness,vendi", "--embedder", "clipscore@mini-clip", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "tight: on the front" in said
    assert "6 prompts" in said
    content = json.loads((tmp_path / "front" / "pareto.json").read_text())
    assert [axis["name"] for axis in content["axes"]] == ["redness", "vendi"]
    scorer = load_scorer("clipscore@mini-clip", device="cpu")
    assert isinstance(scorer, Embedder)
    each = [sorted((sets[0] / "images" / f"p{i}").glob("*.png")) for i in range(6)]
    scores = [vendi_score(scorer.embed_images(pictures)).value for pictures in each]
    assert content["points"][0]["values"]["vendi"] == pytest.approx(np.mean(scores))
