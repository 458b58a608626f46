"""Public prompt sets: from a folder, as they are published, or an error that says what to put where."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from t2ialign.errors import DataError
from t2ialign.eval.suites.catalogue import find_prompts
from t2ialign.eval.suites.public_prompts import PUBLIC, read_public
from t2ialign.eval.suites.suite import PromptSet

REAL = os.environ.get("T2IALIGN_REAL_DATA")
real = pytest.mark.skipif(not REAL, reason="T2IALIGN_REAL_DATA names no folder of real files")


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_off_line_the_error_says_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"prompts of {name}.*{PUBLIC[name].files[0]}.*--data"):
        read_public(name, tmp_path)
    with pytest.raises(DataError, match="--data"):
        read_public(name)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder.*nowhere"):
        read_public("cube", tmp_path / "nowhere")


def test_hpsv2_s_styles_become_categories(tmp_path: Path) -> None:
    folder = tmp_path / "HPDv2" / "benchmark"
    folder.mkdir(parents=True)
    styles = ("anime", "concept-art", "paintings", "photo")
    for style in styles[:3]:
        (folder / f"{style}.json").write_text(json.dumps([f"{style} one", f"{style} two"]))
    with pytest.raises(DataError):
        read_public("hpsv2", tmp_path)
    (folder / "photo.json").write_text(json.dumps(["a photo"]))
    prompts = read_public("hpsv2", tmp_path)
    assert [prompt.category for prompt in prompts] == ["anime"] * 2 + ["concept-art"] * 2 + ["paintings"] * 2 + [
        "photo"
    ]
    assert prompts[3].prompt_id == "hpsv2-concept-art-00001"


def test_pick_a_pic_s_captions_are_distinct(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    captions = ["a cat", "a dog", "a cat", "  "]
    parquet.write_table(pyarrow.table({"caption": captions}), tmp_path / "pickapic_test_unique.parquet")
    assert [prompt.prompt for prompt in read_public("pickapic", tmp_path)] == ["a cat", "a dog"]


@real
@pytest.mark.parametrize(("name", "categories"), [("partiprompts", 12), ("geneval", 6), ("cube", 3)])
def test_the_real_files_have_the_published_size(name: str, categories: int) -> None:
    prompts = read_public(name, Path(REAL or ""))
    assert len(prompts) == PUBLIC[name].size
    assert len({prompt.prompt_id for prompt in prompts}) == len(prompts)
    assert len({prompt.category for prompt in prompts}) == categories
    some = find_prompts(PromptSet(source=name, limit=50), Path(REAL or ""))
    assert len(some) == 50


@real
def test_geneval_s_conditions_stay_with_the_prompt() -> None:
    first = read_public("geneval", Path(REAL or ""))[0]
    assert first.extra == {"tag": "single_object", "include": [{"class": "bench", "count": 1}]}
