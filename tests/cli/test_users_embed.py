"""`t2ialign users embed`: one user's file, a folder of users, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.users import judged
from t2ialign.cli.main import main
from t2ialign.users.embed import embed_users
from t2ialign.users.extractors import load_extractor
from t2ialign.users.files import load_user
from t2ialign.users.shots import ShotSettings

USERS = ["ann", "bob"] * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pairs") / "two"
    judged(target, USERS)
    return target


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("pairs") / "nameless"
    judged(target, [None] * 5)
    return target


def embed(pairs: Path, output: Path, *more: str) -> int:
    return main(["users", "embed", str(pairs), "--output", str(output), "--device", "cpu", *more])


def test_one_user(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "users" / "b.safetensors"
    assert embed(folder, path, "--user", "bob", "--shots", "2", "--embeddings", "3", "--pool", "4", "--seed", "7") == 0
    from t2ialign.data.pairs import load_pairs

    settings = ShotSettings(shots=2, embeddings=3, pool=4, seed=7)
    wanted = embed_users(load_pairs(folder), load_extractor("clip:mini-clip", "cpu"), settings)["bob"]
    found = load_user(path)
    assert found.tokens.equal(wanted.tokens)
    assert (found.user_id, found.shots, found.extractor) == ("bob", wanted.shots, wanted.extractor)
    shown = capsys.readouterr().out
    assert "bob: 3 x 2 shots of" in shown
    assert "(5 pairs)" in shown
    assert str(path) in shown


def test_which_user_must_be_said_where_there_are_several(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(folder, tmp_path / "x.safetensors") == 2
    assert "has 2 users: choose one with --user, or give a folder as --output: ann, bob" in capsys.readouterr().err
    assert embed(folder, tmp_path / "x.safetensors", "--user", "eve") == 1
    assert "no user 'eve'; it has ann, bob" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_anonymous_set_is_named_after_the_file(nameless: Path, tmp_path: Path) -> None:
    assert embed(nameless, tmp_path / "alice.safetensors") == 0
    assert load_user(tmp_path / "alice.safetensors").user_id == "alice"
    assert embed(nameless, tmp_path / "x.safetensors", "--user", "carol") == 0
    assert load_user(tmp_path / "x.safetensors").user_id == "carol"
    assert embed(nameless, tmp_path / "users", "--user", "carol") == 0
    assert load_user(tmp_path / "users" / "carol.safetensors").user_id == "carol"


def test_a_folder_of_users_is_continued(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(folder, tmp_path / "users", "--user", "bob") == 0
    first = (tmp_path / "users" / "bob.safetensors").read_bytes()
    assert embed(folder, tmp_path / "users") == 0
    assert sorted(path.name for path in (tmp_path / "users").iterdir()) == ["ann.safetensors", "bob.safetensors"]
    assert (tmp_path / "users" / "bob.safetensors").read_bytes() == first
    assert "2 users of" in capsys.readouterr().out
    assert embed(folder, tmp_path / "users", "--seed", "1") == 1
    assert "give the same options or another name" in capsys.readouterr().err
    assert (tmp_path / "users" / "bob.safetensors").read_bytes() == first


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--shots", "0"], 2, "shots is 0"),
        (["--shots", "9"], 1, "a user needs 9 different pairs"),
        (["--embeddings", "4"], 2, "make it larger, for instance --pool 8"),
        (["--extractor", "clop:mini-clip"], 2, "did you mean clip:mini-clip?"),
        (["--extractor", "vlm:owner/name"], 1, "hf download owner/name"),
        (["--split", "test"], 1, "has no split 'test'"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    assert embed(folder, tmp_path / "users", *more) == code
    assert message in capsys.readouterr().err.splitlines()[0]
    assert not (tmp_path / "users").exists()


def test_another_kind_of_file_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(folder, tmp_path / "alice.pt") == 2
    assert "*.safetensors" in capsys.readouterr().err
