"""The answer book: what stands is not asked again, whatever a stop left of the last line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from t2ialign.annotation.answer_book import AnswerBook, question_key
from t2ialign.chat.base import Answer, Usage
from t2ialign.errors import DataError

ONE, NONE, TWO = Answer("a", "eine Katze ☂\n"), Answer("b", None, "dark"), Answer("c", "two")


def filled(path: Path) -> bytes:
    with AnswerBook(path) as book:
        for answer in (ONE, NONE, TWO):
            book.add(answer)
    return path.read_bytes()


def test_what_is_added_is_there_at_once_and_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    book = AnswerBook(path)
    book.add(ONE)
    book.add(NONE)
    assert len(path.read_bytes().splitlines()) == 2  # not waiting for close
    again = AnswerBook(path)
    assert ("a" in again, "z" in again, len(again)) == (True, False, 2)
    assert (again["a"], again["b"]) == (ONE, NONE)
    book.close()
    book.close()


def test_a_key_is_written_once(tmp_path: Path) -> None:
    with AnswerBook(tmp_path / "a") as book:
        book.add(ONE)
        book.add(Answer("a", "something else"))
        assert book["a"] == ONE
    assert len((tmp_path / "a").read_bytes().splitlines()) == 1


def test_what_an_answer_took_and_that_it_was_refused_come_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    said = Answer("a", "yes", usage=Usage(2, 100, 7))
    refused = Answer("b", None, "no", refused=True, usage=Usage(1))
    with AnswerBook(path) as book:
        book.add(said)
        book.add(refused)
        book.add(NONE)
        book.add(Answer("d", "free", usage=Usage(0, 5, None)))
    with AnswerBook(path) as book:
        assert (book["a"], book["a"].usage) == (said, Usage(2, 100, 7))
        assert (book["b"].refused, book["b"].usage, book["b"].reason) == (True, Usage(1, None, None), "no")
        assert list(book.used()) == [Usage(2, 100, 7), Usage(1), Usage(0, 5)]


def test_threads_add_whole_lines_and_a_key_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerBook(path) as book, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: book.add(Answer(str(n % 50), "x" * 500)), range(400)))
    with AnswerBook(path) as book:
        assert len(book) == 50 == path.read_bytes().count(b"\n")


def test_every_place_at_which_a_stop_may_tear_the_file(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole")
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path = tmp_path / "torn"
        path.write_bytes(whole[:size])
        with AnswerBook(path) as book:
            kept = len(book)
            assert kept == sum(size >= end - 1 for end in ends)  # whole lines, the last perhaps without its end
            for answer in (ONE, NONE, TWO):
                book.add(answer)
        assert path.read_bytes() == whole
        path.unlink()


@pytest.mark.parametrize(
    "bad",
    [
        b"{}",
        b"nonsense",
        b'{"key": 1, "text": "x"}',
        b'{"key": "x", "text": 3}',
        b"[]",
        b'{"key": "x", "text": "y", "usage": 3}',
    ],
)
def test_a_damaged_line_in_between_is_named_and_nothing_is_lost(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    content = filled(path).replace(b"\n", b"\n" + bad + b"\n", 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"line 2: no answer.*remove the line to have it asked again"):
        AnswerBook(path)
    assert path.read_bytes() == content


def test_a_key_depends_on_all_that_matters_and_on_nothing_else() -> None:
    key = question_key("caption", {"model": "m", "a": 1}, b"picture", b"prompt")
    assert key == question_key("caption", {"a": 1, "model": "m"}, b"picture", b"prompt")
    assert key.startswith("caption:")
    others = {
        question_key("perturb", {"model": "m", "a": 1}, b"picture", b"prompt"),
        question_key("caption", {"model": "n", "a": 1}, b"picture", b"prompt"),
        question_key("caption", {"model": "m", "a": 1}, b"picturep", b"rompt"),
        question_key("caption", {"model": "m", "a": 1}, b"picture"),
    }
    assert len({key.split(":")[1] for key in others} | {key}) >= 4
    assert key not in others
