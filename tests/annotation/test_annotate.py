"""Annotating a set: over HTTP, with everything that may go wrong; stopped, killed and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.annotator_server import MIXED, Faults, RatingServer, pictures
from helpers.rated_sets import mini_set
from t2ialign.annotation.annotate import annotate
from t2ialign.annotation.annotate_options import AnnotateOptions, RatingChatOptions
from t2ialign.annotation.annotations import ASPECTS, Annotation, image_set_of, read_annotations
from t2ialign.annotation.annotators.oracle import rate
from t2ialign.data.image_sets import ImageSet
from t2ialign.errors import ConfigError, DataError, ModelError

KEY = "sk-secret-0123456789"
FEW = {"timeout": 5.0, "retries": 4, "parallel": 3}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def options(path: Path, server: RatingServer | None = None, **settings: Any) -> AnnotateOptions:
    chat = FEW | {name[5:]: settings.pop(name) for name in list(settings) if name.startswith("chat_")}
    if server is not None:
        settings.setdefault("annotator", "openai:m")
        chat["base_url"] = server.url
    return AnnotateOptions(
        image_set=path, **{"output_dir": path.parent / "out", "chat": RatingChatOptions(**chat), **settings}
    )


def run(path: Path, server: RatingServer | None = None, **settings: Any) -> tuple[dict[str, Any], list[Annotation]]:
    summary = annotate(options(path, server, **settings), progress=False)
    report = json.loads((summary.output_dir / "report.json").read_text())
    assert report == summary.report
    return report, read_annotations(summary.output_dir)


def right(path: Path, annotation: Annotation) -> dict[str, list[int]]:
    """What the oracle's rules say, picture by picture."""
    image_set = ImageSet(path)
    by_name = {record.file_name: record for record in image_set}
    rated = [rate(annotation.prompt, image_set.open(by_name[name])) for name in annotation.images]
    return {aspect: [each[aspect][0] for each in rated] for aspect in ASPECTS}


def test_the_oracle_s_annotations(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=3)
    report, found = run(path, annotator="oracle")
    assert [each.prompt_id for each in found] == ["p0", "p1", "p2"]
    for each in found:
        ratings = each.ratings
        assert [ratings["prompt_following"][n] for n in (0, 2, 3)] == [5, 5, 1]
        assert ratings["prompt_following"][1] in (3, 4)  # one attribute of four or five is wrong
        assert [ratings["aesthetic"][n] for n in (0, 2)] == [5, 1]  # the second stands aside
        assert [marks[3] for marks in ratings.values()] == [1, 1, 1, 5]
        assert each.rationales["prompt_following"][1] == "wrong: color 1"
        assert each.rationales["fidelity"][3].startswith("it can not be read: ")
        assert (each.ok, each.problem, each.annotator, each.order) == (True, "", "oracle", 0)
        assert all(len(digest) == 64 for digest in each.sha256)
    assert report["status"] == "done"
    assert report["annotations"] == {"written": 3, "ok": 3, "not_ok": {}}
    assert report["aspects"]["harmlessness"] == {
        "rated": 12, "missing": 0, "ratings": {"1": 0, "2": 0, "3": 0, "4": 0, "5": 12},
    }  # fmt: skip
    assert image_set_of(tmp_path / "out").resolve() == path.resolve()


@pytest.mark.parametrize("calls", ["joint", "per_aspect"])
@pytest.mark.parametrize("scale", ["numbers", "words"])
def test_ratings_come_back_to_their_pictures(tmp_path: Path, calls: str, scale: str) -> None:
    path = mini_set(tmp_path / "set", prompts=3, pictures=3)
    with RatingServer() as server:
        report, found = run(path, server, calls=calls, scale=scale, second_pass=True)
    assert [each.order for each in found] == [0, 1] * 3
    assert found[1].permutation == found[0].permutation[::-1]
    for each in found:
        assert each.ratings == right(path, each)
        assert each.rationales["prompt_following"][1].startswith("wrong: color 1")
        assert each.usage["calls"] == len(each.raw) == (1 if calls == "joint" else 4)
        assert {"scale": scale, "calls": calls, "model": "m", "seed": 0}.items() <= each.params.items()
    assert sum(server.asked.values()) == (6 if calls == "joint" else 24)
    assert report["swap"]["fidelity"] == {
        "prompts": 3, "pairs": 9, "same": 9, "opposite": 0, "one_tie": 0, "consistency": 1.0,
        "interval": report["swap"]["fidelity"]["interval"],
    }  # fmt: skip


