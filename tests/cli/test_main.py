"""The entry point: finding commands, exit codes, error lines, and that help loads nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from t2ialign import __version__
from t2ialign.cli.main import COMMANDS, Command, find, main
from t2ialign.config import option
from t2ialign.errors import ConfigError, DataError, MissingDependencyError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Install a command `probe` that does what it is given."""

    def install(action: Callable[[], int]) -> None:
        @dataclass
        class Options:
            size: int = option(1, "A size.")

        module = types.ModuleType("probe_command")
        vars(module).update(Options=Options, DESCRIPTION="Probe.", run=lambda options: action())
        monkeypatch.setitem(sys.modules, "probe_command", module)
        monkeypatch.setitem(COMMANDS, "probe", Command("", "probe", "probe_command"))

    return install


def raising(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


def test_every_command_has_a_file_with_options_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([*name.split(), "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: t2ialign {name}")


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_a_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    shown = capsys.readouterr().out
    assert "data import" in shown
    assert "data check" in shown
    assert "generate" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"t2ialign {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gird"], "did you mean 'grid'"),
        (["data", "chek"], "did you mean 'data check'"),
        (["--output", "x", "grid"], "the command comes first"),
        (["grid", "a", "--ouput", "b.png"], "did you mean '--output'"),
        (["grid", "a"], "output is required"),
        (["grid", "a", "--output", "b.jpg"], "PNG"),
        (["train", "dop"], "did you mean 'dpo'"),
        (["train", "--model", "m"], "the algorithm comes before the options"),
        (["train", "dpo", "--lora.rnk", "4"], "did you mean '--lora.rank'"),
        (["score", "set"], "with is required"),
        (["compare", "base"], "sets is required"),
        (["export", "final", "--output", "x.ckpt"], "safetensors"),
        (["data", "import", "folder", "x", "--output_dir", "y"], "did you mean 'folders'"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].startswith("usage: t2ialign ")
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("pairs.parquet: row 3 has no picture; take it out"), 1, "error: pairs.parquet: row 3"),
        (ConfigError("beta is -1"), 2, "error: beta is -1"),
        (MissingDependencyError("xformers"), 1, "pip install 't2ialign[xformers]'"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 1, "error: No such file or directory: 'a.txt'"),
        (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero (unexpected"),
        (KeyboardInterrupt(), 130, "stopped from the keyboard"),
        (SystemExit(3), 3, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_exit_codes(
    command: Callable[[Callable[[], int]], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    command(raising(error))
    assert main(["probe"]) == code
    shown = capsys.readouterr().err
    assert line in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback_wherever_it_stands(
    command: Callable[[Callable[[], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(DataError("broken")))
    for words in (["--debug", "probe"], ["probe", "--debug"], ["probe", "--size", "2", "--debug"]):
        assert main(words) == 1
        shown = capsys.readouterr().err
        assert "Traceback" in shown
        assert "error: broken" in shown


def test_a_command_s_return_value_is_the_exit_code(command: Callable[[Callable[[], int]], None]) -> None:
    command(lambda: 1)
    assert main(["probe"]) == 1


def test_find_prefers_the_whole_name() -> None:
    assert find(["data", "import", "folders"]) == ("data import", ["folders"])
    assert find(["data"]) == ("data", [])
    assert find(["grid", "data"]) == ("grid", ["data"])


@pytest.mark.parametrize(
    "words", ["", "--help", "--version", "data", "train --help", "train dpo --help", "generate --help"]
)
def test_help_loads_nothing_heavy(words: str) -> None:
    heavy = ("torch", "diffusers", "transformers", "datasets", "scipy", "numpy", "PIL", "pyarrow", "accelerate")
    code = (
        "import sys; from t2ialign.cli.main import main; code = main(sys.argv[1:]); "
        f"print('loaded', sorted(set({heavy!r}) & set(sys.modules))); sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_python_m_is_the_same_entry() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "t2ialign", "gird"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert "did you mean 'grid'" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "import sys; sys.path.insert(0, ''); from t2ialign.cli.main import main; sys.exit(main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    shown = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() in (0, 1)
    assert "Traceback" not in shown
    assert "Exception ignored" not in shown


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from t2ialign.cli.output import say

    monkeypatch.setenv("RANK", "1")
    say("quiet")
    monkeypatch.setenv("RANK", "0")
    say("loud")
    assert capsys.readouterr().out == "loud\n"
