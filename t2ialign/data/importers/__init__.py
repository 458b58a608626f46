"""From the formats of others to ours: `import_pairs` and one file a format.

Law of this room: what is read is written or counted, with the reason; memory does not grow with the set. An importer
is a generator of candidates (a row of ours, or a reason to leave it out) and knows nothing of how they are written. It
writes pairs, or what its `FORM` says.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from t2ialign.data import columns as cols
from t2ialign.data.files import write_json
from t2ialign.data.images import open_image, peek
from t2ialign.data.importers.base import Both, Candidate, Dropped, ImportOptions, Row
from t2ialign.data.importers.unsafe import UnsafeFilter
from t2ialign.data.writing import NoRowsError, write_card, write_rows
from t2ialign.errors import DataError

logger = logging.getLogger(__name__)

FORMATS = {
    "folders": "two folders, chosen/ and rejected/, with equal names, and a captions file",
    "pickapic": "Pick-a-Pic v1 or v2: parquet files or a hub id",
    "trl": "prompt/chosen/rejected as in TRL, chat messages and images too",
    "pickdoublecaption": "Pick-Double-Caption: Pick-a-Pic with a caption of each picture (dual captions)",
    "hpdv2": "HPDv2's train.json (pairs) or test.json (ranks)",
    "imagereward": "ImageRewardDB's JSON: prompts with ranked pictures",
    "rankings": "JSON or JSON lines with pictures in order of preference",
    "visionprefer": "VisionPrefer-style JSON lines: pictures rated by aspect",
    "ultrafeedback": "UltraFeedback-style JSON lines: completions with annotations by aspect",
    "kto": "Diffusion-KTO's CSV, or prompt/completion/label as in TRL: labelled pictures",
}
"""The formats that are read, with a line of help each. A file of the same name here reads it."""


@dataclass
class ImportSummary:
    """What an import did; `import.json` in the output folder holds the same.

    Attributes:
        format: One of `FORMATS`.
        source: Name of the folder or file, or the hub id.
        output_dir: Where the set is.
        split: Which split was read and written.
        kind: What was written, `pairs` or `unpaired` (labelled pictures).
        read: Rows (pairs, pictures) that were looked at.
        written: Rows that were written.
        dropped: Rows that were left out, by reason.
        notices: What else happened, counted (`"ties kept"`).
        examples: For each reason the first row that was left out.
        columns: The columns written.
        seconds: How long it took.
    """

    format: str
    source: str
    output_dir: str
    split: str
    kind: str = cols.PAIRS.name
    read: int = 0
    written: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    notices: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values, the output folder by its name alone."""
        return asdict(self) | {"output_dir": Path(self.output_dir).name}

    def lines(self) -> list[str]:
        """Say it for people."""
        unit = cols.FORMS[self.kind].unit
        told = [f"{self.written:,} of {self.read:,} {unit}s written to {self.output_dir} ({self.split})"]
        for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1]):
            told.append(f"  left out, {reason}: {count:,} (first: {self.examples[reason]})")
        return told + [f"  {notice}: {count:,}" for notice, count in sorted(self.notices.items())]


def import_pairs(
    format: str,
    source: str | Path,
    output_dir: str | Path,
    *,
    split: str = "train",
    revision: str | None = None,
    ties: Literal["drop", "keep"] = "drop",
    limit: int | None = None,
    unsafe_words: str | Path | None = None,
    unsafe_column: str | None = None,
    verify: bool = False,
    overwrite: bool = False,
    both: Both = "win",
    images: str | Path | None = None,
    caption_columns: tuple[str, str] | None = None,
) -> ImportSummary:
    """Bring pairs or labelled pictures of another format to ours: parquet, a card, and `import.json`.

    Args:
        format: One of `FORMATS`.
        source: A folder or file; for formats that are tables also a hub id, which is streamed.
        output_dir: Where to write. Splits may be added to it by further calls.
        split: Which split to read, and the name to write it under. `folders` has none: there it is only the name.
        revision: Branch, tag or commit of a hub dataset.
        ties: Whether ties are left out or written with `preference_prob` 0.5.
        limit: Stop after so many rows were written.
        unsafe_words: A file with a word or phrase a line; pairs whose prompt holds one are left out.
        unsafe_column: A column of the source; pairs where it is true, above 0.5, or empty are left out.
        verify: Decode every picture in full and leave out pairs where one is damaged. Without it the headers are read,
            and `check_pairs` finds the rest.
        overwrite: Replace the split if it is there.
        both: `kto`: the label of pictures that both won and lost, or `drop`. Diffusion-KTO counts them as won.
        images: Where pictures are named by their paths (`kto`, `hpdv2`, `imagereward`, `rankings`, `visionprefer`,
            `ultrafeedback`): the folder that they are relative to. By default that of the table.
        caption_columns: `pickdoublecaption`: the columns with a caption of picture 0 and of picture 1.

    Returns:
        What was read, written and left out.

    Raises:
        DataError: If the format is not known, an option is not one of it, the source can not be read or is of another
            format, or nothing is left.
    """
    if format not in FORMATS:
        raise DataError(f"format {format!r} is not known; the formats are {', '.join(FORMATS)}")
    if ties not in ("drop", "keep") or (limit is not None and limit < 1):
        raise DataError(f"ties must be drop or keep and limit 1 or more, not {ties!r} and {limit!r}")
    reader = importlib.import_module(f"t2ialign.data.importers.{format}")
    form: cols.Form = getattr(reader, "FORM", cols.PAIRS)
    folder = None if images is None else Path(images).expanduser()
    unsafe = UnsafeFilter.load(unsafe_words, unsafe_column)
    options = ImportOptions(split, revision, ties, unsafe, both, folder, caption_columns)
    _check_options(format, form, options, has_images=form is cols.UNPAIRED or getattr(reader, "IMAGES", False))
    name = Path(source).name if Path(source).exists() else str(source)
    summary = ImportSummary(format, name, str(output_dir), split, form.name)
    _run(reader, source, options, summary, limit=limit, look=open_image if verify else _header, overwrite=overwrite)
    return summary


