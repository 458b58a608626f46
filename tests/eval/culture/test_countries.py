"""Countries by their names."""

from __future__ import annotations

from collections import Counter

import pytest

from t2ialign.eval.culture.countries import (
    CONTINENTS,
    countries,
    country_of_wikidata,
    find_continent,
    find_country,
    plain,
)
from t2ialign.mini.flags import FLAGS


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("USA", "United States"),
        ("U.S.A.", "United States"),
        ("the United States of America", "United States"),
        (" united   states ", "United States"),
        ("Türkiye", "Turkey"),
        ("Côte d'Ivoire", "Ivory Coast"),
        ("Côte d’Ivoire", "Ivory Coast"),
        ("The Bahamas", "Bahamas"),
        ("Trinidad & Tobago", "Trinidad and Tobago"),
        ("Czechia", "Czech Republic"),
        ("England", "United Kingdom"),
        ("São Tomé and Príncipe", "Sao Tome and Principe"),
    ],
)
def test_one_country_by_many_names(name: str, label: str) -> None:
    found = find_country(name)
    assert found is not None
    assert found.name == label


@pytest.mark.parametrize("name", ["Korea", "Congo", "Wakanda", "", "Italian", "Europe", "Guinea Coast"])
def test_what_is_no_country_or_two_is_none(name: str) -> None:
    assert find_country(name) is None


def test_niger_is_not_nigeria() -> None:
    names = ("Niger", "Nigeria", "Dominica", "Dominican Republic", "Guinea", "Guinea-Bissau", "Papua New Guinea")
    assert [each and each.name for each in map(find_country, names)] == list(names)


def test_the_table_is_sound() -> None:
    table = countries()
    assert len(table) == 201
    for values in (
        [each.code for each in table],
        [number for each in table for number in each.wikidata],
        [name for each in table for name in (plain(each.name), *each.aliases)],
    ):
        assert not [value for value, count in Counter(values).items() if count > 1]
    for each in table:
        assert set(each.continents) <= set(CONTINENTS)
        assert len(each.code) == 2
        assert each.adjective
        assert all(plain(alias) == alias for alias in each.aliases)
    assert country_of_wikidata("Q1033") is find_country("Nigeria")
    assert country_of_wikidata("Q1") is None


def test_it_agrees_with_the_mini_world() -> None:
    for flag in FLAGS.values():
        found = find_country(flag.name)
        assert found is not None
        assert found.continent == flag.continent


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("europe", "Europe"),
        ("Western Europe", "Europe"),
        ("Central America", "North America"),
        ("Southern Africa", "Africa"),
        ("South Africa", None),
        ("America", None),
        ("Latin America", None),
        ("Middle East", None),
    ],
)
def test_continents(name: str, label: str | None) -> None:
    assert find_continent(name) == label
