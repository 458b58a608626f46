"""Concept spaces: artifacts with the countries they are from. CUBE-CSpace as published, or any list.

Law of this file: a published archive is read as a stream and nothing of it is written to disk; members that are no
plain JSON files are passed over; sizes are bounded; what has not the documented fields is refused.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from t2ialign.errors import DataError
from t2ialign.eval.culture.countries import country_of_wikidata, find_country
from t2ialign.eval.culture.cube import CubePrompt, collapsed, wikidata_numbers
from t2ialign.eval.culture.geotag import artifact_label

FIELDS = ("P31", "P279", "P495", "P17", "P361", "id", "parent node name", "name")
"""The documented fields of CUBE-CSpace (its data card: 295,287 entries, 88.8 MB)."""
MAX_BYTES = 512 << 20
"""Bytes, unpacked, beyond which a file is refused."""
MAX_RECORD = 1 << 20
"""Characters of one entry beyond which a file is no list of entries."""
_BLOCK = 1 << 16
_UNREADABLE = (OSError, EOFError, tarfile.TarError, zlib.error, UnicodeDecodeError, OverflowError, RecursionError)
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_DOMAIN_WORDS = {
    "cuisine": "food dish cuisine dessert drink beverage bread cheese soup sauce cake meal",
    "landmarks": "landmark attraction monument building temple museum landscape landform heritage place architecture",
    "art": "art clothing costume garment dance painting music performing performance textile headgear",
}


@dataclass(frozen=True)
class Concept:
    """An artifact.

    Attributes:
        name: Its name.
        country: Label of its country; `None` where there is none, or several.
        continent: Label of its continent; also where several countries share one.
        domain: Domain, such as cuisine; `None` where unknown.
        parent: Name of its parent node; empty where there is none.
        wikidata: Its number; empty where there is none.
    """

    name: str
    country: str | None = None
    continent: str | None = None
    domain: str | None = None
    parent: str = ""
    wikidata: str = ""


@dataclass(frozen=True)
class ConceptSpace:
    """A list of artifacts.

    Attributes:
        name: Of the list.
        concepts: The artifacts, each name, country and domain once.
        counts: What was read, and what became of it.
    """

    name: str
    concepts: tuple[Concept, ...]
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of artifacts."""
        return len(self.concepts)

    def of_domain(self, domain: str) -> ConceptSpace:
        """Return the artifacts of a domain."""
        return ConceptSpace(f"{self.name}, {domain}", tuple(c for c in self.concepts if c.domain == domain))

    @classmethod
    def of(cls, name: str, concepts: Iterable[Concept], counts: Mapping[str, int] | None = None) -> ConceptSpace:
        """Make a space; what is there twice (by name, country and domain) is taken once."""
        kept: dict[tuple[str | None, ...], Concept] = {}
        for each in concepts:
            kept.setdefault((artifact_label(each.name), each.country, each.domain), each)
        return cls(name, tuple(kept.values()), dict(counts or {}))


def cube_space(cube: Iterable[CubePrompt]) -> ConceptSpace:
    """Return the artifacts of CUBE-1K's prompts, where CUBE-CSpace is not at hand."""
    return ConceptSpace.of(
        "cube-1k", [_concept(each.artifact, [each.country], each.domain) for each in cube if each.named]
    )


def flag_space() -> ConceptSpace:
    """Return the flags of the mini-world."""
    from t2ialign.mini.flags import FLAGS

    return ConceptSpace.of(
        "mini-world flags", [_concept(f"flag of {flag.name}", [flag.name], "flags") for flag in FLAGS.values()]
    )


def read_cspace(
    path: str | Path, *, domains: Mapping[str, str] | None = None, max_bytes: int = MAX_BYTES
) -> ConceptSpace:
    """Read CUBE-CSpace.

    The country is that of P495 (country of origin), else of P17 (country).

    Args:
        path: `cube_CSpace.json.tar.gz` as published, or the file in it: a `.json` list or `.jsonl`, an entry a line.
        domains: Domain by name of the parent node, in small letters; what is not in it has none. By default the domain
            follows from words in the parent's name, such as 'dish'.
        max_bytes: Unpacked size to refuse.

    Raises:
        DataError: If it can not be read, is too large, or an entry lacks one of `FIELDS`; the entry is named.
    """
    path = Path(path)
    counts: Counter[str] = Counter()
    concepts = []
    with _reading(path):
        for where, text in _texts(path, counts, max_bytes):
            for number, entry in enumerate(_entries(text, where)):
                concept = _read_entry(entry, f"{where}, entry {number}", domains, counts)
                if concept is not None:
                    concepts.append(concept)
    if not counts["entries"]:
        raise DataError(f"{path.name} holds no entry; CUBE-CSpace is a list of entries in a .json or .jsonl file")
    space = ConceptSpace.of("cube-cspace", concepts)
    counts["duplicates"] = len(concepts) - len(space)
    return ConceptSpace(space.name, space.concepts, dict(counts))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}") from error
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path.name} can not be read ({reason}); fetch it again") from error


