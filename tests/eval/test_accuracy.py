"""Preference accuracy: each policy against a plain account of the published code, ties of every kind, real rankings.

The five functions on this side are written from what the published evaluations compute, and import nothing of ours.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ialign.data.rankings import Ranking, read_rankings
from t2ialign.errors import DataError
from t2ialign.eval.accuracy import (
    POLICIES,
    THRESHOLDS,
    choose_threshold,
    preference_accuracy,
    ranking_pairs,
    scored_pairs,
)
from t2ialign.eval.statistics import clustered_bootstrap

# ---------------------------------------------------------------- what the published code computes


Ranked = Sequence[tuple[Sequence[float], Sequence[float]]]
"""Scores and ranks of each prompt."""


def plain_pickscore(pairs: list[tuple[float, float, float]], threshold: float) -> float:
    """Softmax of two scores; a tie where the probabilities differ by the threshold or less; 1, a half, or 0."""
    total = 0.0
    for first, second, label in pairs:
        odds = math.exp(min(700.0, second - first))
        p0, p1 = 1 / (1 + odds), odds / (1 + odds)
        people = {0.5: "tie", 1.0: "0", 0.0: "1"}[label]
        said = "tie" if abs(p1 - p0) <= threshold else "0" if p0 > p1 else "1"
        total += 1.0 if people == said else 0.5 if "tie" in (people, said) else 0.0
    return total / len(pairs)


def plain_pickscore_trainer(pairs: list[tuple[float, float, float]]) -> float:
    """The label of the picture that is strictly preferred."""
    return sum((a > b) * label + (a < b) * (1 - label) for a, b, label in pairs) / len(pairs)


def plain_imagereward(prompts: Ranked) -> float:
    """All untied pairs of all prompts together."""
    right = total = 0
    for scores, ranks in prompts:
        for i, j in itertools.combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j]:
                total += 1
                better, worse = (i, j) if ranks[i] < ranks[j] else (j, i)
                right += scores[better] > scores[worse]
    return right / total


def plain_hpsv2(prompts: Ranked) -> float:
    """Mean over prompts of one minus the share of inverted pairs."""
    values = []
    for scores, ranks in prompts:
        pairs = list(itertools.combinations(range(len(ranks)), 2))
        inverted = sum((scores[i] - scores[j]) * (ranks[i] - ranks[j]) > 0 for i, j in pairs)
        values.append(1 - inverted / len(pairs))
    return sum(values) / len(values)


def plain_hpsv2_imagereward(prompts: Ranked) -> float:
    """Mean over prompts of ImageReward's accuracy within the prompt."""
    usable = [each for each in prompts if len(set(each[1])) > 1]
    return sum(plain_imagereward([each]) for each in usable) / len(usable)


small = st.integers(0, 3).map(float)
ranked = st.lists(st.tuples(small, st.integers(1, 4)), min_size=2, max_size=6)
groups = st.lists(ranked, min_size=1, max_size=6).filter(lambda g: any(len({r for _, r in each}) > 1 for each in g))


