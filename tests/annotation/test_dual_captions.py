"""Dual captions: the three strategies, what comes over, what is counted, and that a stop costs nothing twice."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.chat_server import ChatServer, Raw, problem, words
from helpers.scripted_chat import ScriptedChat
from t2ialign.annotation.captioners import ChatCaptioner
from t2ialign.annotation.dual_captions import write_dual_captions
from t2ialign.annotation.dual_options import DualCaptionOptions
from t2ialign.annotation.perturbers import ChatPerturber
from t2ialign.annotation.word_perturber import perturb_words
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import ConfigError, DataError, ModelError
from t2ialign.mini import resource, world

ROOT = Path(__file__).resolve().parent.parent.parent


def spec(seed: int) -> world.Spec:
    return world.sample_single(np.random.default_rng(seed))


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **({"lossless": True} if format == "WEBP" else {}))
    return buffer.getvalue()


def caption(number: int, side: int) -> str:
    """What the oracle reads in the picture of a pair's side."""
    return world.describe(spec(2 * number + side))


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def row(number: int, **more: Any) -> dict[str, Any]:
    """A pair of the mini-world; its prompt asks for something else than either picture shows."""
    pictures = [encoded(world.render(spec(2 * number + side)), "WEBP") for side in (0, 1)]
    return {"prompt": f"prompt {number}", "chosen": pictures[0], "rejected": pictures[1], **more}


