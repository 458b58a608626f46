"""Prompt files as we and others write them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2ialign.data.prompts import Prompt, read_prompts
from t2ialign.errors import DataError

BOM = b"\xef\xbb\xbf"


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_txt(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.txt", BOM + b"a cat\r\n\r\n  # a dog \nun caf\xc3\xa9")
    assert read_prompts(path) == [
        Prompt("mine-000000", "a cat", "mine"),
        Prompt("mine-000001", "# a dog", "mine"),
        Prompt("mine-000002", "un café", "mine"),
    ]
    assert [each.prompt for each in read_prompts(path, limit=1)] == ["a cat"]


def test_jsonl_with_all_columns(tmp_path: Path) -> None:
    lines = [
        {"prompt_id": "p1", "Prompt": "a", "set": "s", "category": "c", "Challenge": "hard", "tag": "t"},
        {"prompt_id": "p2", "caption": "b", "prompt": "the prompt wins"},
    ]
    path = write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    assert read_prompts(path) == [
        Prompt("p1", "a", "s", "c", {"challenge": "hard", "tag": "t"}),
        Prompt("p2", "the prompt wins", "x", None, {"caption": "b"}),
    ]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_strings(tmp_path: Path, name: str) -> None:
    text = '["a", "b"]' if name == "x.json" else '"a"\n"b"\n'
    assert [each.prompt for each in read_prompts(write(tmp_path / name, text))] == ["a", "b"]


def test_csv_with_quoted_line_breaks_and_bom(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", BOM + b'PROMPT,Category\r\n"two\nlines, ""quoted""",c\r\n\r\nplain,\r\n')
    first, second = read_prompts(path)
    assert (first.prompt, first.category) == ('two\nlines, "quoted"', "c")
    assert (second.prompt, second.category) == ("plain", None)


def test_tsv_where_a_quote_is_a_letter(tmp_path: Path) -> None:
    text = 'Prompt\tNote\n"G I G G L E" on a wall\tx\n"quoted\tcell"\t"y ""z"""\n"two\nlines"\t\n5" tall\t"\n'
    prompts = read_prompts(write(tmp_path / "x.tsv", text))
    assert [each.prompt for each in prompts] == ['"G I G G L E" on a wall', "quoted\tcell", "two\nlines", '5" tall']
    assert [each.extra["note"] for each in prompts] == ["x", 'y "z"', "", '"']


def test_ids_of_the_file_are_taken_where_they_are_ids(tmp_path: Path) -> None:
    def ids(rows: list[dict[str, object]]) -> list[str]:
        return [each.prompt_id for each in read_prompts(write(tmp_path / "x.json", json.dumps(rows)))]

    assert ids([{"id": "a", "prompt": "1"}, {"id": 2, "prompt": "2"}]) == ["a", "2"]
    assert ids([{"id": "LLM", "prompt": "1"}, {"id": "LLM", "prompt": "2"}]) == ["x-000000", "x-000001"]
    assert ids([{"id": "a", "prompt": "1"}, {"id": " ", "prompt": "2"}]) == ["x-000000", "x-000001"]
    with pytest.raises(DataError, match="entry 1: prompt_id 'a' is that of entry 0 too"):
        ids([{"prompt_id": "a", "prompt": "1"}, {"prompt_id": "a", "prompt": "2"}])
    with pytest.raises(DataError, match="entry 1: no prompt_id"):
        ids([{"prompt_id": "a", "prompt": "1"}, {"prompt": "2"}])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.txt", "", "holds no prompt"),
        ("x.txt", b"\xff\xfea\0", "UTF-8"),
        ("x.yaml", "a", r"\.yaml: prompts are read from .*\.tsv"),
        ("x.json", "{}", "a JSON list is needed, not dict"),
        ("x.json", "[", "not JSON"),
        ("x.json", "[[1]]", "entry 0: an object or a string"),
        ("x.json", '["a", {"text": " "}]', "entry 1: the prompt is ' '"),
        ("x.json", '[{"prompt": 3}]', "entry 0: the prompt is 3"),
        ("x.json", '["\\ud83d"]', "half a character"),
        ("x.jsonl", '"a"\n{"a": 1}\n', "line 2: no column prompt, caption, text among a"),
        ("x.jsonl", '"a"\n{', "line 2: not JSON"),
        ("x.csv", "prompt\na,b\n", "line 2: 2 cells under 1 columns"),
        ("x.csv", 'prompt\n"a" b\n', "line 2: .*quote"),
        ("x.csv", "prompt,note\n", "holds no prompt"),
        ("x.tsv", "name\nx\n", "line 2: no column prompt"),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, data: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_prompts(write(tmp_path / name, data))


def test_missing_file_and_bad_limit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no prompt file"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(DataError, match="limit must be 1 or more, not 0"):
        read_prompts(write(tmp_path / "x.txt", "a"), limit=0)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=30).filter(
    lambda text: text.strip() == text and text
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts=st.lists(TEXT, min_size=1, max_size=6), kind=st.sampled_from(["csv", "tsv", "json", "jsonl"]))
def test_round_trip(tmp_path: Path, prompts: list[str], kind: str) -> None:
    buffer = io.StringIO(newline="")
    if kind == "json":
        json.dump([{"prompt": each} for each in prompts], buffer)
    elif kind == "jsonl":
        buffer.write("".join(json.dumps({"prompt": each}) + "\n" for each in prompts))
    else:
        writer = csv.writer(buffer, delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL)
        writer.writerows([["prompt"], *([each] for each in prompts)])
    path = write(tmp_path / f"x.{kind}", buffer.getvalue())
    assert [each.prompt for each in read_prompts(path)] == prompts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80), kind=st.sampled_from(["txt", "csv", "tsv", "json", "jsonl"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, kind: str) -> None:
    try:
        prompts = read_prompts(write(tmp_path / f"x.{kind}", data))
    except DataError:
        return
    assert len({each.prompt_id for each in prompts}) == len(prompts) > 0


@pytest.mark.parametrize(
    ("name", "count", "first", "categories"),
    [
        ("PartiPrompts.tsv", 1632, "bond", {"Animals": 314, "Artifacts": 287}),
        ("geneval_evaluation_metadata.jsonl", 553, "a photo of a bench", {"position": 100, "two_object": 99}),
        ("CUBE_1K.json", 1002, "A high resolution image of carne de panela", {"cuisine": 517, "landmarks": 72}),
        ("imagereward_test.json", 466, "deathly portal to the abyss", {}),
    ],
)
def test_real_files(real_data: Path, name: str, count: int, first: str, categories: dict[str, int]) -> None:
    prompts = read_prompts(real_data / name)
    assert len(prompts) == count
    assert prompts[0].prompt.startswith(first)
    assert len({each.prompt_id for each in prompts}) == count
    found = Counter(each.category for each in prompts)
    assert {key: found[key] for key in categories} == categories


def test_real_ids_and_extras(real_data: Path) -> None:
    assert read_prompts(real_data / "imagereward_test.json")[0].prompt_id == "005658-0040"
    cube = read_prompts(real_data / "CUBE_1K.json")[0]
    assert (cube.prompt_id, cube.extra["country"], cube.extra["id"]) == ("CUBE_1K-000000", "Brazil", "LLM")
    parti = read_prompts(real_data / "PartiPrompts.tsv")
    assert parti[1560].prompt.startswith('"G I G G L E" painted')
