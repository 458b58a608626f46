"""The entry point `t2ialign`: finds the command, runs it, and turns errors into one line and an exit code.

Exit codes: 0 done, 1 it failed, 2 wrong usage, 128 and the number of a signal that stopped it: 130 for SIGINT, 143
for SIGTERM, 138 for SIGUSR1 (its number differs on some systems).
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from t2ialign.errors import ConfigError, OtherProcessError, Stopped, T2IAlignError


@dataclass(frozen=True)
class Command:
    """A line of the list of commands.

    Attributes:
        arguments: What follows the name, shortened, for the list.
        help: What it does, in a line.
        module: Dotted path of its file: `Options` and `run(options) -> int`, or `main(words) -> int`.
    """

    arguments: str
    help: str
    module: str


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "[--output_dir DIR]", "the whole loop on mini-SD, offline, on a CPU, in minutes", "t2ialign.cli.demo"
    ),
    "data import": Command(
        "FORMAT SOURCE --output_dir DIR", "bring pairs or pictures into our format", "t2ialign.cli.data_import"
    ),
    "data check": Command("PAIRS", "read every row and say if a set is fit to train on", "t2ialign.cli.data_check"),
    "data captions": Command(
        "PAIRS --strategy S --output_dir DIR", "a caption for each side of a pair (DCPO)", "t2ialign.cli.data_captions"
    ),
    "data pairs": Command(
        "SOURCE --output_dir PAIRS", "pairs from scores, ratings or annotations", "t2ialign.cli.data_pairs"
    ),
    "data self_pairs": Command(
        "--model M --prompts FILE --output_dir PAIRS",
        "pairs of a model with itself, a phrase added for one side (MaPO)",
        "t2ialign.cli.data_self_pairs",
    ),
    "data cache": Command(
        "PAIRS --model M --cache_dir DIR",
        "encode pictures and captions once, for many runs",
        "t2ialign.cli.data_cache",
    ),
    "annotate": Command(
        "SET --annotator A --output_dir DIR", "four-aspect ratings with rationales", "t2ialign.cli.annotate"
    ),
    "agreement": Command(
        "DIR --against H --output_dir DIR", "is the annotator any good: kappa, swaps, biases", "t2ialign.cli.agreement"
    ),
    "label": Command("SET --output_dir PAIRS", "a page where a person picks the better picture", "t2ialign.cli.label"),
    "users embed": Command(
        "PAIRS --output FILE", "a user from a few labelled pairs (PPD)", "t2ialign.cli.users_embed"
    ),
    "data export": Command(
        "SET --to LAYOUT --output_dir DIR", "an image set in another tool's layout", "t2ialign.cli.data_export"
    ),
    "train": Command("ALGO --model M --pairs P --output_dir RUN", "fine-tune from pairs", "t2ialign.cli.train"),
    "generate": Command("--model M --prompts FILE --output_dir SET", "make an image set", "t2ialign.cli.generate"),
    "grid": Command("SET... --output FILE", "prompts down, models across, same seeds", "t2ialign.cli.grid"),
    "score": Command("SET --with SCORER,...", "score every picture of an image set", "t2ialign.cli.score"),
    "scorers verify": Command(
        "[--with SCORER,...] [--data DIR]", "real weights against published values", "t2ialign.cli.scorers_verify"
    ),
    "compare": Command("BASE SET... --output_dir DIR", "win rates, intervals and tests", "t2ialign.cli.compare"),
    "eval": Command(
        "SUITE --model M... --output_dir DIR", "generate what is missing, score, compare, report", "t2ialign.cli.eval"
    ),
    "pareto": Command(
        "SET... --axes A,B --output_dir DIR",
        "which settings no other one beats, and how surely",
        "t2ialign.cli.pareto",
    ),
    "interpolate": Command(
        "FIRST SECOND --output_dir DIR", "models between two tuned ones", "t2ialign.cli.interpolate"
    ),
    "export": Command("RUN/final --output FILE", "a LoRA for ComfyUI and A1111", "t2ialign.cli.export"),
    "info": Command("", "versions, devices, attention backends, what is cached", "t2ialign.cli.info"),
}

_DOCUMENTATION = "Each command has its own help: t2ialign COMMAND --help"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: The words after `t2ialign`; by default those of this process.

    Returns:
        The exit code.
    """
    words, debug = _without_debug(list(sys.argv[1:] if argv is None else argv))
    try:
        return dispatch(words)
    except Stopped as stop:
        return _fail(str(stop), stop.exit_code, debug, once=True)
    except KeyboardInterrupt:
        return _fail("stopped from the keyboard", 130, debug)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BrokenPipeError:
        # Who reads us has left (`t2ialign ... | head`); keep Python from complaining when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OtherProcessError as error:
        return _fail("" if error.told else f"error: {error}", error.exit_code, debug)
    except ConfigError as error:
        return _fail(f"error: {error}\n{_where_help_is(words)}", error.exit_code, debug)
    except T2IAlignError as error:
        return _fail(f"error: {error}", error.exit_code, debug)
    except OSError as error:
        place = f": {error.filename!r}" if error.filename else ""
        return _fail(f"error: {error.strerror or error}{place}", 1, debug)
    except Exception as error:  # whatever escapes the library is shown in a line too
        hint = "" if debug else " (unexpected; --debug shows where)"
        return _fail(f"error: {type(error).__name__}: {error}{hint}", 1, debug)


