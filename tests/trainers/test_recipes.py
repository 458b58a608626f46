"""Every recipe for a diffusion model loads, and says what the defaults of its algorithm and family are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from t2ialign.cli.train import load_object
from t2ialign.config import load
from t2ialign.trainers.defaults import family_defaults, resolve
from t2ialign.trainers.registry import ALGORITHMS

CATALOGUE = Path(__file__).resolve().parents[2] / "trainers"
SCORERS = ("reward",)
"""What trains no diffusion model and so has no families; its recipes are loaded in tests/test_recipes.py."""
RECIPES = sorted(path for path in CATALOGUE.glob("*/*.yaml") if path.parent.name not in (*SCORERS, "launch"))
FAMILY = {"sd15": "sd15", "sd21": "sd2", "sdxl": "sdxl", "mini-sd": "mini-sd"}


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in SCORERS])
def test_there_is_a_recipe_for_every_family(name: str) -> None:
    assert {path.stem for path in RECIPES if path.parent.name == name} == set(FAMILY)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_loads_and_equals_the_defaults(path: Path) -> None:
    algorithm, family = path.parent.name, FAMILY[path.stem]
    cls = load_object(ALGORITHMS[algorithm].config)
    given = yaml.safe_load(path.read_text())
    told = "scorer" if ALGORITHMS[algorithm].guided else "pairs"
    overrides = {"output_dir": "run"} | ({} if told in given else {told: "mine"})
    config = load(cls, path, overrides)
    resolution = {"sd15": 512, "sd21": 768, "sdxl": 1024, "mini-sd": 64}[path.stem]
    plain = cls(output_dir=Path("run"), model=config.model, **{told: getattr(config, told)})
    expected = resolve(plain, family=family, resolution=resolution, algorithm=algorithm)
    mine = resolve(config, family=family, resolution=resolution, algorithm=algorithm)
    free = {"checkpoint_every", "sample_every", "mixed_precision", "watch"}
    for field in fields(cls):
        if field.name not in free:
            assert getattr(mine, field.name) == getattr(expected, field.name), field.name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_leaves_no_default_of_its_family_unsaid(path: Path) -> None:
    algorithm = path.parent.name
    given = yaml.safe_load(path.read_text())
    known = {field.name for field in fields(load_object(ALGORITHMS[algorithm].config))}
    own = family_defaults(FAMILY[path.stem], given["method"], algorithm).keys() & known
    assert own <= given.keys()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_is_explained(path: Path) -> None:
    text = (path.parent / "README.md").read_text()
    assert path.name in text