def _texts(path: Path, counts: Counter[str], max_bytes: int) -> Iterator[tuple[str, IO[str]]]:
    """Hand out the JSON texts of a file or an archive, one after the other."""
    name = path.name.lower()
    if name.endswith((".json", ".jsonl")):
        with path.open("rb") as file:
            yield path.name, _text(file, max_bytes)
        return
    if not name.endswith(_ARCHIVES):
        raise DataError(f"{path.name}: CUBE-CSpace is read from .json, .jsonl, {' and '.join(_ARCHIVES)} files")
    with path.open("rb") as file:
        unpacked: Any = file if name.endswith(".tar") else gzip.GzipFile(fileobj=file)
        with tarfile.open(fileobj=io.BufferedReader(_Bounded(unpacked, max_bytes)), mode="r|") as archive:
            for member in archive:
                plain = Path(member.name).name
                if not member.isreg() or plain.startswith(".") or not plain.lower().endswith((".json", ".jsonl")):
                    counts["members_passed_over"] += not member.isdir()
                    continue
                content = archive.extractfile(member)
                assert content is not None
                yield f"{path.name}, {plain}", _text(content, max_bytes)


def _text(stream: Any, max_bytes: int) -> IO[str]:
    return io.TextIOWrapper(io.BufferedReader(_Bounded(stream, max_bytes)), encoding="utf-8-sig")


class _Bounded(io.RawIOBase):
    """A stream that refuses to be longer than it may."""

    def __init__(self, inner: Any, limit: int) -> None:
        self._inner, self._left, self._limit = inner, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"the file unpacks to more than {self._limit} bytes; it is not CUBE-CSpace (88.8 MB)")
        buffer[: len(data)] = data
        return len(data)


def _entries(text: IO[str], where: str) -> Iterator[dict[str, Any]]:
    """Read a list of objects, or an object a line, without holding the whole text."""
    decoder, buffer, ended = json.JSONDecoder(), "", False
    while not buffer and (block := text.read(_BLOCK)):
        buffer = block.lstrip()
    if not buffer.startswith(("[", "{")):
        raise DataError(f"{where}: neither a JSON list of entries nor an entry a line")
    is_list = buffer.startswith("[")
    buffer = buffer[1:] if is_list else buffer
    while True:
        buffer = buffer.lstrip(" \t\r\n,")
        if is_list and buffer.startswith("]"):
            return
        try:
            entry, end = decoder.raw_decode(buffer)
        except ValueError:
            more = text.read(_BLOCK)
            ended = not more
            if ended and not buffer and not is_list:
                return
            if ended or len(buffer) > MAX_RECORD:
                raise DataError(
                    f"{where}: no list of entries: an entry is broken, cut off, or longer than {MAX_RECORD} characters"
                ) from None
            buffer += more
            continue
        if not isinstance(entry, dict):
            raise DataError(f"{where}: an entry is a {type(entry).__name__}, not an object")
        buffer = buffer[end:]
        yield entry


def _read_entry(
    entry: Mapping[str, Any], where: str, domains: Mapping[str, str] | None, counts: Counter[str]
) -> Concept | None:
    values = {str(key).strip().lower().replace("_", " "): value for key, value in entry.items()}
    missing = [name for name in FIELDS if name.lower() not in values]
    if missing:
        raise DataError(
            f"{where}: the field {missing[0]!r} is missing (there are {', '.join(map(str, list(entry)[:12]))}); "
            f"CUBE-CSpace has {', '.join(FIELDS)}"
        )
    counts["entries"] += 1
    name = collapsed(values["name"])
    if not artifact_label(name):
        counts["without_name"] += 1
        return None
    parent = collapsed(values["parent node name"])
    domain = domain_of(parent) if domains is None else domains.get(parent.lower())
    nations: list[str] = []
    for key in ("p495", "p17"):
        numbers, _ = wikidata_numbers(values[key])
        nations = nations or [found.name for number in numbers if (found := country_of_wikidata(number))]
    concept = _concept(name, nations, domain, parent, collapsed(values["id"]))
    counts["without_country"] += not nations
    counts["several_countries"] += bool(nations) and concept.country is None
    counts["without_domain"] += domain is None
    return concept


def domain_of(parent: str) -> str | None:
    """Return the domain that the name of a parent node speaks of; `None` where it speaks of none, or of several."""
    words = {
        word.removesuffix("es") if word.endswith("shes") else word.removesuffix("s") for word in parent.lower().split()
    }
    words |= set(parent.lower().split())
    found = [domain for domain, listed in _DOMAIN_WORDS.items() if words & set(listed.split())]
    return found[0] if len(found) == 1 else None


def _concept(
    name: str, nations: Iterable[str], domain: str | None = None, parent: str = "", number: str = ""
) -> Concept:
    found = {country.name: country for nation in nations if (country := find_country(nation))}
    continents = {country.continent for country in found.values()}
    return Concept(
        name,
        next(iter(found)) if len(found) == 1 else None,
        next(iter(continents)) if len(continents) == 1 else None,
        domain,
        parent,
        number if number.startswith("Q") else "",
    )
