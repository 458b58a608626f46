"""Every command line and every Python example in README and docs is true to the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import t2ialign
from t2ialign.cli.main import COMMANDS, find
from t2ialign.cli.train import choose, load_object
from t2ialign.config import options_of, parse_arguments
from t2ialign.config.arguments import assign_positionals, read_words
from t2ialign.config.convert import check_choice, convert
from t2ialign.config.fields import dotted_options
from t2ialign.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
GLOBAL = {"--debug", "--version", "--help"}


def pages() -> list[Path]:
    folders = ("docs", "trainers", "reward_models", "eval")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.md"))]
    return [*sorted(ROOT.glob("*.md")), *found]


@dataclass(frozen=True)
class Line:
    """A command line of a page: where it stands, and its words after `t2ialign`."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def command_words(line: str) -> tuple[str, ...] | None:
    """The words after `t2ialign` in a shell line, or `None` where it calls something else."""
    line = line.strip().removeprefix("$ ")
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return None
    for start, word in enumerate(words):
        if word == "t2ialign" or word.endswith("/t2ialign"):
            before = words[:start]
            called = not before or before[-1] in ("-m", "&&", ";") or all("=" in each for each in before)
            return tuple(words[start + 1 :]) if called else None
    return None


def command_lines() -> list[Line]:
    found = []
    for page in pages():
        for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
            if language not in ("", "bash", "sh", "console", "shell", "text"):
                continue
            for line in body.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    words = command_words(part)
                    if words is not None:
                        found.append(Line(page.relative_to(ROOT).as_posix(), words))
    return found


def options_class(words: list[str]) -> tuple[Any, list[str]]:
    """The options that a command line is read with, and the words that are left for them."""
    name, rest = find(words)
    if name == "train":
        return load_object(choose(rest[0]).config), rest[1:]
    return load_object(f"{COMMANDS[name].module}.Options"), rest


def check(words: list[str]) -> None:
    """Read a command line as the program would; a `--config` that a run writes need not be there."""
    words = [word for word in words if word not in GLOBAL]
    if not words or words in (["train"], ["data"]):
        return
    cls, rest = options_class(words)
    known = dotted_options(cls)
    named, positionals = read_words(rest, known)
    config = named.pop("config", None)
    if config is None:
        if rest:
            parse_arguments(cls, rest, "t2ialign")
        return
    named.update(assign_positionals(cls, positionals, named))
    for name, value in named.items():
        check_choice(convert(value, known[name].annotation, name, known[name].separator), known[name].choices, name)
    if str(config).startswith(("trainers/", "eval/", "reward_models/")):
        assert (ROOT / config).is_file(), f"{config} is named, but not there"


@pytest.mark.parametrize("line", command_lines(), ids=str)
def test_a_documented_command_line_parses(line: Line) -> None:
    check(list(line.words))


def test_command_lines_are_found() -> None:
    lines = [line.words for line in command_lines() if line.page == "README.md"]
    assert ("demo",) in lines
    assert any(words[:2] == ("train", "dpo") and "--adapter" not in words for words in lines)
    assert any(words[0] == "generate" and "--adapter" in words and "--output_dir" in words for words in lines)
    assert command_words("accelerate launch -m t2ialign train dpo") == ("train", "dpo")
    assert command_words("HF_HUB_OFFLINE=1 t2ialign info  # what is here") == ("info",)
    assert command_words("pip install t2ialign") is None


@pytest.mark.parametrize(
    "words",
    [
        "gird a --output b.png",
        "grid a --ouput b.png",
        "train dop --model m",
        "train dpo --model m --pairs p --output_dir r --steps many",
        "train dpo --config x.yaml --steps many",
        "train dpo --config trainers/dpo/nothing.yaml",
        "score set",
    ],
)
def test_a_wrong_line_would_be_noticed(words: str) -> None:
    with pytest.raises((ConfigError, AssertionError)):
        check(words.split())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train"])
def test_the_examples_of_a_command_s_help_parse(name: str) -> None:
    module = importlib.import_module(COMMANDS[name].module)
    lines = [words for line in module.EXAMPLES.splitlines() if (words := command_words(line)) is not None]
    assert lines
    for words in lines:
        assert find(list(words))[0] == name
        check(list(words))


def inline_commands() -> list[tuple[str, str]]:
    found = []
    for page in pages():
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for code in re.findall(r"`t2ialign ([a-z][^`]*)`", text):
            found.append((page.relative_to(ROOT).as_posix(), code))
    return found


@pytest.mark.parametrize(("page", "code"), inline_commands(), ids=lambda value: str(value))
def test_a_command_named_in_a_sentence_exists(page: str, code: str) -> None:
    words = code.split()
    if words[0] == "COMMAND":
        return
    name, rest = find(words)
    if name in COMMANDS and name != "train":
        known = dotted_options(load_object(f"{COMMANDS[name].module}.Options"))
        flags = [word.partition("=")[0] for word in rest if word.startswith("--")]
        assert all(flag in GLOBAL or flag.removeprefix("--") in known for flag in flags), f"{page}: {code}"


def python_examples() -> list[tuple[str, str]]:
    return [
        (page.relative_to(ROOT).as_posix(), body)
        for page in pages()
        for language, body in FENCE.findall(page.read_text(encoding="utf-8"))
        if language == "python"
    ]


def is_there(module: str, name: str) -> bool:
    """Whether `from module import name` works, `name` being a value or a module."""
    found = importlib.import_module(module)
    return hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}") is not None


@pytest.mark.parametrize(("page", "code"), python_examples(), ids=lambda value: str(value)[:40])
def test_a_python_example_imports_what_exists(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "t2ialign":
            for alias in node.names:
                assert is_there(str(node.module), alias.name), f"{page}: {node.module} has no {alias.name}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Config"):
            known = options_of(getattr(t2ialign, node.func.id))
            assert {keyword.arg for keyword in node.keywords} <= set(known), f"{page}: {ast.unparse(node)}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
