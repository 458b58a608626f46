"""Names that come from data stay inside their folder; files appear whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2ialign.data.files import inside, read_json_lines, write_json, write_text, written_aside
from t2ialign.errors import DataError


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "a/../../secret.png",
        "a/..",
        "/etc/hostname",
        "C:\\x.png",
        "\\\\host\\share\\x.png",
        "\\x.png",
        "..\\x.png",
        "C:x.png",
        "",
        "  ",
        "a\0b",
        None,
        3,
        b"a.png",
    ],
)
def test_escapes_are_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(DataError):
        inside(tmp_path, name)


def test_symbolic_links_out_are_refused_and_those_within_are_not(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_text("x")
    (root / "images/a.png").write_text("x")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    (root / "alias.png").symlink_to(root / "images/a.png")
    (root / "loop").symlink_to(root / "loop")
    assert inside(root, "alias.png") == (root / "images/a.png").resolve()
    for name in ("out.png", "up/secret.png", "up/none.png"):
        with pytest.raises(DataError, match="leaves 'set' through a symbolic link"):
            inside(root, name)


def test_a_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert inside(tmp_path / "link", "a/b.png") == (tmp_path / "real/a/b.png").resolve()


PART = st.one_of(st.sampled_from(["..", ".", "", "a", "images", "C:", "~"]), st.text(max_size=6))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PART, min_size=1, max_size=5), separator=st.sampled_from(["/", "\\"]))
def test_no_name_leaves_the_folder(tmp_path: Path, parts: list[str], separator: str) -> None:
    try:
        path = inside(tmp_path, separator.join(parts))
    except DataError:
        return
    assert path == tmp_path.resolve() or tmp_path.resolve() in path.parents
    assert ".." not in path.parts


@given(parts=st.lists(st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True), min_size=1, max_size=4))
def test_plain_names_are_taken_as_they_are(parts: list[str]) -> None:
    root = Path(os.sep) / "no" / "such" / "root"
    assert inside(root, "/".join(parts)) == root.joinpath(*parts)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one\n")

    def stopped() -> None:
        with written_aside(path) as aside:
            aside.write_text("tw")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "one\n"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert path.read_text() == "one\n"


def test_json_lines_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": "\xc3\xa9"}\n[1]\n')
    rows = read_json_lines(path)
    assert next(rows) == (1, {"a": 1})
    assert next(rows) == (3, {"a": "é"})
    with pytest.raises(DataError, match=r"a\.jsonl, line 4: a JSON object is needed, not list"):
        next(rows)
    path.write_text('{"a": 1\n')
    with pytest.raises(DataError, match="line 1: not JSON"):
        list(read_json_lines(path))
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DataError, match="can not be read"):
        list(read_json_lines(path))
