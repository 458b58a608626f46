"""Writing pairs and labelled pictures: parquet with the encoded pictures inside, and a dataset card.

Law of this file: memory holds one row group, whatever the size of the set; a split appears when all of it is written,
and one that is there is not touched unless that is asked for.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from t2ialign.data import columns as cols
from t2ialign.data.files import write_text
from t2ialign.data.images import encode_png, open_image, peek
from t2ialign.errors import DataError

ROW_GROUP_ROWS = 64
ROW_GROUP_BYTES = 32 << 20
"""A row group is closed at this many rows or bytes of pictures: what memory holds, and what is read for one row."""
SHARD_BYTES = 512 << 20
"""A new file is begun after this many bytes of pictures."""

_SUFFIX = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


class NoRowsError(DataError):
    """There was nothing to write."""


def write_pairs(
    rows: Iterable[Mapping[str, Any]],
    output_dir: str | Path,
    split: str = "train",
    card: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write preference pairs as `data/SPLIT-00000-of-00001.parquet` and a README.md card.

    Args:
        rows: Pairs with `prompt`, `chosen`, `rejected` and any of the optional columns. A picture is a path, encoded
            PNG, JPEG or WebP bytes, `{"bytes": ..., "path": ...}` (these are stored as they are, after a look at the
            header) or a Pillow object (stored as PNG, brought to RGB).
        output_dir: The folder. Several splits may be written to it, one after the other.
        split: Name of the split: letters, digits and underscores.
        card: Markdown for README.md, below the header that says where the splits lie. By default a short description,
            or what an earlier call wrote.
        columns: The columns to write, of `columns.COLUMNS`. By default those of the first row.
        extra: Further columns of the rows, that mean nothing to us, with their `datasets` features.
        overwrite: Replace the split if it is there.

    Returns:
        `output_dir`, which `load_pairs` and `datasets.load_dataset` read.

    Raises:
        DataError: If a row is invalid (it is named; nothing is then left behind), there are none, or the split is
            there.
    """
    return write_rows(rows, output_dir, split, card, columns=columns, extra=extra, overwrite=overwrite)


def write_unpaired(
    rows: Iterable[Mapping[str, Any]],
    output_dir: str | Path,
    split: str = "train",
    card: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write labelled pictures, as `write_pairs` writes pairs.

    Args:
        rows: Rows with `prompt`, `image`, `label` and any of the optional columns. A label is a bool, or 0 or 1; a
            picture as in `write_pairs`.
        output_dir: The folder; it must not hold pairs.
        split: Name of the split: letters, digits and underscores.
        card: Markdown for README.md.
        columns: The columns to write, of `columns.UNPAIRED.columns`. By default those of the first row.
        overwrite: Replace the split if it is there.

    Returns:
        `output_dir`, which `load_unpaired` and `datasets.load_dataset` read.

    Raises:
        DataError: If a row is invalid (it is named; nothing is then left behind), there are none, the split is there,
            or the folder holds pairs.
    """
    return write_rows(rows, output_dir, split, card, form=cols.UNPAIRED, columns=columns, overwrite=overwrite)


def write_rows(
    rows: Iterable[Mapping[str, Any]],
    output_dir: str | Path,
    split: str,
    card: str | None = None,
    *,
    form: cols.Form = cols.PAIRS,
    columns: Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write rows of either form; see `write_pairs` and `write_unpaired`.

    Raises:
        NoRowsError: If there are no rows.
        DataError: As they say.
    """
    output_dir = Path(output_dir)
    if not split.isidentifier():
        raise DataError(f"split {split!r}: use letters, digits and underscores, as in 'train'")
    existing = sorted((output_dir / "data").glob(f"{split}-*.parquet"))
    if existing and not overwrite:
        raise DataError(f"{output_dir} already has the split {split!r}; choose another folder, or --overwrite")
    _refuse_other_form(output_dir, existing, form)
    aside = output_dir / f".writing-{split}-{os.getpid()}"
    aside.mkdir(parents=True, exist_ok=True)
    try:
        count, shards = _write_shards(rows, columns, aside, form, extra or {})
        if not count:
            raise NoRowsError(f"there is no {form.unit} to write to {output_dir}; nothing was written")
        _publish(shards, existing, output_dir / "data", split)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    write_card(output_dir, card, form)
    return output_dir


def _refuse_other_form(output_dir: Path, replaced: list[Path], form: cols.Form) -> None:
    """Refuse a folder whose other splits are of the other form: no reader takes the two together."""
    for path in sorted((output_dir / "data").glob("*-*-of-*.parquet")):
        if path in replaced:
            continue
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} can not be read: {error}; remove it, or choose another folder") from error
        if not set(form.required) <= set(names):
            raise DataError(
                f"{output_dir} holds other data than {form.described} ({path.name}); choose another folder"
            )