def test_one_aspect_is_asked_for_at_a_time_and_each_picture_after_its_name(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    with RatingServer() as server:
        run(path, server, calls="per_aspect", chat_parallel=1)
        (content,) = {json.dumps([p["type"] for p in r["messages"][0]["content"]]) for r in server.requests}
    assert json.loads(content) == ["text", "image_url", "text", "image_url", "text"]
    first = server.requests[0]
    assert [part["text"] for part in first["messages"][0]["content"][0:3:2]] == ["picture_1:", "picture_2:"]
    held = first["response_format"]
    assert (held["type"], held["json_schema"]["strict"]) == ("json_schema", True)
    assert held["json_schema"]["schema"]["required"] == ["picture_1", "picture_2"]
    asked = [r["response_format"]["json_schema"]["schema"]["properties"]["picture_1"] for r in server.requests]
    assert [one["required"] for one in asked] == [[aspect] for aspect in ASPECTS]
    assert first["max_tokens"] == 2048


def test_a_mixture_of_faults_loses_nothing_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=20, pictures=3)
    with RatingServer(MIXED, seed=1) as server:
        report, found = run(path, server, second_pass=True, chat_retries=6)
        kinds, calls = dict(server.kinds), sum(server.asked.values())
        again, more = run(path, server, second_pass=True, chat_retries=6)
        assert sum(server.asked.values()) == calls  # all of it was on disk
    assert more == found
    assert again["this_run"]["answers"] == 0
    assert min(kinds[kind] for kind in ("busy", "failing", "malformed", "refusal", "slow", "right")) > 0
    assert max(server.paid.values()) == 1
    assert len(found) == 40
    refused = [each for each in found if each.problem == "refused"]
    unreadable = [each for each in found if each.problem == "unreadable"]
    assert len(refused) == kinds["refusal"] == report["questions"]["refused"]
    assert len(unreadable) == report["questions"]["unreadable"]
    for each in refused + unreadable:
        assert not each.ok
        assert {rating for marks in each.ratings.values() for rating in marks} == {None}
    for each in refused:
        assert "I can not rate" in each.raw[-1] or "I'm sorry" in each.raw[-1]
    for each in unreadable:
        assert len(each.raw) == 3
    assert report["questions"]["answered"] + len(refused) + len(unreadable) == 40
    assert report["questions"]["asked_again"] == kinds["malformed"] - len(unreadable)
    assert report["this_run"]["sent_again_for"] == {"429": kinds["busy"], "500": kinds["failing"]}
    assert report["usage"]["requests"] == calls
    checked = 0
    for each in found:
        if each.ok:  # right, but for the bias that was planted
            first = each.permutation[0]
            for aspect, marks in right(path, each).items():
                given = [rating for rating in each.ratings[aspect]]
                higher = [min(5, mark + 1) if place == first else mark for place, mark in enumerate(marks)]
                assert given in (marks, higher)
                checked += given != marks
    assert checked > 0
    assert report["swap"]["prompt_following"]["consistency"] < 1


