"""CUBE-1K: the real file, and every fault of it in small."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from t2ialign.data.prompts import Prompt
from t2ialign.errors import DataError
from t2ialign.eval.culture.countries import find_country
from t2ialign.eval.culture.cspace import cube_space
from t2ialign.eval.culture.cube import (
    as_prompts,
    contrast_prompts,
    fault_counts,
    read_cube,
    wikidata_numbers,
)
from t2ialign.eval.culture.targets import cube_targets


def row(**values: Any) -> dict[str, Any]:
    """A row as the published file has it."""
    empty = dict.fromkeys(("P31", "P279", "P495", "P17", "P2012", "P361"), "nan")
    name = values.pop("name", "kisir")
    text = {"id": "LLM", "name": name, "country": "Turkey", "domain": "cuisine"}
    return {**empty, **text, "prompt": f"A high resolution image of {name} from Turkish cuisine, realistic", **values}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    """Writes rows as the published file is written."""
    file = path / "CUBE_1K.json"
    file.write_text(json.dumps(list(rows)), encoding="utf-8")
    return file


def test_the_real_file(real_data: Path) -> None:
    path = real_data / "CUBE_1K.json"
    cube = read_cube(path)
    assert fault_counts(cube) == {
        "prompts": 994,
        "rows": 1002,
        "duplicate_rows": 8,
        "landscapes": 221,
        "not_named": 9,
    }
    assert len({each.prompt for each in cube}) == len({each.prompt_id for each in cube}) == 994
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert Counter(each["domain"] for each in raw) == {"cuisine": 517, "landscapes": 222, "art": 191, "landmarks": 72}
    assert Counter(each.domain for each in cube) == {"cuisine": 516, "landmarks": 293, "art": 185}
    assert {each.country for each in cube} == {
        "Brazil", "France", "India", "Italy", "Japan", "Nigeria", "Turkey", "United States",
    }  # fmt: skip
    assert not any(text != " ".join(text.split()) for each in cube for text in (each.artifact, each.prompt))
    # Every number stands in the file, and every number of a row's list is read.
    for each in raw:
        for name in ("P31", "P495", "P17"):
            assert set(wikidata_numbers(each[name])[0]) == set(re.findall(r"\bQ[1-9]\d*\b", each[name]))
    assert sum(each.source == "llm" for each in cube) == 319
    assert len(cube_space(cube)) < 994


def test_the_real_contrasts(real_data: Path) -> None:
    """Each prompt has one for each of the seven other countries, which differs in the country alone."""
    cube = read_cube(real_data / "CUBE_1K.json")
    targets = cube_targets(cube)
    assert len(targets) == 985
    for target in targets:
        assert len(set(target.contrasts.values())) == len(target.contrasts) == 7
        own = find_country(target.country)
        assert own is not None
        for name, text in target.contrasts.items():
            other = find_country(name)
            assert other is not None
            assert text in {
                target.prompt[::-1].replace(mine[::-1], theirs[::-1], 1)[::-1]
                for mine, theirs in ((own.name, other.name), (own.adjective, other.adjective))
            }
            assert target.artifact.casefold() in text.casefold()


def test_rows_with_one_prompt_are_one(tmp_path: Path) -> None:
    rows = [
        row(name="Calça ", id="Q2", P17="['Q155', '{=#2']", prompt="An image of  Calça from Turkish clothing"),
        row(name="kisir"),
        row(name="Calça", id="Q1", P17="['Q77']", prompt="An image of Calça from Turkish clothing "),
    ]
    cube = read_cube(written(tmp_path, *rows))
    assert [each.prompt_id for each in cube] == ["cube-0000", "cube-0001"]
    assert cube[0].rows == 2
    assert cube[0].artifact == "Calça"
    assert cube[0].wikidata == ("Q2", "Q1")
    assert cube[0].properties == {"P17": ("Q155", "Q77")}
    assert (cube[0].source, cube[1].source) == ("wikidata", "llm")
    assert as_prompts(cube)[1] == Prompt(
        "cube-0001",
        "A high resolution image of kisir from Turkish cuisine, realistic",
        "cube-1k",
        "cuisine",
        {"country": "Turkey", "artifact": "kisir", "domain": "cuisine", "named": True},
    )


def test_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stands for another country or domain"):
        read_cube(written(tmp_path, row(), row(country="India")))


@pytest.mark.parametrize(
    ("value", "numbers", "others"),
    [
        ("['Q155', 'Q77']", ("Q155", "Q77"), 0),
        ("['Q155', '{=#2', 'Q155']", ("Q155",), 1),
        ("[]", (), 0),
        ("nan", (), 0),
        (" ", (), 0),
        (None, (), 0),
        (float("nan"), (), 0),
        ("Q30", ("Q30",), 0),
        (["Q1", "x"], ("Q1",), 1),
        ("__import__('os').system('touch /tmp/owned')", (), 1),
        ("Q0", (), 1),
    ],
)
def test_lists_written_as_text(value: object, numbers: tuple[str, ...], others: int) -> None:
    assert wikidata_numbers(value) == (numbers, others)


def test_four_domains_are_three(tmp_path: Path) -> None:
    rows = [row(name=name, domain=name) for name in ("cuisine", "landscapes", "landmarks", "art")]
    assert [each.domain for each in read_cube(written(tmp_path, *rows))] == [
        "cuisine",
        "landmarks",
        "landmarks",
        "art",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"country": "Atlantis"}, r"'Atlantis' is no country"),
        ({"domain": "sport"}, r"'sport' is no domain"),
        ({"prompt": " "}, r"prompt is missing"),
        ({"name": ""}, r"name is missing"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=rf"CUBE_1K\.json, entry 1: {said}"):
        read_cube(written(tmp_path, row(name="a"), row(name="b", **change) if "name" not in change else row(**change)))


def test_a_prompt_that_names_another_artifact_is_no_target(tmp_path: Path) -> None:
    cube = read_cube(written(tmp_path, row(), row(name="Nalanda", prompt="A panoramic view of Kulcha in Turkey")))
    assert [each.named for each in cube] == [True, False]
    assert [target.artifact for target in cube_targets(cube)] == ["kisir"]
    assert len(cube_space(cube)) == 1


def test_a_contrast_keeps_the_artifact(tmp_path: Path) -> None:
    cube = read_cube(
        written(
            tmp_path, row(name="Turkish folk dance", prompt="An image of Turkish folk dance from Turkey, realistic")
        )
    )
    others = [find_country(name) for name in ("Turkey", "Japan", "USA")]
    found = contrast_prompts(cube[0], [each for each in others if each])
    assert found == {
        "Japan": "An image of Turkish folk dance from Japan, realistic",
        "United States": "An image of Turkish folk dance from United States, realistic",
    }