def write_card(output_dir: Path, body: str | None = None, form: cols.Form = cols.PAIRS) -> None:
    """Write README.md: a header that tells `datasets` where the splits lie, then `body`.

    Args:
        output_dir: Folder of a written set.
        body: Markdown. By default the body of the card that is there, or a description of the columns.
        form: What the set holds.
    """
    path = output_dir / "README.md"
    if body is None:
        old = path.read_text(encoding="utf-8").split("\n---\n", 1) if path.is_file() else []
        body = old[1].strip() if len(old) == 2 else _DESCRIPTIONS[form.name]
        if body in _DESCRIPTIONS.values():
            body = _DESCRIPTIONS[form.name]
    splits = sorted({file.name.rsplit("-", 3)[0] for file in (output_dir / "data").glob("*-*-of-*.parquet")})
    header = ["---", "tags:", "- preference", "- text-to-image", "- t2ialign", "configs:", "- config_name: default"]
    header += ["  data_files:"]
    for split in sorted(splits, key=lambda name: (name != "train", name)):
        header += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    write_text(path, "\n".join([*header, "---", "", body.strip(), ""]))


_DESCRIPTIONS = {
    "pairs": "# Preference pairs\n\n"
    "Each row holds a `prompt`, the picture that is preferred (`chosen`) and the one that is not (`rejected`), "
    "with the optional columns that t2ialign's `docs/datasets.md` describes.\n\n"
    '```python\nfrom t2ialign.data.pairs import load_pairs\n\npairs = load_pairs("THIS_FOLDER")\n```',
    "unpaired": "# Labelled pictures\n\n"
    "Each row holds a `prompt`, a picture (`image`) and whether it is good (`label`), with the optional columns that "
    "t2ialign's `docs/datasets.md` describes.\n\n"
    '```python\nfrom t2ialign.data.unpaired import load_unpaired\n\npictures = load_unpaired("THIS_FOLDER")\n```',
}


def _write_shards(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str] | None,
    folder: Path,
    form: cols.Form,
    extra: Mapping[str, Any],
) -> tuple[int, list[Path]]:
    """Write numbered shards; return the number of rows and the files, each flushed to disk."""
    shards: list[Path] = []
    writer: pq.ParquetWriter | None = None
    count, shard_bytes = 0, 0
    try:
        for group, size in _row_groups(rows, columns, form, extra):
            if writer is None or shard_bytes > SHARD_BYTES:
                if writer is not None:
                    writer.close()
                shards.append(folder / f"{len(shards):05d}.parquet")
                writer, shard_bytes = pq.ParquetWriter(shards[-1], group.schema, compression="zstd"), 0
            writer.write_table(group)
            count, shard_bytes = count + len(group), shard_bytes + size
    finally:
        if writer is not None:
            writer.close()
    for shard in shards:
        with shard.open("rb+") as handle:
            os.fsync(handle.fileno())
    return count, shards