def test_a_question_is_repeated_with_what_was_wrong_then_it_is_null(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=1)
    with RatingServer(Faults(malformed=1.0)) as server:
        report, (found,) = run(path, server)
        texts = [request["messages"][0]["content"][-1]["text"] for request in server.requests]
    assert [("could not be used" in text) for text in texts] == [False, True, True]
    assert len(set(texts)) == 3
    assert (found.ok, found.problem, len(found.raw), found.usage["calls"]) == (False, "unreadable", 3, 3)
    assert report["questions"] == {
        "answered": 0, "refused": 0, "unreadable": 1, "no_answer": 0, "open": 0, "asked_again": 2,
    }  # fmt: skip
    assert report["annotations"]["not_ok"] == {"unreadable": 1}
    with RatingServer(Faults(malformed=1.0)) as server:
        run(path, server, repeats=0, output_dir=tmp_path / "once")
        assert len(server.requests) == 1


def test_a_server_that_knows_no_schema_is_asked_in_words(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=3)
    with RatingServer(Faults(deaf=True)) as server:
        report, found = run(path, server, chat_parallel=1)
    assert [request.get("response_format", {}).get("type") for request in server.requests] == [
        "json_schema", "json_object", None, None, None,
    ]  # fmt: skip
    assert all(each.ratings == right(path, each) for each in found)
    assert report["who"]["model"]["response_format"] == "none"


def test_tokens_and_money_are_counted_and_the_budget_stops_it(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=12)
    prices = {"price_prompt": 2.0, "price_completion": 8.0}
    with RatingServer() as server:
        whole, _ = run(path, server, output_dir=tmp_path / "whole", **prices)
        usage = whole["usage"]
        assert usage["cost"] == pytest.approx((usage["prompt_tokens"] * 2 + usage["completion_tokens"] * 8) / 1e6)
        server.asked.clear()
        report, found = run(path, server, budget=usage["cost"] / 2, **prices)
        half = sum(server.asked.values())
        assert report["status"] == "budget"
        assert "the budget is spent" in report["problem"]
        assert usage["cost"] / 2 * 0.6 < report["usage"]["cost"] <= usage["cost"] / 2
        assert len(found) == half < 12
        assert sum(each.usage["cost"] for each in found) == pytest.approx(report["usage"]["cost"])
        report, found = run(path, server, budget=usage["cost"] / 2, **prices)  # asks nothing
        assert (report["status"], sum(server.asked.values())) == ("budget", half)
        report, found = run(path, server, budget=usage["cost"] * 1.5, **prices)
        assert (report["status"], len(found), sum(server.asked.values())) == ("done", 12, 12)
    assert max(server.asked.values()) == 1
    assert report["usage"]["cost"] == pytest.approx(usage["cost"])


def test_a_budget_that_can_not_be_kept_is_refused(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=3)
    with pytest.raises(ConfigError, match="a budget needs prices"):
        options(path, annotator="openai:m", budget=3.0, price_prompt=1.0)
    with RatingServer(Faults(untold=True)) as server:
        with pytest.raises(ModelError, match="does not say how many tokens an answer takes"):
            run(path, server, budget=3.0, price_prompt=1.0, price_completion=1.0, chat_parallel=1)
        report, found = run(path, server, price_prompt=1.0, price_completion=1.0)
    assert report["usage"]["answers_without_token_counts"] == 3
    assert "cost" not in found[0].usage
    assert max(server.paid.values()) == 1


def test_pictures_are_shrunk_before_they_are_shown_where_that_is_asked_for(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=1, pictures=2)
    with RatingServer() as server:
        for side in (None, 32, 999):
            run(path, server, longest_side=side, output_dir=tmp_path / str(side))
        sizes = [{picture.size for picture in pictures(request).values()} for request in server.requests]
    assert sizes == [{(64, 64)}, {(32, 32)}, {(64, 64)}]


def test_requests_keep_a_rate(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=6, pictures=2)
    with RatingServer() as server:
        begun = time.monotonic()
        run(path, server, chat_requests_per_minute=600)
        assert time.monotonic() - begun >= 0.5  # six requests, a tenth of a second apart
        assert len(server.requests) == 6


class EveryThirdFails(RatingServer):
    """Answers 500 to every third call."""

    def _kind(self, question: str, time: int) -> str:
        return "failing" if sum(self.asked.values()) % 3 == 0 else "right"