def dispatch(words: list[str]) -> int:
    """Find the command that the words name and run it.

    Raises:
        ConfigError: If there is no such command; the message names the nearest.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        from t2ialign import __version__

        print(f"t2ialign {__version__}")
        return 0
    name, rest = find(words)
    if name not in COMMANDS:
        print(overview(name))
        return 0
    _set_up_logging()
    module = importlib.import_module(COMMANDS[name].module)
    if hasattr(module, "main"):
        return int(module.main(rest))
    from t2ialign.config import parse_arguments

    options = parse_arguments(
        module.Options, rest, f"t2ialign {name}", module.DESCRIPTION, epilog=getattr(module, "EXAMPLES", "")
    )
    return int(module.run(options))


def find(words: list[str]) -> tuple[str, list[str]]:
    """Split words into a command's name and its arguments; a group's name alone stands for its list.

    Raises:
        ConfigError: If the words name no command.
    """
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    first = words[0]
    if first in COMMANDS:
        return first, words[1:]
    if first in groups:
        if len(words) == 1 or words[1] in ("-h", "--help"):
            return first, []
        first = " ".join(words[:2])
        if first in COMMANDS:
            return first, words[2:]
    from t2ialign.config import nearest

    if first.startswith("-"):
        raise ConfigError(f"the command comes first, {first!r} is none; known are {', '.join(COMMANDS)}")
    raise ConfigError(f"unknown command {first!r}{nearest(first, COMMANDS)}")


def overview(group: str = "") -> str:
    """Write the list of commands, or of a group's commands."""
    names = [name for name in COMMANDS if name.startswith(group)]
    calls = {name: f"{name} {COMMANDS[name].arguments}".strip() for name in names}
    width = max(len(call) for call in calls.values()) + 2
    lines = [f"usage: t2ialign {group or 'COMMAND'} ... [--option value ...]", ""]
    if not group:
        lines += ["Align text-to-image diffusion models with human preferences.", ""]
    lines += ["commands:", *(f"  {calls[name]:<{width}}{COMMANDS[name].help}" for name in names), ""]
    if not group:
        lines += [
            "global flags:",
            f"  {'--debug':<{width}}show the traceback of an error",
            f"  {'--version':<{width}}show the version and leave",
            "",
        ]
    return "\n".join([*lines, _DOCUMENTATION])


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"] + words[end:]
    return kept, "--debug" in words[:end]


def _where_help_is(words: list[str]) -> str:
    try:
        name, rest = find(words)
    except (ConfigError, IndexError):
        return "usage: t2ialign COMMAND ...; t2ialign --help lists the commands"
    if name == "train":
        from t2ialign.trainers.registry import ALGORITHMS

        name = f"{name} {rest[0]}" if rest and rest[0] in ALGORITHMS else name
    return f"usage: t2ialign {name} --help shows the options"


def _fail(message: str, code: int, debug: bool, *, once: bool = False) -> int:
    """Tell why it ended.

    In a launch of several processes the first one tells what all of them know: `once`, or what went wrong before they
    joined. After that each of them tells its own, see `engine.launch`.
    """
    from t2ialign.cli.output import fit_to_print
    from t2ialign.config import without_secrets

    if debug:
        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
    joined = "torch.distributed" in sys.modules and sys.modules["torch.distributed"].is_initialized()
    rank = os.environ.get("RANK" if once else "LOCAL_RANK", "0")
    if message and (rank == "0" or (joined and not once)):
        print(fit_to_print(without_secrets(message)), file=sys.stderr)
    return code


def _set_up_logging() -> None:
    """Show what the library tells on stderr: all of it in the first process, only warnings in the others."""
    import logging

    from t2ialign.cli.output import fit_to_print, is_first_process
    from t2ialign.config import without_secrets

    class WithoutSecrets(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return fit_to_print(without_secrets(super().format(record)))

    handler = logging.StreamHandler()
    handler.setFormatter(WithoutSecrets("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("t2ialign").setLevel(logging.INFO if is_first_process() else logging.WARNING)
