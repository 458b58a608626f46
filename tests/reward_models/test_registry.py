"""Scorers by name: specs, settings, and what is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.clip import save_clip
from t2ialign.errors import ConfigError, ModelError
from t2ialign.reward_models.base import RewardModel
from t2ialign.reward_models.clipscore import ClipScore
from t2ialign.reward_models.oracle import OracleScorer
from t2ialign.reward_models.registry import SCORERS, Entry, load_scorer, parse_spec, settings_of


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
        ("zzz", "known are aesthetic, clipscore, "),
        ("pickscore@x?moed=cosine", "did you mean 'mode'"),
        ("hpsv2?release=2.1", "hpsv2 has no setting 'release'"),
        ("oracle?device=cpu", "oracle has no setting 'device'.*it has none"),
        ("clipscore@x?definiton=cosine", "did you mean 'definition'"),
        ("clipscore@x?definition", "cannot read|unknown CLIPScore definition ''"),
        ("clipscore@x?batch_size=many", "clipscore's batch_size: 'many' is not"),
        ("clipscore@x?quick_gelu=2", "clipscore's quick_gelu: '2' is not true or false"),
        ("oracle@x", "takes no checkpoint"),
    ],
)
def test_what_is_unknown_is_named(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scorer(spec)


@pytest.mark.parametrize("name", SCORERS)
def test_every_name_leads_to_a_scorer(name: str) -> None:
    """Its class is there, its settings can be converted, and it has a line of summary and a card."""
    entry = SCORERS[name]
    known = settings_of(entry.load())
    assert set(entry.fixed) <= set(known)
    assert entry.summary
    card = Path(__file__).parents[2] / "reward_models" / f"{entry.target.partition(':')[0]}.md"
    assert card.is_file(), card


def test_what_a_name_settles_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, file in (("hpsv2", "HPS_v2_compressed.pt"), ("hpsv2.1", "HPS_v2.1_compressed.pt")):
        with pytest.raises(ModelError, match=file):
            load_scorer(name)


class Loud:
    """A scorer of one's own, with settings of several types."""

    def __init__(self, checkpoint: str = "none", *, loudness: float = 1.0, tags: list[str] | None = None) -> None:
        self.given = (checkpoint, loudness, tags)


def test_a_new_scorer_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "loud", Entry("loud:Loud", "how loud", {"loudness": 2.0}))
    monkeypatch.setattr(Entry, "load", lambda self: Loud)
    loud: RewardModel = load_scorer("loud@here?tags=a,b", device="cpu", batch_size=3)
    assert loud.given == ("here", 2.0, ["a", "b"])  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="has no setting 'loudness'"):
        load_scorer("loud?loudness=3")


def test_nothing_is_imported_until_it_is_asked_for() -> None:
    import subprocess
    import sys

    code = (
        "import sys, t2ialign.reward_models.registry as r; r.parse_spec('pickscore@x?mode=cosine'); "
        "print([m for m in ('torch', 'transformers', 'open_clip', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
