"""Scorers as annotators, replays, and the counts of two passes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.annotator_server import RatingServer
from helpers.rated_sets import mini_set
from t2ialign.annotation.annotate import annotate
from t2ialign.annotation.annotate_options import AnnotateOptions, RatingChatOptions
from t2ialign.annotation.annotate_report import clustered_share_interval, compare_passes, swap_report
from t2ialign.annotation.annotations import Annotation, read_annotations
from t2ialign.annotation.annotators import load_annotator
from t2ialign.annotation.annotators.replay import MISSING
from t2ialign.annotation.annotators.scorers import Scale, ScorersAnnotator, Settings, parse_scorers
from t2ialign.errors import ConfigError, DataError


def options(path: Path, annotator: str, **settings: Any) -> AnnotateOptions:
    return AnnotateOptions(
        image_set=path, annotator=annotator, **{"output_dir": path.parent / "out", "workers": 0, **settings}
    )


class Blueness:
    """The mean of the blue channel; nothing for pictures that are brighter than `silent_above`."""

    name, version, higher_is_better = "blueness", "v1", True
    may_abstain = True
    silent_above = math.inf

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        from PIL import Image

        pixels = [np.asarray(Image.open(image) if isinstance(image, str | Path) else image) for image in images]
        values = [float(each[..., 2].mean()) for each in pixels]
        return torch.tensor([math.nan if value > self.silent_above else value for value in values])

    def info(self) -> dict[str, Any]:
        return {"scorer": self.name, "silent_above": str(self.silent_above)}

    def count_truncated(self, prompts: Sequence[str]) -> int:
        return 0

    def aggregate(self, scores: Sequence[float]) -> float:
        return sum(scores) / len(scores)


def blue(path: Path, annotation: Annotation) -> list[float]:
    from PIL import Image

    return [float(np.asarray(Image.open(path / name).convert("RGB"))[..., 2].mean()) for name in annotation.images]


@pytest.mark.parametrize("mapping", ["quantiles", "range", "linear"])
def test_scores_become_ratings_by_the_mapping_that_is_recorded(tmp_path: Path, mapping: str) -> None:
    path = mini_set(tmp_path / "set", prompts=5)
    annotator = ScorersAnnotator([("aesthetic", Blueness())], Settings(mapping=mapping, workers=0))
    report = annotate(options(path, "scorers:x", mapping=mapping), annotator=annotator, progress=False).report
    found = read_annotations(tmp_path / "out")
    raw = np.array([blue(path, each) for each in found])
    ratings = np.array([each.ratings["aesthetic"] for each in found], dtype=float)
    low, high = raw.min(), raw.max()
    if mapping == "linear":
        wanted = 1 + 4 * (raw - low) / (high - low)
    else:
        edges = np.quantile(raw, [0.2, 0.4, 0.6, 0.8]) if mapping == "quantiles" else np.linspace(low, high, 6)[1:-1]
        wanted = 1 + (raw[..., None] > edges).sum(-1)
        assert report["scales"]["blueness (v1)"]["cuts"] == pytest.approx(edges)
    assert ratings == pytest.approx(wanted)
    assert report["scales"]["blueness (v1)"]["worst_and_best"] == pytest.approx([low, high])
    assert found[0].rationales["aesthetic"][0] == f"blueness {raw[0, 0]:.6g}"
    assert list(found[0].ratings) == ["aesthetic"]
    assert (found[0].ok, found[0].annotator, found[0].params["mapping"]) == (True, "scorers:blueness", mapping)
    if mapping == "quantiles":
        counts = report["aspects"]["aesthetic"]["ratings"]
        assert sum(counts.values()) == 20
        assert max(counts.values()) <= 6


def test_a_picture_without_a_score_has_no_rating(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=5)
    scorer = Blueness()
    scorer.silent_above = 130.0
    annotator = ScorersAnnotator([("aesthetic", scorer)], Settings(workers=0))
    report = annotate(options(path, "scorers:x"), annotator=annotator, progress=False).report
    found = read_annotations(tmp_path / "out")
    silent = np.array([blue(path, each) for each in found]) > 130.0
    missing = np.array([[rating is None for rating in each.ratings["aesthetic"]] for each in found])
    assert 0 < silent.sum() < 20
    assert np.array_equal(missing, silent)
    assert report["aspects"]["aesthetic"]["missing"] == silent.sum()
    assert report["annotations"]["not_ok"] == {"no score": int(silent.any(1).sum())}


def test_named_scorers_and_their_aspects(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=3)
    report = annotate(options(path, "scorers:oracle,fidelity=oracle"), progress=False).report
    (first, *_) = read_annotations(tmp_path / "out")
    assert list(first.ratings) == ["prompt_following", "fidelity"]
    assert first.ratings["prompt_following"] == first.ratings["fidelity"]
    assert first.annotator == "scorers:oracle"
    assert (tmp_path / "out/scores.parquet").is_file()
    assert report["status"] == "done"
    with pytest.raises(DataError, match=r"annotator.mapping: \"quantiles\" there, \"linear\" now"):
        annotate(options(path, "scorers:oracle,fidelity=oracle", mapping="linear"), progress=False)


def test_an_aspect_is_the_mean_of_its_scorers(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=3)
    dark = Blueness()
    dark.name, dark.higher_is_better = "darkness", False
    named: list[tuple[str, Any]] = [("aesthetic", Blueness()), ("aesthetic", dark), ("fidelity", dark)]
    annotate(options(path, "scorers:x"), annotator=ScorersAnnotator(named, Settings(workers=0)), progress=False)
    found = read_annotations(tmp_path / "out")
    values = [each.ratings[aspect][n] for each in found for aspect in ("aesthetic", "fidelity") for n in range(4)]
    assert set(values[:4]) == {3.0}  # a rating and its opposite
    assert len(set(values[4:8])) > 1
    assert found[0].rationales["aesthetic"][0].count(", darkness ") == 1


def test_how_scorers_are_named() -> None:
    assert parse_scorers("clipscore@mini-clip?definition=hessel, aesthetic=hpsv2,fidelity=clipscore") == [
        ("prompt_following", "clipscore@mini-clip?definition=hessel"),
        ("aesthetic", "hpsv2"),
        ("fidelity", "clipscore"),
    ]
    with pytest.raises(ConfigError, match=r"pickscore measures none.*scorers:aesthetic=pickscore"):
        parse_scorers("pickscore")
    with pytest.raises(ConfigError, match="unknown scorer 'clipscor'; did you mean 'clipscore'"):
        parse_scorers("aesthetic=clipscor")


def test_scales() -> None:
    scores = [float(n) for n in range(1, 11)]
    assert [Scale.of(scores, "quantiles").rating(s) for s in scores] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [Scale.of(scores, "quantiles", False).rating(s) for s in scores] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert Scale.of(scores, "quantiles", False).to_dict()["worst_and_best"] == [10.0, 1.0]
    assert [Scale.of([0.0, 10.0], "range").rating(s) for s in (0.0, 2.0, 2.1, 6.0, 6.1, 10.0)] == [1, 1, 2, 3, 4, 5]
    assert Scale.of([2.0, 4.0], "linear").rating(2.5) == 2.0
    assert Scale.of([4.0, 4.0], "as_is").rating(4.0) == 4.0
    with pytest.raises(DataError, match="no rating from 1 to 5; choose another --mapping"):
        Scale.of([0.3], "as_is").rating(0.3)
    with pytest.raises(DataError, match="gave every picture 2; nothing can be rated"):
        Scale.of([2.0, 2.0], "quantiles")
    with pytest.raises(DataError, match="gave no picture of the set a score"):
        Scale.of([], "linear")


@pytest.mark.parametrize("name", ["gpt-4o", "openai", "openai:", "gguf:x", "scorers:", ""])
def test_unknown_annotators(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown annotator .*known are oracle"):
        load_annotator(options(tmp_path, name))


def test_a_replay_says_the_same_of_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = mini_set(tmp_path / "set", prompts=4)
    with RatingServer() as server:
        chat = RatingChatOptions(base_url=server.url)
        annotate(options(path, "openai:m", chat=chat, second_pass=True), progress=False)
    whole = read_annotations(tmp_path / "out")
    moved = tmp_path / "moved"  # one picture less of p0, other names, p3 gone
    path.rename(moved)
    lines = [json.loads(line) for line in (moved / "metadata.jsonl").read_text().splitlines()]
    kept = [line for line in lines[::-1] if line["prompt_id"] != "p3" and line["file_name"] != "images/p0/0001.png"]
    (moved / "images/p1").rename(moved / "images/renamed")
    for line in kept:
        line["file_name"] = line["file_name"].replace("/p1/", "/renamed/")
    extra = mini_set(tmp_path / "extra", prompts=1, seed=9)
    for line in (json.loads(line) for line in (extra / "metadata.jsonl").read_text().splitlines()):
        (moved / "new").mkdir(exist_ok=True)
        (extra / line["file_name"]).rename(moved / "new" / Path(line["file_name"]).name)
        kept.append(line | {"file_name": f"new/{Path(line['file_name']).name}", "prompt_id": "new"})
    (moved / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    replay = f"replay:{tmp_path / 'out'}"
    report = annotate(options(moved, replay, output_dir=tmp_path / "again", second_pass=True), progress=False).report
    assert (report["replayed"], report["not_found"]) == (6, 2)
    assert report["annotations"]["not_ok"] == {MISSING: 2}
    by_picture = {
        (digest, each.order, aspect): (rating, each.permutation.index(place))
        for each in whole
        for aspect, ratings in each.ratings.items()
        for place, (digest, rating) in enumerate(zip(each.sha256, ratings, strict=True))
    }
    for each in read_annotations(tmp_path / "again"):
        if each.prompt_id == "new":
            assert {rating for marks in each.ratings.values() for rating in marks} == {None}
            continue
        assert each.annotator == "openai:m"
        told = [by_picture[digest, each.order, "aesthetic"] for digest in each.sha256]
        assert each.ratings["aesthetic"] == [rating for rating, _ in told]
        shown = [told[place][1] for place in each.permutation]
        assert shown == sorted(shown)  # who was shown before whom is as it was
    with pytest.raises(DataError, match="holds no annotation of these prompts"):
        annotate(options(mini_set(tmp_path / "x", 1, seed=77), replay, output_dir=tmp_path / "y"), progress=False)
    with pytest.raises(DataError, match="holds no annotations"):
        load_annotator(options(moved, f"replay:{moved}"))


def test_two_passes_are_compared_pair_by_pair() -> None:
    found = compare_passes([5, 3, 3, None], [4, 4, 2, 1])
    assert found == {"pairs": 3, "same": 1, "one_tie": 2}  # (0,2) stays; (0,1) and (1,2) have one tie each
    assert compare_passes([1, 2], [2, 1]) == {"pairs": 1, "opposite": 1}
    assert compare_passes([2, 2], [5, 5]) == {"pairs": 1, "same": 1}
    assert compare_passes([], []) == {}
    told = swap_report({"a": {"pairs": 3, "same": 3}, "b": {"pairs": 1, "opposite": 1}, "c": {}})
    assert (told["prompts"], told["pairs"], told["same"], told["consistency"]) == (2, 4, 3, 0.75)
    assert swap_report({"c": {}})["consistency"] is None


def test_the_interval_is_over_prompts() -> None:
    # pairs that are alone in their prompt: Wilson's interval of 30 of 40 (hand: 0.5981, 0.8581), n/(n-1) apart
    low, high = clustered_share_interval([(1, 1)] * 30 + [(0, 1)] * 10) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.5981, 0.8581), abs=0.003)
    # prompts that are all or nothing: six pairs say as much as one
    assert clustered_share_interval([(6, 6)] * 30 + [(0, 6)] * 10) == pytest.approx([low, high], abs=1e-12)
    # all agree: as many as there are prompts, 1 / (1 + z^2 / n)
    assert clustered_share_interval([(6, 6)] * 10) == pytest.approx([1 / (1 + 3.8415 / 10), 1.0], abs=1e-4)
    assert clustered_share_interval([(1, 2)]) is None
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        chance = rng.beta(4, 2, 40)  # prompts differ: mean 2/3
        units = [(int(rng.binomial(6, p)), 6) for p in chance]
        low, high = clustered_share_interval(units) or (0.0, 0.0)
        covered += low <= 2 / 3 <= high
    assert 0.92 <= covered / 400 <= 0.98
