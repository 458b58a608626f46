"""What is written carries no path of this machine and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.user_adapters import with_adapter
from t2ialign.errors import ModelError
from t2ialign.models.saving import is_secret, save_pipeline, scrub, scrub_json
from t2ialign.models.user_adapter import remove_user_adapter


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/ada/models/sd15", "sd15"),
        ("~/models/sd15", "sd15"),
        (r"C:\Users\ada\models\sd15", "sd15"),
        ("from /data/x/pairs and /y/z.", "from pairs and z."),
        ("owner/model", "owner/model"),
        ("https://hub.example/owner/model", "https://hub.example/owner/model"),
        ("8/2 and 1/3", "8/2 and 1/3"),
        ("hf_abcdefghijklmnopqrst", "[removed]"),
        ({"hub_token": "x", "pad_token": "!", "a": ["/home/ada/x", 3, None]}, {"pad_token": "!", "a": ["x", 3, None]}),
        (0.5, 0.5),
    ],
)
def test_scrub(value: Any, expected: Any) -> None:
    assert scrub(value) == expected


@given(st.lists(st.from_regex(r"[a-z0-9_.-]{1,8}", fullmatch=True), min_size=2, max_size=5))
def test_no_folder_of_an_absolute_path_survives(parts: list[str]) -> None:
    assert scrub("/" + "/".join(parts)) == parts[-1]


@pytest.mark.parametrize("key", ["token", "hub_token", "api_key", "apikey", "wandb_api_key", "secret", "PASSWORD"])
def test_secret(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize("key", ["pad_token", "eos_token", "tokenizer", "num_tokens_kept", "monkey", "key"])
def test_no_secret(key: str) -> None:
    assert not is_secret(key)


def test_scrub_json_leaves_clean_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"b": 1,   "a": "é"}', encoding="utf-8")
    scrub_json(path)
    assert path.read_text(encoding="utf-8") == '{"b": 1,   "a": "é"}'
    path.write_text('{"_name_or_path": "/home/ada/sd", "a": "é"}', encoding="utf-8")
    scrub_json(path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"_name_or_path": "sd", "a": "é"}


def test_a_pipeline_folder_holds_no_user_adapter(tmp_path: Path) -> None:
    model = with_adapter()
    with pytest.raises(ModelError, match="a pipeline folder cannot hold"):
        save_pipeline(model, tmp_path / "final")
    assert not (tmp_path / "final").exists()
    remove_user_adapter(model.unet)
    save_pipeline(model, tmp_path / "final")