@given(groups)
def test_the_policies_of_rankings_equal_the_published_ones(drawn: list[list[tuple[float, int]]]) -> None:
    prompts = [([s for s, _ in each], [float(r) for _, r in each]) for each in drawn]
    pairs = ranking_pairs([s for s, _ in prompts], [r for _, r in prompts])
    for policy, plain in (
        ("imagereward", plain_imagereward),
        ("hpsv2", plain_hpsv2),
        ("hpsv2_imagereward", plain_hpsv2_imagereward),
    ):
        ours = preference_accuracy(*pairs, policy=policy, resamples=0)
        assert ours.value == pytest.approx(plain(prompts), abs=1e-12), policy
    assert len(pairs.labels) == sum(len(each) * (len(each) - 1) // 2 for each in drawn)


@given(
    st.lists(st.tuples(small, small, st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=20),
    st.sampled_from([None, 0.0, 0.3, 0.9, 1.0]),
)
def test_the_policies_of_pairs_equal_the_published_ones(
    pairs: list[tuple[float, float, float]], threshold: float | None
) -> None:
    first, second, labels = (list(column) for column in zip(*pairs, strict=True))
    ours = preference_accuracy(first, second, labels, policy="pickscore", threshold=threshold, resamples=0)
    assert ours.value == pytest.approx(plain_pickscore(pairs, threshold or 0.0), abs=1e-12)
    assert ours.threshold == (threshold or 0.0)
    trainer = preference_accuracy(first, second, labels, policy="pickscore_trainer", resamples=0)
    assert trainer.value == pytest.approx(plain_pickscore_trainer(pairs), abs=1e-12)
    assert trainer.threshold is None


def test_every_kind_of_tie_by_hand() -> None:
    """Right, wrong, scores tie, label ties, both tie: in one prompt but for the last, which is another's."""
    first, second = [2.0, 0.0, 1.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]
    labels, prompts = [1.0, 1.0, 1.0, 0.5, 0.5], ["a", "a", "a", "a", "b"]
    wanted = {
        "pickscore": (1 + 0 + 0.5 + 0.5 + 1) / 5,
        "pickscore_trainer": (1 + 0 + 0 + 0.5 + 0) / 5,
        "imagereward": 1 / 3,
        "hpsv2": ((1 + 0 + 1 + 1) / 4 + 1) / 2,
        "hpsv2_imagereward": 1 / 3,
    }
    assert wanted.keys() == POLICIES.keys()
    for policy, value in wanted.items():
        told = preference_accuracy(first, second, labels, prompts, policy=policy)
        assert told.value == pytest.approx(value), policy
        skips = policy in ("imagereward", "hpsv2_imagereward")
        assert (told.n_pairs, told.n_skipped, told.n_prompts) == ((3, 2, 1) if skips else (5, 0, 2))
        assert (told.n_label_ties, told.n_predicted_ties) == (2, 1 if skips else 2)
        assert (told.ci95 is None) == skips


def test_micro_and_macro_differ_where_prompts_have_unequal_numbers_of_pairs() -> None:
    pairs = ranking_pairs([[4, 3, 2, 1], [1, 2]], [[1, 2, 3, 4], [1, 2]], ["big", "small"])
    assert preference_accuracy(*pairs, policy="imagereward").value == pytest.approx(6 / 7)
    assert preference_accuracy(*pairs, policy="hpsv2_imagereward").value == pytest.approx(1 / 2)


def test_the_threshold_is_chosen_as_published() -> None:
    generator = np.random.default_rng(0)
    margin = generator.normal(0, 2, 400)
    labels = np.where(np.abs(margin) < 0.8, 0.5, (margin + generator.normal(0, 1, 400) > 0).astype(float))
    chosen = choose_threshold(margin, np.zeros(400), labels)
    triples = list(zip(margin.tolist(), [0.0] * 400, labels.tolist(), strict=True))
    values = [plain_pickscore(triples, each) for each in THRESHOLDS]
    assert chosen == THRESHOLDS[values.index(max(values))]
    assert 0 < chosen < 1


def test_the_interval_is_over_prompts() -> None:
    """All pairs of a prompt are one observation: copying them must not narrow the interval."""
    generator = np.random.default_rng(0)
    first, labels = generator.normal(size=60), np.ones(60)
    one = preference_accuracy(first, np.zeros(60), labels, range(60))
    ten = preference_accuracy(np.tile(first, 10), np.zeros(600), np.ones(600), list(range(60)) * 10)
    assert one.value == pytest.approx(ten.value)
    assert one.ci95 == ten.ci95
    assert one.ci95 is not None
    assert one.ci95.low < one.value < one.ci95.high
    half = 1.96 * math.sqrt(one.value * (1 - one.value) / 60)
    assert one.ci95.high - one.ci95.low == pytest.approx(2 * half, rel=0.15)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"policy": "image_reward"}, "unknown policy"),
        ({"threshold": 0.1}, "pickscore alone"),
        ({"policy": "pickscore", "threshold": 1.5}, "pickscore alone"),
        ({"prompts": ["a"]}, "1 prompts for 2 pairs"),
        ({"labels": [1.0, 0.7]}, "labels are 1"),
        ({"labels": [0.5, 0.5]}, "no pair is left"),
        ({"first": [1.0, float("nan")]}, "not finite"),
        ({"first": [1.0]}, "shapes"),
    ],
)
def test_mistakes_are_named(words: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"first": [1.0, 2.0], "second": [0.0, 3.0], "labels": [1.0, 0.0]} | words
    with pytest.raises(ValueError, match=message):
        preference_accuracy(**arguments)


# ---------------------------------------------------------------- rankings


