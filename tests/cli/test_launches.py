"""Commands in two processes of a launch: the work of one, one message of an error, and stops that reach both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.eval_tiny import write_suite
from helpers.pairs import colour_pairs
from helpers.rated_sets import mini_set
from helpers.tiny import save_tiny
from t2ialign.cli.main import main
from t2ialign.data.image_sets import ImageSet

ROOT = Path(__file__).resolve().parents[2]
TOGETHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
pytestmark = pytest.mark.slow


def start(words: Iterable[object], log: Path) -> subprocess.Popen[bytes]:
    """Begin a command in two processes."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *TOGETHER, "-m", "t2ialign", *map(str, words)]
    with log.open("wb") as said:
        return subprocess.Popen(command, env=settings, stdout=said, stderr=said, cwd=ROOT)


def run(words: Iterable[object], log: Path) -> str:
    """Run a command in two processes to its end; it must succeed."""
    assert start(words, log).wait(timeout=600) == 0, log.read_text()[-3000:]
    return log.read_text()


def alone(words: Iterable[object]) -> str:
    """Run a command here, to its end; it must succeed."""
    with redirect_stdout(StringIO()) as said:
        assert main([str(word) for word in words]) == 0
    return said.getvalue()


def ranks(launcher: subprocess.Popen[bytes]) -> list[int]:
    """The processes of a launch, in the order of their ranks."""
    told = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return sorted(int(pid) for pid in told)