def pairs(folder: Path, rows: list[dict[str, Any]], split: str = "train") -> Path:
    """Writes parquet without the package's writer, as others do: pictures as bytes, further columns."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    cells = [
        {name: {"bytes": v, "path": None} if name in ("chosen", "rejected") else v for name, v in each.items()}
        for each in rows
    ]
    pq.write_table(pa.Table.from_pylist(cells), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def options(source: Path | str, target: Path, strategy: str = "captioning", **more: Any) -> DualCaptionOptions:
    return DualCaptionOptions(pairs=str(source), output_dir=target, strategy=strategy, **more)


def captions(target: Path, split: str = "train") -> list[tuple[Any, ...]]:
    found = load_pairs(target, split=split, ties="keep")
    return list(zip(found.column("chosen_prompt"), found.column("rejected_prompt"), strict=True))


def test_captioning_by_the_oracle(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(4)])
    summary = write_dual_captions(options(source, tmp_path / "out"))
    assert captions(tmp_path / "out") == [(caption(n, 0), caption(n, 1)) for n in range(4)]
    assert (summary.asked, summary.kept, summary.splits["train"].written) == (8, 0, 4)


def test_perturbation_of_the_prompt(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n, prompt=f"a red dog and {n} cats") for n in range(3)])
    write_dual_captions(options(source, tmp_path / "out", "perturbation", strength="strong", seed=5))
    expected = [(f"a red dog and {n} cats", perturb_words(f"a red dog and {n} cats", "strong", 5)) for n in range(3)]
    assert captions(tmp_path / "out") == expected


@pytest.mark.parametrize(("source_side", "side"), [("rejected", 1), ("chosen", 0)])
def test_hybrid(tmp_path: Path, source_side: str, side: int) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(3)])
    write_dual_captions(options(source, tmp_path / "out", "hybrid", hybrid_source=source_side))
    expected = [(caption(n, 0), perturb_words(caption(n, side), "medium", 0)) for n in range(3)]
    assert captions(tmp_path / "out") == expected


def test_everything_else_comes_over(tmp_path: Path) -> None:
    """Pictures to the byte, ties, known and unknown columns, and the other splits, in the order they had."""
    more = {"user_id": "u7", "margin": 0.25, "scores_chosen": '{"a": 1.0}', "preference_prob": 0.5}
    foreign = {"model_0": "sdxl", "ranking": [3, 1], "seen": {"at": 7}}
    rows = [row(n, **more, **foreign) for n in range(70)]  # more than are in memory at once
    source = pairs(tmp_path / "p", rows)
    pairs(source, [row(n, note="x", chosen_prompt="kept", rejected_prompt=None) for n in range(2)], "validation")
    pairs(source, [row(9)], "test")
    write_dual_captions(options(source, tmp_path / "out"))
    for split in ("train", "validation", "test"):
        before = pq.read_table(source / "data" / f"{split}-00000-of-00001.parquet")
        after = pq.read_table(tmp_path / "out" / "data" / f"{split}-00000-of-00001.parquet")
        assert {"chosen_prompt", "rejected_prompt"} <= set(after.column_names)
        for name in before.column_names:
            if split != "train" or name not in ("chosen_prompt", "rejected_prompt"):
                assert after.column(name).to_pylist() == before.column(name).to_pylist(), (split, name)
    assert captions(tmp_path / "out", "validation") == [("kept", None)] * 2
    assert captions(tmp_path / "out", "test") == [(None, None)]
    assert not any(".part" in name or "writing" in name for name in os.listdir(tmp_path / "out"))


def test_the_result_is_a_dataset_for_everyone(tmp_path: Path) -> None:
    import datasets

    source = pairs(tmp_path / "p", [row(n) for n in range(2)])
    pairs(source, [row(5)], "test")
    write_dual_captions(options(source, tmp_path / "out"))
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(each) for split, each in loaded.items()} == {"train": 2, "test": 1}
    assert loaded["train"][0]["chosen_prompt"] == caption(0, 0)
    assert loaded["train"][0]["chosen"].size == (64, 64)


def test_splits_may_be_named_or_all(tmp_path: Path) -> None:
    source = pairs(pairs(tmp_path / "p", [row(0)]), [row(1)], "test")
    write_dual_captions(options(source, tmp_path / "one", split=["test"]))
    assert captions(tmp_path / "one") == [(None, None)]
    assert captions(tmp_path / "one", "test") == [(caption(1, 0), caption(1, 1))]
    summary = write_dual_captions(options(source, tmp_path / "all", split=["all"]))
    assert set(summary.splits) == {"train", "test"}
    assert captions(tmp_path / "all") == [(caption(0, 0), caption(0, 1))]
    with pytest.raises(DataError, match="has no split 'validation'; it has test, train"):
        write_dual_captions(options(source, tmp_path / "no", split=["validation"]))
    assert not (tmp_path / "no").exists()


def test_a_limit_leaves_the_rest_out(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(5)])
    summary = write_dual_captions(options(source, tmp_path / "out", limit=2))
    assert summary.asked == 4
    assert captions(tmp_path / "out") == [(caption(n, 0), caption(n, 1)) for n in range(2)]


@pytest.mark.parametrize("strategy", ["captioning", "hybrid"])
def test_what_becomes_of_pictures_that_cannot_be_read(tmp_path: Path, strategy: str) -> None:
    source = pairs(tmp_path / "p", [row(0), row(1, rejected=noise(1)), row(2, chosen=noise(2), rejected=noise(3))])

    def changed(text: str) -> str:
        return perturb_words(text) if strategy == "hybrid" else text

    summary = write_dual_captions(options(source, tmp_path / "prompt", strategy))
    assert captions(tmp_path / "prompt") == [
        (caption(0, 0), changed(caption(0, 1))),
        (caption(1, 0), changed("prompt 1")),
        ("prompt 2", changed("prompt 2")),
    ]
    counts = summary.splits["train"]
    assert (counts.sides["chosen"].unreadable, counts.sides["rejected"].unreadable) == (1, 2)
    assert (counts.written, counts.dropped, counts.alike) == (3, 0, int(strategy == "captioning"))
    assert "  rejected pictures that could not be captioned: 2" in summary.lines()

    summary = write_dual_captions(options(source, tmp_path / "drop", strategy, on_unreadable="drop"))
    assert captions(tmp_path / "drop") == [(caption(0, 0), changed(caption(0, 1)))]
    assert (summary.splits["train"].written, summary.splits["train"].dropped) == (1, 2)
    assert load_pairs(tmp_path / "drop").prompts == ["prompt 0"]

    with pytest.raises(DataError, match=r"p\[train\] row 1, rejected: there is no caption; --on_unreadable prompt"):
        write_dual_captions(options(source, tmp_path / "error", strategy, on_unreadable="error"))
    assert not (tmp_path / "error" / "data").exists()


@pytest.mark.parametrize("policy", ["prompt", "drop", "error"])
def test_a_captioner_that_reads_nothing_at_all_is_no_captioner(tmp_path: Path, policy: str) -> None:
    source = pairs(tmp_path / "p", [row(n, chosen=noise(2 * n), rejected=noise(2 * n + 1)) for n in range(3)])
    with pytest.raises(DataError, match=r"the captioner oracle could read none of the pictures.*mini-world alone"):
        write_dual_captions(options(source, tmp_path / "out", on_unreadable=policy))


def test_captions_that_are_there_already_can_be_taken(tmp_path: Path) -> None:
    rows = [row(n, chosen_prompt=f"w {n} red", rejected_prompt=f"l {n} red") for n in range(2)]
    rows.append(row(2, chosen_prompt="w 2 red", rejected_prompt=" "))
    source = pairs(tmp_path / "p", rows)
    summary = write_dual_captions(options(source, tmp_path / "out", "hybrid", captioner="given"))
    changed = [perturb_words(text) for text in ("l 0 red", "l 1 red", "prompt 2")]
    assert captions(tmp_path / "out") == [(f"w {n} red", changed[n]) for n in range(3)]
    assert summary.splits["train"].sides["rejected"].unreadable == 1
    bare = pairs(tmp_path / "bare", [row(0)])
    with pytest.raises(DataError, match="has no captions in chosen_prompt and rejected_prompt; name a captioner"):
        write_dual_captions(options(bare, tmp_path / "no", captioner="given"))


def test_a_model_is_asked_once_about_the_same_picture_or_text(tmp_path: Path) -> None:
    same = row(0)
    rows = [row(0), row(1, chosen=same["chosen"]), row(2, rejected=same["chosen"], prompt="prompt 0")]
    source = pairs(tmp_path / "p", rows)
    for with_prompt, distinct in ((False, 4), (True, 5)):
        chat = ScriptedChat(lambda text, images: f"{np.asarray(images[0]).sum()} {len(text)}")
        target = tmp_path / str(with_prompt)
        captioner = ChatCaptioner(chat, with_prompt=with_prompt)
        summary = write_dual_captions(options(source, target), captioner=captioner)
        assert (len(chat.asked), summary.asked) == (distinct, distinct)
        assert len(captions(target)) == 3
    assert chat.closed == 1


def test_what_the_perturber_does_not_change_is_counted(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(3)])
    replies = {"prompt 0": "prompt 0", "prompt 1": "", "prompt 2": "other"}
    for policy, expected in (
        ("prompt", [("prompt 0", "prompt 0"), ("prompt 1", "prompt 1"), ("prompt 2", "other")]),
        ("drop", [("prompt 0", "prompt 0"), ("prompt 2", "other")]),
    ):
        chat = ScriptedChat(lambda text, images: replies[text])
        asked = options(source, tmp_path / policy, "perturbation", on_unreadable=policy)
        summary = write_dual_captions(asked, perturber=ChatPerturber(chat, "weak", "{caption}"))
        assert captions(tmp_path / policy) == expected
        counts = summary.splits["train"]
        assert (counts.unperturbed, counts.unchanged) == (1, 1)
        assert counts.alike == sum(chosen == rejected for chosen, rejected in expected)
        assert len(chat.asked) == 3


def test_captions_that_clip_cuts_are_counted_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(2)])
    chat = ScriptedChat(lambda text, images: "a red circle on white " * (16 if len(chat.asked) == 2 else 1))
    tokenizer = str(resource("mini-sd"))  # it takes 24 tokens
    with caplog.at_level(logging.WARNING, logger="t2ialign"):
        summary = write_dual_captions(
            options(source, tmp_path / "out", tokenizer=tokenizer), captioner=ChatCaptioner(chat)
        )
    assert (
        "chosen_prompt of train that a CLIP text encoder cuts at 24 tokens: 1 of 2 (the longest has 82)" in caplog.text
    )
    assert "rejected_prompt" not in caplog.text
    cut = json.loads((tmp_path / "out" / "captions.json").read_text())["splits"]["train"]["sides"]["chosen"]["cut"]
    assert (cut["count"], cut["longest"], cut["exact"]) == (1, 82, True)
    assert summary.splits["train"].sides["chosen"].cut == cut


def test_the_record_and_the_card(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(2)] + [row(3, rejected=noise(1))])
    write_dual_captions(options(source, tmp_path / "out", "hybrid", seed=3))
    text = (tmp_path / "out" / "captions.json").read_text()
    record = json.loads(text)
    assert record["finished"] is True
    assert record["settings"]["captioner"] == {"captioner": "oracle"}
    assert record["settings"]["perturber"] == {"perturber": "words", "strength": "medium", "share": 0.5}
    assert (record["settings"]["seed"], record["settings"]["hybrid_source"]) == (3, "rejected")
    assert record["splits"]["train"]["sides"]["rejected"]["unreadable"] == 1
    assert "t2ialign" in record["versions"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "a caption of the rejected picture, perturbed" in card
    assert "| rejected pictures that could not be captioned | 1 |" in card
    assert "path: data/train-*.parquet" in card
    assert str(tmp_path) not in text + card


def test_the_same_call_again_does_nothing(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(3)])
    first = write_dual_captions(options(source, tmp_path / "out", "hybrid"))
    files = [*sorted((tmp_path / "out").rglob("*.parquet")), tmp_path / "out" / "answers.jsonl"]
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in files]
    again = write_dual_captions(options(source, tmp_path / "out", "hybrid"))
    assert [(file.stat().st_mtime_ns, file.read_bytes()) for file in files] == before
    assert again.asked == 0
    assert again.splits == first.splits


def test_a_stop_while_the_pairs_are_written_is_continued(tmp_path: Path) -> None:
    source = pairs(pairs(tmp_path / "p", [row(n) for n in range(3)]), [row(7)], "test")
    write_dual_captions(options(source, tmp_path / "out", "hybrid"))
    record, data = tmp_path / "out" / "captions.json", tmp_path / "out" / "data"
    whole = {file.name: file.read_bytes() for file in data.iterdir()}
    record.write_text(json.dumps({**json.loads(record.read_text()), "finished": False, "splits": {}}))
    (data / "test-00000-of-00001.parquet").unlink()
    assert write_dual_captions(options(source, tmp_path / "out", "hybrid")).asked == 0
    assert {file.name: file.read_bytes() for file in data.iterdir()} == whole
    assert json.loads(record.read_text())["finished"] is True


def test_other_options_are_refused_with_the_difference_and_paid_answers_serve_again(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(3)])
    chat = ScriptedChat(lambda text, images: f"sum {np.asarray(images[0]).sum()}")
    write_dual_captions(options(source, tmp_path / "out"), captioner=ChatCaptioner(chat))
    asked = len(chat.asked)
    with pytest.raises(DataError, match=r'seed: nothing there, 0 now; strategy: "captioning" there, "hybrid" now'):
        write_dual_captions(options(source, tmp_path / "out", "hybrid"), captioner=ChatCaptioner(chat))
    summary = write_dual_captions(
        options(source, tmp_path / "out", "hybrid", overwrite=True), captioner=ChatCaptioner(chat)
    )
    assert len(chat.asked) == asked == summary.kept
    assert captions(tmp_path / "out")[0][1] != captions(tmp_path / "out")[0][0]
    other = ChatCaptioner(chat, instruction="Otherwise?")
    with pytest.raises(DataError, match=r"captioner\.instruction: .* there, \"Otherwise\?\" now"):
        write_dual_captions(options(source, tmp_path / "out", "hybrid"), captioner=other)
    write_dual_captions(options(source, tmp_path / "out", "hybrid", overwrite=True), captioner=other)
    assert len(chat.asked) == 2 * asked


def test_a_changed_source_is_another_set(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(3)])
    write_dual_captions(options(source, tmp_path / "out"))
    pairs(source, [row(n) for n in range(4)])
    with pytest.raises(DataError, match=r"made with other options \(fingerprints\.train"):
        write_dual_captions(options(source, tmp_path / "out"))
    assert write_dual_captions(options(source, tmp_path / "out", overwrite=True)).asked == 2


def test_folders_that_are_in_use_are_left_alone(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(0)])
    before = (source / "data" / "train-00000-of-00001.parquet").read_bytes()
    for given in (source, source / "data", source / "data" / "train-00000-of-00001.parquet"):
        with pytest.raises(ConfigError, match="holds the set itself"):
            write_dual_captions(options(given, source, overwrite=True))
    other = pairs(tmp_path / "other", [row(1)])
    with pytest.raises(DataError, match="holds pairs that were made otherwise; choose another folder"):
        write_dual_captions(options(source, other))
    pairs(other, [row(1)], "extra")
    with pytest.raises(DataError, match=r"holds further splits \(extra\)"):
        write_dual_captions(options(source, other, overwrite=True))
    assert (source / "data" / "train-00000-of-00001.parquet").read_bytes() == before
    assert len(load_pairs(other, split="extra")) == 1


def test_a_damaged_picture_is_named_and_what_was_paid_is_kept(tmp_path: Path) -> None:
    broken = row(1)["chosen"]
    source = pairs(tmp_path / "p", [row(0), row(1, chosen=broken[: len(broken) // 2])])
    chat = ScriptedChat(lambda text, images: "a caption")
    with pytest.raises(DataError, match=r"p\[train\] row 1, chosen"):
        write_dual_captions(options(source, tmp_path / "out"), captioner=ChatCaptioner(chat))
    assert len((tmp_path / "out" / "answers.jsonl").read_bytes().splitlines()) == 1
    pairs(source, [row(0), row(2)])
    write_dual_captions(options(source, tmp_path / "out", overwrite=True), captioner=ChatCaptioner(chat))
    assert len(chat.asked) == 4


def test_an_endpoint_that_fails_in_the_middle_is_asked_only_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    source = pairs(tmp_path / "p", [row(n) for n in range(5)])
    broken_after = [4]

    def reply(request: dict[str, Any]) -> str | Raw:
        if broken_after[0] == 0:
            return problem(401, "expired")
        broken_after[0] -= 1
        return f"caption of {words(request)[-200:][:10]} {len(str(request))}"

    with ChatServer(reply) as server:
        spec = f"openai:m?base_url={server.url}&parallel=1"
        wanted = options(source, tmp_path / "out", captioner=spec, on_unreadable="error")
        with pytest.raises(ModelError, match="does not accept the key"):
            write_dual_captions(wanted)
        assert len((tmp_path / "out" / "answers.jsonl").read_bytes().splitlines()) == 4
        assert json.loads((tmp_path / "out" / "captions.json").read_text())["finished"] is False
        broken_after[0] = 99
        summary = write_dual_captions(wanted)
    assert (summary.asked, summary.kept) == (6, 4)
    assert len(server.requests) == 11
    written = "".join(file.read_text() for file in (tmp_path / "out").glob("*.*"))
    assert "sk-secret" not in written
    assert json.loads((tmp_path / "out" / "captions.json").read_text())["captioner"]["captioner"]["endpoint"]


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.scripted_chat import ScriptedChat
from t2ialign.annotation.captioners import ChatCaptioner
from t2ialign.annotation.dual_captions import write_dual_captions
from t2ialign.annotation.dual_options import DualCaptionOptions

asked = Path({asked!r})

def reply(text, images):
    with asked.open("a") as file:
        file.write("x\\n")
    time.sleep(0.02)
    return "a red dog, number " + str(sum(images[0].tobytes()))

chat = ScriptedChat(reply)
options = DualCaptionOptions(pairs={source!r}, output_dir=Path({target!r}), strategy="hybrid")
write_dual_captions(options, captioner=ChatCaptioner(chat), progress=False)
print("done")
"""


