"""Prompts, labels and numbers that no set should have: refused with the row and the column, or kept as they are."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.nasty import PROMPTS, encoded, gradient
from t2ialign.data.check import check_set
from t2ialign.data.image_sets import ImageSet, ImageSetWriter
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.data.prompts import read_prompts
from t2ialign.data.unpaired import load_unpaired
from t2ialign.errors import DataError

GOOD, OTHER = encoded(gradient(), "PNG"), encoded(gradient()[::-1], "PNG")


def table(folder: Path, columns: dict[str, Any], name: str = "train.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)
    return folder


def pair_columns(count: int = 2) -> dict[str, Any]:
    return {"prompt": [f"p{n}" for n in range(count)], "chosen": [GOOD] * count, "rejected": [OTHER] * count}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_strange_prompt_is_kept_to_the_letter(name: str, tmp_path: Path) -> None:
    prompt = PROMPTS[name]
    pairs = load_pairs(write_pairs([{"prompt": prompt, "chosen": GOOD, "rejected": OTHER}], tmp_path / "pairs"))
    assert pairs.prompts == [prompt]
    assert pairs[0].prompt == prompt
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n")
    (tmp_path / "a.json").write_text(json.dumps([prompt], ensure_ascii=False), encoding="utf-8")
    for file in ("a.jsonl", "a.json"):
        assert [each.prompt for each in read_prompts(tmp_path / file)] == [prompt]
    with ImageSetWriter(tmp_path / "set", {"prompt": prompt}) as writer:
        from PIL import Image

        writer.add({"prompt_id": prompt, "prompt": prompt}, Image.fromarray(gradient()), prompt_index=0)
    images = ImageSet(tmp_path / "set")
    assert [(record.prompt, record.prompt_id) for record in images] == [(prompt, prompt)]
    assert images.records[0].file_name == "images/000000/0000.png"
    assert images.open(images.records[0]).size == (24, 16)


@pytest.mark.parametrize("prompt", ["", " ", "\t\n", "\u2003", None])
def test_an_empty_prompt_is_refused_with_its_row(prompt: str | None, tmp_path: Path) -> None:
    columns = pair_columns() | {"prompt": ["a", prompt]}
    with pytest.raises(DataError, match=r"row 1, prompt: (empty|missing)"):
        load_pairs(table(tmp_path, columns))


BAD_PAIRS: dict[str, list[Any]] = {
    "preference_prob": [math.nan, math.inf, -math.inf, 0.4999, 1.0001, -1.0, 1e300],
    "margin": [math.nan, math.inf, -math.inf],
    "scores_chosen": ["no json", "[1, 2]", '{"a": "b"}', '{"a": NaN}', '{"a": Infinity}', '{"a": true}', "{" * 5000],
}


@pytest.mark.parametrize(
    ("column", "value"), [(name, value) for name, values in BAD_PAIRS.items() for value in values]
)
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_an_absurd_number_is_refused_with_row_and_column(kind: str, column: str, value: Any, tmp_path: Path) -> None:
    first = "{}" if column == "scores_chosen" else 0.75
    if kind == "parquet":
        source = table(tmp_path, pair_columns() | {column: pa.array([first, value])})
    else:
        (tmp_path / "a.png").write_bytes(GOOD)
        rows = [{"prompt": "a", "chosen": "a.png", "rejected": "a.png", column: each} for each in (first, value)]
        (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = tmp_path
    with pytest.raises(DataError) as caught:
        load_pairs(source)
    assert f"row 1, {column}: " in str(caught.value)
    assert len(str(caught.value)) < 600
    report = check_set(source)
    assert report.splits["train"].errors[f"invalid {column}"].count == 1


@pytest.mark.parametrize("label", [2, -1, 0.5, math.nan, math.inf, None, 2**40])
def test_an_absurd_label_is_refused(label: Any, tmp_path: Path) -> None:
    values = pa.array([1.0, None if label is None else float(label)])
    columns = {"prompt": ["a", "b"], "image": [GOOD, OTHER], "label": values}
    with pytest.raises(DataError, match="row 1, label: "):
        load_unpaired(table(tmp_path, columns))


WRONG_TYPES: dict[str, Any] = {
    "prompt": pa.array([1, 2]),
    "prompt ": pa.array([["a"], ["b"]]),
    "prompt  ": pa.array([b"a", b"b"]),
    "chosen": pa.array([1, 2]),
    "chosen ": pa.array([[1.0], [2.0]]),
    "chosen  ": pa.array([{"pixels": [1]}, {"pixels": [2]}]),
    "preference_prob": pa.array(["0.7", "0.8"]),
    "preference_prob ": pa.array([[0.7], [0.8]]),
    "preference_prob  ": pa.array([True, False]),
    "margin": pa.array([{"a": 1}, {"a": 2}]),
    "user_id": pa.array([{"a": 1}, {"a": 2}]),
}


@pytest.mark.parametrize("column", WRONG_TYPES)
def test_a_column_of_another_type_is_refused_by_name(column: str, tmp_path: Path) -> None:
    name = column.strip()
    with pytest.raises(
        DataError, match=rf"column {name}: .* (is|are) needed, not|column {name}: a picture is stored as"
    ):
        load_pairs(table(tmp_path, pair_columns() | {name: WRONG_TYPES[column]}))


def test_encoded_columns_mean_the_same(tmp_path: Path) -> None:
    """Dictionary-encoded, large and small types, as other writers choose them."""
    plain = pair_columns(3) | {"preference_prob": pa.array([0.5, 0.75, 1.0], pa.float32()), "user_id": ["u", "v", "u"]}
    wanted = load_pairs(table(tmp_path / "plain", plain), ties="keep")
    forms = {
        "prompt": pa.array(plain["prompt"]).dictionary_encode(),
        "user_id": pa.array(plain["user_id"], pa.large_string()).dictionary_encode(),
        "chosen": pa.array(plain["chosen"], pa.large_binary()),
        "preference_prob": pa.array([0.5, 0.75, 1.0], pa.float16()),
    }
    for name, column in forms.items():
        pairs = load_pairs(table(tmp_path / name, plain | {name: column}), ties="keep")
        for each in ("prompt", "user_id", "preference_prob"):
            assert pairs.column(each) == wanted.column(each), name
        assert [pair.chosen.size for pair in pairs] == [(24, 16)] * 3


def test_numbers_out_of_range_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    row = {"prompt": "a", "chosen": "a.png", "rejected": "a.png"}
    for text in ('"margin": 1e999', '"margin": ' + "9" * 400, '"margin": NaN', '"user_id": ' + "9" * 400):
        lines = [json.dumps(row | {"margin": 0.5, "user_id": 1}), json.dumps(row | {"user_id": 2, "margin": 0.5})]
        name = text.split('"')[1]
        value = json.dumps({"user_id": 2, "margin": 0.5}[name])
        lines[1] = lines[1].replace(f'"{name}": {value}', text)
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
        with pytest.raises(DataError, match=r"row 1|line 2"):
            load_pairs(tmp_path)


def test_an_image_set_with_absurd_lines(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    good = {"file_name": "a.png", "prompt_id": "0", "prompt": "a"}
    absurd: list[dict[str, Any]] = [{"sample": 0.5}, {"sample": True}, {"seed": "1"}, {"width": []}, {"prompt": None}]
    for bad in (*absurd, {"file_name": 3}):
        (tmp_path / "metadata.jsonl").write_text(
            json.dumps(good) + "\n" + json.dumps(good | {"file_name": "b.png"} | bad)
        )
        with pytest.raises(DataError, match="line 2"):
            ImageSet(tmp_path)
    (tmp_path / "metadata.jsonl").write_text((json.dumps(good) + "\n") * 2)
    with pytest.raises(DataError, match="two lines"):
        ImageSet(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(line=st.one_of(st.binary(max_size=60), st.text(max_size=40).map(lambda text: text.encode("utf-8", "ignore"))))
def test_any_bytes_as_metadata_end_in_a_clear_error_or_in_rows(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_bytes(line)
    for read in (load_pairs, load_unpaired, ImageSet):
        try:
            read(tmp_path)
        except DataError:
            continue
    for name in ("p.txt", "p.jsonl", "p.json", "p.csv", "p.tsv"):
        (tmp_path / name).write_bytes(line)
        try:
            prompts = read_prompts(tmp_path / name)
        except DataError:
            continue
        assert all(each.prompt.strip() for each in prompts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
def test_a_damaged_table_is_a_clear_error(cut: float, flip: int, tmp_path: Path) -> None:
    """A parquet file that was cut, or one of whose bytes is another."""
    file = tmp_path / "whole" / "train.parquet"
    if not file.is_file():
        table(tmp_path / "whole", pair_columns())
    data = bytearray(file.read_bytes())
    place = int(cut * len(data))
    (tmp_path / "cut").mkdir(exist_ok=True)
    (tmp_path / "cut/train.parquet").write_bytes(data[:place])
    with pytest.raises(DataError):
        load_pairs(tmp_path / "cut")
    data[place] ^= flip
    (tmp_path / "cut/train.parquet").write_bytes(data)
    with contextlib.suppress(DataError):
        for pair in load_pairs(tmp_path / "cut"):
            assert pair.chosen.mode == "RGB"