def test_a_question_that_the_endpoint_leaves_is_asked_another_time(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=8, pictures=2)
    with EveryThirdFails() as server:
        report, found = run(path, server, chat_retries=0, chat_parallel=1)
        assert (report["status"], len(found), report["questions"]["open"]) == ("incomplete", 6, 2)
        assert report["problem"].startswith("2 questions were not answered, the first: ")
        left = {"p2", "p5"}
        assert {each.prompt_id for each in found} == {f"p{n}" for n in range(8)} - left
        for open_ in (1, 0):
            report, found = run(path, server, chat_retries=0, chat_parallel=1)
            assert report["questions"]["open"] == open_
        assert (report["status"], len(found), max(server.paid.values())) == ("done", 8, 1)


def test_an_endpoint_that_is_gone_ends_it_and_what_is_there_is_written(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=9, pictures=2)
    with RatingServer() as server:
        run(path, server, limit=2)
    with pytest.raises(ModelError, match=r"does not answer.*the same command continues"):
        run(path, server, overwrite=True, chat_retries=0)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["status"], report["annotations"]["written"]) == ("failed", 2)
    assert "does not answer" in report["problem"]


def test_changed_options_are_shown_and_refused_and_answers_that_fit_are_kept(tmp_path: Path) -> None:
    path = mini_set(tmp_path / "set", prompts=3, pictures=2)
    with RatingServer() as server:
        run(path, server, limit=2)
        with pytest.raises(
            DataError, match=r"made with other options \(annotator.scale: \"numbers\" there, \"words\""
        ):
            run(path, server, limit=2, scale="words")
        with pytest.raises(DataError, match=r"limit: 2 there, null now.*seed: 0 there, 1 now"):
            run(path, server, seed=1)
        assert len(read_annotations(tmp_path / "out")) == 2
        run(path, server, overwrite=True)
        assert (len(server.requests), max(server.paid.values())) == (3, 1)
        run(path, server, price_prompt=1.0, price_completion=1.0, chat_parallel=1)  # changes nothing that was said
        assert len(server.requests) == 3
    with pytest.raises(DataError, match=r"other options.*annotator"):
        run(path, annotator="oracle")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds other files \(notes.txt\)"):
        run(path, annotator="oracle", output_dir=other)
    with pytest.raises(ConfigError, match="is the image set itself"):
        run(path, annotator="oracle", output_dir=path)
    with pytest.raises(ConfigError, match="oracle sees no order"):
        run(path, annotator="oracle", output_dir=tmp_path / "new", second_pass=True)


def test_the_key_is_written_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = mini_set(tmp_path / "set", prompts=2, pictures=2)
    with RatingServer() as server:
        run(path, server, annotator=f"openai:m?base_url={server.url}")
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert b"secret" not in written
    assert str(tmp_path).encode() not in written
    assert "secret" not in "".join(capfd.readouterr())


