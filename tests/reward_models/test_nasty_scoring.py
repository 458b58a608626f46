"""Nasty pictures at the door of the scorers: a score from the right pixels, or a gap that says why."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from helpers.clip import save_clip
from helpers.nasty import NASTY, readable, refused, write_nasty
from t2ialign.errors import DataError
from t2ialign.reward_models.registry import load_scorer
from t2ialign.reward_models.scoring import score_set

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_nasty(tmp_path / "set/images")
    lines = [{"file_name": f"images/{name}", "prompt_id": name, "prompt": "a star"} for name in NASTY]
    (tmp_path / "set/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [0, 2])
def test_gaps_are_told_one_by_one_and_the_rest_is_scored(folder: Path, tmp_path: Path, workers: int) -> None:
    import pyarrow.parquet as pq

    scorer = load_scorer(f"clipscore@{save_clip(tmp_path)}", device="cpu")
    summary = score_set(folder, [scorer], workers=workers, allow_gaps=True, progress=False)
    assert summary.gaps.keys() == {f"images/{nasty.name}" for nasty in refused()}
    for name, reason in summary.gaps.items():
        assert name in reason
        assert NASTY[name.removeprefix("images/")].pixels is None
    rows = pq.read_table(summary.output).to_pylist()
    scored = {row["file_name"]: row["score"] for row in rows if row["score"] is not None}
    assert scored.keys() == {f"images/{nasty.name}" for nasty in readable()}
    assert all(math.isfinite(score) for score in scored.values())
    # Equal pixels have equal scores, whatever file they come in.
    alike = {scored[f"images/{name}"] for name in ("png-named.webp", "interlaced.png", "trailing.png", "turned-1.png")}
    assert len(alike) == 1


def test_without_leave_the_first_stops_it_by_name(folder: Path, tmp_path: Path) -> None:
    scorer = load_scorer(f"clipscore@{save_clip(tmp_path)}", device="cpu")
    with pytest.raises(DataError, match=r"images/[\w.-]+: "):
        score_set(folder, [scorer], workers=0, progress=False)
