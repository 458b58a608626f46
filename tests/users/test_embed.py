"""From pairs to embeddings and files: what is embedded, what is kept, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.pair_sets import pair
from helpers.users import Colours, judged
from t2ialign.data.pairs import PairDataset, load_pairs, write_pairs
from t2ialign.errors import DataError
from t2ialign.users.embed import embed_into, embed_one, embed_users, user_file
from t2ialign.users.files import UserEmbedding, load_user, save_user
from t2ialign.users.shots import ShotSettings, assert_disjoint, choose_shots, pair_id, training_rows

USERS = ["ann", "bob", "cat"] * 8 + ["dan"] * 2


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """Eight pairs of each of three users, and two of dan."""
    return judged(tmp_path_factory.mktemp("pairs"), USERS)


def same(one: UserEmbedding, other: UserEmbedding) -> bool:
    return torch.equal(one.tokens, other.tokens) and (one.user_id, one.extractor, one.shots, one.pairs) == (
        other.user_id,
        other.extractor,
        other.shots,
        other.pairs,
    )


def test_embeddings_are_of_the_shots_that_were_chosen(pairs: PairDataset) -> None:
    settings = ShotSettings(shots=2, embeddings=3, pool=5, seed=1)
    found = embed_users(pairs, Colours(), settings)
    assert list(found) == ["ann", "bob", "cat"]
    for user, sets in choose_shots(pairs, settings).rows.items():
        embedding = found[user]
        assert embedding.tokens.shape == (3, 2, 3)
        assert embedding.shots == tuple(tuple(pair_id(pairs, row) for row in each) for each in sets)
        assert embedding.extractor == Colours.name
        for tokens, each in zip(embedding.tokens, sets, strict=True):
            assert torch.equal(tokens, Colours().extract([pairs[row] for row in each]))


def test_users_with_too_few_pairs(pairs: PairDataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert "dan" not in embed_users(pairs, Colours())
    assert "1 users have no 4 different pairs" in caplog.text
    with pytest.raises(DataError, match="'dan' has 2: lower --shots"):
        embed_users(pairs, Colours(), users=["dan"])
    with pytest.raises(DataError, match="the most is 8, of 'ann'"):
        embed_users(pairs, Colours(), ShotSettings(shots=8), spare=1)


def test_what_is_embedded_and_what_is_trained_on_never_meet(pairs: PairDataset) -> None:
    users = embed_users(pairs, Colours(), ShotSettings(shots=3, embeddings=4, pool=7), spare=1)
    left = training_rows(pairs, users)
    assert len(left.rows) == 3
    assert (left.shots, left.unembedded) == (21, 2)
    assert_disjoint(pairs.select(left.rows), users)


def test_the_set_s_name_holds_no_path(pairs: PairDataset, tmp_path: Path) -> None:
    folder = write_pairs([pair(n, user_id="ann") for n in range(4)], tmp_path / "deep" / "mine")
    embedding = embed_users(load_pairs(folder), Colours())["ann"]
    assert embedding.pairs == "mine[train]"


def test_an_anonymous_set_is_one_user_s(tmp_path: Path) -> None:
    pairs = judged(tmp_path, [None] * 5)
    assert list(embed_users(pairs, Colours(), anonymous="alice")) == ["alice"]
    with pytest.raises(DataError, match="user_id"):
        embed_users(pairs, Colours())


def test_a_folder_is_what_embedding_in_memory_gives(pairs: PairDataset, tmp_path: Path) -> None:
    made = embed_into(tmp_path / "users", pairs, Colours(), progress=False)
    wanted = embed_users(pairs, Colours())
    assert list(made) == list(wanted)
    names = sorted(path.name for path in (tmp_path / "users").iterdir())
    assert names == ["ann.safetensors", "bob.safetensors", "cat.safetensors"]
    for user, embedding in wanted.items():
        assert same(made[user], embedding)
        assert same(load_user(user_file(tmp_path / "users", user)), embedding)


def test_a_stop_loses_nothing(pairs: PairDataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_into(tmp_path, pairs, Colours(fail_after=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ann.safetensors", "bob.safetensors"]
    first = (tmp_path / "ann.safetensors").read_bytes()
    again = Colours()
    made = embed_into(tmp_path, pairs, again)
    assert again.calls == 1
    assert list(made) == ["ann", "bob", "cat"]
    assert (tmp_path / "ann.safetensors").read_bytes() == first
    assert all(same(made[user], embedding) for user, embedding in embed_users(pairs, Colours()).items())
    idle = Colours()
    embed_into(tmp_path, pairs, idle)
    assert idle.calls == 0


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (ShotSettings(seed=1), Colours.name, r"ann.* was made from 1 x 4 shots of .* 1 x 4 others"),
        (ShotSettings(shots=3), Colours.name, "1 x 3 others"),
        (ShotSettings(shots=4, pool=40), Colours.name, "none, for the user has too few pairs"),
        (ShotSettings(), "colours:else@1", "made by colours:plain@00000000, not by colours:else@1"),
    ],
)
def test_a_folder_of_other_embeddings_is_refused(
    pairs: PairDataset, tmp_path: Path, settings: ShotSettings, name: str, message: str
) -> None:
    embed_into(tmp_path, pairs, Colours())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=message):
        embed_into(tmp_path, pairs, Colours(name), settings)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_with_any_shots_files_are_taken_as_they_are(
    pairs: PairDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even dan's, who has too few pairs here; but not those of another extractor."""
    theirs = UserEmbedding("dan", torch.ones(1, 2, 3), Colours.name, (("x",),), "elsewhere")
    save_user(theirs, user_file(tmp_path, "dan"))
    embed_into(tmp_path, pairs, Colours(), ShotSettings(seed=5), users=["bob"])
    made = embed_into(tmp_path, pairs, Colours(), any_shots=True)
    assert "get no embedding" not in caplog.text
    wanted = embed_users(pairs, Colours())
    assert list(made) == ["ann", "bob", "cat", "dan"]
    assert same(made["ann"], wanted["ann"])
    assert not same(made["bob"], wanted["bob"])
    assert same(made["dan"], theirs)
    only = embed_into(tmp_path, pairs, Colours(), ShotSettings(shots=30), any_shots=True)
    assert list(only) == ["ann", "bob", "cat", "dan"]
    with pytest.raises(DataError, match="not by other"):
        embed_into(tmp_path, pairs, Colours("other:1@2"), any_shots=True)


