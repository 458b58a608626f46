"""Imports run downward only (docs/design.md), those inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "t2ialign"

LEVELS = (
    ("objectives",),
    ("engine", "data", "mini"),
    ("models", "users", "chat"),
    ("generation",),
    ("reward_models",),
    ("trainers", "annotation"),
    ("eval",),
    ("demo",),
    ("cli",),
)
"""Lowest first; a room imports only what stands below it."""

RANK = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
SIDEWAYS = {("data", "mini")}
"""Who may import whom on the same level: `data` asks `mini` for the packaged sets."""
EVERYWHERE = {"config", "errors", "problems", "__init__"}
"""What every room may import; these import no room."""
CATALOGUE = ("trainers", "reward_models", "eval")
HEAVY = ("torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "open_clip", "datasets", "scipy")


def room_of(path: Path) -> str:
    """The room that a file of the package belongs to; a file at its root is a room of its own."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_modules(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, relative ones resolved, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parent = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*parent, base]).rstrip(".")
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def rooms_imported(path: Path) -> set[tuple[int, str]]:
    """Line and room of each import of ours in a file."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {*RANK, *EVERYWHERE}
    found = set()
    for line, name in imported_modules(tree, module, path.name == "__init__.py"):
        parts = name.split(".")
        if parts[0] == "t2ialign" and len(parts) > 1 and parts[1] in known:
            found.add((line, parts[1]))
    return found


def allowed(importer: str, imported: str) -> bool:
    """Whether the law lets one room import another."""
    if imported in EVERYWHERE or importer == imported:
        return True
    if importer in EVERYWHERE:
        return False
    return RANK[imported] < RANK[importer] or (importer, imported) in SIDEWAYS


def python_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) not in ("__init__", "__main__"))


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_downward(path: Path) -> None:
    room = room_of(path)
    assert room in {*RANK, *EVERYWHERE}, f"{room} is a room that the design does not know; add it to LEVELS and docs"
    wrong = [
        f"line {line}: {room} imports {other}" for line, other in rooms_imported(path) if not allowed(room, other)
    ]
    assert not wrong, f"{path.relative_to(ROOT)}: {wrong}"


def test_the_law_refuses_what_it_should() -> None:
    assert allowed("cli", "trainers")
    assert allowed("eval", "reward_models")
    assert allowed("objectives", "errors")
    assert not allowed("trainers", "eval")
    assert not allowed("reward_models", "trainers")
    assert not allowed("engine", "models")
    assert not allowed("engine", "data")
    assert not allowed("objectives", "engine")
    assert not allowed("config", "data")


def test_a_trainer_imports_no_reward_model() -> None:
    for path in sorted((PACKAGE / "trainers").rglob("*.py")):
        assert "reward_models" not in {room for _, room in rooms_imported(path)}, path


def test_imports_inside_functions_are_seen() -> None:
    source = (
        "def f():\n    from t2ialign.eval import compare\n    from ..cli import main\n    import t2ialign.demo.run\n"
    )
    names = {name for _, name in imported_modules(ast.parse(source), "t2ialign.data.pairs", is_package=False)}
    assert {"t2ialign.eval", "t2ialign.eval.compare", "t2ialign.cli", "t2ialign.demo.run"} <= names


def test_the_catalogue_is_no_code() -> None:
    for name in CATALOGUE:
        assert not list((ROOT / name).rglob("__init__.py")), f"{name}/ at the root is a catalogue and never imported"


def top_level_imports(path: Path) -> set[str]:
    """First names of what a file imports when it is loaded, leaving out functions and TYPE_CHECKING blocks."""
    waiting: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            waiting += node.body + node.orelse
        elif isinstance(node, ast.Try):
            waiting += node.body + node.orelse + node.finalbody
    return found


@pytest.mark.parametrize("room", ["cli", "config", "objectives"])
def test_light_rooms_load_nothing_heavy(room: str) -> None:
    heavy = set(HEAVY) - ({"torch"} if room == "objectives" else set())
    for path in sorted((PACKAGE / room).rglob("*.py")):
        assert not top_level_imports(path) & heavy, (
            f"{path.relative_to(ROOT)} imports a heavy library when it is loaded"
        )


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no docstring"
    assert len(text.splitlines()) <= 500, f"{path.relative_to(ROOT)} is over 500 lines"