def test_rankings_of_both_kinds(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    path.write_text(json.dumps([{"id": 5, "prompt": "p", "generations": ["a", "b"], "ranking": [1, 1]}]))
    assert read_rankings(path) == [Ranking("5", "p", ("a", "b"), (1.0, 1.0))]
    entry = {"prompt": "p", "image_path": ["a", "b"], "rank": [1.5, 2], "raw_annotations": []}
    path.write_text(json.dumps([entry, entry | {"image_path": ["c", "d"]}]))
    first, second = read_rankings(path)
    assert (first.prompt, first.file_names, first.ranks) == ("p", ("a", "b"), (1.5, 2.0))
    assert first.prompt_id != second.prompt_id


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not a JSON file"),
        ("[]", "a JSON list of rankings"),
        ('[{"generations": ["a"], "ranking": [1]}]', "entry 0.*'prompt'"),
        ('[{"prompt": "p", "generations": ["a"]}]', "entry 0.*'ranking'"),
        ('[{"prompt": "p", "generations": ["a"], "ranking": [1, 2]}]', "1 pictures and 2 ranks"),
        ('[{"prompt": "p", "generations": ["a"], "ranking": ["first"]}]', "not all numbers"),
        ('[{"prompt": "p", "generations": [3], "ranking": [1]}]', "path is missing"),
        (
            '[{"id": 1, "prompt": "p", "generations": ["a"], "ranking": [1]},'
            ' {"id": 1, "prompt": "q", "generations": ["b"], "ranking": [1]}]',
            "stands 2 times",
        ),
    ],
)
def test_rankings_with_mistakes(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "test.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_rankings(path)


def test_scores_of_ranked_pictures_become_pairs(tmp_path: Path) -> None:
    from PIL import Image

    from t2ialign.reward_models.scoring import score_set

    class Dark:
        name, version, higher_is_better = "dark", "v1", False

        def score(self, prompts: Sequence[str], images: Sequence[Any]) -> Any:
            import torch

            return torch.tensor([float(np.asarray(image).mean()) for image in images])

        def info(self) -> dict[str, Any]:
            return {"higher_is_better": False}

        def count_truncated(self, prompts: Sequence[str]) -> int:
            return 0

        def aggregate(self, scores: Sequence[float]) -> float:
            return float(np.mean(scores))

    entries = []
    for i in range(3):
        names = [f"{i}/{k}.png" for k in range(3)]
        for k, name in enumerate(names):
            (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), 10 + 20 * k).save(tmp_path / "images" / name)
        entries.append({"id": str(i), "prompt": "p", "generations": names, "ranking": [1, 2, 3] if i else [3, 2, 2]})
    rankings = tmp_path / "test.json"
    rankings.write_text(json.dumps(entries))
    output = tmp_path / "scores.parquet"
    with pytest.raises(DataError, match=r"no dark score of 0/0\.png"):
        scored_pairs(read_rankings(rankings), output, "dark")
    score_set(tmp_path / "images", [Dark()], output, prompts=rankings)
    pairs = scored_pairs(read_rankings(rankings), output, "dark")
    told = preference_accuracy(*pairs, policy="imagereward")
    assert (told.value, told.n_pairs, told.n_skipped) == (6 / 8, 8, 1)
    assert preference_accuracy(*pairs, policy="hpsv2").value == pytest.approx((1 + 1 + 1 / 3) / 3)


def test_imagereward_s_own_test_set(real_data: Path) -> None:
    rankings = read_rankings(real_data / "imagereward_test.json")
    assert len(rankings) == 466
    sizes = [len(each.ranks) for each in rankings]
    assert {n: sizes.count(n) for n in set(sizes)} == {4: 194, 5: 2, 6: 45, 7: 159, 8: 43, 9: 23}
    generator = np.random.default_rng(0)
    ranks = [each.ranks for each in rankings]
    scores = [[round(-r + generator.normal(0, 2)) for r in each] for each in ranks]  # whole numbers, so that some tie
    pairs = ranking_pairs(scores, ranks, [each.prompt_id for each in rankings])
    prompts = list(zip(scores, ranks, strict=True))
    for policy, plain in (
        ("imagereward", plain_imagereward),
        ("hpsv2", plain_hpsv2),
        ("hpsv2_imagereward", plain_hpsv2_imagereward),
    ):
        told = preference_accuracy(*pairs, policy=policy, resamples=0)
        assert told.value == pytest.approx(plain(prompts), abs=1e-12)
    perfect = ranking_pairs([[-r for r in each] for each in ranks], ranks)
    assert all(
        preference_accuracy(*perfect, policy=policy, resamples=0).value == 1.0
        for policy in ("imagereward", "hpsv2", "hpsv2_imagereward", "pickscore")
    )
    untied = preference_accuracy(*pairs, policy="imagereward", resamples=0)
    assert untied.n_pairs + untied.n_skipped == len(pairs.labels)
    assert untied.n_skipped == untied.n_label_ties > 0


def test_the_interval_of_prompts_with_unequal_numbers_of_pairs() -> None:
    generator = np.random.default_rng(0)
    prompts = np.repeat(np.arange(30), generator.integers(1, 9, 30)).tolist()
    first = generator.normal(0.3, 1, len(prompts))
    second, labels = np.zeros(len(prompts)), np.ones(len(prompts))
    macro = preference_accuracy(first, second, labels, prompts, policy="hpsv2_imagereward", resamples=500)
    wanted = clustered_bootstrap((first > 0).astype(float), prompts, method="percentile", resamples=500)
    assert macro.ci95 == pytest.approx(wanted)
    right = preference_accuracy(np.ones(len(prompts)), second, labels, prompts, policy="imagereward", resamples=500)
    assert right.ci95 == (1.0, 1.0)
