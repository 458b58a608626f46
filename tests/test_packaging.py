"""What is installed: version, lazy names, which files a wheel holds, and the files that a repository needs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import t2ialign

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "t2ialign"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_one_version(project: dict[str, Any]) -> None:
    assert t2ialign.__version__ == project["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == t2ialign.__version__
    assert t2ialign.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in t2ialign.__all__ if name != "__version__"])
def test_every_lazy_name_resolves(name: str) -> None:
    value = getattr(t2ialign, name)
    assert callable(value)
    assert value.__module__.startswith("t2ialign.")


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    names = {
        alias.asname or alias.name: node.module
        for block in guarded
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*names, "__version__"} == set(t2ialign.__all__)
    assert {name: path.partition(":")[0] for name, path in t2ialign._EXPORTS.items()} == names
    assert set(t2ialign.__all__) <= set(dir(t2ialign))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PickScoer'"):
        _ = t2ialign.PickScoer


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, t2ialign; print(sorted({'torch', 'numpy', 'yaml', 'diffusers', 'PIL'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_every_folder_of_code_is_a_package() -> None:
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        assert (folder / "__init__.py").is_file(), f"{folder.relative_to(ROOT)} would be missing from the wheel"


def test_every_other_file_is_package_data(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]
    shipped: set[Path] = set()
    for package, globs in patterns.items():
        folder = ROOT.joinpath(*package.split("."))
        shipped.update(path for pattern in globs for path in folder.glob(pattern))
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".tmp")}
    assert others - shipped == set(), "these would be missing from the wheel; see package-data in pyproject.toml"
    assert PACKAGE / "py.typed" in shipped


def test_nothing_is_imported_that_is_not_declared(project: dict[str, Any]) -> None:
    names = {"PIL": "pillow", "yaml": "pyyaml", "open_clip": "open-clip-torch", "huggingface_hub": "huggingface-hub"}
    declared = {_name(line) for line in project["project"]["dependencies"]}
    extras = {_name(line) for lines in project["project"]["optional-dependencies"].values() for line in lines}
    # Parts of what is declared: transformers brings tokenizers, datasets brings pandas.
    indirect = {"tokenizers", "pandas"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            for module in modules:
                first = module.split(".")[0]
                known = first in sys.stdlib_module_names or first == "t2ialign"
                wanted = names.get(first, first.lower().replace("_", "-"))
                assert known or wanted in declared | extras | indirect, f"{path.relative_to(ROOT)} imports {module}"


def _name(requirement: str) -> str:
    end = next((i for i, letter in enumerate(requirement) if letter in "<>=![ ;"), len(requirement))
    return requirement[:end].lower().replace("_", "-")


def test_dependencies_have_no_upper_bounds(project: dict[str, Any]) -> None:
    for line in project["project"]["dependencies"]:
        assert not set("<~") & set(line), f"{line} would break the environments of others"
        assert "==" not in line


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_automatic_check_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("build")
    words = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(words, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"t2ialign", f"t2ialign-{t2ialign.__version__}.dist-info"}
    assert "t2ialign/py.typed" in names
    sources = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert sources <= set(names)
