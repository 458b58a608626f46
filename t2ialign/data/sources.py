"""Where a set lies, of pairs or of labelled pictures, which splits it has, and how it becomes a `datasets.Dataset`.

Law of this file: opening costs no decoding and, up to `IN_MEMORY_BYTES`, no disk. Parquet is compressed, so it can not
be memory-mapped as it is. A set of parquet files below that size is read into memory and nothing is written anywhere.
A larger one is copied once to Arrow files by `datasets` and memory-mapped from then on; the copy lies in the cache
folder of `datasets` under the fingerprint of the content, so a changed set is never read from an old copy. Sets saved
with `save_to_disk` are memory-mapped where they are, and picture files are left where they are. `streaming` reads
parquet without either.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from t2ialign.data.columns import IMAGE, LABEL, PICTURES
from t2ialign.data.files import read_json_lines, told
from t2ialign.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from t2ialign.data.streaming import StreamedRows

BUFFER_MIB = 512
"""What a process keeps of the pictures of a streamed set, unless its row groups are too large for it."""

IN_MEMORY_BYTES = 256 << 20
"""Parquet files up to this size together are read into memory; larger ones are copied to the cache and mapped."""

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_SPLIT = re.compile(r"(?P<split>\w+?)([-_.]\d{4,}(-of-\d+)?)?(-[0-9a-f]{16})?")
_KTO_HINT = "a CSV of labelled pictures is brought to ours with `t2ialign data import kto`"
_WHOLE_FILE_BYTES = 16 << 20
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class Table:
    """An opened split.

    Attributes:
        dataset: The rows. Picture columns hold `{"bytes", "path"}`, bytes, or a path; none is decoded.
        root: The folder that paths in the rows are relative to; `None` for a hub dataset.
        name: What to call it in a message, `SOURCE[SPLIT]`.
        files: The files that it was read from; none for a hub dataset and where it is streamed.
    """

    dataset: Dataset | StreamedRows
    root: Path | None
    name: str
    files: tuple[Path, ...] = ()


def open_table(
    source: str | Path,
    split: str,
    revision: str | None = None,
    *,
    streaming: bool = False,
    buffer_mib: int = BUFFER_MIB,
) -> Table:
    """Open one split of a folder, a file, a packaged set or a hub dataset.

    Args:
        source: See `t2ialign.data.pairs.load_pairs`.
        split: Its name.
        revision: Branch, tag or commit of a hub dataset.
        streaming: Whether pictures are read while they are needed.
        buffer_mib: How many MiB of them are then kept.

    Raises:
        DataError: If the source or the split does not exist (it lists those that do), or can not be read.
    """
    if streaming:
        from t2ialign.data.streaming import open_streamed

        return open_streamed(source, split, revision, buffer_mib << 20)
    path = local_path(source)
    if path is None:
        return _open_hub(str(source), split, revision)
    if revision is not None:
        raise DataError(f"--revision {revision!r} is for hub datasets, but {source} is a folder; leave it out")
    layout = _layout(path)
    files = _files_of(layout, path, split)
    try:
        dataset = layout.open(files)
    except DataError as error:
        raise DataError(f"{source}[{split}] {error}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{source}[{split}] can not be read: {error}") from error
    content = tuple(file for file in files if file.name != "state.json")
    return Table(_undecoded(dataset), files[0].parent, f"{source}[{split}]", content)


def split_names(source: str | Path, revision: str | None = None) -> list[str]:
    """List the splits of a source, sorted, `train` first.

    Raises:
        DataError: If the source does not exist, can not be reached, or holds no table.
    """
    path = local_path(source)
    if path is not None:
        names: Iterable[str] = _layout(path).splits
    else:
        from datasets import get_dataset_split_names

        try:
            names = get_dataset_split_names(str(source), revision=revision)
        except Exception as error:
            raise unreachable(str(source), error) from error
    return sorted(names, key=lambda name: (name != "train", name))


def split_files(path: Path, split: str) -> list[Path]:
    """Return the files of one split of a folder or file.

    Raises:
        DataError: If it holds no table, or has no such split.
    """
    return _files_of(_layout(path), path, split)


def _files_of(layout: _Layout, path: Path, split: str) -> list[Path]:
    if split not in layout.splits:
        raise DataError(f"{path} has no split {split!r}; it has {', '.join(sorted(layout.splits)) or 'none'}")
    return layout.splits[split]


def local_path(source: str | Path) -> Path | None:
    """Return the folder or file that a source names, or `None` where it can only be a hub id.

    Raises:
        DataError: If it is neither there nor can be a hub id.
    """
    from t2ialign.mini import resource

    try:
        packaged = resource(source) if isinstance(source, str) else None
    except FileNotFoundError as error:
        raise DataError(str(error)) from error
    path = packaged or Path(source).expanduser()
    if path.exists():
        return path
    if isinstance(source, str) and (
        near := difflib.get_close_matches(source, ("mini-pairs", "mini-user-pairs"), 1, 0.8)
    ):
        raise DataError(f"there is no folder {source!r}; did you mean the packaged set {near[0]!r}?")
    if isinstance(source, Path) or not _HUB_ID.fullmatch(source):
        raise DataError(f"there is no folder or file {str(source)!r}, and it is no hub id (OWNER/NAME) either")
    return None


class _Layout:
    """A way in which splits lie in a folder."""

    def __init__(self, splits: dict[str, list[Path]]) -> None:
        self.splits = splits

    def open(self, files: list[Path]) -> Dataset:
        """Open the files of one split."""
        raise NotImplementedError


class _Saved(_Layout):
    def open(self, files: list[Path]) -> Dataset:
        """Map the Arrow files where they are."""
        from datasets import load_from_disk

        return load_from_disk(str(files[0].parent))


class _Parquet(_Layout):
    def open(self, files: list[Path]) -> Dataset:
        """Read small files into memory; have large ones copied to the cache and map them."""
        from datasets import Dataset

        if sum(file.stat().st_size for file in files) > IN_MEMORY_BYTES:
            return _mapped(files)
        tables = [pq.read_table(file) for file in files]
        return Dataset(pa.concat_tables(tables, promote_options="permissive"))


class _Lines(_Layout):
    def open(self, files: list[Path]) -> Dataset:
        """Read the lines; the pictures stay files."""
        from datasets import Dataset

        rows = [row for _, row in read_json_lines(files[0])]
        names = _our_names(dict.fromkeys(name for row in rows for name in row))
        rows = [{names[name]: value for name, value in row.items()} for row in rows]
        return Dataset(pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names.values()}))


def _our_names(names: Iterable[str]) -> dict[str, str]:
    """Accept the names of `datasets`' imagefolder: `chosen_file_name` for a picture column `chosen`.

    `file_name` alone is the picture of a line that has a label and names no other picture.
    """
    known = (*PICTURES, IMAGE)
    ours = {name: name.removesuffix("_file_name") if name[:-10] in known else name for name in names}
    if LABEL in ours and "file_name" in ours and not set(known) & set(ours.values()):
        ours["file_name"] = IMAGE
    return ours


def _column(name: str, values: list[Any]) -> pa.Array:
    """Type a column of JSON values; mixed kinds are refused with the first row that differs."""
    values = [json.dumps(value) if isinstance(value, dict | list) else value for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        first = next(value for value in values if value is not None)
        other = (i for i, v in enumerate(values) if v is not None and type(v) is not type(first))
        if (row := next(other, None)) is None:
            row = next((i for i, v in enumerate(values) if isinstance(v, int) and abs(v) >= 1 << 63), 0)
            raise DataError(
                f"row {row}, {name}: {told(values[row])} is more than a column holds; write less, or a text"
            ) from error
        raise DataError(
            f"row {row}, {name}: {told(values[row])} is {type(values[row]).__name__}, where earlier rows hold "
            f"{type(first).__name__}; write one kind"
        ) from error


def _layout(path: Path) -> _Layout:
    """Recognise how the splits lie in a folder, or that a single file was named."""
    if path.is_file():
        if path.suffix == ".parquet":
            return _Parquet({"train": [path]})
        if path.suffix in (".jsonl", ".ndjson"):
            return _Lines({"train": [path]})
        hint = f"; {_KTO_HINT}" if path.suffix == ".csv" else ""
        if path.suffix in (".tar", ".tgz", ".gz", ".zip"):
            hint = "; archives and webdataset shards are not read: write them as parquet, as docs/datasets.md says"
        raise DataError(f"{path}: sets are read from .parquet or .jsonl files, not {path.suffix or 'this one'}{hint}")
    if (path / "dataset_dict.json").is_file():
        return _Saved({state.parent.name: _saved_files(state) for state in sorted(path.glob("*/state.json"))})
    if (path / "state.json").is_file():
        return _Saved({_saved_split(path / "state.json"): _saved_files(path / "state.json")})
    if parquet := _parquet_splits(path):
        return _Parquet(parquet)
    lines = {file.parent.name: [file] for file in sorted(path.glob("*/metadata.jsonl"))}
    if (path / "metadata.jsonl").is_file():
        lines.setdefault("train", [path / "metadata.jsonl"])
    if lines:
        return _Lines(lines)
    hint = ""
    if any((path / name).is_dir() for name in ("chosen", "w")):
        hint = "; it looks like two folders of pictures: bring it to pairs with `t2ialign data import folders`"
    elif any(path.glob("*.csv")):
        hint = f"; {_KTO_HINT}"
    elif any(path.glob("*.tar")):
        hint = "; webdataset shards (.tar) are not read: write them as parquet with the columns of docs/datasets.md"
    raise DataError(f"{path}: no *.parquet, metadata.jsonl or saved dataset in this folder{hint}")


def _saved_files(state: Path) -> list[Path]:
    return [state, *sorted(state.parent.glob("*.arrow"))]


def _saved_split(state: Path) -> str:
    try:
        return str(json.loads(state.read_text(encoding="utf-8")).get("_split") or "train")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{state}: the saved dataset is damaged: {error}") from error


def _parquet_splits(path: Path) -> dict[str, list[Path]]:
    """Group `SPLIT-00000-of-00002.parquet`, also under `data/` or `SPLIT/`, by split."""
    splits: dict[str, list[Path]] = {}
    for folder in (path, path / "data"):
        for file in sorted(folder.glob("*.parquet")):
            match = _SPLIT.fullmatch(file.stem)
            name = match["split"] if match else file.stem
            splits.setdefault("train" if name.isdigit() else name, []).append(file)
        for file in sorted(folder.glob("*/*.parquet")):
            if file.parent.name != "data":
                splits.setdefault(file.parent.name, []).append(file)
    return splits


def _mapped(files: list[Path]) -> Dataset:
    """Copy large parquet files once to memory-mapped Arrow files in the cache folder."""
    from datasets import Dataset, config

    cache = Path(config.HF_DATASETS_CACHE) / "t2ialign" / content_hash(files)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK):
            raise PermissionError(f"{cache} is not writable")
    except OSError as error:
        raise DataError(
            f"{files[0].parent.name}: sets over {IN_MEMORY_BYTES >> 20} MiB are copied once to a cache, which can not "
            f"be written ({error}); set HF_DATASETS_CACHE to a folder with room"
        ) from error
    return Dataset.from_parquet([str(file) for file in files], cache_dir=str(cache))


def _undecoded(dataset: Dataset) -> Dataset:
    """Have `datasets` hand out encoded bytes, whatever the features say."""
    from datasets import Image

    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
    return dataset


def _open_hub(source: str, split: str, revision: str | None) -> Table:
    from datasets import load_dataset

    try:
        names = split_names(source, revision)
        if split not in names:
            raise DataError(f"{source} has no split {split!r}; it has {', '.join(names)}")
        dataset = load_dataset(source, split=split, revision=revision)
    except DataError:
        raise
    except Exception as error:
        raise unreachable(source, error) from error
    return Table(_undecoded(dataset), None, f"{source}[{split}]")


def unreachable(source: str, error: Exception) -> DataError:
    """Make the error for a hub dataset that can not be had, with the command that downloads it."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(
        f"the dataset {source!r} is no folder here and could not be had from the hub ({reason[0]}); where there is a "
        f"network, download it with `hf download --repo-type dataset {source} --local-dir {source.split('/')[-1]}` "
        "and name that folder"
    )


def content_hash(files: Iterable[Path]) -> str:
    """Hash the content of files by their names, sizes and bytes.

    Files over 16 MiB are sampled: 1 MiB from the beginning, the middle and the end, which for parquet includes the
    footer with the sizes and the statistics of every column.

    Returns:
        32 hexadecimal digits. Neither the folder nor the time of writing enters.
    """
    total = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        total.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as handle:
            if size <= _WHOLE_FILE_BYTES:
                total.update(handle.read())
                continue
            for start in (0, size // 2, size - _SAMPLE_BYTES):
                handle.seek(start)
                total.update(handle.read(_SAMPLE_BYTES))
    return total.hexdigest()[:32]
