"""Geo-tags: what a picture shows, and which country and continent that is from; by whoever can tell.

Law of this file: a label is one of `countries`' names or null; null is counted with its reason and never filled in.
The continent follows from the country: where a tagger says another one, the country's stands and the contradiction is
counted.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from t2ialign.data.files import written_aside
from t2ialign.errors import DataError
from t2ialign.eval.culture.countries import find_continent, find_country

if TYPE_CHECKING:
    from PIL import Image

    from t2ialign.data.image_sets import ImageRecord, ImageSet

COLUMNS = ("file_name", "prompt_id", "continent", "country", "artifact", "source")
"""The columns that every file of tags has; more may follow."""
_NOTHING = ("", "unknown", "none", "null", "n/a", "na", "unclear", "unsure", "not applicable")


@dataclass(frozen=True)
class GeoTag:
    """What a tagger says of a picture.

    Attributes:
        continent: Label, or `None`.
        country: Label (`countries.Country.name`), or `None`.
        artifact: What is shown, as `artifact_label` writes it, or `None`.
        problem: Why labels are missing; empty where none is.
        contradiction: Whether the tagger said a continent in which its country does not lie.
        margin: How sure the country is, where the tagger has a measure of it.
    """

    continent: str | None = None
    country: str | None = None
    artifact: str | None = None
    problem: str = ""
    contradiction: bool = False
    margin: float | None = None


@dataclass(frozen=True)
class TaggedPicture:
    """A picture of a set with its tag: one row of the file of tags.

    Attributes:
        file_name: Of the picture, relative to its set.
        prompt_id: Of its prompt.
        continent, country, artifact: The labels, `None` where there is none.
        source: Name of the tagger.
        prompt: Text of the prompt.
        sample: Number among the prompt's pictures.
        seed: Of its noise; `None` where unknown.
        category: Of the prompt.
        problem, contradiction, margin: As of `GeoTag`.
    """

    file_name: str
    prompt_id: str
    continent: str | None
    country: str | None
    artifact: str | None
    source: str
    prompt: str = ""
    sample: int = 0
    seed: int | None = None
    category: str | None = None
    problem: str = ""
    contradiction: bool = False
    margin: float | None = None

    @property
    def labels(self) -> tuple[str | None, str | None, str | None]:
        """(continent, country, artifact)."""
        return (self.continent, self.country, self.artifact)

    def to_dict(self) -> dict[str, Any]:
        """Return the row."""
        return asdict(self)

    @classmethod
    def of(cls, record: ImageRecord, tag: GeoTag, source: str) -> Self:
        """Bring a picture's line and its tag together."""
        return cls(
            record.file_name,
            record.prompt_id,
            tag.continent,
            tag.country,
            tag.artifact,
            source,
            record.prompt,
            record.sample,
            record.seed,
            record.category,
            tag.problem,
            tag.contradiction,
            tag.margin,
        )


class GeoTagger(Protocol):
    """Whoever can tell where pictures are from.

    Attributes:
        source: Its name, in the column `source`.
        batch_size: Pictures it likes to be given at once.
    """

    source: str
    batch_size: int

    def tag(self, images: Sequence[Image.Image]) -> list[GeoTag]:
        """Tag pictures, RGB; a tag depends on its own picture alone."""
        ...

    def info(self) -> dict[str, Any]:
        """Say what tags depend on, as JSON values."""
        ...


def artifact_label(name: str | None) -> str | None:
    """Write an artifact's name as a label: NFKC, case folded, blanks collapsed; `None` where it names nothing."""
    label = " ".join(unicodedata.normalize("NFKC", name or "").casefold().split())
    return None if label in _NOTHING else label


def stated_tag(
    continent: str | None, country: str | None, artifact: str | None, margin: float | None = None
) -> GeoTag:
    """Make a tag of words that somebody said.

    Args:
        continent: As it was said; a part of a continent will do. `None` or "unknown" where none was.
        country: Likewise, by any name that `countries` knows.
        artifact: Likewise.
        margin: How sure the country is.
    """
    given, nation = _said(continent), _said(country)
    found, label = find_country(nation) if nation else None, find_continent(given) if given else None
    problems = []
    if nation and found is None:
        problems.append(f"unknown country {nation!r}")
    if given and label is None and found is None:
        problems.append(f"unknown continent {given!r}")
    contradiction = found is not None and label is not None and label not in found.continents
    named = artifact_label(artifact)
    missing = [name for name, text in (("country", nation), ("artifact", named)) if not text]
    if not given and found is None:
        missing.insert(0, "continent")
    problems += [f"no {', '.join(missing)}"] if missing else []
    return GeoTag(
        found.continent if found else label,
        found.name if found else None,
        named,
        "; ".join(problems),
        contradiction,
        margin,
    )


