"""Which pairs are shots: what a pair's id and a choice depend on, and that shots and training never meet."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from pathlib import Path

import pytest
import torch

from helpers.pair_sets import encoded, pair
from helpers.users import judged
from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
from t2ialign.errors import ConfigError, DataError
from t2ialign.users.files import UserEmbedding
from t2ialign.users.shots import (
    ShotSettings,
    _draw,
    _generator,
    assert_disjoint,
    choose_shots,
    pair_id,
    training_rows,
    user_rows,
)

USERS = ["ann", "bob"] * 10


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """Ten pairs of each of two users, one after the other."""
    return judged(tmp_path_factory.mktemp("pairs"), USERS)


def embedded(user: str, pairs: PairDataset, *sets: tuple[int, ...]) -> UserEmbedding:
    shots = tuple(tuple(pair_id(pairs, row) for row in each) for each in sets)
    return UserEmbedding(user, torch.ones(len(sets), 1, 2), "x", shots, "set")


def test_a_pair_s_id_is_that_of_its_prompt_and_pictures(pairs: PairDataset) -> None:
    first, second = sorted(hashlib.sha256(encoded(number)).digest() for number in (6, 7))
    prompt = hashlib.sha256(b"prompt 3").hexdigest()
    assert pair_id(pairs, 3) == prompt[:8] + hashlib.sha256(first + second).hexdigest()[:24]


def test_a_pair_is_the_same_wherever_it_stands_and_whatever_the_answer(pairs: PairDataset, tmp_path: Path) -> None:
    turned = pair(5) | {"chosen": encoded(11), "rejected": encoded(10), "user_id": "eve"}
    folder = write_pairs([pair(0) | {"user_id": "eve"}, turned], tmp_path, split="validation")
    copy = load_pairs(folder, split="validation")
    assert pair_id(copy, 1) == pair_id(pairs, 5)
    assert pair_id(copy.select([1]), 0) == pair_id(pairs, 5)
    assert len({pair_id(pairs, row) for row in range(20)}) == 20


def test_another_prompt_or_picture_is_another_pair(tmp_path: Path) -> None:
    rows = [pair(1), pair(1, prompt="else"), pair(1, rejected=encoded(9)), pair(1, chosen=encoded(2, "WEBP"))]
    pairs = load_pairs(write_pairs(rows, tmp_path))
    assert len({pair_id(pairs, row) for row in range(4)}) == 4


def test_every_user_gets_shots_of_their_own(pairs: PairDataset) -> None:
    choice = choose_shots(pairs)
    assert list(choice.rows) == ["ann", "bob"]
    for user, sets in choice.rows.items():
        assert [len(each) for each in sets] == [4]
        assert all(USERS[row] == user for row in sets[0])
        assert len(set(sets[0])) == 4
    assert choice.too_few == {}


def test_the_choice_is_a_function_of_seed_and_user(pairs: PairDataset, tmp_path: Path) -> None:
    choice = choose_shots(pairs, ShotSettings(seed=3)).rows
    alone = choose_shots(pairs, ShotSettings(seed=3), users=["bob"]).rows
    assert alone == {"bob": choice["bob"]}
    others = judged(tmp_path / "more", ["bob" if user == "bob" else "cat" for user in USERS])
    assert choose_shots(others, ShotSettings(seed=3)).rows["bob"] == choice["bob"]
    seeds = {choose_shots(pairs, ShotSettings(seed=seed)).rows["bob"] for seed in range(6)}
    assert len(seeds) > 3
    same = judged(tmp_path / "twins", ["ann"] * 10 + ["bob"] * 10)
    twins = choose_shots(same, ShotSettings(seed=3)).rows
    assert twins["ann"][0] != tuple(row - 10 for row in twins["bob"][0])


def test_the_choice_of_seed_0_stays_what_it_is(pairs: PairDataset) -> None:
    assert choose_shots(pairs).rows == {"ann": ((2, 16, 8, 10),), "bob": ((13, 17, 15, 19),)}


def test_a_pool_as_large_as_all_embeddings_is_cut_without_overlap(pairs: PairDataset) -> None:
    sets = choose_shots(pairs, ShotSettings(shots=3, embeddings=3, pool=9)).rows["ann"]
    assert sorted(row for each in sets for row in each) == sorted({row for each in sets for row in each})
    assert len({row for each in sets for row in each}) == 9


@pytest.mark.parametrize(
    ("shots", "pool", "embeddings"), [(1, 1, 1), (1, 5, 5), (2, 3, 3), (4, 5, 5), (4, 9, 6), (3, 6, 20)]
)
def test_embeddings_are_different_sets_out_of_the_pool(shots: int, pool: int, embeddings: int) -> None:
    """Also where there are just as many sets as embeddings."""
    settings = ShotSettings(shots, embeddings, pool)
    rows = list(range(100, 100 + pool))
    for seed in range(20):
        drawn = _draw(rows, settings, _generator(seed, "ann"))
        assert len({frozenset(each) for each in drawn}) == len(drawn) == embeddings
        assert all(len(set(each)) == shots and set(each) <= set(rows) for each in drawn)


def test_every_pair_of_the_pool_is_used_about_equally(pairs: PairDataset) -> None:
    sets = choose_shots(pairs, ShotSettings(shots=4, embeddings=10, pool=8)).rows["ann"]
    counts = Counter(row for each in sets for row in each)
    assert len(counts) == 8
    assert sum(counts.values()) == 40
    assert max(counts.values()) - min(counts.values()) <= 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shots": 0}, "shots is 0"),
        ({"embeddings": 0}, "embeddings is 0"),
        ({"pool": 3}, "pool is 3, less than the 4 shots"),
        ({"embeddings": 2}, "--pool 6"),
        ({"embeddings": 6, "pool": 5}, "pool of 5 pairs"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShotSettings(**wrong)


def test_the_same_question_asked_twice_is_one_shot_and_never_trained_on(tmp_path: Path) -> None:
    """Six rows of ann that are three different pairs, one of them answered both ways."""
    numbers = [0, 0, 1, 2, 1, 0]
    rows = [pair(number, user_id="ann") for number in numbers]
    rows[5] |= {"chosen": encoded(1), "rejected": encoded(0)}
    pairs = load_pairs(write_pairs(rows, tmp_path))
    shots = choose_shots(pairs, ShotSettings(shots=2), spare=1).rows["ann"]
    assert len({pair_id(pairs, row) for row in shots[0]}) == 2
    left = training_rows(pairs, {"ann": embedded("ann", pairs, *shots)})
    taken = {numbers[row] for row in shots[0]}
    assert left.rows == [row for row, number in enumerate(numbers) if number not in taken]
    assert left.shots == 6 - len(left.rows)
    with pytest.raises(DataError, match="needs 3 different pairs for shots and 1 to train on; 'ann' has 3"):
        raise choose_shots(pairs, ShotSettings(shots=3), spare=1).nobody("set")


def test_users_with_too_few_pairs_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = judged(tmp_path, ["ann"] * 5 + ["bob"] * 4 + ["cat"] * 3)
    with caplog.at_level(logging.WARNING):
        choice = choose_shots(pairs, spare=1)
    assert list(choice.rows) == ["ann"]
    assert choice.too_few == {"bob": 4, "cat": 3}
    assert "2 users have no 4 different pairs for shots and 1 to train on" in caplog.text
    assert "bob, cat" in caplog.text


def test_ties_are_no_shots(tmp_path: Path) -> None:
    probabilities = [0.5, 1.0, 0.5, 0.9, 0.5, 0.7]
    pairs = judged(tmp_path, ["ann"] * 6, ties="keep", preference_prob=probabilities)
    assert len(pairs) == 6
    assert sorted(choose_shots(pairs, ShotSettings(shots=3)).rows["ann"][0]) == [1, 3, 5]


def test_an_unknown_user_is_named(pairs: PairDataset) -> None:
    with pytest.raises(DataError, match="no user 'eve'; it has ann, bob"):
        choose_shots(pairs, users=["ann", "eve"])


def test_pairs_that_name_nobody(tmp_path: Path) -> None:
    pairs = judged(tmp_path / "none", [None] * 3)
    with pytest.raises(DataError, match="user_id"):
        user_rows(pairs)
    assert user_rows(pairs, "alice") == {"alice": [0, 1, 2]}
    some = judged(tmp_path / "some", [None, "ann", None])
    assert user_rows(some, "alice") == {"ann": [1]}


def test_what_is_left_to_train_on(tmp_path: Path) -> None:
    pairs = judged(tmp_path, ["ann", "bob", None, "ann", "cat", "ann", "bob"])
    left = training_rows(pairs, {"ann": embedded("ann", pairs, (0,)), "bob": embedded("bob", pairs, (1,), (5,))})
    assert left.rows == [3, 5, 6]  # row 5 is a shot of bob, but ann's pair
    assert (left.shots, left.unembedded, left.nobody) == (2, 1, 1)
    assert_disjoint(
        pairs.select(left.rows), {"ann": embedded("ann", pairs, (0,)), "bob": embedded("bob", pairs, (1,))}
    )


def test_a_user_left_with_nothing_is_named(tmp_path: Path) -> None:
    pairs = judged(tmp_path, ["ann", "ann", "bob"])
    users = {"ann": embedded("ann", pairs, (0,)), "bob": embedded("bob", pairs, (2,))}
    with pytest.raises(DataError, match="every pair of the user 'bob'"):
        training_rows(pairs, users)
    with pytest.raises(DataError, match="no pair of an embedded user; embedded are eve"):
        training_rows(pairs, {"eve": embedded("eve", pairs, (0,))})


def test_a_shot_among_the_training_pairs_is_found_in_another_copy_of_the_set(tmp_path: Path) -> None:
    first = judged(tmp_path / "first", ["ann"] * 4)
    users = {"ann": embedded("ann", first, (1, 2))}
    rows = [pair(7, user_id="ann"), pair(8, user_id="ann"), pair(2, user_id="bob"), pair(2, user_id="ann")]
    other = load_pairs(write_pairs(rows, tmp_path / "other"))
    assert_disjoint(other.select([0, 1, 2]), users)
    with pytest.raises(DataError, match=r"row 3 is one of the shots .* user 'ann'"):
        assert_disjoint(other.select([1, 3]), users)


def test_pictures_are_read_only_where_a_shot_has_the_prompt(
    pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = {"ann": embedded("ann", pairs, (0, 2)), "bob": embedded("bob", pairs, (1,))}
    read: list[int] = []
    encoded_of = PairDataset.encoded

    def counted(self: PairDataset, index: int, side: str) -> bytes:
        read.append(index)
        return encoded_of(self, index, side)

    monkeypatch.setattr(PairDataset, "encoded", counted)
    training_rows(pairs, users)
    assert set(read) == {0, 1, 2}
