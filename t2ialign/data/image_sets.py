"""Image sets: a folder of generated pictures with a line of metadata each, that can be stopped and continued.

Law of this file: a line in the metadata means that its picture is there, whole. Pictures are written aside and
renamed, the line is appended after; a line that was torn by a stop is taken back. A set that was stopped and continued
equals one that was not.

    SET/config.json                    how the pictures were made
    SET/metadata.jsonl                 a line a picture (`ImageRecord`)
    SET/images/000123/0000.png         prompt 123, sample 0
    SET/metadata.rank-1.jsonl          while several processes write; merged at the end
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from t2ialign.data.files import check_whole_characters, inside, write_json, write_text, written_aside
from t2ialign.data.images import encode_png, open_image
from t2ialign.errors import DataError

Key = tuple[str, int, str]
"""What makes a picture one of its kind: (prompt_id, sample, model)."""

_PNG_END = b"IEND\xaeB`\x82"

VOLATILE = ("versions", "created", "device")
"""Keys of config.json that may differ when a set is continued."""


@dataclass(frozen=True)
class ImageRecord:
    """One line of `metadata.jsonl`.

    Attributes:
        file_name: Path of the picture, relative to the set, with forward slashes.
        prompt_id: Id of its prompt.
        prompt: Text of its prompt.
        sample: Number of the sample among those of the prompt, from 0.
        seed: Seed of its noise.
        model: Name of the model.
        negative_prompt: What the picture should not show; empty where nothing was said.
        set: Name of the prompt set.
        category: Category of the prompt.
        width: Width in pixels.
        height: Height in pixels.
        sha256: Of the picture file, 64 hexadecimal digits; empty where unknown.
        extra: All further keys of the line, such as `challenge`, `country` and `domain`.
    """

    file_name: str
    prompt_id: str
    prompt: str
    sample: int = 0
    seed: int | None = None
    model: str = ""
    negative_prompt: str = ""
    set: str = ""
    category: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """(prompt_id, sample, model)."""
        return (self.prompt_id, self.sample, self.model)

    def to_dict(self) -> dict[str, Any]:
        """Return the line as a flat mapping, `extra` after the known keys."""
        known = {name: getattr(self, name) for name in _KNOWN}
        return known | {key: value for key, value in self.extra.items() if key not in known}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any], where: str = "metadata.jsonl") -> Self:
        """Make a record of a line.

        Args:
            line: The parsed line; unknown keys go to `extra`.
            where: What to call it in an error.

        Raises:
            DataError: If file_name, prompt_id or prompt is missing, or a value has a wrong type.
        """
        for name in ("file_name", "prompt_id", "prompt"):
            if not isinstance(line.get(name), str):
                raise DataError(f"{where}: {name} is {line.get(name)!r}, a text is needed")
        for name in ("sample", "seed", "width", "height"):
            value = line.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, int | None) or (name == "sample" and value is None):
                raise DataError(f"{where}: {name} is {value!r}, a whole number is needed")
        known = {name: line[name] for name in _KNOWN if name in line}
        return cls(**known, extra={name: value for name, value in line.items() if name not in _KNOWN})


_KNOWN = tuple(each.name for each in fields(ImageRecord) if each.name != "extra")


class ImageSet:
    """An image set on disk, ours or any folder with a `metadata.jsonl` of such lines.

    Attributes:
        path: The folder.
        records: Its lines, in the order of the file.
        config: What `config.json` says; empty where there is none.
        notices: What was done to pictures while decoding (see `open_image`).
    """

    def __init__(self, path: str | Path) -> None:
        """Read the metadata; pictures are opened one by one, with `open`.

        Raises:
            DataError: If there is no metadata, a line is invalid, a path leaves the folder, or two lines are for the
                same picture.
        """
        self.path = Path(path)
        if not _parts(self.path):
            raise DataError(f"{self.path}: no metadata.jsonl; an image set as `t2ialign generate` writes it is needed")
        self.records = _read_records(self.path)
        self.config = _read_config(self.path) or {}
        self.notices: Counter[str] = Counter()
        seen: set[str] = set()
        for number, record in enumerate(self.records, 1):
            try:
                inside(self.path, record.file_name)
            except DataError as error:
                raise DataError(f"{self.path}, picture {number} of metadata.jsonl: {error}") from error
            if record.file_name in seen:
                raise DataError(f"{self.path}: {record.file_name} has two lines in metadata.jsonl; remove one")
            seen.add(record.file_name)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.records)

    def __iter__(self) -> Iterator[ImageRecord]:
        """Go through the records."""
        return iter(self.records)

    def file(self, record: ImageRecord) -> Path:
        """Return the path of a record's picture.

        Raises:
            DataError: If it leaves the folder.
        """
        return inside(self.path, record.file_name)

    def open(self, record: ImageRecord) -> Image.Image:
        """Decode a record's picture to RGB.

        Raises:
            DataError: If it is missing or can not be read.
        """
        return open_image(self.file(record), notices=self.notices, name=f"{self.path.name}/{record.file_name}")


class ImageSetWriter:
    """Writes an image set, or continues one. Use it as a context manager, or call `close`.

    Several processes may write one set: each with its own `rank`, to its own part of the metadata. Rank 0 merges the
    parts when it closes, so the others close first (let `accelerate` wait for everyone in between).

    Attributes:
        path: The folder.
        done: The keys (prompt_id, sample, model) of the pictures that are there, of all parts, and of those added.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        rank: int = 0,
        world_size: int = 1,
        volatile: Collection[str] = VOLATILE,
    ) -> None:
        """Make the folder, or check that the set in it was made alike.

        Args:
            path: The folder.
            config: How the pictures are made, as JSON values. It becomes config.json.
            rank: Number of this process, from 0.
            world_size: Number of processes.
            volatile: Keys of config that may differ from the set that is there.

        Raises:
            DataError: If the set that is there was made otherwise; each key that differs is shown with both values.
            ValueError: If rank and world_size do not fit, or config is not JSON.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} does not fit world_size {world_size}; it counts from 0")
        self.path = Path(path)
        self.rank = rank
        self._agree(json.loads(json.dumps(config, allow_nan=False)), volatile)
        self._part = self.path / ("metadata.jsonl" if world_size == 1 else f"metadata.rank-{rank}.jsonl")
        _take_back_torn_line(self._part)
        present = [record for record in _read_records(self.path) if _is_there(self.path, record)]
        self._files = {record.file_name for record in present}
        self.done: set[Key] = {record.key for record in present}
        self._lines = self._part.open("ab", buffering=0)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _agree(self, config: dict[str, Any], volatile: Collection[str]) -> None:
        there = _read_config(self.path)
        if there is None:
            if _parts(self.path):
                raise DataError(f"{self.path} holds metadata.jsonl but no config.json; choose another folder")
            write_json(self.path / "config.json", config)
            return
        keys = sorted((there.keys() | config.keys()) - set(volatile))
        differing = [key for key in keys if there.get(key, _ABSENT) != config.get(key, _ABSENT)]
        if differing:
            shown = "; ".join(f"{key}: {_shown(there, key)} there, {_shown(config, key)} now" for key in differing)
            raise DataError(f"{self.path} was made otherwise ({shown}); choose another folder, or the same settings")

    def add(
        self, record_fields: Mapping[str, Any], image: Image.Image, *, prompt_index: int, file_stem: str | None = None
    ) -> ImageRecord:
        """Write one picture and its line.

        Args:
            record_fields: `prompt_id`, `prompt` and what else `ImageRecord` or its `extra` shall hold. `file_name`,
                `width`, `height` and `sha256` are filled in here.
            image: The picture, stored as PNG.
            prompt_index: Position of the prompt in its set, from 0; it names the folder.
            file_stem: Name of the file without its ending; by default the sample's number. Sets of several models
                need it, for their pictures share sample numbers.

        Returns:
            The record as written.

        Raises:
            DataError: If a field is missing or wrong, or another picture has this place.
        """
        sample = record_fields.get("sample", 0)
        stem = f"{sample:04d}" if file_stem is None else file_stem
        file_name = f"images/{prompt_index:06d}/{stem}.png"
        inside(self.path, file_name)
        data = encode_png(image)
        made = {"width": image.width, "height": image.height, "sha256": hashlib.sha256(data).hexdigest()}
        record = ImageRecord.from_dict({**record_fields, "file_name": file_name, **made}, f"record of {file_name}")
        if record.key in self.done or file_name in self._files:
            raise DataError(
                f"{self.path}: {file_name} of {record.prompt_id!r} is there already; skip what is in `done`"
            )
        with written_aside(self.path / file_name, sync=False) as aside:
            aside.write_bytes(data)
        line = json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False)
        self._lines.write(line.encode("utf-8") + b"\n")
        self.done.add(record.key)
        self._files.add(file_name)
        return record

    def close(self) -> None:
        """Flush to disk; rank 0 also merges all parts into `metadata.jsonl`, sorted by file name. Repeat it freely."""
        if self._lines.closed:
            return
        if self.rank > 0:
            os.fsync(self._lines.fileno())
        self._lines.close()
        if self.rank == 0:
            merge_parts(self.path)


_ABSENT = object()


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key], ensure_ascii=False) if key in config else "nothing"


def merge_parts(path: Path) -> None:
    """Bring all parts of the metadata into `metadata.jsonl`, sorted, each picture once, missing ones left out.

    It may be interrupted and repeated. No other process may be writing to the set.
    """
    parts = _parts(path)
    records = {record.file_name: record for record in _read_records(path) if _is_there(path, record)}
    lines = [json.dumps(records[name].to_dict(), ensure_ascii=False) + "\n" for name in sorted(records)]
    write_text(path / "metadata.jsonl", "".join(lines))
    for part in parts:
        if part.name != "metadata.jsonl":
            part.unlink()


def _parts(path: Path) -> list[Path]:
    whole = [path / "metadata.jsonl"] if (path / "metadata.jsonl").is_file() else []
    return whole + sorted(path.glob("metadata.rank-*.jsonl"))


def _read_config(path: Path) -> dict[str, Any] | None:
    file = path / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a JSON file: {error}; choose another folder") from error
    if not isinstance(config, dict):
        raise DataError(f"{file}: a JSON object is needed, not {type(config).__name__}")
    return config


def _read_records(path: Path) -> list[ImageRecord]:
    """Read all parts; a torn last line, which another process may be writing just now, is passed over."""
    records = []
    for part in _parts(path):
        lines, _ = _split(part)
        for number, line in enumerate(lines, 1):
            where = f"{path.name}/{part.name}, line {number}"
            if line.strip():
                records.append(ImageRecord.from_dict(_parsed(line, where), where))
    return records


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); remove the line to have the picture made again") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON object is needed, not {type(value).__name__}")
    check_whole_characters(line.decode("utf-8-sig"), value, where)
    return value


def _split(part: Path) -> tuple[list[bytes], bytes]:
    """Return the whole lines, and the torn one: a tail without a line end that is no JSON object."""
    try:
        *lines, tail = part.read_bytes().split(b"\n")
    except FileNotFoundError:  # merged by rank 0 since it was listed
        return [], b""
    try:
        _parsed(tail, part.name)
    except DataError:
        return lines, tail
    return [*lines, tail], b""


def _take_back_torn_line(part: Path) -> None:
    """Cut off what a stop left of a last line, and end the last whole line where its end is missing."""
    if not part.is_file():
        return
    lines, torn = _split(part)
    size = part.stat().st_size - len(torn)
    with part.open("rb+") as handle:
        handle.truncate(size)
        if not torn and lines and sum(len(line) + 1 for line in lines) > size:
            handle.seek(size)
            handle.write(b"\n")
        os.fsync(handle.fileno())


def _is_there(path: Path, record: ImageRecord) -> bool:
    """Whether a picture is there to its last byte; pictures are not flushed to disk one by one, so look."""
    try:
        with inside(path, record.file_name).open("rb") as handle:
            handle.seek(-len(_PNG_END), os.SEEK_END)
            return handle.read() == _PNG_END
    except OSError:
        return False