def _publish(shards: list[Path], existing: list[Path], folder: Path, split: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"{split}-{number:05d}-of-{len(shards):05d}.parquet": shard for number, shard in enumerate(shards)}
    for old in existing:
        if old.name not in names:
            old.unlink()
    for name, shard in names.items():
        shard.replace(folder / name)


def _row_groups(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None, form: cols.Form, extra: Mapping[str, Any]
) -> Iterator[tuple[pa.Table, int]]:
    """Gather validated rows into tables of bounded size, each with the number of bytes of its pictures."""
    schema: pa.Schema | None = None
    group: list[dict[str, Any]] = []
    size, first = 0, 0
    for number, row in enumerate(rows):
        if schema is None:
            given = columns if columns is not None else [name for name in row if name not in extra]
            schema = cols.features(_ordered(given, number, form), extra).arrow_schema
        group.append(_stored(row, schema.names, number, form))
        size += sum(len(group[-1][column]["bytes"]) for column in form.pictures)
        if len(group) >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield _table(group, schema, first, form), size
            first, size, group = number + 1, 0, []
    if group and schema is not None:
        yield _table(group, schema, first, form), size


def _ordered(names: Iterable[str], number: int, form: cols.Form) -> tuple[str, ...]:
    names = list(names)
    for name in names:
        if name not in form.columns:
            near = difflib.get_close_matches(name, form.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(form.columns)}"
            raise DataError(f"row {number}: unknown column {name!r}{hint}")
    cols.check_columns(names, f"row {number}", form)
    return tuple(name for name in form.columns if name in names)


def _stored(row: Mapping[str, Any], names: list[str], number: int, form: cols.Form) -> dict[str, Any]:
    if extra := [name for name in row if name not in names]:
        raise DataError(f"row {number}: column {extra[0]!r} was not in the first row; list it in columns=")
    stored: dict[str, Any] = {name: row.get(name) for name in names}
    try:
        for column in form.pictures:
            stored[column] = _embedded(stored[column], f"row {number}, {column}")
        if cols.LABEL in names:
            stored[cols.LABEL] = cols.label_of(stored[cols.LABEL])
        for name in cols.SCORES:
            if (scores := cols.scores_of(stored.get(name))) is not None:
                stored[name] = json.dumps(scores, ensure_ascii=False)
    except ValueError as error:
        raise DataError(f"row {number}: {error}") from error
    if isinstance(stored.get("user_id"), int):
        stored["user_id"] = str(stored["user_id"])
    for name in (*cols.NUMBERS, cols.WEIGHT):
        value = stored.get(name)
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"row {number}, {name}: {value} is not a number; leave it out or write None")
    return stored


def _embedded(value: Any, name: str) -> dict[str, Any]:
    """Return `{"bytes", "path"}` with the encoded picture and a file name for messages."""
    if isinstance(value, Image.Image):
        return {"bytes": encode_png(open_image(value, name=name)), "path": None}
    data, path = value, None
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        data = path if data is None else data
    if isinstance(data, str | Path):
        path = str(data)
        peek(path, name=f"{name} ({Path(path).name})")
        data = Path(path).read_bytes()
    if not isinstance(data, bytes):
        raise DataError(f"{name}: the picture is {type(value).__name__}, not a path, bytes or a Pillow image")
    kind, _, _ = peek(data, name=name)
    stem = Path(path).stem if isinstance(path, str) and path else None
    return {"bytes": data, "path": f"{stem}.{_SUFFIX[kind]}" if stem else None}


def _table(group: list[dict[str, Any]], schema: pa.Schema, first: int, form: cols.Form) -> pa.Table:
    try:
        table = pa.Table.from_pylist(group, schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"rows {first} to {first + len(group) - 1}: {error}") from error
    fault = next(cols.faults(table, form), None)
    if fault is not None:
        raise DataError(str(cols.Fault(first + fault.row, fault.column, fault.text)))
    return table
