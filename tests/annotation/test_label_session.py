"""Answers on disk: the log, the pairs that follow from it, going back, two people at once, and stops at any moment."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from helpers.image_sets import write_plain_set
from helpers.labels import image_set
from helpers.pair_sets import picture
from t2ialign.annotation.label.answers import AnswerLog, file_stem, read_log
from t2ialign.annotation.label.folder import PairFolder
from t2ialign.annotation.label.options import LabelOptions
from t2ialign.annotation.label.run import open_session
from t2ialign.annotation.label.session import NotOpenError, Session
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import ConfigError, DataError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return image_set(tmp_path / "set")


class Person:
    """Opens a session, answers, and closes it."""

    def __init__(self, images: Path, output: Path, **more: Any) -> None:
        self.session, self.log = open_session(LabelOptions(images=str(images), output_dir=output, **more))

    def say(self, *words: str) -> None:
        for word in words:
            if word == "undo":
                self.session.undo()
            else:
                question = self.session.state()["question"]
                self.session.answer(question["number"], word, 1.5)

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, *_: object) -> None:
        self.log.close()


def lines(output: Path, name: str = "metadata.jsonl") -> list[dict[str, Any]]:
    path = output / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def test_answers_become_pairs(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    person = Person(images, out, user="alice", aspect="aesthetic")
    person.say("left", "right", "tie", "skip")
    logged = lines(out, "answers/alice.jsonl")[1:]
    assert [line["answer"] for line in logged] == ["left", "right", "tie", "skip"]
    assert logged[0]["seconds"] == 1.5
    pairs = load_pairs(out, ties="keep")
    assert len(pairs) == 3
    for index, line in enumerate(logged[:3]):
        sides = ("right", "left") if line["answer"] == "right" else ("left", "right")
        for column, side in zip(("chosen", "rejected"), sides, strict=True):
            data = (images / line[side]).read_bytes()
            assert pairs.encoded(index, column) == data
            assert line[f"{side}_sha256"] == hashlib.sha256(data).hexdigest()
    assert pairs.column("user_id") == ["alice"] * 3
    assert pairs.column("aspect") == ["aesthetic"] * 3
    assert pairs.column("source") == ["label:set"] * 3
    assert pairs.column("preference_prob") == [None, None, 0.5]
    assert pairs.column("chosen_side") == ["left", "right", None]
    assert len(load_pairs(out)) == 2
    counts = json.loads((out / "label.json").read_text())
    assert counts == {
        "format": 1,
        "pairs": 3,
        "ties": 1,
        "users": {
            "alice": {"set": "set", "seed": 0, "left": 1, "right": 1, "ties": 1, "skipped": 1, "undone": 0},
        },
    }
    assert "m0" not in (out / "metadata.jsonl").read_text()
    person.log.close()


def test_pairs_live_without_the_set(images: Path, tmp_path: Path) -> None:
    import shutil

    person = Person(images, tmp_path / "labels")
    person.say("left", "right")
    person.log.close()
    shutil.rmtree(images)
    pairs = load_pairs(tmp_path / "labels")
    assert {pair.chosen.size for pair in pairs} == {(16, 16)}


def test_the_state_says_nothing_of_where_pictures_come_from(images: Path, tmp_path: Path) -> None:
    with Person(images, tmp_path / "labels") as session:
        shown = json.dumps(session.state())
    assert not any(word in shown for word in ("m0", "m1", ".png", "images", str(tmp_path)))


def test_undo_goes_back_as_far_as_there_is(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    person = Person(images, out)
    numbers = []
    for word in ("left", "tie", "skip", "right"):
        numbers.append(person.session.state()["question"]["number"])
        person.say(word)
    for number in reversed(numbers):
        person.say("undo")
        assert person.session.state()["question"]["number"] == number
    assert not person.session.state()["can_undo"]
    with pytest.raises(NotOpenError, match="nothing to take back"):
        person.session.undo()
    assert lines(out) == []
    person.say("right", "right")
    assert person.session.state()["question"]["number"] == numbers[2]
    assert [line["chosen_side"] for line in lines(out)] == ["right", "right"]
    assert len(lines(out, "answers/me.jsonl")) == 1 + 4 + 4 + 2
    assert json.loads((out / "label.json").read_text())["users"]["me"]["undone"] == 4
    person.log.close()


def test_an_answer_to_another_question_is_none(images: Path, tmp_path: Path) -> None:
    with Person(images, tmp_path / "labels") as session:
        session.answer(0, "left")
        for number in (0, 2, -1):
            with pytest.raises(NotOpenError):
                session.answer(number, "right")
        with pytest.raises(ValueError, match="no answer"):
            session.answer(1, "both")
        assert session.counts() == {"left": 1, "right": 0, "tie": 0, "skip": 0}
        assert session.state()["question"]["number"] == 1


def test_goes_on_where_it_was(images: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = ["left", "skip", "undo", "right", "tie", "left", "undo", "undo", "left", "right", "right"]
    person = Person(images, whole)
    person.say(*words)
    person.log.close()
    for word in words:
        person = Person(images, parts)
        person.say(word)
        person.log.close()
    assert (parts / "metadata.jsonl").read_text() == (whole / "metadata.jsonl").read_text()
    with Person(images, parts) as session:
        assert session.state()["answered"] == 5


def test_to_the_end_and_back(images: Path, tmp_path: Path) -> None:
    person = Person(images, tmp_path / "labels", limit=3)
    person.say("left", "left", "left")
    state = person.session.state()
    assert (state["question"], state["next"], state["answered"], state["total"]) == (None, None, 3, 3)
    person.say("undo", "right")
    assert person.session.state()["question"] is None
    person.log.close()
    with Person(images, tmp_path / "labels", limit=5) as session:
        assert (session.state()["answered"], session.state()["total"]) == (3, 5)
        assert session.state()["question"]["number"] == 3


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_line_is_taken_back(images: Path, tmp_path: Path, cut: int) -> None:
    out = tmp_path / "labels"
    person = Person(images, out)
    person.say("left", "right")
    person.log.close()
    log = out / "answers/me.jsonl"
    log.write_bytes(log.read_bytes()[:-cut])
    (out / "metadata.jsonl").unlink()
    with Person(images, out) as session:
        assert session.state()["answered"] == 1
        session.answer(1, "tie")
    assert [line["chosen_side"] for line in lines(out)] == ["left", None]
    _, answers = read_log(log)
    assert [answer.answer for answer in answers] == ["left", "tie"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="files can not be limited here")
def test_a_disk_that_takes_half_a_line_keeps_none_of_it(images: Path, tmp_path: Path) -> None:
    """The limit on a file's size does what a full disk does: a part is written, and no error is raised for it."""
    import resource

    out = tmp_path / "labels"
    person = Person(images, out)
    person.say("left")
    log = out / "answers/me.jsonl"
    before = log.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            person.say("skip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.read_bytes() == before
    assert person.session.state()["answered"] == 1
    person.say("right")
    person.log.close()
    _, answers = read_log(log)
    assert [answer.answer for answer in answers] == ["left", "right"]
    assert [line["chosen_side"] for line in lines(out)] == ["left", "right"]


def test_a_set_made_anew_under_its_name_is_refused(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    person = Person(images, out)
    person.say("skip", "left")
    person.log.close()
    kept = out.joinpath("metadata.jsonl").read_bytes()
    larger = image_set(tmp_path / "larger/set", prompts=4)
    Person(larger, out).log.close()  # the same pictures and more
    other = image_set(tmp_path / "other/set", size=(24, 24))
    with pytest.raises(DataError, match=r"another picture than set/.* is now; give another --user"):
        Person(other, out)
    assert out.joinpath("metadata.jsonl").read_bytes() == kept
    Person(other, out, user="bob").log.close()
    metadata = images / "metadata.jsonl"
    text = metadata.read_text(encoding="utf-8")
    for number, record in enumerate(ImageSet(images).records):
        text = text.replace(record.sha256, f"{number:064d}")
    metadata.write_text(text, encoding="utf-8")
    Person(images, out).log.close()  # the set's digests are wrong, its pictures are not


def test_a_stop_before_the_pairs_were_written_is_made_good(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    person = Person(images, out)
    person.say("left", "right")
    before = (out / "metadata.jsonl").read_text()
    person.say("tie")
    after = (out / "metadata.jsonl").read_text()
    person.log.close()
    (out / "metadata.jsonl").write_text(before)
    Person(images, out).log.close()
    assert (out / "metadata.jsonl").read_text() == after


def test_a_torn_first_line_begins_anew(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    (out / "answers").mkdir(parents=True)
    (out / "answers/me.jsonl").write_text('{"format": 1, "us')
    with Person(images, out) as session:
        session.answer(0, "left")
    assert lines(out, "answers/me.jsonl")[0]["set"] == "set"


def test_a_damaged_line_is_named_and_nothing_is_lost(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    person = Person(images, out)
    person.say("left", "right")
    person.log.close()
    log = out / "answers/me.jsonl"
    text = log.read_text()
    for damaged in (text.replace('"left", "prompt_id"', '"lft", "prompt_id"'), text.replace("}\n{", "\n{", 1)):
        assert damaged != text
        log.write_text(damaged)
        with pytest.raises(DataError, match=r"me\.jsonl, line [123]: no answer"):
            Person(images, out)
        assert log.read_text() == damaged
        assert len(lines(out)) == 2


def test_two_people_in_one_folder_at_once(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    people = [Person(images, out, user=user) for user in ("alice", "bob smith")]
    words = ["left", "right", "tie", "undo", "skip", "left", "right"]
    threads = [threading.Thread(target=person.say, args=words) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for person in people:
        assert person.session.state()["answered"] == 5
        person.log.close()
    pairs = load_pairs(out)
    assert sorted(pairs.column("user_id")) == ["alice"] * 4 + ["bob smith"] * 4
    assert set(json.loads((out / "label.json").read_text())["users"]) == {"alice", "bob smith"}


def test_one_person_twice_at_once_is_refused(images: Path, tmp_path: Path) -> None:
    with Person(images, tmp_path / "labels"), pytest.raises(DataError, match="me labels there now"):
        Person(images, tmp_path / "labels")
    Person(images, tmp_path / "labels").log.close()


@pytest.mark.parametrize(
    ("change", "shown"),
    [({"seed": 1}, "seed: 0 there, 1 now"), ({"aspect": "x"}, "aspect: None there"), ({"question": "?"}, "question")],
)
def test_other_options_are_refused(images: Path, tmp_path: Path, change: dict[str, Any], shown: str) -> None:
    Person(images, tmp_path / "labels").log.close()
    with pytest.raises(DataError, match=shown):
        Person(images, tmp_path / "labels", **change)
    Person(images, tmp_path / "labels", user="another", **change).log.close()


def test_folders_that_hold_something_else_are_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/metadata.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"holds 'metadata\.jsonl'"):
        Person(images, tmp_path / "other")
    for inside in (images, images / "labels", tmp_path):
        with pytest.raises(ConfigError, match="lie in each other"):
            Person(images, inside)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        PairFolder(tmp_path / "file")
    single = image_set(tmp_path / "single", pictures=1)
    with pytest.raises(DataError, match="images_per_prompt 2"):
        Person(single, tmp_path / "labels")


def test_what_cannot_be_judged_is_passed_over_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = image_set(tmp_path / "set", prompts=3, pictures=2)
    (images / "images/p1/0000.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    twins = [({"prompt_id": "t", "prompt": "twins", "sample": k}, picture(5)) for k in range(2)]
    write_plain_set(tmp_path / "twins", twins)
    picture(5).save(tmp_path / "twins/images/t/0001.png", compress_level=9, pnginfo=None, dpi=(72, 72))
    text = (tmp_path / "twins/metadata.jsonl").read_text().replace('"sha256": ', '"other": ')
    (tmp_path / "twins/metadata.jsonl").write_text(text)
    person = Person(images, tmp_path / "labels")
    person.say("left", "left")
    state = person.session.state()
    assert (state["question"], state["total"], state["passed_over"]) == (None, 2, 1)
    assert dict(person.session.passed_over) == {"unreadable": 1}
    assert "passed over: " in caplog.text
    assert "0000.png" in caplog.text
    person.log.close()
    with Person(tmp_path / "twins", tmp_path / "more") as session:
        assert session.state()["total"] == 0
        assert dict(session.passed_over) == {"identical": 1}


def test_only_pictures_that_are_asked_about_are_handed_out(images: Path, tmp_path: Path) -> None:
    with Person(images, tmp_path / "labels") as session:
        question = session._questions[0]
        for side in ("left", "right"):
            data, kind = session.picture(0, side)
            assert data == (images / question.name(side)).read_bytes()
            assert kind == "image/png"
        session.picture(1, "left")
        for number, side in ((2, "left"), (-1, "left"), (10**9, "left"), (0, "up")):
            with pytest.raises(NotOpenError):
                session.picture(number, side)
        session.answer(0, "skip")
        with pytest.raises(NotOpenError):
            session.picture(0, "left")


def test_implausible_durations_are_not_kept(images: Path, tmp_path: Path) -> None:
    with Person(images, tmp_path / "labels") as session:
        for number, seconds in enumerate((-1.0, float("nan"), float("inf"), 1e9, 10**400)):
            session.answer(number, "left", seconds)
    _, answers = read_log(tmp_path / "labels/answers/me.jsonl")
    assert [answer.seconds for answer in answers] == [None] * 5


@pytest.mark.parametrize("user", ["alice", "../../etc/passwd", "a/b", "ü", ".", "a" * 100, "CON:", "x\\y"])
def test_a_user_is_a_plain_file(tmp_path: Path, user: str) -> None:
    stem = file_stem(user)
    assert stem.replace("-", "").replace("_", "").isalnum()
    assert stem.isascii()
    (tmp_path / "answers").mkdir()
    with AnswerLog(tmp_path, user, {}) as log:
        assert log.path.parent == tmp_path / "answers"
    assert len({file_stem(each) for each in (user, user + " ", user + "_x")}) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", 0), ("pairs_per_prompt", 0), ("port", 70_000), ("user", " "), ("user", "a\nb"), ("question", "")],
)
def test_options_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        LabelOptions(**{"images": "set", "output_dir": Path("out"), name: value})
