"""Options from and to YAML.

The YAML read and written here is that of YAML 1.2's core schema: `no` is a word and not false, `1e-4`
is a number, `010` is no octal. A key that is given twice is an error.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from t2ialign.config.convert import check_choice, convert
from t2ialign.config.fields import Option, dotted_options, nearest, options_of
from t2ialign.config.secrets import REDACTED, redacted
from t2ialign.errors import ConfigError

T = TypeVar("T")

_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key given twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} is not a name")
            if key in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out each time."""
        return True


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _RESOLVERS:
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), [c if c != "\0" else "" for c in _first])


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: If the file is absent, is no YAML, or holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8") from error
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}, not a mapping of options to values")
    return data


def load(cls: type[T], yaml_file: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> T:
    """Build an options dataclass from a YAML file and overrides; overrides win over the file.

    Args:
        cls: A dataclass made with `option`.
        yaml_file: A file with the same nesting as the dataclass, or with dotted keys.
        overrides: Dotted or nested names to values; strings are converted by the annotated type.

    Returns:
        An instance; its `__post_init__` has run.

    Raises:
        ConfigError: For an unknown key (naming the nearest), a value that does not convert, a required
            option without a value, or what `__post_init__` refuses.
    """
    given: dict[str, Any] = {}
    if yaml_file is not None:
        try:
            _merge(given, _without_redacted(read_yaml(yaml_file), overrides or {}), cls)
            _check_keys(given, cls, "")
        except ConfigError as error:
            prefix = "" if str(yaml_file) in str(error) else f"{yaml_file}: "
            raise ConfigError(prefix + str(error)) from error
    _merge(given, dict(overrides or {}), cls)
    return _build(cls, given, "", None)


def _without_redacted(data: dict[str, Any], overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leave out what was taken out as a secret; of a value that lost a part of itself the rest is worth nothing."""
    kept: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if value == REDACTED or (isinstance(value, str) and REDACTED in value and name in overrides):
            continue
        if isinstance(value, str) and REDACTED in value:
            raise ConfigError(f"{name} is {value!r}, out of which a secret was taken: give --{name} again")
        kept[key] = _without_redacted(value, overrides, f"{name}.") if isinstance(value, dict) else value
    return kept


def _merge(target: dict[str, Any], source: Mapping[str, Any], cls: type[Any]) -> None:
    """Lay `source` (dotted or nested keys) over `target` (nested); plain values replace each other."""
    for key, value in source.items():
        head, _, tail = key.partition(".")
        found = options_of(cls).get(head)
        if found is None or found.nested is None:
            target[key] = value
        elif tail or isinstance(value, Mapping):
            inner = target.get(head)
            target[head] = inner = inner if isinstance(inner, dict) else {}
            _merge(inner, {tail: value} if tail else value, found.nested)
        else:
            target[head] = value


def _check_keys(given: Mapping[str, Any], cls: type[Any], prefix: str) -> None:
    known = options_of(cls)
    for key, value in given.items():
        if key not in known:
            full = prefix + key
            raise ConfigError(f"unknown option {full!r}{nearest(full, _all_names(cls, prefix))}")
        nested = known[key].nested
        if nested is not None and isinstance(value, Mapping):
            _check_keys(value, nested, f"{prefix}{key}.")


def _all_names(cls: type[Any], prefix: str) -> list[str]:
    names = list(dotted_options(cls, prefix))
    return names + [prefix + name for name, found in options_of(cls).items() if found.nested is not None]


def _build(cls: type[T], given: Mapping[str, Any], prefix: str, base: Any) -> T:
    _check_keys(given, cls, prefix)
    values: dict[str, Any] = {}
    for name, found in options_of(cls).items():
        if name in given:
            values[found.field_name] = _value(found, given[name], prefix + name, base)
        elif base is not None:
            values[found.field_name] = getattr(base, found.field_name)
        elif found.required:
            raise ConfigError(f"{prefix}{name} is required{': ' + found.help if found.help else ''}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _value(found: Option, value: Any, key: str, base: Any) -> Any:
    if found.nested is not None:
        if isinstance(value, found.nested):
            return value
        if isinstance(value, Mapping):
            default = getattr(base, found.field_name) if base is not None else found.default()
            return _build(found.nested, value, f"{key}.", default if isinstance(default, found.nested) else None)
        if value is None and found.default() is None:
            return None
        names = ", ".join(f"{key}.{name}" for name in options_of(found.nested))
        raise ConfigError(f"{key}: {value!r} is not a group of options; give {names}")
    converted = convert(value, found.annotation, key, found.separator)
    check_choice(converted, found.choices, key)
    return converted


def to_dict(obj: Any) -> dict[str, Any]:
    """Return an options dataclass as nested plain values that YAML and JSON can write.

    Paths become texts and tuples lists; names are those of the options. Secrets are left as they are:
    use `redacted` before anything leaves the process.
    """
    return {name: _plain(getattr(obj, found.field_name)) for name, found in options_of(type(obj)).items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value


def dump_yaml(obj: Any, path: str | Path) -> None:
    """Write an options dataclass as YAML that `load` reads back, without its secrets.

    The file appears whole or not at all.
    """
    text = yaml.dump(redacted(to_dict(obj)), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, target)
