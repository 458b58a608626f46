"""Scorers by name: specs, settings, and what is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.clip import save_clip
from t2ialign.errors import ConfigError
from t2ialign.reward_models.clipscore import ClipScore
from t2ialign.reward_models.oracle import OracleScorer
from t2ialign.reward_models.registry import load_scorer, parse_spec


def test_specs() -> None:
    assert parse_spec("oracle") == ("oracle", None, {})
    assert parse_spec(" clipscore@org/name?definition=cosine&dtype=float16 ") == (
        "clipscore",
        "org/name",
        {"definition": "cosine", "dtype": "float16"},
    )
    assert parse_spec("clipscore@open_clip:ViT-B-32/openai")[1] == "open_clip:ViT-B-32/openai"


def test_loads_with_settings(tmp_path: Path) -> None:
    folder = save_clip(tmp_path)
    scorer = load_scorer(f"clipscore@{folder}?definition=cosine100&prefix=An image of &batch_size=3", device="cpu")
    assert isinstance(scorer, ClipScore)
    assert (scorer.definition, scorer.prefix, scorer.batch_size) == ("cosine100", "An image of ", 3)
    assert isinstance(load_scorer("oracle"), OracleScorer)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("clipscor", "did you mean 'clipscore'"),
        ("zzz", "there are oracle, clipscore"),
        ("clipscore@x?definiton=cosine", "did you mean 'definition'"),
        ("clipscore@x?definition", "cannot read|unknown CLIPScore definition ''"),
        ("clipscore@x?batch_size=many", "batch_size is 'many'"),
        ("clipscore@x?quick_gelu=2", "quick_gelu is '2'"),
        ("oracle@x", "takes no checkpoint"),
    ],
)
def test_what_is_unknown_is_named(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scorer(spec)
