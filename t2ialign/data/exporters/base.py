"""What the exporters of pairs share: rows with digests, picture files by digest, and the count of what does not fit.

Law of this file: a picture is written once, as it is encoded, under the sha256 of its bytes; which of two comes first
in a row is said by their digests, so that the place says nothing of the preference.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from t2ialign.data.columns import OPTIONAL, TIE
from t2ialign.data.images import peek
from t2ialign.data.pairs import PairDataset
from t2ialign.errors import DataError

SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


class Target(NamedTuple):
    """Where an export goes: the folder to write into, and the split's name."""

    folder: Path
    split: str


@dataclass
class PairExport:
    """What an export did.

    Attributes:
        format: One of `FORMATS`.
        output_dir: The folder.
        split: The split.
        pairs: Pairs written.
        pictures: Picture files written; 0 where they are inside the table.
        left_out: Pairs that the format has no place for, by reason.
        not_kept: Values of pairs that were written which the format has no place for, by column.
    """

    format: str
    output_dir: Path
    split: str
    pairs: int = 0
    pictures: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    not_kept: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """Say it for people."""
        told = [f"{self.pairs:,} pairs: {self.output_dir} ({self.format}, {self.split})"]
        told += [f"  left out, {reason}: {count:,}" for reason, count in sorted(self.left_out.items())]
        return told + [f"  not kept, {column}: {count:,}" for column, count in sorted(self.not_kept.items())]

    def checked(self) -> PairExport:
        """Return itself.

        Raises:
            DataError: If no pair was written.
        """
        if not self.pairs:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.left_out.items())
            raise DataError(f"no pair can be written as {self.format} ({reasons})")
        return self


@dataclass(frozen=True)
class Pair:
    """A pair as the exporters take it.

    Attributes:
        prompt: The prompt.
        pictures: The encoded pictures, the one with the lower digest first.
        digests: Their sha256.
        label: 1 where the first is preferred, 0 the second, 0.5 neither.
        user: Who judged; `None` where unknown.
        aspect: What was judged; `None` where it is not said.
    """

    prompt: str
    pictures: tuple[bytes, bytes]
    digests: tuple[str, str]
    label: float
    user: str | None
    aspect: str | None


def rows(pairs: PairDataset, summary: PairExport, kept: tuple[str, ...] = ("user_id",)) -> Iterator[Pair]:
    """Go through the pairs, and count the values that are not kept.

    Args:
        pairs: The pairs, ties among them.
        summary: Where to count. A `preference_prob` between 0.5 and 1 becomes a plain preference, which is counted.
        kept: Optional columns that the format keeps.
    """
    lost = [
        name for name in OPTIONAL if name not in (*kept, "preference_prob", "source") and name in pairs.column_names
    ]
    columns = {name: pairs.column(name) for name in (*lost, "user_id", "preference_prob", "aspect")}
    for number, prompt in enumerate(pairs.prompts):
        sides = [pairs.encoded(number, side) for side in ("chosen", "rejected")]
        digests = [hashlib.sha256(data).hexdigest() for data in sides]
        likely = columns["preference_prob"][number]
        swapped = digests[0] > digests[1]
        label = TIE if likely == TIE else float(not swapped)
        if swapped:
            sides, digests = sides[::-1], digests[::-1]
        summary.not_kept.update(name for name in lost if columns[name][number] is not None)
        summary.not_kept.update(["preference_prob"] if likely not in (None, TIE, 1.0) else [])
        who, what = columns["user_id"][number], columns["aspect"][number]
        yield Pair(prompt, (sides[0], sides[1]), (digests[0], digests[1]), label, who, what)


class Pictures:
    """A folder of pictures that are named by their digests."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir(parents=True)
        self._folder = folder
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._names)

    def put(self, data: bytes, digest: str) -> str:
        """Write a picture if it is not there, and return its file name.

        Raises:
            DataError: If it is no picture.
        """
        if digest not in self._names:
            name = f"{digest[:32]}{SUFFIX[peek(data, name=f'picture {digest[:12]}')[0]]}"
            (self._folder / name).write_bytes(data)
            self._names[digest] = name
        return self._names[digest]


def named(pair: Pair, pictures: Pictures) -> list[str]:
    """Write both pictures of a pair and return their file names."""
    return [pictures.put(data, digest) for data, digest in zip(pair.pictures, pair.digests, strict=True)]


def write_list(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write a JSON list, an entry a line."""
    import json

    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
