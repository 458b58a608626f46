"""Every YAML of the catalogue loads into its options, and says what each key is for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from t2ialign.cli.train import load_object
from t2ialign.config import load, options_of
from t2ialign.config.files import read_yaml
from t2ialign.trainers.registry import ALGORITHMS

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(path for path in (ROOT / "trainers").rglob("*.y*ml") if path.parent.name != "launch")
MODELS = ("mini-sd", "sd15", "sd21", "sdxl")
OWN_MODELS = {"reward": ("clip-vit-h", "mini-clip", "mini-users")}
"""Recipes of what trains no diffusion model."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_recipe_loads(path: Path) -> None:
    algorithm = ALGORITHMS[path.relative_to(ROOT / "trainers").parts[0]]
    cls = load_object(algorithm.config)
    given = read_yaml(path)
    missing = {
        name: "given-by-the-user" for name, each in options_of(cls).items() if each.required and name not in given
    }
    config = load(cls, path, missing)
    assert isinstance(config, cls)
    assert "output_dir" in missing, "a recipe does not choose where a user's run goes"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_recipe_explains_each_key(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith(("#", "-")) and line.split("#")[0].strip()[-1] != ":":
            above = lines[number - 1].lstrip() if number else ""
            assert "#" in line or above.startswith("#"), f"{path.name}:{number + 1}: {line.strip()} is not explained"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_has_recipes_for_each_family(name: str) -> None:
    folder = ROOT / "trainers" / name
    assert (folder / "README.md").is_file()
    assert {path.stem for path in folder.glob("*.yaml")} == set(OWN_MODELS.get(name, MODELS))


def test_no_other_yaml_of_the_catalogue_goes_unread() -> None:
    from t2ialign.eval.suites.suite import read_suite

    suites = sorted((ROOT / "eval").rglob("*.y*ml"))
    assert suites
    assert all(path.parent == ROOT / "eval" / "suites" for path in suites)
    for path in suites:
        assert read_suite(path).sections
    others = list((ROOT / "reward_models").rglob("*.y*ml"))
    assert others == [], "a YAML arrived here: load it into its options in this test"


@pytest.mark.parametrize("name", [".pre-commit-config.yaml", "CITATION.cff"])
def test_other_yaml_is_valid(name: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")), dict)
