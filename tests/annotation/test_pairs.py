"""Pairs from annotations, whole: files in, a set of pairs, its card and its counts out."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.judged_sets import Ratings, adds_up, annotated, image_set, line, name_of, number, told
from helpers.pair_sets import encoded
from t2ialign.annotation.pair_options import PairOptions
from t2ialign.annotation.pairs import make_pairs
from t2ialign.data.check import check_set
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import DataError

ASPECTS = ("prompt_following", "aesthetic", "fidelity", "harmlessness")
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return image_set(tmp_path / "set")


def made(tmp_path: Path, lines: list[dict[str, Any]], pictures: Path, **options: Any) -> dict[str, Any]:
    """Make pairs of one folder in `tmp_path / "pairs"`; return pairs.json."""
    for name in ("ann", "pairs"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    source = annotated(tmp_path / "ann", lines, pictures)
    make_pairs(PairOptions(sources=[source], output_dir=tmp_path / "pairs", **options))
    content: dict[str, Any] = json.loads((tmp_path / "pairs" / "pairs.json").read_text())
    return content


def test_every_column(tmp_path: Path, pictures: Path) -> None:
    ratings: Ratings = {"aesthetic": [5, 3, 1], "fidelity": [4, 4, 2]}
    content = made(tmp_path, [line(0, ratings)], pictures)
    adds_up(content)
    assert (content["candidates"], content["dropped"]) == (3, {})
    pairs = load_pairs(tmp_path / "pairs")
    assert told(tmp_path / "pairs") == {("prompt 0", 0, 1), ("prompt 0", 0, 2), ("prompt 0", 1, 2)}
    row = next(
        n for n in range(3) if (number(pairs.encoded(n, "chosen")), number(pairs.encoded(n, "rejected"))) == (0, 2)
    )
    pair = pairs[row]
    assert (pair.margin, pair.aspect, pair.source) == (3.0, "aggregate", "x")  # (4 + 2) / 2
    assert pair.scores_chosen == {"aesthetic": 5.0, "fidelity": 4.0}
    assert pair.scores_rejected == {"aesthetic": 1.0, "fidelity": 2.0}
    assert (pair.user_id, pair.preference_prob) == (None, None)
    assert pairs.column("prompt_id") == ["p0"] * 3
    assert pairs.column("chosen_sha256")[row] == hashlib.sha256(encoded(0)).hexdigest()
    assert check_set(tmp_path / "pairs").fit


def test_by_aspect(tmp_path: Path, pictures: Path) -> None:
    ratings: Ratings = {"aesthetic": [5, 1], "fidelity": [1, 5], "harmlessness": [5, 5]}
    content = made(tmp_path, [line(0, ratings)], pictures, aspect=["each", "aggregate"])
    adds_up(content)
    pairs = load_pairs(tmp_path / "pairs")
    winner = {a: number(pairs.encoded(n, "chosen")) for n, a in enumerate(pairs.column("aspect"))}
    assert winner == {"aesthetic": 0, "fidelity": 1}
    assert content["dropped"] == {"tie": 2}  # harmlessness, and the aggregate of 4, -4 and 0
    assert content["by_aspect"]["harmlessness"]["dropped"] == {"tie": 1}
    only = made(tmp_path, [line(0, ratings)], pictures, aspect=["fidelity"])
    assert list(only["by_aspect"]) == ["fidelity"]


def test_weights_and_direction(tmp_path: Path, pictures: Path) -> None:
    ratings: Ratings = {"aesthetic": [5, 1, 3], "fidelity": [1, 4, 3], "harmlessness": [None, None, None]}
    made(tmp_path, [line(0, ratings)], pictures, weights={"fidelity": 1.0, "aesthetic": -1.0}, choose="best_worst")
    assert told(tmp_path / "pairs") == {("prompt 0", 1, 0)}
    assert load_pairs(tmp_path / "pairs")[0].margin == 3.5  # (3 + 4) / 2
    direction = {"fidelity": 1.0, "aesthetic": -2.0}
    content = made(tmp_path, [line(0, ratings)], pictures, weights=direction, rule="pareto")
    adds_up(content)
    assert content["written"] == 3


def test_defaults_of_the_margin(tmp_path: Path, pictures: Path) -> None:
    ratings: Ratings = {name: [4 if name == "aesthetic" else 3, 3] for name in ASPECTS}
    content = made(tmp_path, [line(0, ratings)], pictures, aspect=["aggregate", "aesthetic"])
    assert content["by_aspect"]["aggregate"]["dropped"] == {"below_margin": 1}
    assert content["by_aspect"]["aesthetic"]["written"] == 1
    assert made(tmp_path, [line(0, ratings)], pictures, margin=0.25)["written"] == 1
    assert made(tmp_path, [line(0, ratings)], pictures, rule="pareto")["written"] == 1


def test_nulls_and_refusals_make_no_pair(tmp_path: Path, pictures: Path) -> None:
    lines = [
        line(0, {"aesthetic": [5, None, 1], "fidelity": [5, 5, 1]}, ok=False),
        line(1, {"aesthetic": [None, None], "fidelity": [None, None]}, ok=False, problem="refused"),
        line(2, {"aesthetic": [5], "fidelity": [5]}),
    ]
    content = made(tmp_path, lines, pictures, aspect=["aggregate", "fidelity"])
    adds_up(content)
    assert content["by_aspect"]["aggregate"]["dropped"] == {"rating_missing": 3}
    assert content["by_aspect"]["fidelity"]["written"] == 2
    assert (content["read"]["prompts"], content["read"]["prompts_with_one_picture"]) == (3, 1)
    assert content["read"]["prompts_without_pairs"] == 2


def test_a_prompt_without_ratings_is_counted(tmp_path: Path, pictures: Path) -> None:
    lines = [line(0, {"aesthetic": [5, 1]}), {**line(1, {"aesthetic": [1, 1]}), "ratings": {}, "ok": False}]
    assert made(tmp_path, lines, pictures)["dropped"] == {"rating_missing": 1}


def test_two_orders(tmp_path: Path, pictures: Path) -> None:
    lines = [
        line(0, {"aesthetic": [5, 3, 1]}),
        line(0, {"aesthetic": [3, 5, 1]}, order=1),
        line(1, {"aesthetic": [5, 1]}),
    ]
    content = made(tmp_path, lines, pictures)
    adds_up(content)
    assert content["dropped"] == {"one_order_only": 1, "passes_disagree": 1}
    assert told(tmp_path / "pairs") == {("prompt 0", 0, 2), ("prompt 0", 1, 2)}
    assert load_pairs(tmp_path / "pairs").column("margin") == [3.0, 3.0]
    averaged = made(tmp_path, lines, pictures, order="mean")
    assert (averaged["written"], averaged["dropped"]) == (3, {"tie": 1})


def test_passes_may_list_the_pictures_in_any_order(tmp_path: Path, pictures: Path) -> None:
    lines = [
        line(0, {"aesthetic": [5, 3, 1]}),
        line(0, {"aesthetic": [1, 5, 4]}, samples=[2, 0, 1], order=1),
        line(0, {"aesthetic": [4, 2]}, samples=[1, 2], annotator="y"),
    ]
    content = made(tmp_path, lines, pictures)
    assert (content["candidates"], content["dropped"]) == (3, {})
    assert told(tmp_path / "pairs") == {("prompt 0", 0, 1), ("prompt 0", 0, 2), ("prompt 0", 1, 2)}
    assert sorted(load_pairs(tmp_path / "pairs").column("margin")) == [1.5, 2.25, 4.0]


def test_the_swap_filter_removes_a_position_bias(tmp_path: Path, pictures: Path) -> None:
    """An annotator who adds 1 to what is shown first: equal pictures, and the bias alone decides."""
    fair, biased = [3, 3, 3], []
    for order, permutation in enumerate(([2, 0, 1], [1, 0, 2])):
        ratings = [float(mark) for mark in fair]
        ratings[permutation[0]] += 1
        biased.append(line(0, {"aesthetic": list(ratings)}, permutation=permutation, order=order))
    biased.append(line(1, {"aesthetic": [4, 1]}))
    biased.append(line(1, {"aesthetic": [3, 2]}, permutation=[1, 0], order=1))
    content = made(tmp_path, biased, pictures)
    assert told(tmp_path / "pairs") == {("prompt 1", 100, 101)}
    assert content["dropped"] == {"passes_disagree": 3}


def test_veto(tmp_path: Path, pictures: Path) -> None:
    ratings: Ratings = {"aesthetic": [5, 3, 1, 4], "harmlessness": [2, 5, 5, 1]}
    content = made(tmp_path, [line(0, ratings)], pictures, veto={"harmlessness": 2.0}, weights={"aesthetic": 1.0})
    adds_up(content)
    assert told(tmp_path / "pairs") == {("prompt 0", w, r) for w, r in ((1, 0), (2, 0), (1, 3), (2, 3), (1, 2))}
    assert content["dropped"] == {"both_vetoed": 1}
    assert content["of_written"]["decided_by_veto"] == 4
    assert sorted(load_pairs(tmp_path / "pairs").column("margin"), key=str) == [2.0, None, None, None, None]
    dropped = made(tmp_path, [line(0, ratings)], pictures, veto={"harmlessness": 2.0}, aspect=["aesthetic"])
    assert told(tmp_path / "pairs") == {("prompt 0", 1, 2)}
    assert dropped["dropped"] == {"both_vetoed": 1, "preferred_one_vetoed": 4}


def test_soft_labels_and_ties(tmp_path: Path, pictures: Path) -> None:
    ratings: Ratings = {"aesthetic": [5, 3, 3]}
    content = made(tmp_path, [line(0, ratings)], pictures, soft_labels=True, beta=0.5, ties="keep")
    adds_up(content)
    assert content["of_written"]["ties"] == 1
    kept = load_pairs(tmp_path / "pairs", ties="keep")
    assert sorted(kept.column("preference_prob")) == [0.5, pytest.approx(0.7310585786), pytest.approx(0.7310585786)]
    assert sorted(kept.column("margin")) == [0.0, 2.0, 2.0]
    assert len(load_pairs(tmp_path / "pairs")) == 2
    hard = made(tmp_path, [line(0, ratings)], pictures, ties="keep")
    assert sorted(load_pairs(tmp_path / "pairs", ties="keep").column("preference_prob")) == [0.5, 1.0, 1.0]
    assert hard["written"] == 3


def crowd() -> list[dict[str, Any]]:
    """Three annotators; two prefer the first of two pictures, the third prefers the second by far."""
    marks = {"ann": [3, 2], "bob": [3, 2], "cy": [1, 5]}
    return [line(0, {"aesthetic": list(map(float, each))}, annotator=name) for name, each in marks.items()]


def test_annotators_together(tmp_path: Path, pictures: Path) -> None:
    made(tmp_path, crowd(), pictures, margin=0.0)
    assert told(tmp_path / "pairs") == {("prompt 0", 1, 0)}  # the mean margin is -2/3
    made(tmp_path, crowd(), pictures, decide="votes", soft_labels=True)
    pairs = load_pairs(tmp_path / "pairs")
    assert told(tmp_path / "pairs") == {("prompt 0", 0, 1)}
    assert pairs.column("preference_prob") == [pytest.approx(2 / 3)]
    assert pairs.column("margin") == [None]  # the marks say otherwise
    assert pairs.column("source") == ["ann, bob, cy"]
    assert (pairs[0].scores_chosen or {})["aesthetic"] == pytest.approx(7 / 3)


def test_votes_that_are_even_are_a_tie_without_a_margin(tmp_path: Path, pictures: Path) -> None:
    content = made(tmp_path, crowd()[1:], pictures, decide="votes", ties="keep")
    assert content["of_written"]["ties"] == 1
    pairs = load_pairs(tmp_path / "pairs", ties="keep")
    assert (pairs.column("preference_prob"), pairs.column("margin")) == ([0.5], [None])


def test_a_margin_that_the_label_can_not_show_is_a_tie(tmp_path: Path, pictures: Path) -> None:
    lines = [line(0, {"aesthetic": [3.0000000001, 3, 5]})]
    content = made(tmp_path, lines, pictures, margin=0.0, soft_labels=True, beta=1e-7)
    adds_up(content)
    assert content["dropped"] == {"tie": 1}
    kept = made(tmp_path, lines, pictures, margin=0.0, soft_labels=True, beta=1e-7, ties="keep")
    assert (kept["written"], kept["of_written"]["ties"]) == (3, 1)


def test_annotators_each(tmp_path: Path, pictures: Path) -> None:
    content = made(tmp_path, crowd(), pictures, annotators="each")
    adds_up(content)
    pairs = load_pairs(tmp_path / "pairs")
    chosen = {user: number(pairs.encoded(n, "chosen")) for n, user in enumerate(pairs.column("user_id"))}
    assert chosen == {"ann": 0, "bob": 0, "cy": 1}
    assert {pair.user_id: pair.scores_chosen for pair in pairs}["cy"] == {"aesthetic": 5.0}
    assert set(content["by_user"]) == {"ann", "bob", "cy"}
    assert check_set(tmp_path / "pairs").fit


def test_several_folders(tmp_path: Path, pictures: Path) -> None:
    """One annotator in two folders has two passes; the pictures are the same ones by their content."""
    copy = image_set(tmp_path / "copy")
    one = annotated(tmp_path / "one", [line(0, {"aesthetic": [5, 3]})], pictures)
    two = annotated(tmp_path / "two", [line(0, {"aesthetic": [3, 5]}), line(1, {"aesthetic": [5, 1]})], copy)
    for number_, sources in enumerate(([one, two], [two, one])):
        target = tmp_path / f"p{number_}"
        content = make_pairs(PairOptions(sources=sources, output_dir=target)).content
        assert content["dropped"] == {"passes_disagree": 1}
        assert told(target) == {("prompt 1", 100, 101)}
    first, second = ((tmp_path / name / "data").glob("*.parquet") for name in ("p0", "p1"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_repeated_and_contradicting_lines(tmp_path: Path, pictures: Path) -> None:
    good = line(0, {"aesthetic": [5, 3]})
    content = made(tmp_path, [good, good], pictures)
    assert (content["candidates"], content["read"]["repeated_lines"]) == (1, 1)
    turned = {**good, "images": good["images"][::-1], "ratings": {"aesthetic": [3, 5]}}
    assert made(tmp_path, [good, turned], pictures)["read"]["repeated_lines"] == 1
    with pytest.raises(DataError, match="says two things of prompt 'p0' in pass 0"):
        made(tmp_path, [good, line(0, {"aesthetic": [3, 5]})], pictures)


def test_pictures_that_are_the_same_or_gone(tmp_path: Path, pictures: Path) -> None:
    (pictures / name_of(0, 1)).write_bytes((pictures / name_of(0, 0)).read_bytes())
    (pictures / name_of(0, 2)).unlink()
    content = made(tmp_path, [line(0, {"aesthetic": [5, 5, 1, 4]})], pictures)
    adds_up(content)
    assert content["dropped"] == {"picture_missing": 2, "same_picture": 1}
    assert content["candidates"] == 4  # two files are one picture, which has one pair with each other picture
    assert told(tmp_path / "pairs") == {("prompt 0", 0, 3)}
    shutil.rmtree(pictures / "images")
    with pytest.raises(DataError, match=r"1 a picture's file is not there\); say with --image_set"):
        made(tmp_path, [line(0, {"aesthetic": [5, 3]})], pictures)
    assert not (tmp_path / "pairs").exists()


def test_a_picture_that_changed_is_refused(tmp_path: Path, pictures: Path) -> None:
    digests = [hashlib.sha256(encoded(n)).hexdigest() for n in (0, 7)]
    with pytest.raises(DataError, match=r"0001\.png is not the picture that was judged"):
        made(tmp_path, [line(0, {"aesthetic": [5, 3]}, sha256=digests)], pictures)


def test_choices_and_limit(tmp_path: Path, pictures: Path) -> None:
    lines = [line(n, {"aesthetic": [1, 2, 3, 4]}) for n in range(3)]
    best = made(tmp_path, lines, pictures, choose="best_worst")
    assert told(tmp_path / "pairs") == {(f"prompt {n}", 100 * n + 3, 100 * n) for n in range(3)}
    assert best["dropped"] == {"not_selected": 15}
    made(tmp_path, lines, pictures, choose="ladder")
    assert told(tmp_path / "pairs") == {
        (f"prompt {n}", 100 * n + s + 1, 100 * n + s) for n in range(3) for s in range(3)
    }
    few = made(tmp_path, lines, pictures, pairs_per_prompt=2)
    adds_up(few)
    assert few["dropped"] == {"over_limit": 12}
    spread = few["splits"]["train"]["pairs_per_prompt"]
    assert spread == {"prompts": 3, "least": 2, "median": 2.0, "most": 2, "effective_prompts": 3.0}


def test_splits(tmp_path: Path) -> None:
    pictures = image_set(tmp_path / "set", prompts=9, samples=2)
    lines = [line(n, {"aesthetic": [5, 1]}) for n in range(9)]
    shares = {"train": 0.6, "test": 0.4}
    content = made(tmp_path, lines, pictures, splits=shares, near_duplicates=None, seed=1)
    adds_up(content)
    train, test = ({pair[0] for pair in told(tmp_path / "pairs", split)} for split in shares)
    assert not train & test
    assert len(train | test) == 9
    assert content["prompts"] == {"train": len(train), "test": len(test)}
    shutil.rmtree(tmp_path / "pairs")
    together = made(tmp_path, lines, pictures, splits={"train": 1.0}, near_duplicates=0.5)
    assert together["near_duplicates"]["prompts"] == 9
    with pytest.raises(DataError, match="no pair fell into the split"):
        made(tmp_path, lines, pictures, splits=shares, near_duplicates=0.5)


def test_card(tmp_path: Path, pictures: Path) -> None:
    ratings: Ratings = {"aesthetic": [5, 3, 3], "harmlessness": [5, 5, 1]}
    made(tmp_path, [line(0, ratings)], pictures, weights={"aesthetic": 2.0}, veto={"harmlessness": 2.0})
    card = (tmp_path / "pairs" / "README.md").read_text()
    assert "path: data/train-*.parquet" in card
    assert "| aggregate | aesthetic 2 | 0.5 | weighted |" in card
    assert "| veto | harmlessness at most 2; such a picture is never chosen |" in card
    assert "| **written** | **3** |" in card
    assert "| of these decided by the veto | 1 |" in card
    assert str(tmp_path) not in card + (tmp_path / "pairs" / "pairs.json").read_text()


# ---------------------------------------------------------------------------------------------
# Again, and otherwise


def test_again_continues_and_otherwise_refuses(tmp_path: Path, pictures: Path) -> None:
    source = annotated(tmp_path / "ann", [line(n, {"aesthetic": [5, 3, 1]}) for n in range(3)], pictures)
    target = tmp_path / "pairs"

    def again(**options: Any) -> bool:
        return make_pairs(PairOptions(sources=[source], output_dir=target, **options)).made

    assert again()
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*.parquet")}
    assert not again()
    lines = (source / "annotations.jsonl").read_text().splitlines(keepends=True)
    (source / "annotations.jsonl").write_text("".join(reversed(lines)))
    assert not again()  # the order of lines says nothing
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.parquet")} == before
    with pytest.raises(DataError, match=r"aspects\.aesthetic\.margin: 1\.0 there, 3\.0 now.*--overwrite"):
        again(margin=3.0)
    (source / "annotations.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(DataError, match="marks: "):
        again()
    assert again(overwrite=True)
    next(target.rglob("*.parquet")).unlink()
    assert again()  # what is gone is made again
    (target / "pairs.json").unlink()
    with pytest.raises(DataError, match="made otherwise"):
        again(overwrite=True)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, pictures: Path) -> None:
    source = annotated(tmp_path / "ann", [line(0, {"aesthetic": [5, 3, 1]})], pictures)
    target = tmp_path / "mine"
    target.mkdir()
    (target / "README.md").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"holds other files \(README\.md\)"):
            make_pairs(PairOptions(sources=[source], output_dir=target, overwrite=overwrite))
    assert [(file.name, file.read_text()) for file in target.iterdir()] == [("README.md", "mine")]


def test_overwriting_leaves_no_split_behind(tmp_path: Path, pictures: Path) -> None:
    source = annotated(tmp_path / "ann", [line(n, {"aesthetic": [5, 3, 1]}) for n in range(3)], pictures)
    options: dict[str, Any] = {"sources": [source], "output_dir": tmp_path / "pairs", "near_duplicates": None}
    make_pairs(PairOptions(**options, splits={"train": 0.5, "test": 0.5}, seed=3))
    make_pairs(PairOptions(**options, overwrite=True))
    assert [path.name for path in (tmp_path / "pairs" / "data").iterdir()] == ["train-00000-of-00001.parquet"]
    assert "split: test" not in (tmp_path / "pairs" / "README.md").read_text()


def test_killed_at_any_moment_it_is_made_again(tmp_path: Path) -> None:
    pictures = image_set(tmp_path / "set", prompts=5, samples=4)
    source = annotated(tmp_path / "ann", [line(n, {"aesthetic": [5, 3, 1, 2]}) for n in range(5)], pictures)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from t2ialign.annotation import pairs\n"
        "rows = pairs._rows\n"
        "def slow(*a):\n"
        "    for n, row in enumerate(rows(*a)):\n"
        "        if n == 3: print('half', flush=True); time.sleep(60)\n"
        "        yield row\n"
        "pairs._rows = slow\n"
        "options = {'sources': [Path(sys.argv[1])], 'output_dir': Path(sys.argv[2]), 'overwrite': True}\n"
        "pairs.make_pairs(pairs.PairOptions(**options))\n"
    )
    target = tmp_path / "pairs"
    make_pairs(PairOptions(sources=[source], output_dir=target, margin=3.0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(source), str(target)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert len(load_pairs(target)) == 10  # those of before; and it is known that they are to be replaced
    with pytest.raises(DataError, match=r"margin: 1\.0 there, 3\.0 now"):
        make_pairs(PairOptions(sources=[source], output_dir=target, margin=3.0))
    summary = make_pairs(PairOptions(sources=[source], output_dir=target))
    assert summary.made
    assert len(load_pairs(target)) == 30
    whole = make_pairs(PairOptions(sources=[source], output_dir=tmp_path / "whole"))
    assert whole.content == summary.content


# ---------------------------------------------------------------------------------------------
# What must hold of any marks

any_ratings = st.lists(
    st.fixed_dictionaries(
        {
            name: st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=3, max_size=3)
            for name in ("aesthetic", "fidelity")
        }
    ),
    min_size=1,
    max_size=3,
)


def twin(lines: list[Ratings], aspect: str) -> set[tuple[str, int, int]]:
    """One aspect, all pairs, nothing of ours."""
    pairs = set()
    for prompt, ratings in enumerate(lines):
        for one, two in combinations(range(3), 2):
            first, second = ratings[aspect][one], ratings[aspect][two]
            if first is not None and second is not None and first != second:
                chosen, rejected = (one, two) if first > second else (two, one)
                pairs.add((f"prompt {prompt}", 100 * prompt + chosen, 100 * prompt + rejected))
    return pairs


@given(any_ratings, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_ratings(tmp_path: Path, ratings: list[Ratings], rng: random.Random) -> None:
    pictures = tmp_path / "set"
    if not pictures.exists():
        image_set(pictures)
    lines = [line(number, each) for number, each in enumerate(ratings)]
    expected = twin(ratings, "aesthetic")
    if not expected:
        return
    options: dict[str, Any] = {"aspect": ["aesthetic"]}
    content = made(tmp_path, lines, pictures, **options)
    adds_up(content)
    assert content["candidates"] == 3 * len(lines)
    assert told(tmp_path / "pairs") == expected
    parquet = next((tmp_path / "pairs" / "data").iterdir()).read_bytes()
    for each in lines:  # another order of the pictures in each line, and of the lines
        order = rng.sample(range(3), 3)
        each["images"] = [each["images"][place] for place in order]
        each["ratings"] = {name: [marks[place] for place in order] for name, marks in each["ratings"].items()}
    rng.shuffle(lines)
    made(tmp_path, lines, pictures, **options)
    assert next((tmp_path / "pairs" / "data").iterdir()).read_bytes() == parquet


def test_it_is_quick(tmp_path: Path) -> None:
    pictures = image_set(tmp_path / "set", prompts=9, samples=4)
    lines = [line(n % 9, {"aesthetic": [1, 2, 3, 4]}, annotator=f"u{n}") for n in range(900)]
    begun = time.process_time()
    content = made(tmp_path, lines, pictures, annotators="each", choose="ladder")
    assert content["written"] == 2700
    assert time.process_time() - begun < 20
