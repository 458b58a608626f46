"""CUBE-1K: prompts that name an artifact of a country, read from the published file.

Law of this file: the published file is read as it is, faults included, and each fault is counted: 1002 rows with 994
prompts, four domains for three, names with blanks behind them, lists written as text (nothing in it is evaluated),
and prompts that name another artifact than the row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from t2ialign.data.prompts import Prompt, read_rows
from t2ialign.errors import DataError
from t2ialign.eval.culture.countries import Country, find_country

DOMAINS = ("cuisine", "landmarks", "art")
"""The paper's three domains. The file has `landscapes` besides, which are landmarks."""
PROPERTIES = ("P31", "P279", "P495", "P17", "P2012", "P361")
"""Properties of Wikidata in the file: instance of, subclass of, country of origin, country, cuisine, part of."""
_MERGED = {"landscapes": "landmarks"}
_NUMBER = re.compile(r"Q[1-9]\d*")


@dataclass(frozen=True)
class CubePrompt:
    """A prompt of CUBE-1K.

    Attributes:
        prompt_id: `cube-0000` and so on, by the place of its first row in the file.
        prompt: Its text, blanks collapsed.
        artifact: Name of the artifact.
        country: Label of the country (`countries.Country.name`).
        domain: One of `DOMAINS`.
        raw_domain: The domain as the file has it.
        source: `"wikidata"`, `"llm"`, or `""` where the file does not say.
        wikidata: Numbers of the artifact, of all rows with this prompt; empty where the file has none.
        properties: Numbers by property (`PROPERTIES`); empty ones left out.
        named: Whether the prompt names the artifact. Nine prompts name another; they are no test of awareness.
        rows: How many rows have this prompt.
    """

    prompt_id: str
    prompt: str
    artifact: str
    country: str
    domain: str
    raw_domain: str
    source: str
    wikidata: tuple[str, ...] = ()
    properties: dict[str, tuple[str, ...]] = field(default_factory=dict)
    named: bool = True
    rows: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as JSON values."""
        return asdict(self) | {
            "wikidata": list(self.wikidata),
            "properties": {name: list(numbers) for name, numbers in self.properties.items()},
        }


def read_cube(path: str | Path) -> list[CubePrompt]:
    """Read `CUBE_1K.json`, each prompt once, in the file's order.

    Args:
        path: The published file, or rows of it in any form that `data.prompts.read_rows` reads. Columns `name`,
            `country`, `domain` and `prompt` are needed.

    Raises:
        DataError: If the file can not be read, or a row lacks a column, or has a country or domain that is unknown.
            The row is named.
    """
    path = Path(path)
    found: dict[str, CubePrompt] = {}
    for number, (where, row) in enumerate(read_rows(path)):
        made = _prompt(row, number, f"{path.name}, {where}")
        there = found.get(made.prompt)
        found[made.prompt] = made if there is None else _merged(there, made, f"{path.name}, {where}")
    if not found:
        raise DataError(f"{path.name} holds no prompt")
    return list(found.values())


def wikidata_numbers(value: object) -> tuple[tuple[str, ...], int]:
    """Read the numbers of a list that is written as text, such as `"['Q155', 'Q77']"`; nothing is evaluated.

    Args:
        value: The text, a list of texts, or what stands where there is none: blanks, `nan`, a missing value.

    Returns:
        The numbers, each once, in order; and how many entries are no numbers.
    """
    if isinstance(value, list | tuple):
        entries = [str(entry).strip() for entry in value]
    else:
        text = "" if value is None else str(value).strip()
        entries = [] if text.lower() in ("", "nan", "none", "[]") else re.split(r"\s*,\s*", text.strip("[]"))
    entries = [entry.strip().strip("'\"").strip() for entry in entries]
    numbers = dict.fromkeys(entry for entry in entries if _NUMBER.fullmatch(entry))
    return tuple(numbers), sum(not _NUMBER.fullmatch(entry) for entry in entries if entry)


def collapsed(text: object) -> str:
    """Return a text with outer blanks removed and inner ones collapsed; empty where there is none."""
    return " ".join(str(text).split()) if text is not None else ""


def _prompt(row: dict[str, Any], number: int, where: str) -> CubePrompt:
    texts = {name: collapsed(row.get(name)) for name in ("name", "country", "domain", "prompt")}
    missing = [name for name, text in texts.items() if not text]
    if missing:
        raise DataError(f"{where}: {missing[0]} is missing; CUBE-1K has name, country, domain and prompt")
    country = find_country(texts["country"])
    if country is None:
        raise DataError(f"{where}: {texts['country']!r} is no country that is known")
    raw = texts["domain"].lower()
    domain = _MERGED.get(raw, raw)
    if domain not in DOMAINS:
        raise DataError(f"{where}: {raw!r} is no domain of CUBE; they are {', '.join((*DOMAINS, *_MERGED))}")
    properties = {name: wikidata_numbers(row.get(name.lower()))[0] for name in PROPERTIES}
    origin = collapsed(row.get("id"))
    is_number = bool(_NUMBER.fullmatch(origin))
    return CubePrompt(
        prompt_id=f"cube-{number:04d}",
        prompt=texts["prompt"],
        artifact=texts["name"],
        country=country.name,
        domain=domain,
        raw_domain=raw,
        source="wikidata" if is_number else "llm" if origin == "LLM" else "",
        wikidata=(origin,) if is_number else (),
        properties={name: numbers for name, numbers in properties.items() if numbers},
        named=texts["name"].casefold() in texts["prompt"].casefold(),
    )


def _merged(first: CubePrompt, second: CubePrompt, where: str) -> CubePrompt:
    """Bring two rows with one prompt together; their country and domain must agree."""
    if (first.country, first.domain) != (second.country, second.domain):
        raise DataError(f"{where}: the prompt {second.prompt!r} stands for another country or domain before")
    numbers = tuple(dict.fromkeys((*first.wikidata, *second.wikidata)))
    merged = {
        name: tuple(dict.fromkeys((*first.properties.get(name, ()), *second.properties.get(name, ()))))
        for name in PROPERTIES
        if name in first.properties or name in second.properties
    }
    made = {**vars(first), "wikidata": numbers, "properties": merged, "rows": first.rows + second.rows}
    return CubePrompt(**{**made, "source": first.source or second.source})


def as_prompts(cube: Iterable[CubePrompt]) -> list[Prompt]:
    """Return the prompts as `t2ialign generate` takes them; artifact, country and domain go along."""
    return [
        Prompt(
            each.prompt_id,
            each.prompt,
            set="cube-1k",
            category=each.domain,
            extra={"country": each.country, "artifact": each.artifact, "domain": each.domain, "named": each.named},
        )
        for each in cube
    ]


def contrast_prompts(prompt: CubePrompt, countries: Sequence[Country]) -> dict[str, str]:
    """Write the prompt with another country in place of its own, the artifact unchanged.

    The last mention of the country, as a noun or an adjective, is replaced by the same part of speech; it stands
    behind the artifact in all templates of CUBE.

    Args:
        prompt: The prompt.
        countries: The other countries; the prompt's own is passed over.

    Returns:
        By country's name, in the order given. Empty if the prompt does not mention its country.
    """
    own = find_country(prompt.country)
    assert own is not None
    mentions = []
    for part in ("name", "adjective"):
        pattern = rf"(?<!\w){re.escape(getattr(own, part))}(?!\w)"
        mentions += [(match.start(), match.end(), part) for match in re.finditer(pattern, prompt.prompt)]
    if not mentions:
        return {}
    start, end, part = max(mentions)
    return {
        other.name: prompt.prompt[:start] + getattr(other, part) + prompt.prompt[end:]
        for other in countries
        if other.name != own.name
    }


def fault_counts(cube: Sequence[CubePrompt]) -> dict[str, int]:
    """Count what a user of the file should know of it.

    Returns:
        `prompts`, `rows`, `duplicate_rows`, `landscapes` (prompts merged into landmarks), `not_named` (prompts that
        name another artifact than their row).
    """
    rows = sum(each.rows for each in cube)
    return {
        "prompts": len(cube),
        "rows": rows,
        "duplicate_rows": rows - len(cube),
        "landscapes": sum(each.raw_domain == "landscapes" for each in cube),
        "not_named": sum(not each.named for each in cube),
    }
