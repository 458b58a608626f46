"""The command-line side of options: flags, positionals, `--config FILE` and a grouped `--help`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from t2ialign.config.convert import FALSE_WORDS, TRUE_WORDS, shown, type_name
from t2ialign.config.fields import Option, dotted_options, nearest, options_of
from t2ialign.config.files import load
from t2ialign.errors import ConfigError

T = TypeVar("T")

_NUMBER = re.compile(r"^-(\d|\.\d)")


def parse_arguments(cls: type[T], argv: Sequence[str], prog: str, description: str = "", *, epilog: str = "") -> T:
    """Build an options dataclass from command-line words.

    `--name value` and `--name=value` are the same; `--flag` alone is true for a bool; a list's flag may
    be repeated; `--config FILE` reads YAML that the flags override; nested options are dotted. `--help`
    prints the options, grouped by nested dataclass, and leaves with exit code 0.

    Args:
        cls: A dataclass made with `option`.
        argv: The words after the command's name.
        prog: How the command is called, for `--help`.
        description: What the command does.
        epilog: What stands below the options, for instance examples; its lines are kept.

    Raises:
        ConfigError: As `load`, or for an unknown flag or too many words.
        SystemExit: After `--help`.
    """
    if any(word in ("-h", "--help") for word in _before_dashes(argv)):
        sys.stdout.write(help_text(cls, prog, description, epilog))
        raise SystemExit(0)
    named, words = read_words(argv, dotted_options(cls))
    config = named.pop("config", None)
    named.update(assign_positionals(cls, words, {**named}))
    return load(cls, config, named)


def _before_dashes(argv: Sequence[str]) -> Sequence[str]:
    return argv[: list(argv).index("--")] if "--" in argv else argv


def read_words(argv: Sequence[str], known: dict[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """Split words into named values and positionals.

    Returns:
        Dotted name to text (or list of texts for a repeated list), and the remaining words in order.

    Raises:
        ConfigError: For an unknown flag, a flag without its value, or a plain flag given twice.
    """
    named: dict[str, Any] = {}
    positionals: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return named, positionals + words
        if not word.startswith("-") or word == "-" or _NUMBER.match(word):
            positionals.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        found = known.get(name) if word.startswith("--") else None
        if found is None and name != "config":
            flags = [f"--{other}" for other in (*known, "config", "help")]
            raise ConfigError(f"unknown option {word.partition('=')[0]!r}{nearest('--' + name.lstrip('-'), flags)}")
        if not equals:
            value = _next_value(words, name, found)
        _record(named, name, value, found)
    return named, positionals


def _next_value(words: list[str], name: str, found: Option | None) -> str:
    if found is not None and found.is_flag:
        return words.pop(0) if words and words[0].lower() in TRUE_WORDS | FALSE_WORDS else "true"
    if not words or words[0].startswith("--"):
        raise ConfigError(f"--{name} needs a value")
    return words.pop(0)


def _record(named: dict[str, Any], name: str, value: str, found: Option | None) -> None:
    if name not in named:
        named[name] = value
        return
    if found is None or not found.is_list:
        raise ConfigError(f"--{name} is given twice: {named[name]!r} and {value!r}")
    pieces: list[str] = []
    for text in (named[name], value):
        if isinstance(text, list):
            pieces += text
        else:
            pieces += [piece.strip() for piece in text.split(found.separator)] if found.separator else [text]
    named[name] = pieces


def assign_positionals(cls: type[Any], words: Sequence[str], named: dict[str, Any]) -> dict[str, Any]:
    """Give the words without a flag to the positional options, in order; a list takes all that is left.

    Raises:
        ConfigError: If words are left over.
    """
    waiting = [found for found in options_of(cls).values() if found.positional and found.name not in named]
    rest = list(words)
    assigned: dict[str, Any] = {}
    for found in waiting:
        if not rest:
            break
        if found.is_list:
            assigned[found.name], rest = rest, []
        else:
            assigned[found.name] = rest.pop(0)
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r}; options are written as --name value, see --help")
    return assigned


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wider columns than argparse's own; descriptions keep their lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def help_text(cls: type[Any], prog: str, description: str = "", epilog: str = "") -> str:
    """Write the `--help` of an options dataclass: a group for each nested dataclass, defaults shown."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        add_help=False,
        formatter_class=_Formatter,
        usage=_usage(cls, prog),
    )
    positionals = [found for found in options_of(cls).values() if found.positional]
    if positionals:
        group = parser.add_argument_group("arguments")
        for found in positionals:
            group.add_argument(found.name, metavar=_metavar(found), help=_help_line(found, found.default()))
    plain = parser.add_argument_group("options")
    _add_group(parser, plain, cls, "", None)
    plain.add_argument("--config", metavar="FILE", help="YAML file with the same options; flags win over it.")
    plain.add_argument("-h", "--help", action="help", help="Show this and leave.")
    return parser.format_help()


def _usage(cls: type[Any], prog: str) -> str:
    parts = [prog]
    for found in options_of(cls).values():
        if found.positional:
            word = _metavar(found) + (" ..." if found.is_list else "")
            parts.append(word if found.required else f"[{word}]")
    parts += [
        f"--{found.name} {_metavar(found)}"
        for found in options_of(cls).values()
        if found.required and not found.positional
    ]
    return " ".join([*parts, "[--option value ...]"]).replace("%", "%%")


def _add_group(parser: argparse.ArgumentParser, group: Any, cls: type[Any], prefix: str, base: Any) -> None:
    for name, found in options_of(cls).items():
        if found.positional and not prefix:
            continue
        default = found.default() if base is None else getattr(base, found.field_name)
        if found.nested is not None:
            title = f"{prefix}{name}: {_purpose(found)}".rstrip(": ")
            inner = default if isinstance(default, found.nested) else None
            _add_group(parser, parser.add_argument_group(title), found.nested, f"{prefix}{name}.", inner)
            continue
        metavar = "" if found.is_flag else _metavar(found)
        group.add_argument(f"--{prefix}{name}", metavar=metavar, help=_help_line(found, default))


def _purpose(found: Option) -> str:
    """What a group is for: the field's help, else the first line of the nested class's own docstring."""
    first_line = (getattr(found.nested, "__doc__", None) or "").strip().split("\n")[0]
    generated = first_line.startswith(f"{getattr(found.nested, '__name__', '')}(")
    return (found.help or ("" if generated else first_line)).rstrip(".")


def _metavar(found: Option) -> str:
    if found.metavar:
        return found.metavar
    if found.choices is not None and not found.is_list:
        return "{" + ",".join(str(choice) for choice in found.choices) + "}"
    if found.positional:
        return found.name.upper()
    return type_name(found.annotation).removesuffix("" if found.separator else ",...")


def _help_line(found: Option, default: Any) -> str:
    text = found.help
    if found.choices is not None and (found.is_list or found.metavar):
        text += f" One of {shown(found.choices)}."
    if found.required:
        text += " (required)"
    elif default is not None and default != [] and default != ():
        value = shown(tuple(default)) if isinstance(default, list | tuple) else default
        value = str(value).lower() if isinstance(value, bool) else value
        text += f" (default: {value})"
    return text.replace("%", "%%").strip()
