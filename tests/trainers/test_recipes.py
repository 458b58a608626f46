"""Every recipe in `trainers/dpo/` loads, and says what the defaults of its family are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from t2ialign.config import load
from t2ialign.trainers.defaults import resolve
from t2ialign.trainers.dpo_config import DPOConfig
from t2ialign.trainers.registry import ALGORITHMS

RECIPES = sorted((Path(__file__).resolve().parents[2] / "trainers").glob("*/*.yaml"))
FAMILY = {"sd15": "sd15", "sd21": "sd2", "sdxl": "sdxl", "mini-sd": "mini-sd"}


def test_there_is_a_recipe_for_every_family() -> None:
    assert {path.stem for path in RECIPES if path.parent.name == "dpo"} == set(FAMILY)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_loads_and_equals_the_defaults(path: Path) -> None:
    assert path.parent.name in ALGORITHMS
    given = yaml.safe_load(path.read_text())
    overrides = {"output_dir": "run"} | ({} if "pairs" in given else {"pairs": "mine"})
    config = load(DPOConfig, path, overrides)
    resolution = {"sd15": 512, "sd21": 768, "sdxl": 1024, "mini-sd": 64}[path.stem]
    plain = DPOConfig(output_dir=Path("run"), model=config.model, pairs=config.pairs)
    expected = resolve(plain, family=FAMILY[path.stem], resolution=resolution)
    mine = resolve(config, family=FAMILY[path.stem], resolution=resolution)
    free = {"checkpoint_every", "sample_every", "mixed_precision"}
    for field in fields(DPOConfig):
        if field.name not in free:
            assert getattr(mine, field.name) == getattr(expected, field.name), field.name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_is_explained(path: Path) -> None:
    text = (path.parent / "README.md").read_text()
    assert path.name in text