def test_a_killed_run_is_continued_without_asking_twice(tmp_path: Path) -> None:
    source = pairs(tmp_path / "p", [row(n) for n in range(20)])
    asked = tmp_path / "asked"
    names = {"tests": str(ROOT / "tests"), "asked": str(asked), "source": str(source)}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(target: Path) -> subprocess.Popen[bytes]:
        code = KILLED.format(**names, target=str(target))
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)

    target = tmp_path / "out"
    for lines in (7, 25):
        process = start(target)
        answers = target / "answers.jsonl"
        while process.poll() is None and (not answers.is_file() or len(answers.read_bytes().splitlines()) < lines):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
    with answers.open("ab") as file:
        file.write(b'{"key": "caption:torn", "te')
    process = start(target)
    assert process.communicate()[0] == b"done\n"
    assert 40 <= len(asked.read_bytes().splitlines()) <= 42  # at most the one under way at each kill is asked again
    whole = start(tmp_path / "whole")
    assert whole.communicate()[0] == b"done\n"
    for name in ("data/train-00000-of-00001.parquet", "answers.jsonl"):
        assert (target / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    for more, message in (
        ({"split": []}, "no split is given"),
        ({"split": ["all", "train"]}, "name splits, or all alone"),
        ({"split": ["train", "train"]}, "name each once"),
        ({"limit": 0}, "limit is 0"),
        ({"hybrid_source": "chosen"}, "hybrid_source is for the strategy hybrid, not for captioning"),
    ):
        with pytest.raises(ConfigError, match=message):
            options("mini-pairs", tmp_path, **more)
