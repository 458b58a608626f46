"""CUBE-CSpace: its documented form, forms it has not, and archives with bad intent."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from t2ialign.errors import DataError
from t2ialign.eval.culture.cspace import MAX_RECORD, Concept, domain_of, flag_space, read_cspace

FIELDS = ("P31", "P279", "P495", "P17", "P361", "id", "parent node name", "name")


def entry(name: str = "kisir", **values: Any) -> dict[str, Any]:
    """An entry with the eight documented fields."""
    return dict.fromkeys(FIELDS, "[]") | {"id": "Q1", "parent node name": "dish", "name": name, **values}


ENTRIES = [
    entry("kisir ", P17="['Q43']", P495="['Q43']"),
    entry("sushi", P495="['Q17']", P17="['Q30']", id="Q2"),
    entry("Alps", P17="['Q142', 'Q38']", **{"parent node name": "tourist attraction"}),
    entry("Sahara-Mediterranean", P17="['Q142', 'Q262']", **{"parent node name": "landforms"}),
    entry("nowhere", P17="['Q999999']", **{"parent node name": "thing"}),
    entry(" "),
    entry("kisir", P17="['Q43']"),
]
EXPECTED = (
    Concept("kisir", "Turkey", "Asia", "cuisine", "dish", "Q1"),
    Concept("sushi", "Japan", "Asia", "cuisine", "dish", "Q2"),
    Concept("Alps", None, "Europe", "landmarks", "tourist attraction", "Q1"),
    Concept("Sahara-Mediterranean", None, None, "landmarks", "landforms", "Q1"),
    Concept("nowhere", None, None, None, "thing", "Q1"),
)


def packed(path: Path, *members: tuple[str, bytes], mode: str = "w:gz") -> Path:
    """Writes an archive."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def as_list(entries: list[Any]) -> bytes:
    return json.dumps(entries, indent=1).encode()


def as_lines(entries: list[Any]) -> bytes:
    return "\n".join(json.dumps(each) for each in entries).encode()


@pytest.mark.parametrize("form", ["list", "lines", "tar.gz", "tar", "tar of lines"])
def test_all_forms_give_the_same(tmp_path: Path, form: str) -> None:
    content = as_lines(ENTRIES) if "lines" in form else as_list(ENTRIES)
    match form:
        case "list":
            path = tmp_path / "cube_CSpace.json"
            path.write_bytes(content)
        case "lines":
            path = tmp_path / "cube_CSpace.jsonl"
            path.write_bytes(b"\xef\xbb\xbf" + content + b"\n\n")
        case "tar.gz":
            path = packed(tmp_path / "cube_CSpace.json.tar.gz", ("._cube.json", b"mac"), ("a/cube.json", content))
        case "tar":
            path = packed(tmp_path / "c.tar", ("cube.json", content), mode="w:")
        case _:
            path = packed(tmp_path / "c.tgz", ("readme.txt", b"read me"), ("cube.jsonl", content))
    space = read_cspace(path)
    assert space.concepts == EXPECTED
    told = {key: value for key, value in space.counts.items() if key != "members_passed_over"}
    assert told == {
        "entries": 7,
        "without_name": 1,
        "without_country": 1,
        "several_countries": 2,
        "without_domain": 1,
        "duplicates": 1,
    }


def test_many_entries_are_read_block_by_block(tmp_path: Path) -> None:
    """Longer than several blocks, with text that crosses their borders."""
    entries = [entry(f"dish {i} " + "ü" * (i % 301), P17="['Q38']") for i in range(2000)]
    path = packed(tmp_path / "c.tar.gz", ("c.json", as_list(entries)))
    found = read_cspace(path).concepts
    assert [each.name for each in found] == [each["name"].strip() for each in entries]


@pytest.mark.parametrize("missing", FIELDS)
def test_a_missing_field_is_named(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(as_list([entry(), {key: value for key, value in entry().items() if key != missing}]))
    with pytest.raises(DataError, match=rf"entry 1: the field '{missing}' is missing"):
        read_cspace(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"name,country\na,b",
        b'{"P31": {"0": "a", "1": "b"}, "name": {"0": "x"}}',
        b"[1, 2]",
        as_list([entry()])[:-30],
        as_list([entry()])[:-1],
        b"[" * 100_000,
        b'[{"name": "' + b"x" * (MAX_RECORD + 200_000),
        as_list([entry()]).replace(b"kisir", b"\xff\xfe"),
        b"[]",
    ],
    ids=["empty", "csv", "columns", "numbers", "cut", "no end", "nested", "endless", "not utf-8", "no entries"],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.json").write_bytes(content)
    for path in (tmp_path / "c.json", packed(tmp_path / "c.tar.gz", ("c.json", content))):
        with pytest.raises(DataError):
            read_cspace(path)


def test_hostile_members_do_nothing(tmp_path: Path) -> None:
    """Paths that leave the folder, links and devices: nothing is written, nothing is followed."""
    secret = tmp_path / "secret.json"
    secret.write_bytes(as_list([entry("stolen")]))
    inside = tmp_path / "in"
    inside.mkdir()
    path = inside / "c.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, kind in (
            ("link.json", tarfile.SYMTYPE),
            ("hard.json", tarfile.LNKTYPE),
            ("dev.json", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
        for name in ("../../escape.json", "/tmp/escape.json"):
            content = as_list([entry(name)])
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    space = read_cspace(path)
    assert [each.name for each in space.concepts] == ["../../escape.json", "/tmp/escape.json"]
    assert space.counts["members_passed_over"] == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "c.tar.gz", ("c.json", b" " * 5_000_000 + as_list(ENTRIES)))
    assert path.stat().st_size < 50_000
    with pytest.raises(DataError, match=r"more than 1000000 bytes"):
        read_cspace(path, max_bytes=1_000_000)
    assert len(read_cspace(path)) == 5


def test_broken_archives_are_refused(tmp_path: Path) -> None:
    whole = packed(tmp_path / "c.tar.gz", ("c.json", as_list(ENTRIES))).read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    plain = tmp_path / "plain.tar.gz"
    plain.write_bytes(b"not gzip at all")
    odd = tmp_path / "odd.tar.gz"
    odd.write_bytes(gzip.compress(b"no archive" * 200))
    for path in (cut, plain, odd, tmp_path / "absent.tar.gz", packed(tmp_path / "none.tar.gz", ("a.txt", b"a"))):
        with pytest.raises(DataError, match=path.name.replace(".", r"\.")):
            read_cspace(path)
    (tmp_path / "c.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"is read from"):
        read_cspace(tmp_path / "c.pkl")


def test_domains_by_parent(tmp_path: Path) -> None:
    assert [domain_of(word) for word in ("dish", "Dishes", "tourist attraction", "dance", "food market building")] == [
        "cuisine", "cuisine", "landmarks", "art", None,
    ]  # fmt: skip
    path = tmp_path / "c.json"
    path.write_bytes(as_list([entry("a"), entry("b", **{"parent node name": "Xyz"})]))
    assert [each.domain for each in read_cspace(path, domains={"xyz": "art"}).concepts] == [None, "art"]


def test_the_flags_are_a_space() -> None:
    space = flag_space()
    assert len(space) == 35
    assert len(space.of_domain("flags")) == 35
    assert all(each.country and each.continent for each in space.concepts)
