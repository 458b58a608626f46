"""Paths that stay inside their folder, and files that appear whole or not at all.

Law of this file: a name that comes from a data file is not trusted. It is resolved under the folder of that file, and
refused if it is absolute, climbs with `..`, or leaves through a symbolic link.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from t2ialign.errors import DataError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:|file:", re.IGNORECASE)

LONGEST_TOLD = 200
"""Characters of a name that an error repeats."""
_LONGEST_PART, _LONGEST_NAME = 255, 4000
"""Bytes that file systems take."""


def inside(root: Path, name: object) -> Path:
    """Resolve a relative name under a folder, and refuse it where it would leave that folder.

    Args:
        root: The folder that the name belongs to.
        name: A relative path with forward slashes, as found in a data file.

    Returns:
        The resolved path. It need not exist.

    Raises:
        DataError: If the name is no text, empty, an address, absolute (also in the manner of Windows), holds `..` or
            a null character, is longer than file systems take, or leads out of `root` through a symbolic link.
    """
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"a relative path is needed, not {told(name)}")
    if _ADDRESS.match(name):
        raise DataError(f"{told(name)} is an address, which is not fetched; put the file under {root.name!r}")
    if "\0" in name:
        raise DataError(f"the path {told(name)} holds a null character")
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        raise DataError(f"the path {told(name)} is absolute; write it relative to {root.name!r}")
    if ".." in windows.parts:
        raise DataError(f"the path {told(name)} climbs out with '..'; keep the files under {root.name!r}")
    top = root.resolve()
    try:
        if max(map(len, os.fsencode(name).split(b"/"))) > _LONGEST_PART or len(os.fsencode(name)) > _LONGEST_NAME:
            raise DataError(f"the path {told(name)} is longer than file systems take; give the file another name")
        path = (top / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"the path {told(name)} can not be followed: {error}") from error
    if not path.is_relative_to(top):
        raise DataError(
            f"the path {told(name)} leaves {root.name!r} through a symbolic link; copy the file there instead"
        )
    return path


def downloaded(name: object) -> Path:
    """Resolve a path that a data set of the hub names: it must be one of the files that were downloaded.

    Args:
        name: A path as found in the data.

    Returns:
        The resolved path.

    Raises:
        DataError: If the name is no text, or lies outside the caches of the hub and of `datasets`.
    """
    from datasets import config
    from huggingface_hub import constants

    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"a relative path is needed, not {told(name)}")
    caches = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    try:
        path = Path(name).resolve()
        if any(path.is_relative_to(Path(cache).expanduser().resolve()) for cache in caches):
            return path
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"the path {told(name)} can not be followed: {error}") from error
    raise DataError(
        f"the path {told(name)} is none of the files that were downloaded; of a data set on the hub only its own "
        "pictures are read"
    )


def told(name: object) -> str:
    """Say a value that came from a data file in quotes, cut where it is long."""
    said = repr(name)
    return said if len(said) <= LONGEST_TOLD else f"{said[:LONGEST_TOLD]}... ({len(said):,} characters)"


@contextmanager
def written_aside(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Hand out a temporary name beside `path`; flush it to disk and rename it onto `path` when the block ends well.

    Args:
        path: The file that shall appear. Its folder is made.
        sync: Whether to flush. Without it the file survives the end of the process, but perhaps not a loss of power.

    Yields:
        The temporary path to write to. It is removed if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        if sync:
            with aside.open("rb+") as handle:
                os.fsync(handle.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an indented JSON file, whole or not at all.

    Raises:
        ValueError: If a number is not finite: JSON has no word for it.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a file with a JSON object a line.

    Args:
        path: The file, UTF-8 with or without a byte order mark. Blank lines are passed over.

    Yields:
        The number of the line, counted from 1, and its object.

    Raises:
        DataError: If a line is no JSON object; it names the line.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _json_object(line, f"{path.name}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} can not be read: {error}") from error


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON object is needed, not {type(value).__name__}")
    check_whole_characters(line, value, where)
    return value


def check_whole_characters(line: str, value: object, where: str) -> None:
    r"""Refuse JSON with half a character, such as `"\\ud800"` alone: no other file can hold it.

    Args:
        line: The text.
        value: What it was parsed to.
        where: What to call it in an error.

    Raises:
        DataError: If there is one.
    """
    if "\\u" not in line:  # only an escape can bring one about
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise DataError(
            f"{where}: a text holds half a character ({half}, a lone surrogate); write the whole one, or leave it out"
        ) from error