def _said(text: str | None) -> str | None:
    words = " ".join((text or "").split())
    return None if words.casefold() in _NOTHING else words


def tag_image_set(image_set: ImageSet, tagger: GeoTagger, progress: str | Path | None = None) -> list[TaggedPicture]:
    """Tag all pictures of a set.

    Args:
        image_set: The set.
        tagger: Who tags.
        progress: A file of lines to which tags go as they come. If it is there, what stands in it is not asked again,
            as long as the tagger and the picture are the same.

    Returns:
        A row a picture, in the set's order.

    Raises:
        DataError: If a picture can not be read, or `progress` belongs to another tagger.
    """
    records = list(image_set)
    path = None if progress is None else Path(progress)
    done = {} if path is None else _read_progress(path, tagger)
    left = [record for record in records if _mark(record) not in done]
    for start in range(0, len(left), tagger.batch_size):
        batch = left[start : start + tagger.batch_size]
        tags = tagger.tag([image_set.open(record) for record in batch])
        made = {_mark(record): tag for record, tag in zip(batch, tags, strict=True)}
        done |= made
        if path is not None:
            _append(path, tagger, made)
    return [TaggedPicture.of(record, done[_mark(record)], tagger.source) for record in records]


def _mark(record: ImageRecord) -> str:
    return f"{record.file_name} {record.sha256}"


def _read_progress(path: Path, tagger: GeoTagger) -> dict[str, GeoTag]:
    """Read what was tagged; a torn last line is passed over."""
    if not path.exists() or not path.stat().st_size:
        return {}
    whole = path.read_bytes().rpartition(b"\n")[0]
    with written_aside(path) as aside:
        aside.write_bytes(whole + b"\n" if whole else b"")
    try:
        lines = [json.loads(line) for line in whole.split(b"\n") if line]
        if lines and lines[0]["tagger"] != _identity(tagger):
            raise DataError(
                f"{path} holds tags of {lines[0]['tagger'].get('source')!r} made otherwise; name another file"
            )
        return {line["mark"]: GeoTag(**line["tag"]) for line in lines[1:]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no tags ({error}); delete it, or name another file") from error


def _append(path: Path, tagger: GeoTagger, made: dict[str, GeoTag]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"mark": mark, "tag": asdict(tag)} for mark, tag in made.items()]
    if not path.exists() or not path.stat().st_size:
        lines.insert(0, {"tagger": _identity(tagger)})
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _identity(tagger: GeoTagger) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(json.dumps(tagger.info() | {"source": tagger.source}, default=str))
    return {key: value for key, value in described.items() if key not in ("versions", "device", "n_truncated")}


def write_tags(path: str | Path, tagged: Iterable[TaggedPicture]) -> None:
    """Write a row a picture to a parquet file: `COLUMNS`, then the other attributes of `TaggedPicture`."""
    import pyarrow
    from pyarrow import parquet

    rows = list(tagged)
    types = {"sample": pyarrow.int64(), "seed": pyarrow.uint64(), "contradiction": pyarrow.bool_()}
    types["margin"] = pyarrow.float64()
    table = pyarrow.table(
        {
            each.name: pyarrow.array([getattr(row, each.name) for row in rows], types.get(each.name, pyarrow.string()))
            for each in fields(TaggedPicture)
        }
    )
    with written_aside(Path(path)) as aside:
        parquet.write_table(table, aside)


def read_tags(path: str | Path) -> list[TaggedPicture]:
    """Read tags from a parquet file with at least `COLUMNS`.

    Raises:
        DataError: If it is none.
    """
    import pyarrow.lib
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable parquet file ({error})") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"{path} holds no tags: it lacks the column {missing[0]!r} (needed: {', '.join(COLUMNS)})")
    known = {each.name for each in fields(TaggedPicture)} & set(table.column_names)
    return [TaggedPicture(**row) for row in table.select(sorted(known)).to_pylist()]


def problem_counts(tagged: Iterable[TaggedPicture]) -> dict[str, int]:
    """Count the reasons why labels are missing, the commonest first."""
    return dict(Counter(row.problem for row in tagged if row.problem).most_common())


def by_prompt(tagged: Iterable[TaggedPicture]) -> Iterator[tuple[str, list[TaggedPicture]]]:
    """Group pictures by prompt, in the order in which prompts first appear, each group by sample."""
    groups: dict[str, list[TaggedPicture]] = {}
    for row in tagged:
        groups.setdefault(row.prompt_id, []).append(row)
    for prompt_id, rows in groups.items():
        yield prompt_id, sorted(rows, key=lambda row: (row.sample, row.file_name))
