"""The note beside trained weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.tiny import tiny_pipeline
from t2ialign.errors import ModelError
from t2ialign.models.diffusion import DiffusionModel
from t2ialign.models.record import Record, read_record, stored_name


def test_round_trip(tmp_path: Path) -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd2"), "owner/model", revision="v2")
    record = Record.of(model, "lora", rank=4, alpha=6.0, targets=("to_q",), algorithm="dpo")
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    assert record.base_revision == "v2"
    assert record.prediction_type == "v_prediction"
    assert record.layers_per_block == 1
    assert {"torch", "diffusers"} <= record.versions.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["t2ialign.json"]


def test_record_of_a_user_adapter(tmp_path: Path) -> None:
    model = DiffusionModel.from_pipeline(tiny_pipeline("sd15"), "owner/model")
    record = Record.of(
        model, "user_adapter", user_width=6, user_token_count=3, user_extractor="tiny:1", algorithm="ppd"
    )
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    content = json.loads((tmp_path / "t2ialign.json").read_text())
    assert (content["kind"], content["user_width"], content["user_token_count"]) == ("user_adapter", 6, 3)


def test_a_record_from_before_user_adapters_is_read(tmp_path: Path) -> None:
    entry = {"kind": "lora", "base_model": "a/b", "family": "sd15", "rank": 4, "alpha": 4.0, "targets": ["to_q"]}
    (tmp_path / "t2ialign.json").write_text(json.dumps({**entry, "format": 1}))
    record = read_record(tmp_path)
    assert record is not None
    assert (record.rank, record.user_width, record.user_token_count, record.user_extractor) == (4, None, None, None)


def test_absent_newer_and_broken(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    path = tmp_path / "t2ialign.json"
    entry = {"kind": "lora", "base_model": "a/b", "family": "sd15"}
    path.write_text(json.dumps({**entry, "later_field": 1}))
    record = read_record(tmp_path)
    assert record is not None
    assert record.base_model == "a/b"
    path.write_text(json.dumps({**entry, "format": 2}))
    with pytest.raises(ModelError, match=r"format 2.*update"):
        read_record(tmp_path)
    for broken in ("{", "[]", '{"kind": "lora"}'):
        path.write_text(broken)
        with pytest.raises(ModelError, match="not a record"):
            read_record(tmp_path)


def test_stored_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert stored_name("model") == str(tmp_path / "model")
    assert stored_name("owner/model") == "owner/model"
    assert stored_name("mini-sd") == "mini-sd"
