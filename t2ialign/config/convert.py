"""Turning what YAML or a command line gives into the annotated type, or saying why it cannot be.

Conversion is by the annotation alone: a string `"1e-4"` becomes a float only where a float is asked
for. Nothing is guessed: `True` is no integer and `1.5` is none either.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2ialign.config.fields import arms, nearest
from t2ialign.errors import ConfigError

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})
NONE_WORDS = frozenset({"none", "null"})


def convert(value: Any, annotation: Any, key: str, separator: str | None = ",") -> Any:
    """Convert a value to an annotation.

    Args:
        value: A string, or what YAML gives (None, bool, int, float, list, dict).
        annotation: bool, int, float, str, Path, Any, Literal, list, tuple, dict, or a union of these.
        key: The option's dotted name, for messages.
        separator: What separates list elements inside one string; `None` keeps the string whole.

    Raises:
        ConfigError: If the value does not fit; the message names the key, the value and what fits.
    """
    if annotation is Any:
        return value
    members = arms(annotation)
    if len(members) > 1:
        return _to_union(value, members, key, separator)
    origin = typing.get_origin(annotation) or annotation
    if origin is typing.Literal:
        return _to_choice(value, typing.get_args(annotation), key)
    if origin in (list, tuple):
        return _to_sequence(value, annotation, key, separator)
    if origin is dict:
        return _to_dict(value, annotation, key)
    converter = _SCALARS.get(origin)
    if converter is None:
        raise TypeError(f"{key}: options cannot be of type {annotation!r}")
    return converter(value, key)


def _refuse(key: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{key}: {value!r} is not {wanted}")


def _to_bool(value: Any, key: str) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if isinstance(value, str | int) and word in TRUE_WORDS | FALSE_WORDS:
        return word in TRUE_WORDS
    raise _refuse(key, value, "true or false")


def _to_int(value: Any, key: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    if isinstance(value, str | float):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if number.is_integer():
            return int(number)
    raise _refuse(key, value, "a whole number")


def _to_float(value: Any, key: str) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isnan(number):
            return number
    raise _refuse(key, value, "a number")


def _to_str(value: Any, key: str) -> str:
    if isinstance(value, str | Path) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return str(value)
    raise _refuse(key, value, "a text; put it in quotes" if isinstance(value, bool) else "a text")


def _to_path(value: Any, key: str) -> Path:
    if isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    raise _refuse(key, value, "a path")


def _to_none(value: Any, key: str) -> None:
    if value is None or (isinstance(value, str) and value.strip().lower() in NONE_WORDS):
        return
    raise _refuse(key, value, "none")


_SCALARS: dict[Any, Any] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_str,
    Path: _to_path,
    types.NoneType: _to_none,
}


def _to_union(value: Any, members: tuple[Any, ...], key: str, separator: str | None) -> Any:
    if types.NoneType in members:
        try:
            return _to_none(value, key)
        except ConfigError:
            members = tuple(member for member in members if member is not types.NoneType)
    exact = [member for member in members if isinstance(member, type) and type(value) is member]
    failures: list[ConfigError] = []
    for member in exact or members:
        try:
            return convert(value, member, key, separator)
        except ConfigError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    wanted = " or ".join(type_name(member) for member in members)
    raise _refuse(key, value, f"of type {wanted}")


def _to_choice(value: Any, choices: tuple[Any, ...], key: str) -> Any:
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return choice
    for choice in choices:
        if isinstance(value, str | int | float) and str(value).lower() == str(choice).lower():
            return choice
    raise ConfigError(f"{key}: {value!r} is not one of {shown(choices)}{_hint(value, choices)}")


def _hint(value: Any, choices: tuple[Any, ...]) -> str:
    hint = nearest(str(value), [str(choice) for choice in choices])
    return hint if hint.startswith("; did") else ""


def shown(choices: tuple[Any, ...]) -> str:
    """Write choices for a message or for help: `lora, full`."""
    return ", ".join(str(choice) for choice in choices)


def check_choice(value: Any, choices: tuple[Any, ...] | None, key: str) -> None:
    """Refuse a converted value (or element of a list) that is not among the choices; `None` passes."""
    if choices is None or value is None:
        return
    for element in value if isinstance(value, list | tuple) else (value,):
        if element not in choices:
            raise ConfigError(f"{key}: {element!r} is not one of {shown(choices)}{_hint(element, choices)}")


def _to_sequence(value: Any, annotation: Any, key: str, separator: str | None) -> Any:
    kind = typing.get_origin(annotation) or annotation
    inner = typing.get_args(annotation) or (str, ...)
    if isinstance(value, list | tuple):
        pieces = list(value)
    elif isinstance(value, str):
        pieces = [piece.strip() for piece in value.split(separator)] if separator else [value]
        pieces = [] if pieces == [""] else pieces
    elif isinstance(value, Mapping) or value is None:
        raise _refuse(key, value, "a list")
    else:
        pieces = [value]
    if kind is tuple and inner[-1] is not Ellipsis:
        if len(pieces) != len(inner):
            raise ConfigError(f"{key}: {value!r} has {len(pieces)} values, {len(inner)} are needed")
        return tuple(convert(piece, each, key) for piece, each in zip(pieces, inner, strict=True))
    return kind(convert(piece, inner[0], key) for piece in pieces)


def _to_dict(value: Any, annotation: Any, key: str) -> dict[str, Any]:
    inner = typing.get_args(annotation) or (str, Any)
    if isinstance(value, str):
        pieces = [piece for piece in value.split(",") if piece.strip()]
        if any("=" not in piece for piece in pieces):
            raise _refuse(key, value, "of the form name=value,name=value")
        value = {name.strip(): each.strip() for name, each in (piece.split("=", 1) for piece in pieces)}
    if not isinstance(value, Mapping):
        raise _refuse(key, value, "a mapping")
    return {str(name): convert(each, inner[1], f"{key}.{name}") for name, each in value.items()}


def type_name(annotation: Any) -> str:
    """Name a type for people: `a whole number` is the message's word, this is the short one of help."""
    names = {bool: "BOOL", int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", types.NoneType: "none"}
    members = [member for member in arms(annotation) if member is not types.NoneType]
    if len(members) > 1:
        return "|".join(type_name(member) for member in members)
    plain = members[0] if members else annotation
    origin = typing.get_origin(plain) or plain
    if origin is typing.Literal:
        return "{" + ",".join(str(choice) for choice in typing.get_args(plain)) + "}"
    if origin in (list, tuple):
        inner = [each for each in typing.get_args(plain) if each is not Ellipsis]
        if origin is list or len(inner) <= 1:
            return (type_name(inner[0]) if inner else "TEXT") + ",..."
        return ",".join(type_name(each) for each in inner)
    if origin is dict:
        return "NAME=VALUE,..."
    return names.get(origin, getattr(origin, "__name__", "VALUE").upper())