def _run(
    reader: ModuleType,
    source: str | Path,
    options: ImportOptions,
    summary: ImportSummary,
    *,
    limit: int | None,
    look: Callable[..., Any],
    overwrite: bool,
) -> None:
    """Write what the reader yields, and describe it."""
    begun = time.monotonic()
    form = cols.FORMS[summary.kind]
    candidates: Iterator[Candidate] = reader.read(source, options)
    columns: tuple[str, ...] = reader.columns(source, options)
    summary.columns = list(columns)
    rows = _kept(candidates, summary, limit, look)
    try:
        folder = write_rows(rows, summary.output_dir, summary.split, form=form, columns=columns, overwrite=overwrite)
    except NoRowsError as error:
        raise DataError("\n".join([f"no {form.unit} of {summary.source} is left", *summary.lines()[1:]])) from error
    summary.seconds = round(time.monotonic() - begun, 3)
    _describe(folder, summary)


def _check_options(format: str, form: cols.Form, options: ImportOptions, has_images: bool) -> None:
    """Refuse an option that the format has not, rather than to pass over it."""
    if options.both not in get_args(Both):
        raise DataError(f"both must be one of {', '.join(get_args(Both))}, not {options.both!r}")
    if form is cols.PAIRS and options.both != "win":
        raise DataError(f"--both is for labelled pictures, but the format {format} holds pairs; leave it out")
    if options.images is not None and not has_images:
        raise DataError(f"--images is for formats that keep pictures elsewhere, not for {format}; leave it out")
    if form is cols.UNPAIRED and options.ties != "drop":
        raise DataError(
            f"--ties {options.ties} is for pairs; --both says what becomes of pictures that both won and lost"
        )
    if options.caption_columns is not None and format != "pickdoublecaption":
        raise DataError(f"--caption_columns is for pickdoublecaption, not for {format}; leave it out")


def _header(source: Any, *, name: str) -> None:
    peek(source, name=name)


def _kept(
    candidates: Iterator[Candidate], summary: ImportSummary, limit: int | None, look: Callable[..., Any]
) -> Iterator[Row]:
    """Pass on the rows that stay, and count the others."""
    dropped: Counter[str] = Counter()
    notices: Counter[str] = Counter()
    for candidate in candidates:
        summary.read += 1
        if isinstance(candidate, Row):
            candidate = _looked_at(candidate, look)
        if isinstance(candidate, Dropped):
            dropped[candidate.reason] += 1
            summary.examples.setdefault(candidate.reason, candidate.where)
            summary.dropped = dict(dropped)
            logger.debug("left out %s: %s", candidate.where, candidate.reason)
            continue
        notices.update(candidate.notices)
        summary.written += 1
        summary.notices = dict(notices)
        yield candidate
        if summary.written == limit:
            return


def _looked_at(row: Row, look: Callable[..., Any]) -> Candidate:
    """Leave a row out whose pictures can not be read, whose prompt is empty, or whose pictures are one."""
    if not isinstance(row["prompt"], str) or not row["prompt"].strip():
        return Dropped("empty prompt", row.where)
    form = cols.PAIRS if "chosen" in row else cols.UNPAIRED
    for column in form.pictures:
        try:
            look(row[column], name=f"{row.where}, {column}")
        except DataError as error:
            return Dropped("unreadable picture", str(error))
    if form is cols.PAIRS and row["chosen"] == row["rejected"]:
        return Dropped("the same picture on both sides", row.where)
    return row


def _describe(folder: Path, summary: ImportSummary) -> None:
    """Add this split to `import.json`, and write the card from all that is in there."""
    path = folder / "import.json"
    splits: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["splits"] if path.is_file() else {}
    splits[summary.split] = summary.to_dict()
    write_json(path, {"splits": splits})
    form = cols.FORMS[summary.kind]
    body = [f"# {form.title} from {summary.source}", "", f"Imported by `t2ialign data import {summary.format}`."]
    for split, values in splits.items():
        body += ["", f"## {split}", "", "| rows | count |", "|---|---:|"]
        body += [f"| read | {values['read']:,} |", f"| written | {values['written']:,} |"]
        body += [f"| left out: {reason} | {count:,} |" for reason, count in sorted(values["dropped"].items())]
        body += [f"| {notice} | {count:,} |" for notice, count in sorted(values["notices"].items())]
    body += ["", "The licence is that of the source: look it up before you pass this on."]
    write_card(folder, "\n".join(body), form)


__all__ = ["FORMATS", "ImportSummary", "import_pairs"]
