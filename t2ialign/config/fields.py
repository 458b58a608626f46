"""Declaring options: `option` makes the dataclass field, `options_of` reads a dataclass back."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Final


class _Required:
    """The type of `REQUIRED`."""

    def __repr__(self) -> str:
        """Show the name that the source uses."""
        return "REQUIRED"


REQUIRED: Final = _Required()
"""As the default of `option`: a value must be given."""

_METADATA = "t2ialign.option"


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[Any] | None = None,
    metavar: str | None = None,
    positional: bool = False,
    separator: str | None = ",",
    flag: str | None = None,
) -> Any:
    """Declare a field of an options dataclass.

    Args:
        default: The default value, `REQUIRED`, or a nested options dataclass (the class itself). Lists
            and dicts are copied for each instance.
        help: A sentence for `--help`, with units and range.
        choices: The values allowed, after conversion (for a list: of each element).
        metavar: How the value is written in `--help`; by default the type's name.
        positional: Given without a flag on the command line, in the order of declaration.
        separator: What separates the elements of a list given as one string. `None` where elements
            may hold commas themselves, as prompts do: the flag is then repeated.
        flag: The option's name where it cannot be a Python name (`with`).

    Returns:
        A keyword-only `dataclasses.field`.
    """
    metadata = {
        _METADATA: {
            "help": help,
            "choices": tuple(choices) if choices is not None else None,
            "metavar": metavar,
            "positional": positional,
            "separator": separator,
            "name": flag,
        }
    }
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata, kw_only=True)
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata, kw_only=True)
    if isinstance(default, list | dict | set) or dataclasses.is_dataclass(default):
        factory = functools.partial(copy.deepcopy, default)
        return dataclasses.field(default_factory=factory, metadata=metadata, kw_only=True)
    return dataclasses.field(default=default, metadata=metadata, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a dataclass, read back.

    Attributes:
        name: Its name in YAML and on the command line, without the prefix of what it is nested in.
        field_name: The name of the dataclass field.
        annotation: Its resolved type.
        help: Its help text.
        choices: The values allowed, or `None`.
        metavar: How the value is shown in help, or `None`.
        positional: Whether it is given without a flag.
        separator: What separates list elements in one string.
        nested: The options dataclass that it holds, or `None` for a plain value.
    """

    name: str
    field_name: str
    annotation: Any
    help: str
    choices: tuple[Any, ...] | None
    metavar: str | None
    positional: bool
    separator: str | None
    nested: type[Any] | None
    field: dataclasses.Field[Any]

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        missing = dataclasses.MISSING
        return self.field.default is missing and self.field.default_factory is missing

    def default(self) -> Any:
        """Return a fresh default value; `REQUIRED` where there is none."""
        if self.field.default is not dataclasses.MISSING:
            return self.field.default
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return REQUIRED

    @property
    def is_flag(self) -> bool:
        """Whether the flag alone means true."""
        return bool in arms(self.annotation)

    @property
    def is_list(self) -> bool:
        """Whether repeated flags append."""
        return any(typing.get_origin(arm) in (list, tuple) or arm in (list, tuple) for arm in arms(self.annotation))


def arms(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def options_of(cls: type[Any]) -> dict[str, Option]:
    """Read the options of a dataclass by name, in order of declaration.

    Fields with `init=False` are no options.

    Raises:
        TypeError: If `cls` is not a dataclass.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass")
    hints = typing.get_type_hints(cls)
    found: dict[str, Option] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        known = field.metadata.get(_METADATA, {})
        annotation = hints[field.name]
        choices = known.get("choices")
        if choices is None and typing.get_origin(annotation) is typing.Literal:
            choices = typing.get_args(annotation)
        nested = next((arm for arm in arms(annotation) if dataclasses.is_dataclass(arm)), None)
        name = known.get("name") or field.name
        found[name] = Option(
            name=name,
            field_name=field.name,
            annotation=annotation,
            help=known.get("help", ""),
            choices=choices,
            metavar=known.get("metavar"),
            positional=known.get("positional", False),
            separator=known.get("separator", ","),
            nested=nested if isinstance(nested, type) else None,
            field=field,
        )
    return found


def dotted_options(cls: type[Any], prefix: str = "") -> dict[str, Option]:
    """Return every plain option, nested ones by their dotted name (`lora.rank`)."""
    flat: dict[str, Option] = {}
    for name, found in options_of(cls).items():
        if found.nested is not None:
            flat.update(dotted_options(found.nested, f"{prefix}{name}."))
        else:
            flat[prefix + name] = found
    return flat


def nearest(name: str, known: Iterable[str]) -> str:
    """Compose the end of a message about an unknown name: `; did you mean 'rank'?`, or what is known."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:
        tails = {other.rsplit(".", 1)[-1]: other for other in names}
        close = [tails[tail] for tail in difflib.get_close_matches(name.rsplit(".", 1)[-1], tails, n=1, cutoff=0.75)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(sorted(names))}" if names else ""