def test_another_user_s_file_is_no_use(pairs: PairDataset, tmp_path: Path) -> None:
    made = embed_into(tmp_path, pairs, Colours(), users=["ann"])
    save_user(made["ann"], user_file(tmp_path, "bob"))
    with pytest.raises(DataError, match="is the file of the user 'ann', not of 'bob'"):
        embed_into(tmp_path, pairs, Colours())


def test_one_user(pairs: PairDataset, tmp_path: Path) -> None:
    path = tmp_path / "robert.safetensors"
    made = embed_one(path, pairs, Colours(), user="bob")
    assert same(load_user(path), made)
    assert same(made, embed_users(pairs, Colours())["bob"])
    idle = Colours()
    assert same(embed_one(path, pairs, idle, user="bob"), made)
    assert idle.calls == 0
    for arguments, message in (
        ({"settings": ShotSettings(seed=1), "user": "bob"}, "others"),
        ({"user": "ann"}, "file of the user 'bob'"),
    ):
        with pytest.raises(DataError, match=message):
            embed_one(path, pairs, Colours(), **arguments)
    with pytest.raises(DataError, match="'dan' has 2"):
        embed_one(tmp_path / "dan.safetensors", pairs, Colours(), user="dan")


def test_a_picture_that_is_broken_is_named(tmp_path: Path) -> None:
    class Blind(Colours):
        def extract(self, shots: object) -> torch.Tensor:
            raise DataError("nothing to be seen")

    pairs = judged(tmp_path, ["ann"] * 4)
    with pytest.raises(DataError, match=r"user 'ann' of .*: nothing to be seen"):
        embed_users(pairs, Blind())


@pytest.mark.parametrize("name", ["ann", "7", "user-03", "Ann_B.2"])
def test_plain_ids_are_file_names(name: str) -> None:
    assert user_file("users", name) == Path("users") / f"{name}.safetensors"


@given(st.text(min_size=0, max_size=300))
def test_every_id_has_a_file_of_its_own_inside_the_folder(name: str) -> None:
    path = user_file("users", name)
    assert path.parent == Path("users")
    assert len(path.name.encode()) < 200
    assert path.suffix == ".safetensors"
    assert not path.name.startswith(".")
    path.name.encode("ascii")
    assert user_file("users", name + " ") != path
