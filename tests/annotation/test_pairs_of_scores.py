"""Pairs from scores of image sets; and what can not be used is named before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.judged_sets import adds_up, annotated, image_set, line, name_of, scored, told
from helpers.pair_sets import encoded
from t2ialign.annotation.pair_options import PairOptions
from t2ialign.annotation.pairs import make_pairs
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import ConfigError, DataError


def test_scores_of_one_scorer(tmp_path: Path) -> None:
    pictures = image_set(tmp_path / "set", prompts=2, samples=3)
    scores = {name_of(0, 0): 0.2, name_of(0, 1): 0.2, name_of(0, 2): 0.21, name_of(1, 0): 0.5, name_of(1, 1): 0.1}
    scored(pictures, {"clip": scores})
    content = make_pairs(PairOptions(sources=[pictures], output_dir=tmp_path / "pairs")).content
    adds_up(content)
    assert told(tmp_path / "pairs") == {("prompt 0", 2, 0), ("prompt 0", 2, 1), ("prompt 1", 100, 101)}
    assert content["dropped"] == {"rating_missing": 2, "tie": 1}
    pair = load_pairs(tmp_path / "pairs")[0]
    assert (pair.aspect, pair.source) == ("clip", "set")
    assert pair.margin == pytest.approx(0.01)


def test_several_scorers_are_put_on_one_scale(tmp_path: Path) -> None:
    pictures = image_set(tmp_path / "set", prompts=1, samples=3)
    loud = {name_of(0, 0): 100.0, name_of(0, 1): 0.0, name_of(0, 2): 50.0}
    quiet = {name_of(0, 0): 0.1, name_of(0, 1): 0.5, name_of(0, 2): 0.3}
    scored(pictures, {"loud": loud, "quiet": quiet})
    content = make_pairs(PairOptions(sources=[pictures], output_dir=tmp_path / "p1", weights={"loud": 1, "quiet": 2}))
    assert told(tmp_path / "p1") == {("prompt 0", 1, 0), ("prompt 0", 1, 2), ("prompt 0", 2, 0)}
    # the deviation is (2/3)^.5 of half the range: gaps of +-2.449 and (2 * 2.449 - 2.449) / 3
    assert max(load_pairs(tmp_path / "p1").column("margin")) == pytest.approx(6**0.5 / 3)
    assert content.content["settings"]["aspects"]["aggregate"]["weights"] == {"loud": 1.0, "quiet": 2.0}
    raw = PairOptions(
        sources=[pictures], output_dir=tmp_path / "p2", weights={"loud": 1, "quiet": 2}, standardize=False
    )
    make_pairs(raw)
    assert told(tmp_path / "p2") == {("prompt 0", 0, 1), ("prompt 0", 0, 2), ("prompt 0", 2, 1)}


def test_less_may_be_better(tmp_path: Path) -> None:
    pictures = image_set(tmp_path / "set", prompts=1, samples=2)
    scored(pictures, {"noise": {name_of(0, 0): 3.0, name_of(0, 1): 1.0}}, noise={"higher_is_better": False})
    make_pairs(PairOptions(sources=[pictures], output_dir=tmp_path / "pairs"))
    assert told(tmp_path / "pairs") == {("prompt 0", 1, 0)}
    pair = load_pairs(tmp_path / "pairs")[0]
    assert (pair.margin, pair.scores_chosen) == (2.0, {"noise": 1.0})


def test_pictures_of_several_sets_meet(tmp_path: Path) -> None:
    base, tuned = (image_set(tmp_path / name, prompts=1, samples=samples) for name, samples in (("a", 1), ("b", 3)))
    shutil.rmtree(base / "images")
    (base / "images/000000").mkdir(parents=True)
    (base / name_of(0, 0)).write_bytes(encoded(500))
    scored(base, {"clip": {name_of(0, 0): 0.9}})
    scored(tuned, {"clip": {name_of(0, s): 0.1 * s for s in range(3)}})
    make_pairs(PairOptions(sources=[base, tuned], output_dir=tmp_path / "pairs", choose="best_worst"))
    assert told(tmp_path / "pairs") == {("prompt 0", 500, 0)}
    joint = scored(base, {"clip": {name_of(0, 0): 0.05}}, tmp_path / "joint.parquet")
    with pytest.raises(DataError, match=r"no score of any picture of .*b; run: t2ialign score"):
        make_pairs(PairOptions(sources=[base, tuned], scores=joint, output_dir=tmp_path / "joint"))


def test_what_can_not_be_used_is_named(tmp_path: Path) -> None:
    pictures = image_set(tmp_path / "set")
    source = annotated(tmp_path / "ann", [line(0, {"aesthetic": [5, 3], "fidelity": [1, 1]})], pictures)

    def run(
        message: str, error: type[Exception] = ConfigError, sources: list[Path] | None = None, **options: Any
    ) -> None:
        with pytest.raises(error, match=message):
            make_pairs(PairOptions(sources=sources or [source], output_dir=tmp_path / "pairs", **options))
        assert not (tmp_path / "pairs").exists()

    run("no marks of 'aesthetics'; did you mean 'aesthetic'", aspect=["aesthetics"])
    run("no marks of 'harmless'", veto={"harmless": 2.0})
    run("a source is given twice", sources=[source, source])
    run("holds annotations and .* does not", sources=[source, pictures])
    run("there is no folder", DataError, sources=[tmp_path / "nowhere"])
    run("there is no score file", DataError, sources=[pictures])
    run("image_set is for annotations", sources=[pictures], image_set=pictures)
    run("no pair is left of 1 candidates .*lower --margin", DataError, aspect=["aesthetic"], margin=3.0)
    (source / "annotations.jsonl").write_text(json.dumps(line(0, {"aesthetic": [None, None]})) + "\n")
    run("not a single mark was given", DataError)
    with pytest.raises(ConfigError, match="holds the source"):
        make_pairs(PairOptions(sources=[source], output_dir=tmp_path))