def until(there: Any, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not there():
        assert running.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    save_tiny(folder, "sd15")
    lines = [json.dumps({"prompt_id": f"p{i}", "prompt": f"prompt {i}"}) for i in range(5)]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    mini_set(folder / "set", prompts=5, pictures=2)
    return folder


def generate(place: Path, output: Path, *more: object) -> list[object]:
    words: list[object] = ["generate", "--model", place / "tiny-sd15", "--prompts", place / "prompts.jsonl"]
    return [*words, "--device", "cpu", "--output_dir", output, *more]


def same_sets(one: Path, other: Path) -> None:
    """Equal records, and pictures that agree within 1/255."""
    mine, theirs = ImageSet(one), ImageSet(other)
    assert [record.key for record in mine] == [record.key for record in theirs]
    for record, twin in zip(mine, theirs, strict=True):
        assert (record.file_name, record.seed) == (twin.file_name, twin.seed)
        pixels = [np.asarray(Image.open(each.file(record)), int) for each in (mine, theirs)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_two_processes_make_the_set_of_one_and_go_on_with_it(place: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    more = ("--images_per_prompt", 2, "--num_inference_steps", 4)
    one = alone(generate(place, tmp_path / "alone", *more, "--batch_size", 1))
    two = run(generate(place, tmp_path / "together", *more, "--batch_size", 1), log)
    assert one.split(" made")[0] == two.split(" made")[0] == "10 pictures of 5 prompts"
    assert (tmp_path / "alone/metadata.jsonl").read_bytes() == (tmp_path / "together/metadata.jsonl").read_bytes()
    same_sets(tmp_path / "alone", tmp_path / "together")
    # what is missing is dealt out evenly, whoever made the rest
    alone(generate(place, tmp_path / "more", "--batch_size", 3, "--num_inference_steps", 4))
    assert "5 pictures of 5 prompts made" in run(generate(place, tmp_path / "more", *more, "--batch_size", 3), log)
    same_sets(tmp_path / "alone", tmp_path / "more")


def test_one_process_is_told_and_both_stop(place: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "set", tmp_path / "log"
    more = ("--images_per_prompt", 4, "--batch_size", 1, "--num_inference_steps", 60)
    running = start(generate(place, output, *more), log)
    until(lambda: len(list(output.glob("images/*/*.png"))) > 2, running, log)
    os.kill(ranks(running)[-1], signal.SIGUSR1)
    assert running.wait(timeout=120) == 1  # the launcher's own code
    said = log.read_text()
    assert said.count("stopped by SIGUSR1: at least") == 1
    assert f"exitcode  : {128 + signal.SIGUSR1}" in said
    kept = len(ImageSet(output))
    assert 2 < kept < 20
    assert f"{kept} were there already" in alone(generate(place, output, *more))  # by another number of processes
    alone(generate(place, tmp_path / "whole", *more))
    assert (output / "metadata.jsonl").read_bytes() == (tmp_path / "whole/metadata.jsonl").read_bytes()


def test_pairs_of_a_model_with_itself_and_annotations(place: Path, tmp_path: Path) -> None:
    def words(name: str) -> list[list[object]]:
        more = ("--batch_size", 1, "--num_inference_steps", 4, "--phrase", "ink")
        rated: list[object] = ["annotate", place / "set", "--annotator", "scorers:oracle", "--batch_size", 3]
        drawn = generate(place, tmp_path / name / "pairs", *more)[1:]
        return [["data", "self_pairs", *drawn], [*rated, "--output_dir", tmp_path / name / "rated"]]

    for one, two in zip(words("alone"), words("together"), strict=True):
        assert alone(one).split(" made")[0] == run(two, tmp_path / "log").split(" made")[0].replace(
            "together", "alone"
        )
    for file in ("pairs/self_pairs.json", "rated/annotations.jsonl", "rated/scores.parquet"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "together" / file).read_bytes()
    for side in ("chosen", "rejected"):
        same_sets(*(tmp_path / name / "pairs/pictures" / side for name in ("alone", "together")))
    mine, theirs = (next((tmp_path / name / "pairs/data").glob("*.parquet")) for name in ("alone", "together"))
    assert pq.read_table(mine).equals(pq.read_table(theirs))


def test_an_error_of_one_process_is_told_once(place: Path, tmp_path: Path) -> None:
    broken, log = mini_set(tmp_path / "set", prompts=4, pictures=1), tmp_path / "log"
    (broken / "images/p1/0000.png").write_bytes(b"no picture")
    words = ["score", broken, "--with", "oracle", "--batch_size", 1, "--workers", 0]
    begun = time.monotonic()
    assert start(words, log).wait(timeout=120) == 1
    assert time.monotonic() - begun < 90
    said = log.read_text()
    assert said.count("error: ") == 1
    assert "p1/0000.png" in said
    assert start(["score", tmp_path / "nowhere", "--with", "oracle"], log).wait(timeout=120) == 1
    assert log.read_text().count("error: ") == 1


def test_an_evaluation_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    suite, log = write_suite(tmp_path), tmp_path / "log"

    def words(name: str) -> list[object]:
        models: list[object] = ["--model", "base=mini-sd", "--model", "again=mini-sd", "--device", "cpu"]
        return ["eval", suite, *models, "--resamples", 100, "--workers", 0, "--output_dir", tmp_path / name]

    alone(words("alone"))
    run(words("together"), log)
    one, two = (pq.read_table(tmp_path / name / "rows.parquet").to_pylist() for name in ("alone", "together"))
    assert one == two
    assert one
    assert "everything was there already" in alone(words("together"))


def test_training_stops_where_one_process_waits_for_the_other(place: Path, tmp_path: Path) -> None:
    colour_pairs(tmp_path / "pairs", 8)
    (tmp_path / "shown.txt").write_text("".join(f"prompt {number}\n" for number in range(80)))
    output, log = tmp_path / "run", tmp_path / "log"
    words: list[object] = ["train", "dpo", "--model", place / "tiny-sd15", "--pairs", tmp_path / "pairs", "--steps", 3]
    words += ["--batch_size", 2, "--gradient_accumulation_steps", 1, "--sample_every", 1, "--checkpoint_every", 0]
    words += ["--sample_prompts", tmp_path / "shown.txt", "--output_dir", output]
    running = start(words, log)
    until((output / "samples").exists, running, log)
    os.kill(ranks(running)[-1], signal.SIGTERM)  # it waits for the first one, which draws
    assert running.wait(timeout=120) == 1
    assert "exitcode  : 143" in log.read_text()
    report = json.loads((output / "report.json").read_text())
    assert (report["status"], report["signal"], report["steps"]) == ("stopped", "SIGTERM", 1)
    assert list((output / "samples").glob("*.png")) == []
    resumed = start([*words, "--resume", "latest"], log)
    until(lambda: (output / "samples/step-000001.png").exists(), resumed, log)
    resumed.send_signal(signal.SIGTERM)  # to the launcher, which tells its processes
    assert resumed.wait(timeout=120) != 0
    report = json.loads((output / "report.json").read_text())
    assert (report["status"], report["signal"]) == ("stopped", "SIGTERM")


def test_one_process_is_told_while_both_fill_a_cache(place: Path, tmp_path: Path) -> None:
    colour_pairs(tmp_path / "pairs", 1500)
    output, cache, log = tmp_path / "run", tmp_path / "cache", tmp_path / "log"
    words: list[object] = ["train", "dpo", "--model", place / "tiny-sd15", "--pairs", tmp_path / "pairs", "--steps", 3]
    words += ["--cache_latents", "true", "--cache_text", "true", "--cache_dir", cache, "--cache_batch_size", 1]
    words += ["--batch_size", 2, "--checkpoint_every", 0, "--output_dir", output]
    running = start(words, log)
    until(lambda: list(cache.glob("*/shard-*")), running, log)  # captions come first; the pictures are under way
    os.kill(ranks(running)[-1], signal.SIGTERM)
    assert running.wait(timeout=120) == 1
    assert "exitcode  : 143" in log.read_text()
    report = json.loads((output / "report.json").read_text())
    assert (report["status"], report["signal"], report["steps"]) == ("stopped", "SIGTERM", 0)
