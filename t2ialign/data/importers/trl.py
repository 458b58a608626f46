"""TRL's preference format: `prompt`, `chosen`, `rejected`, plain or as chat messages.

Law of this file: pictures are what is preferred. A set whose chosen and rejected are answers in words is refused by
name.

A picture may be the cell itself, an `{"type": "image", "image": ...}` part of a message, or a part `{"type": "image"}`
that stands for the next one of the column `images`, in the order prompt, chosen, rejected. Without columns chosen and
rejected, `images` holds the two, the preferred one first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ialign.data import columns as cols
from t2ialign.data.importers.base import Candidate, Dropped, ImportOptions, Row, Stream, picture, stream
from t2ialign.errors import DataError


def columns(source: str | Path, options: ImportOptions) -> tuple[str, ...]:
    """Return the columns that are written: ours, as far as the source has them."""
    present = stream(source, options).columns
    return (*cols.REQUIRED, *(name for name in cols.OPTIONAL if name in present))


def read(source: str | Path, options: ImportOptions) -> Iterator[Candidate]:
    """Yield every row of the split as a pair, or as the reason to leave it out.

    Raises:
        DataError: If the columns are not those of TRL, or hold words where pictures are needed.
    """
    table = stream(source, options)
    pictures = {"chosen", "rejected"} <= set(table.columns)
    if not (pictures or {"prompt", "images"} <= set(table.columns)):
        raise DataError(
            f"{source}: neither chosen and rejected nor prompt and images among {', '.join(table.columns)}; rename "
            "the columns"
        )
    options.unsafe.check_column(table.columns, str(source))
    for where, row in table.rows:
        yield _candidate(row, where, options, table)


def _candidate(row: Mapping[str, Any], where: str, options: ImportOptions, table: Stream) -> Candidate:
    prompt = prompt_text(row.get("prompt"), row.get("chosen"))
    if not prompt:
        return Dropped("empty prompt", where)
    if reason := options.unsafe.reason(prompt, row):
        return Dropped(reason, where)
    if row.get("preference_prob") == cols.TIE and options.ties == "drop":
        return Dropped("tie", where)
    try:
        sides = [picture(cell, table.root) for cell in _cells(row, where)]
    except DataError as error:
        if isinstance(error, WordsError):
            raise
        return Dropped("unreadable picture", f"{where}: {error}")
    if len(sides) != 2 or None in sides:
        return Dropped("picture missing", where)
    optional = {name: row[name] for name in cols.OPTIONAL if name in table.columns}
    values = {"prompt": prompt, "chosen": sides[0], "rejected": sides[1], **optional}
    return Row(values, where, ("ties kept",) if row.get("preference_prob") == cols.TIE else ())


class WordsError(DataError):
    """The set prefers words, not pictures: no row of it can serve."""


def is_chat(value: Any) -> bool:
    """Tell whether a cell holds chat messages."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]


def parts(messages: list[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Go through the parts of messages, plain text content as one part."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            yield str(message.get("role")), part


def prompt_text(value: Any, answer: Any = None) -> str:
    """Return the text of the last message of a user, also where it is said within the answer alone; or a plain one.

    Args:
        value: The cell of the prompt: a text or messages.
        answer: The cell of an answer, whose messages may hold the prompt.
    """
    if isinstance(value, str):
        return value.strip()
    messages = value if is_chat(value) else answer
    if not is_chat(messages):
        return ""
    assert isinstance(messages, list)
    asked = [message for message in messages if message.get("role") == "user"]
    texts = [part.get("text") for _, part in parts(asked[-1:]) if part.get("text")]
    return " ".join(str(text).strip() for text in texts)


def _cells(row: Mapping[str, Any], where: str) -> list[Any]:
    """Return the cells of the chosen and the rejected picture."""
    waiting = list(row.get("images") or [])
    if row.get("chosen") is None and row.get("rejected") is None:
        return waiting
    waiting = waiting[waiting_for(row.get("prompt")) :]
    cells = []
    for side in cols.PICTURES:
        cell, waiting = picture_cell(row.get(side), waiting, f"{where}, {side}")
        cells.append(cell)
    return cells


def waiting_for(value: Any) -> int:
    """Count the parts of a cell that stand for pictures of the column `images`."""
    found = parts(value) if is_chat(value) else ()
    return sum(part.get("type") == "image" and part.get("image") is None for _, part in found)


def picture_cell(value: Any, waiting: list[Any], where: str) -> tuple[Any, list[Any]]:
    """Return the picture of an answer, and the pictures of `images` that are still waiting.

    Args:
        value: The cell of the answer: a picture, a list of one, or messages.
        waiting: What is left of the column `images`.
        where: What to call the cell in an error.

    Raises:
        WordsError: If it is an answer in words.
    """
    if not is_chat(value):
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if isinstance(value, str) and not value.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
            raise WordsError(f"{where}: {value[:60]!r} is a text; pictures that are preferred are needed, not words")
        return value, waiting
    found = None
    for role, part in parts(value):
        if part.get("type") != "image":
            continue
        cell = part.get("image")
        if cell is None and waiting:
            cell, waiting = waiting[0], waiting[1:]
        if role == "assistant":
            found = cell
    if found is None and not any(part.get("type") == "image" for _, part in parts(value)):
        raise WordsError(f"{where}: messages without a picture; pictures that are preferred are needed, not words")
    return found, waiting
