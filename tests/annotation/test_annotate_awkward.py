"""Annotating what is awkward: refusals under a budget, pictures that are the same, broken texts, echoed keys."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.annotator_server import Faults, RatingServer
from helpers.chat_server import ChatServer, Raw, completion, problem
from helpers.image_sets import write_plain_set
from helpers.rated_sets import mini_set
from t2ialign.annotation.annotate import annotate
from t2ialign.annotation.annotate_options import AnnotateOptions, RatingChatOptions
from t2ialign.annotation.annotations import FILE, Annotation, read_annotations
from t2ialign.annotation.annotators.replay import ReplayAnnotator
from t2ialign.annotation.sheets import make_sheets
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError, DataError, ModelError

KEY = "sk-secret-0123456789"
PRICES: dict[str, Any] = {"budget": 9.0, "price_prompt": 1.0, "price_completion": 1.0}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def run(
    path: Path, server: RatingServer | ChatServer | None = None, parallel: int = 3, **settings: Any
) -> tuple[dict[str, Any], list[Annotation]]:
    chat = RatingChatOptions(base_url=server.url if server else None, retries=0, timeout=5.0, parallel=parallel)
    given = {"annotator": "openai:m", "output_dir": path.parent / "out", "chat": chat, **settings}
    summary = annotate(AnnotateOptions(image_set=path, **given), progress=False)
    return summary.report, read_annotations(summary.output_dir)


def same_pictures(path: Path, count: int = 2) -> Path:
    fields = {"prompt_id": "p0", "prompt": "a red circle on a gray background", "seed": 0}
    return write_plain_set(path, [(fields | {"sample": n}, Image.new("RGB", (64, 64))) for n in range(count)])


class RefusesByError(RatingServer):
    """Refuses with status 400, as endpoints with a filter before the model do; no tokens are told."""

    def _answer(self, kind: str, question: str, request: dict[str, Any]) -> Raw:
        if kind == "refusal":
            return problem(400, "flagged", "content_policy_violation")
        return super()._answer(kind, question, request)


class TellsHalf(RatingServer):
    """Tells the tokens read, and not those written."""

    def _told(self, raw: Raw, request: dict[str, Any], text: str) -> Raw:
        raw = super()._told(raw, request, text)
        body = json.loads(raw.body)
        del body["usage"]["completion_tokens"]
        raw.body = json.dumps(body).encode()
        return raw


def test_a_refusal_without_token_counts_is_no_end_of_a_budget(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=4, pictures=2)
    with RefusesByError(Faults(refusal=0.5)) as server:
        report, found = run(path, server, parallel=1, **PRICES)
    assert report["status"] == "done"
    assert 0 < report["questions"]["refused"] == server.kinds["refusal"] < len(found) == 4


def test_a_budget_can_not_be_kept_with_half_of_the_tokens(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=4, pictures=2)
    with TellsHalf() as server:
        with pytest.raises(ModelError, match="how many tokens"):
            run(path, server, parallel=1, **PRICES)
        assert sum(server.paid.values()) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_money_is_a_finite_number(tmp_path: Path, value: float) -> None:
    for name in PRICES:
        money: dict[str, Any] = PRICES | {name: value}
        with pytest.raises(ConfigError, match=name):
            AnnotateOptions(image_set=tmp_path, annotator="openai:m", output_dir=tmp_path, **money)


def test_a_budget_is_for_chat_models_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a budget is kept for openai: and hf: alone"):
        run(mini_set(tmp_path / "set", prompts=1, pictures=2), annotator="oracle", **PRICES)


@pytest.mark.parametrize("parallel", [1, 3])
def test_pictures_that_are_the_same_to_the_byte_are_paid_for_once(tmp_path: Path, parallel: int) -> None:
    path = same_pictures(tmp_path / "set")
    with RatingServer() as server:
        report, found = run(path, server, parallel=parallel, second_pass=True)
    assert (report["status"], [each.order for each in found]) == ("done", [0, 1])
    assert sum(server.asked.values()) == 1  # shown in either order they are the same question
    assert len((tmp_path / "out/answers.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("where", ["prompt", "prompt_id"])
def test_half_a_surrogate_pair_is_refused_before_anything_is_paid(tmp_path: Path, where: str) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    meta = path / "metadata.jsonl"
    lines = [json.loads(line) for line in meta.read_text().splitlines()]
    meta.write_text("".join(json.dumps(line | {where: line[where] + "\ud83d"}) + "\n" for line in lines))
    with RatingServer() as server:
        with pytest.raises(DataError, match=r"metadata\.jsonl.*half a character"):
            run(path, server)
        assert not server.paid


def test_a_key_that_comes_back_is_not_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    with ChatServer(lambda request: completion(f"Authorization: {KEY}")) as server:
        run(path, server)
    with ChatServer(lambda request: completion(None, refusal=f"not with {KEY}")) as server:
        run(path, server, output_dir=tmp_path / "refused")
    for cut in (240, 246, 252):  # the text of an error is cut after 300 characters
        answer = problem(400, "x" * cut + KEY)
        refusing = ChatServer(functools.partial(lambda said, request: said, answer))
        with refusing as server, pytest.raises(ModelError) as error:
            run(path, server, output_dir=tmp_path / f"error{cut}")
        assert "sk-" not in str(error.value)
    written = b"".join(
        file.read_bytes() for folder in ("out", "refused") for file in (tmp_path / folder).iterdir() if file.is_file()
    )
    assert b"secret" not in written
    assert b"not with ***" in written
    assert "secret" not in "".join(capfd.readouterr())


def test_a_word_in_place_of_a_key_leaves_answers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "rating")
    with RatingServer() as server:
        _, found = run(mini_set(tmp_path / "set", prompts=1, pictures=2), server)
    assert found[0].ok


def test_settings_of_a_name_and_addresses_are_not_repeated(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    for settings in ("api_key=sk-mine", "sk-mine", "base_url=me:sk-mine@localhost:8000/v1"):
        with pytest.raises(ConfigError) as error:
            run(path, annotator=f"openai:m?{settings}")
        assert "sk-mine" not in str(error.value)
    assert "http://HOST:PORT/v1" in str(error.value)


def test_a_gap_is_that_of_its_sheet(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=6)
    bad, meta = path / "images/p0/0001.png", path / "metadata.jsonl"
    old = hashlib.sha256(bad.read_bytes()).hexdigest()
    bad.write_bytes(b"no picture")
    meta.write_text(meta.read_text().replace(old, hashlib.sha256(bad.read_bytes()).hexdigest()))
    with RatingServer() as server:
        report, found = run(path, server, allow_gaps=True, too_many="split")
    assert [(each.ok, each.problem) for each in found] == [(False, "a picture that can not be read"), (True, "")]
    assert report["annotations"] == {"written": 2, "ok": 1, "not_ok": {"a picture that can not be read": 1}}


@pytest.mark.parametrize("annotator", ["oracle", "openai:m"])
def test_a_missing_picture_is_a_gap_where_gaps_are_allowed(tmp_path: Path, annotator: str) -> None:
    path = mini_set(tmp_path / "set", prompts=2, pictures=2)
    (path / "images/p1/0001.png").unlink()
    with RatingServer() as server:
        with pytest.raises(DataError, match="--allow_gaps"):
            run(path, server, annotator=annotator)
        report, found = run(path, server, annotator=annotator, allow_gaps=True)
    assert [(each.ok, each.problem) for each in found] == [(True, ""), (False, "a picture that can not be read")]
    assert len(report["gaps"]) == 1


def test_a_replay_of_itself_is_refused(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    run(path, annotator="oracle")
    before = (tmp_path / "out" / FILE).read_bytes()
    with pytest.raises(ConfigError, match="choose another folder"):
        run(path, annotator=f"replay:{tmp_path / 'out'}", overwrite=True)
    assert (tmp_path / "out" / FILE).read_bytes() == before


def test_a_replay_tells_pictures_apart_that_are_the_same(tmp_path: Path) -> None:
    (sheet,), _ = make_sheets(ImageSet(same_pictures(tmp_path / "set", 3)), seed=0)
    line = Annotation(
        "p0", sheet.prompt, list("abc"), [2, 0, 1], {"aesthetic": [1, None, 3]}, sha256=list(sheet.sha256)
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILE).write_text(json.dumps(line.to_dict()) + "\n")
    marks = ReplayAnnotator(tmp_path / "out").marks(sheet)
    assert (marks.ratings, marks.permutation) == ({"aesthetic": [1, None, 3]}, (2, 0, 1))


def test_a_failure_is_told_in_the_report(tmp_path: Path) -> None:
    path = same_pictures(tmp_path / "set")
    run(path, annotator="oracle")
    other = mini_set(tmp_path / "other", prompts=1, pictures=2)
    with pytest.raises(DataError, match="holds no annotation of these"):
        run(other, annotator=f"replay:{tmp_path / 'out'}", output_dir=tmp_path / "again")
    report = json.loads((tmp_path / "again/report.json").read_text())
    assert report["status"] == "failed"
    assert "holds no annotation of these" in report["problem"]


@pytest.mark.parametrize("mark", [True, float("nan"), 0, 6])
def test_what_is_no_mark_is_refused(mark: Any) -> None:
    with pytest.raises(DataError, match="aesthetic is"):
        Annotation("p", "x", ["a"], [0], {"aesthetic": [mark]})


def test_a_full_disk_spoils_no_line(tmp_path: Path) -> None:
    """The limit on a file's size takes a part of a line, as a full disk does."""
    code = """
import resource, sys
from pathlib import Path
from t2ialign.annotation.answer_book import AnswerBook
from t2ialign.chat.base import Answer
book = AnswerBook(Path(sys.argv[1]))
book.add(Answer("a", "x" * 50))
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    book.add(Answer("b", "y" * 500))
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
book.add(Answer("b", "z"))
"""
    file = tmp_path / "answers.jsonl"
    told = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert told.stdout.strip() == "refused"
    assert [json.loads(line)["text"] for line in file.read_text().splitlines()] == ["x" * 50, "z"]
