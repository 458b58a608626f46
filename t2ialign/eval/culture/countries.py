"""Countries by any of their usual names, and the continent each lies in.

Law of this file: a name is looked up in a table or it is unknown; nothing is guessed, corrected or completed. 'USA',
'the United States' and 'U.S.' are one country; 'Georgia' is the country, for a state of another is not in the table;
'Korea' and 'Congo' are two countries each, so they are none.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from t2ialign.eval.culture.country_table import TABLE
from t2ialign.mini.flags import CONTINENTS as _SIX

CONTINENTS = (*_SIX, "Antarctica")
"""Names of the continents as labels."""
_CONTINENT_NAMES = {
    **{name.lower(): name for name in CONTINENTS},
    "central america": "North America",
    "caribbean": "North America",
    "australia": "Oceania",
    "australia and oceania": "Oceania",
    "australasia": "Oceania",
    "polynesia": "Oceania",
    "melanesia": "Oceania",
    "micronesia": "Oceania",
    **{f"{side} {name}".lower(): name for name in ("Africa", "Asia", "Europe") for side in
       ("North", "Northern", "South", "Southern", "East", "Eastern", "West", "Western", "Central")},
    "southeast asia": "Asia",
    "southeastern asia": "Asia",
    "sub saharan africa": "Africa",
}  # fmt: skip
del _CONTINENT_NAMES["south africa"]


@dataclass(frozen=True)
class Country:
    """A country.

    Attributes:
        code: Of ISO 3166-1, two capitals; XK is Kosovo.
        name: The label, for instance `"United States"`.
        continent: One of `CONTINENTS`.
        continents: Where it lies; two for a country in two continents, `continent` first.
        wikidata: Its numbers in Wikidata.
        adjective: For instance `"American"`.
        aliases: Other names, in the form of `plain`.
    """

    code: str
    name: str
    continent: str
    continents: tuple[str, ...]
    wikidata: tuple[str, ...]
    adjective: str
    aliases: tuple[str, ...] = ()


def plain(name: str) -> str:
    """Bring a country's or continent's name to the form in which names are compared.

    Small letters without accents; what is no letter or digit is one blank; a leading article is dropped.
    """
    text = unicodedata.normalize("NFKD", name.replace("&", " and "))
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold()
    return re.sub(r"[\W_]+", " ", text).strip().removeprefix("the ")


@lru_cache(maxsize=1)
def countries() -> tuple[Country, ...]:
    """Return all countries, by continent and name."""
    found = []
    for line in TABLE.strip().splitlines():
        code, name, where, numbers, adjective, others = line.split("|")
        continents = tuple(where.split("/"))
        aliases = tuple(filter(None, others.split(",")))
        found.append(Country(code, name, continents[0], continents, tuple(numbers.split(",")), adjective, aliases))
    return tuple(found)


@lru_cache(maxsize=1)
def _by_name() -> dict[str, Country]:
    return {name: each for each in countries() for name in (plain(each.name), *each.aliases)}


@lru_cache(maxsize=1)
def _by_number() -> dict[str, Country]:
    return {number: each for each in countries() for number in each.wikidata}


@lru_cache(maxsize=8192)
def find_country(name: str) -> Country | None:
    """Return the country of that name, `None` where the table has none."""
    return _by_name().get(plain(name))


def country_of_wikidata(number: str) -> Country | None:
    """Return the country with that number in Wikidata, such as `"Q1033"`."""
    return _by_number().get(number)


def find_continent(name: str) -> str | None:
    """Return the label of a continent or of a part of one; `None` where it is none or could be two.

    'Latin America', 'America' and 'Middle East' could be two.
    """
    return _CONTINENT_NAMES.get(plain(name))