def test_a_picture_that_can_not_be_read_stops_it_or_is_a_counted_gap(tmp_path: Path) -> None:
    import hashlib

    path = mini_set(tmp_path / "set", prompts=3, pictures=2)
    bad = path / "images/p1/0001.png"
    old = hashlib.sha256(bad.read_bytes()).hexdigest()
    bad.write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    new = hashlib.sha256(bad.read_bytes()).hexdigest()
    meta = path / "metadata.jsonl"
    meta.write_text(meta.read_text().replace(old, new))
    with RatingServer() as server:
        with pytest.raises(DataError, match=r"p1/0001\.png"):
            run(path, server, chat_parallel=1)
        assert len(read_annotations(tmp_path / "out")) == 1
        report, found = run(path, server, allow_gaps=True, overwrite=True)
        assert max(server.paid.values()) == 1
    assert [each.ok for each in found] == [True, False, True]
    assert (found[1].problem, list(report["gaps"])) == ("a picture that can not be read", ["p1"])
    with pytest.raises(DataError, match=r"p1/0001\.png"):
        run(path, annotator="oracle", output_dir=tmp_path / "o")
    _, found = run(path, annotator="oracle", output_dir=tmp_path / "o", allow_gaps=True, overwrite=True)
    assert found[1].ratings["fidelity"][0] is not None
    assert found[1].ratings["fidelity"][1] is None


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
sys.path[:0] = {paths!r}
from t2ialign.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def child(path: Path, server: RatingServer, out: Path, *more: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    words = ["annotate", str(path), "--annotator", "openai:m", "--output_dir", str(out), "--second_pass"]
    words += ["--chat.base_url", server.url, "--chat.parallel", "3", *more]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(paths=[str(root)]), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until(server: RatingServer, paid: int, process: subprocess.Popen[bytes]) -> None:
    """Waits for so many answers."""
    begun = time.monotonic()
    while sum(server.paid.values()) < paid and process.poll() is None:
        assert time.monotonic() - begun < 60
        time.sleep(0.005)


def test_killed_at_any_moment_it_pays_for_no_answer_that_it_got(tmp_path: Path) -> None:
    path, out = mini_set(tmp_path / "set", prompts=20, pictures=2), tmp_path / "out"
    faults = Faults(busy=0.05, malformed=0.15, refusal=0.05, delay=0.02, bias=0.5)
    with RatingServer(faults, seed=5) as server:
        _, expected = run(path, server, second_pass=True, output_dir=tmp_path / "whole")
    with RatingServer(faults, seed=5) as server:
        kills = 2
        for number in range(kills):
            process = child(path, server, out)
            until(server, 14 * (number + 1), process)
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            time.sleep(0.2)  # what was under way arrives nowhere
            written = (out / "answers.jsonl").read_bytes().count(b"\n")
            assert sum(server.paid.values()) - 3 * (number + 1) <= written  # but for those under way, all are on disk
        process = child(path, server, out)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error.decode()
        twice = sum(count - 1 for count in server.paid.values())
        assert twice <= kills * 3  # at most the three under way at each kill
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "done"
    got = read_annotations(out)
    assert [(each.prompt_id, each.order) for each in got] == [(each.prompt_id, each.order) for each in expected]
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == sum(each.usage["calls"] for each in got)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_cleanly_and_the_same_command_continues(tmp_path: Path, number: signal.Signals) -> None:
    path, out = mini_set(tmp_path / "set", prompts=12, pictures=2), tmp_path / "out"
    with RatingServer(Faults(delay=0.05)) as server:
        process = child(path, server, out)
        until(server, 5, process)
        process.send_signal(number)
        said, error = process.communicate(timeout=60)
        assert process.returncode == 128 + number, error.decode()
        report = json.loads((out / "report.json").read_text())
        assert (report["status"], report["signal"]) == ("stopped", number.name)
        assert b"stopped: " in said
        kept = read_annotations(out)
        assert len(kept) == sum(server.paid.values()) < 24
        report, found = run(path, server, second_pass=True)
        assert (report["status"], len(found), max(server.paid.values())) == ("done", 24, 1)
    assert [each for each in found if each in kept] == kept


def test_a_signal_ends_the_pause_that_a_busy_endpoint_asks_for(tmp_path: Path) -> None:
    path, out = mini_set(tmp_path / "set", prompts=3, pictures=2), tmp_path / "out"
    with RatingServer(Faults(busy=1.0, retry_after=50.0)) as server:
        process = child(path, server, out)
        begun = time.monotonic()
        while not server.asked and process.poll() is None and time.monotonic() - begun < 60:
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        process.communicate(timeout=60)
        assert process.returncode == 143
        assert time.monotonic() - begun < 10


def test_two_at_once_on_a_folder_are_refused(tmp_path: Path) -> None:
    path, out = mini_set(tmp_path / "set", prompts=6, pictures=2), tmp_path / "out"
    with RatingServer(Faults(delay=0.5)) as server:
        process = child(path, server, out)
        until(server, 1, process)
        with pytest.raises(DataError, match="another run is writing"):
            run(path, server, second_pass=True)
        process.kill()
        process.communicate()
