"""Awareness: ranks, contrasts, ratings, and the tables made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from helpers.image_sets import write_plain_set
from t2ialign.annotation.annotations import Annotation
from t2ialign.data.image_sets import ImageSet
from t2ialign.eval.culture.awareness import awareness_report, median_interval, write_observations
from t2ialign.eval.culture.contrast import contrast_margins
from t2ialign.eval.culture.cspace import Concept, ConceptSpace, flag_space
from t2ialign.eval.culture.ratings import FAITHFULNESS, REALISM, annotated, rated
from t2ialign.eval.culture.retrieval import retrieval_ranks
from t2ialign.eval.culture.targets import Observation, Target, flag_targets
from t2ialign.eval.statistics import wilson
from t2ialign.mini.flags import FLAGS, draw_flag
from t2ialign.mini.world import parse
from t2ialign.reward_models.registry import load_scorer


def picture_set(path: Path, colors: dict[str, list[int]]) -> ImageSet:
    """A set with, of each prompt, a picture for each red."""
    return ImageSet(
        write_plain_set(
            path,
            [
                ({"prompt_id": name, "prompt": f"text of {name}", "sample": i}, Image.new("RGB", (8, 8), (red, 0, 0)))
                for name, reds in colors.items()
                for i, red in enumerate(reds)
            ],
        )
    )


def target(name: str, artifact: str, domain: str = "cuisine", **more: Any) -> Target:
    return Target(name, f"text of {name}", artifact, more.pop("country", "Italy"), domain, **more)


class Ladder:
    """Features by hand: a text points to its number, a picture to its red; nearer numbers are nearer."""

    name = "ladder"

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        return torch.stack([self._at(float(prompt.split()[-1])) for prompt in prompts])

    def embed_images(self, images: Sequence[Any]) -> torch.Tensor:
        return torch.stack([self._at(float(image.getpixel((0, 0))[0])) for image in images])

    def score_matrix(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        raise NotImplementedError

    def _at(self, number: float) -> torch.Tensor:
        angle = torch.tensor(number / 100)
        return torch.stack([angle.cos(), angle.sin()])


def test_ranks_by_hand(tmp_path: Path) -> None:
    space = ConceptSpace(
        "numbers",
        (
            *(Concept(f"food {i}", "Italy", "Europe", "cuisine") for i in (0, 10, 20, 30, 40, 50, 60)),
            Concept("Food  10", "France", "Europe", "cuisine"),
            Concept("dance 1", "Italy", "Europe", "art"),
        ),
    )
    images = picture_set(tmp_path, {"a": [0, 16, 61], "b": [10, 15], "c": [100], "other": [3]})
    targets = [target("a", "food 0"), target("b", "FOOD 10"), target("c", "new 99"), target("absent", "food 0")]
    found = retrieval_ranks(images, targets, space, Ladder())
    ranks = {seen.file_name: seen.value for seen in found if seen.measure == "rank"}
    # The names are 0, 10 (once), 20, ... 60 and 99, which the space lacks.
    assert [ranks[f"images/a/{i:04d}.png"] for i in range(3)] == [1, 4, 8]
    assert ranks["images/b/0000.png"] == 1
    assert ranks["images/c/0000.png"] == 1
    assert len(ranks) == 6
    tops = {(seen.file_name, seen.measure): seen.value for seen in found}
    assert tops["images/a/0001.png", "top1"] == 0
    assert tops["images/a/0001.png", "top5"] == 1
    assert tops["images/a/0002.png", "top5"] == 0


def test_as_near_a_name_is_half_a_rank(tmp_path: Path) -> None:
    space = ConceptSpace("numbers", tuple(Concept(f"{n} 7", domain="cuisine") for n in ("x", "y", "z")))
    (rank, top1, _) = retrieval_ranks(picture_set(tmp_path, {"a": [7]}), [target("a", "y 7")], space, Ladder())
    assert (rank.value, top1.value) == (2.0, 0.0)


class Silent:
    """What a scorer offers besides scores."""

    def info(self) -> dict[str, Any]:
        return {}

    def count_truncated(self, prompts: Sequence[str]) -> int:
        return 0

    def aggregate(self, scores: Sequence[float]) -> float:
        return sum(scores) / len(scores)


class ByLength(Silent):
    """Scores a prompt by its last word's length and the picture's red; or abstains."""

    name, version, higher_is_better = "length", "v1", True

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        reds = [image.getpixel((0, 0))[0] for image in images]
        values = [len(prompt.split()[-1]) * red for prompt, red in zip(prompts, reds, strict=True)]
        return torch.tensor([float("nan") if red == 255 else value for value, red in zip(values, reds, strict=True)])


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_contrasts_by_hand(tmp_path: Path, batch_size: int) -> None:
    contrasts = {"Japan": "rice of aa", "India": "rice of aaaa"}
    targets = [
        Target("p", "rice of aaaaa", "rice", "Italy", "cuisine", contrasts),
        Target("q", "rice of aaa", "rice", "Italy", "cuisine", contrasts),
        Target("r", "rice", "rice", "Italy", "cuisine"),
    ]
    images = picture_set(tmp_path, {"p": [1, 10, 255], "q": [2], "r": [3]})
    found = contrast_margins(images, targets, ByLength(), batch_size=batch_size)
    margins = [seen.value for seen in found if seen.measure == "contrast_margin"]
    assert margins == [5 - 3, 50 - 30, None, 6 - 6]
    assert [seen.value for seen in found if seen.measure == "contrast_best"] == [1, 1, None, 0]


def test_features_give_what_pairs_give(tmp_path: Path) -> None:
    """A scorer with features embeds a picture once; the scores are those of the pairs."""
    targets = flag_targets({"france": "the flag of France", "mali": "the flag of Mali"})
    lines: list[tuple[dict[str, Any], Image.Image]] = [
        ({"prompt_id": t.prompt_id, "prompt": t.prompt, "sample": i}, draw_flag(shown, 64))
        for t in targets
        for i, shown in enumerate(("france", "mali", "yemen"))
    ]
    images = ImageSet(write_plain_set(tmp_path, lines))
    scorer: Any = load_scorer("clipscore@mini-clip", device="cpu")
    found = contrast_margins(images, targets, scorer, batch_size=2)
    by_pair = {}
    for record in images:
        (each,) = (t for t in targets if t.prompt_id == record.prompt_id)
        asked = [each.prompt, *each.contrasts.values()]
        own, *wrong = scorer.score(asked, [images.open(record)] * len(asked)).tolist()
        by_pair[record.file_name] = own - sum(wrong) / len(wrong)
    margins = {row.file_name: row.value for row in found if row.measure == "contrast_margin"}
    assert margins == pytest.approx(by_pair, abs=1e-4)


def test_a_score_that_is_better_when_low_is_turned(tmp_path: Path) -> None:
    scorer = ByLength()
    scorer.higher_is_better = False
    contrasts = {"Japan": "rice of aa"}
    images = picture_set(tmp_path, {"p": [1]})
    margin, best = contrast_margins(images, [Target("p", "rice of aaaaa", "r", "I", "c", contrasts)], scorer)
    assert (margin.value, best.value) == (-3, 0)


class Rater(Silent):
    name, version, higher_is_better = "rater", "v1", True

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        reds = [image.getpixel((0, 0))[0] for image in images]
        return torch.tensor([float("nan") if red == 0 else float(red) for red in reds])


def test_ratings_of_a_scorer(tmp_path: Path) -> None:
    images = picture_set(tmp_path, {"a": [1, 5, 0], "b": [3]})
    found = rated(images, [target("a", "x"), target("b", "y")], Rater(), "realism", batch_size=3)
    assert [seen.value for seen in found] == [1, 5, None, 3]
    assert {seen.source for seen in found} == {"rater"}
    with pytest.raises(ValueError, match="realism is 9, not from 1 to 5"):
        rated(picture_set(tmp_path / "more", {"a": [9]}), [target("a", "x")], Rater(), "realism")
    with pytest.raises(ValueError, match="'taste' is not rated"):
        rated(images, [], Rater(), "taste")


def test_the_judges_questions_take_a_prompt() -> None:
    from t2ialign.reward_models.judge_answers import question

    for template in (FAITHFULNESS, REALISM):
        assert template.count("{prompt}") == 1
        assert '"a \\"b\\""' in question(template, 'a "b"')
        assert '{"reason": "one or two sentences", "score": a number from 1 to 5}' in template


def test_ratings_of_annotations_are_averaged() -> None:
    names = ["images/a/0.png", "images/a/1.png"]
    both: dict[str, list[float | None]] = {
        "prompt_following": [4, None],
        "fidelity": [None, None],
        "aesthetic": [1, 1],
    }
    annotations = [
        Annotation("a", "text", names, [0, 1], both, annotator="x"),
        Annotation("a", "text", names, [1, 0], {"prompt_following": [5, 2]}, annotator="y", order=1),
        Annotation("zzz", "text", ["b.png"], [0], {"fidelity": [1]}),
    ]
    found = {(seen.file_name, seen.measure): seen.value for seen in annotated(annotations, [target("a", "x")])}
    assert found == {
        (names[0], "faithfulness"): 4.5,
        (names[1], "faithfulness"): 2,
        (names[0], "realism"): None,
        (names[1], "realism"): None,
    }


# ---------------------------------------------------------------------------------------------
# Tables


def seen(
    prompt: str, country: str, domain: str, value: float | None, measure: str = "top1", n: int = 0
) -> Observation:
    return Observation(f"{prompt}/{n}.png", prompt, country, domain, measure, value, "test")


def test_tables_by_hand() -> None:
    rows = [
        seen("a", "Italy", "art", 1, n=0),
        seen("a", "Italy", "art", 0, n=1),
        seen("b", "Italy", "art", 1),
        seen("c", "Italy", "cuisine", None),
        seen("d", "Japan", "art", 0),
    ]
    tables = awareness_report(rows).measures["top1"]
    italy, lost, japan = tables["country_domain"]
    assert (italy.country, italy.domain, italy.value) == ("Italy", "art", 0.75)
    assert (italy.n_prompts, italy.n_pictures, italy.missing) == (2, 3, 0)
    assert italy.interval == wilson(1.5, 2)
    assert (lost.value, lost.interval, lost.n_prompts, lost.missing) == (None, None, 0, 1)
    assert japan.value == 0
    assert [(cell.country, cell.value) for cell in tables["country"]] == [("Italy", 0.75), ("Japan", 0)]
    assert [(cell.domain, cell.value) for cell in tables["domain"]] == [("art", 0.5), ("cuisine", None)]
    (whole,) = tables["all"]
    assert (whole.value, whole.n_prompts, whole.n_pictures, whole.missing) == (0.5, 3, 4, 1)
    assert all(cell.pooled is None for cells in tables.values() for cell in cells)


def test_pooled_figures_stand_beside_the_raw_ones() -> None:
    rng = np.random.default_rng(0)
    rows = [
        seen(f"{country}{p}", country, "art", float(rng.normal(3, 0.7)), "realism")
        for country, n in (("Italy", 2), ("Japan", 9), ("India", 12), ("Brazil", 20))
        for p in range(n)
    ]
    report = awareness_report(rows)
    cells = {cell.country: cell for cell in report.measures["realism"]["country"]}
    assert [cells[name].n_prompts for name in ("Italy", "Japan", "India", "Brazil")] == [2, 9, 12, 20]
    for cell in cells.values():
        assert cell.pooled is not None
        assert cell.interval is not None
        assert cell.value is not None
    italy, brazil = cells["Italy"].pooled, cells["Brazil"].pooled
    assert italy is not None
    assert brazil is not None
    assert italy.own_weight < brazil.own_weight
    low, high = stats.t.interval(
        0.95, 8, np.mean(values := [r.value or 0.0 for r in rows if r.country == "Japan"]), stats.sem(values)
    )
    assert cells["Japan"].interval == pytest.approx((low, high))
    said = report.to_dict()["realism"]
    assert "tau" in said["pooling"]
    assert said["sources"] == ["test"]
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_unit_is_the_prompt() -> None:
    """Many pictures of one prompt make no interval narrower."""
    rows = [seen(f"p{p}", "Italy", "art", float(p % 2), n=n) for p in range(12) for n in range(50)]
    few = [row for row in rows if row.file_name.endswith("/0.png")]
    many = awareness_report(rows).measures["top1"]["all"][0]
    one = awareness_report(few).measures["top1"]["all"][0]
    assert many.interval == one.interval
    assert (many.n_pictures, one.n_pictures, many.n_prompts) == (600, 12, 12)


def test_medians_of_ranks() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
    rows = [seen(f"p{i}", "Italy", "art", value, "rank") for i, value in enumerate(values)]
    (cell,) = awareness_report(rows).measures["rank"]["all"]
    assert cell.value == 16
    assert cell.interval is not None
    assert list(cell.interval) == [2, 128]  # P(Bin(9, 1/2) <= 1) = 2.0 %
    assert cell.pooled is None


@pytest.mark.parametrize("n", [6, 9, 20, 57])
def test_the_interval_of_a_median_covers(n: int) -> None:
    rng, covered = np.random.default_rng(n), 0
    for _ in range(600):
        found = median_interval(rng.exponential(size=n))
        assert found is not None
        covered += found.low <= np.log(2) <= found.high
    assert covered >= 0.93 * 600
    assert median_interval([1.0] * 5) is None


def test_unknown_measures_are_refused_and_rows_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown measure 'taste'"):
        awareness_report([seen("a", "Italy", "art", 1, "taste")])
    from pyarrow import parquet

    rows = [seen("a", "Italy", "art", 1), seen("b", "Italy", "art", None)]
    write_observations(tmp_path / "seen.parquet", rows)
    assert [Observation(**row) for row in parquet.read_table(tmp_path / "seen.parquet").to_pylist()] == rows


def test_flags_have_contrasts_of_other_continents() -> None:
    targets = flag_targets({"x": "the flag of Japan"} | {key: f"the flag of {f.name}" for key, f in FLAGS.items()})
    assert len(targets) == 35
    for each in targets:
        assert not {parse(text).country for text in each.contrasts.values()} & {parse(each.prompt).country}
        assert all(parse(text).country for text in each.contrasts.values())
    assert flag_targets({"a": "a flag", "b": "a star", "c": "the flag of a country in Asia"}) == []


def test_drawn_flags_are_known_to_mini_clip_and_to_the_oracle(tmp_path: Path) -> None:
    """Right pictures rank high and beat every wrong country; swapped ones do not."""
    keys = list(FLAGS)[::7]
    for name, turn in (("right", 0), ("wrong", 1)):
        shown = keys[turn:] + keys[:turn]
        lines: list[tuple[dict[str, Any], Image.Image]] = [
            ({"prompt_id": key, "prompt": f"the flag of {FLAGS[key].name}", "sample": 0}, draw_flag(other, 64))
            for key, other in zip(keys, shown, strict=True)
        ]
        images = ImageSet(write_plain_set(tmp_path / name, lines))
        targets = flag_targets({record.prompt_id: record.prompt for record in images})
        scorer: Any = load_scorer("clipscore@mini-clip", device="cpu")
        ranks = retrieval_ranks(images, targets, flag_space(), scorer, template="the {name}")
        best = contrast_margins(images, targets, load_scorer("oracle"))
        tables = awareness_report([*ranks, *best]).measures
        figures = {measure: tables[measure]["all"][0].value for measure in ("top1", "contrast_best")}
        if name == "right":
            assert figures["top1"] is not None
            assert figures["top1"] > 0.5
            assert figures["contrast_best"] == 1
        else:
            assert figures == {"top1": 0, "contrast_best": 0}
