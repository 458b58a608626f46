"""Signals to running commands: they end within a step, with the exit code of the signal, and the same command goes on.

Each command runs in a process of its own and gets a real signal while one of its steps is made slow; what it comes to
when it is continued is compared with a run that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from helpers.eval_tiny import write_suite
from helpers.pairs import colour_pairs
from helpers.rated_sets import mini_set
from helpers.tiny import save_tiny
from helpers.works import Child, Works
from t2ialign.data.pairs import load_pairs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SLOW = pytest.mark.slow
INT, TERM, USR1 = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
STEP = 0.15
"""Seconds that a slowed step takes longer."""
SOON = 30.0
"""Seconds within which a command that was signalled must have ended, on a machine that is busy."""


@pytest.fixture(scope="module")
def works() -> Iterator[Works]:
    with Works() as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, a tiny model and a set of pictures."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny(folder, "sd15")
    lines = [json.dumps({"prompt_id": f"p{i}", "prompt": f"prompt {i}"}) for i in range(4)]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    mini_set(folder / "set", prompts=6, pictures=2)
    colour_pairs(folder / "pairs", 8, user_id=lambda n: "ann" if n % 2 else "bob")
    return folder


def ends_soon(child: Child, *numbers: int, pause: float = 0.0) -> int:
    """Signal a command, and return how it ended; it must do so soon, and with no step beyond the one it was in."""
    begun, steps = time.monotonic(), child.steps
    child.signal(*numbers, pause=pause)
    status = child.wait()
    assert child.steps - steps <= 1, child.said()  # one may begin between our look and the signal
    assert time.monotonic() - begun < SOON, child.said()
    assert "Traceback" not in child.said()
    return status


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def generate(place: Path, output: Path) -> list[object]:
    words: list[object] = ["generate", "--model", place / "tiny-sd15", "--prompts", place / "prompts.jsonl"]
    return [*words, "--num_inference_steps", 12, "--batch_size", 1, "--device", "cpu", "--output_dir", output]


def same_pictures(one: Path, other: Path) -> bool:
    names = sorted(path.relative_to(one) for path in one.rglob("*.png"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("*.png"))
    return bool(names) and all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.mark.parametrize("number", [pytest.param(INT, marks=SLOW), TERM, pytest.param(USR1, marks=SLOW)])
def test_generating_ends_between_two_denoising_steps(
    works: Works, place: Path, tmp_path: Path, number: signal.Signals
) -> None:
    output, log = tmp_path / "set", tmp_path / "log"
    child = works.start(*generate(place, output), log=log, slow={"unet": STEP})  # a picture takes 2 s
    child.until(lambda: lines_of(output / "metadata.jsonl") == 1)
    assert ends_soon(child, number) == 128 + number
    assert f"stopped by {number.name}: 1 of 4 pictures of tiny-sd15 are in {output}" in child.said()
    assert "the same command goes on" in child.said()
    said = works.run(*generate(place, output), log=log)
    assert said.startswith("3 pictures of 4 prompts made in")
    assert "1 were there already" in said
    if not (place / "whole").exists():
        works.run(*generate(place, place / "whole"), log=log)
    assert same_pictures(output, place / "whole")
    assert (output / "metadata.jsonl").read_bytes() == (place / "whole/metadata.jsonl").read_bytes()


def test_a_second_signal_ends_it_at_once_and_one_that_is_told_twice_does_not(
    works: Works, place: Path, tmp_path: Path
) -> None:
    words, log = generate(place, tmp_path / "set"), tmp_path / "log"
    child = works.start(*words, log=log, slow={"unet": 60.0})
    child.until(lambda: child.steps > 0)
    assert ends_soon(child, TERM, TERM, pause=1.5) == -TERM
    child = works.start(*words, log=log, slow={"unet": 2.0})
    child.until(lambda: child.steps > 0)
    assert ends_soon(child, TERM, TERM, INT, pause=0.05) == 143  # as `timeout` and launchers do


@pytest.mark.slow
def test_pairs_of_a_model_with_itself(works: Works, place: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def words(output: Path) -> list[object]:
        return ["data", "self_pairs", *generate(place, output)[1:], "--limit", 2, "--phrase", "ink"]

    child = works.start(*words(tmp_path / "pairs"), log=log, slow={"unet": STEP})
    child.until(lambda: lines_of(tmp_path / "pairs/pictures/chosen/metadata.jsonl") == 1)
    assert ends_soon(child, TERM) == 143
    works.run(*words(tmp_path / "pairs"), log=log)
    works.run(*words(tmp_path / "whole"), log=log)
    assert same_pictures(tmp_path / "pairs", tmp_path / "whole")
    both = zip(load_pairs(tmp_path / "pairs"), load_pairs(tmp_path / "whole"), strict=True)
    assert all(one.chosen.tobytes() == other.chosen.tobytes() for one, other in both)


@pytest.mark.slow
def test_scoring(works: Works, place: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def words(output: Path) -> list[object]:
        file = output / "scores.parquet"
        return ["score", place / "set", "--with", "oracle", "--batch_size", 2, "--workers", 1, "--output", file]

    child = works.start(*words(tmp_path / "stopped"), log=log, slow={"judge": 2 * STEP})
    child.until(lambda: any(lines_of(part) for part in (tmp_path / "stopped").glob("scores.part-0.jsonl")))
    assert ends_soon(child, TERM) == 143
    assert "of 12 pictures); the same command goes on" in child.said()
    kept = int(child.said().partition("pictures)")[0].rpartition("(")[2].split()[0])
    assert 0 < kept < 12
    assert f"{12 - kept} scored, {kept} kept" in works.run(*words(tmp_path / "stopped"), log=log)
    works.run(*words(tmp_path / "whole"), log=log)
    for name in ("scores.parquet", "scores.oracle.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("annotator", ["oracle", "scorers:oracle"])
def test_annotating(works: Works, place: Path, tmp_path: Path, annotator: str) -> None:
    log = tmp_path / "log"

    def words(output: Path) -> list[object]:
        words: list[object] = ["annotate", place / "set", "--annotator", annotator, "--batch_size", 1]
        return [*words, "--output_dir", output]

    output = tmp_path / "stopped"
    child = works.start(*words(output), log=log, slow={"judge": 3 * STEP})
    child.until(lambda: child.steps > 0)
    assert ends_soon(child, USR1) == 128 + USR1
    report = json.loads((output / "report.json").read_text())
    assert (report["status"], report["signal"]) == ("stopped", "SIGUSR1")
    works.run(*words(output), log=log)
    works.run(*words(tmp_path / "whole"), log=log)
    assert (output / "annotations.jsonl").read_bytes() == (tmp_path / "whole/annotations.jsonl").read_bytes()


@pytest.mark.slow
def test_embedding_users(works: Works, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def words(output: Path) -> list[object]:
        return ["users", "embed", "mini-user-pairs", "--split", "test", "--output", output]

    def files(output: Path) -> list[Path]:
        return sorted(output.glob("*.safetensors"))

    child = works.start(*words(tmp_path / "users"), log=log, slow={"extract": 3 * STEP})
    child.until(lambda: len(files(tmp_path / "users")) == 2)
    assert ends_soon(child, INT) == 130
    kept = len(files(tmp_path / "users"))
    assert f"stopped by SIGINT: {kept} of" in child.said()
    works.run(*words(tmp_path / "users"), log=log)
    works.run(*words(tmp_path / "whole"), log=log)
    assert kept < len(files(tmp_path / "whole"))
    for one, other in zip(files(tmp_path / "users"), files(tmp_path / "whole"), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_captions_and_checks(works: Works, place: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def words(output: Path) -> list[object]:
        more = ["--strategy", "captioning", "--captioner", "oracle", "--on_unreadable", "prompt", "--limit", 40]
        return ["data", "captions", "mini-pairs", "--split", "test", *more, "--output_dir", output]

    child = works.start(*words(tmp_path / "stopped"), log=log, slow={"read": STEP})
    child.until(lambda: lines_of(tmp_path / "stopped/answers.jsonl") > 2)
    assert ends_soon(child, TERM) == 143
    works.run(*words(tmp_path / "stopped"), log=log)
    works.run(*words(tmp_path / "whole"), log=log)
    stopped, whole = (load_pairs(tmp_path / name, split="test") for name in ("stopped", "whole"))
    assert stopped.column("chosen_prompt") == whole.column("chosen_prompt")
    child = works.start("data", "check", place / "pairs", log=log, slow={"look": 1.0})
    child.until(lambda: child.steps > 0)
    assert ends_soon(child, TERM) == 143
    assert "a check keeps nothing and begins anew" in child.said()


@pytest.mark.slow
def test_an_evaluation(works: Works, tmp_path: Path) -> None:
    suite, log = write_suite(tmp_path), tmp_path / "log"

    def words(output: Path) -> list[object]:
        models: list[object] = ["--model", "base=mini-sd", "--model", "again=mini-sd", "--device", "cpu"]
        return ["eval", suite, *models, "--resamples", 100, "--workers", 0, "--output_dir", output]

    output = tmp_path / "stopped"
    child = works.start(*words(output), log=log, slow={"read": 0.3})
    child.until(lambda: (output / "sections").exists() and child.steps > 20)  # by then it measures
    assert ends_soon(child, INT) == 130
    assert "stopped by SIGINT: pictures and scores are there, and" in child.said()
    works.run(*words(output), log=log)
    works.run(*words(tmp_path / "whole"), log=log)
    one, two = (pq.read_table(folder / "rows.parquet").to_pylist() for folder in (output, tmp_path / "whole"))
    assert one == two
    assert one


def train(place: Path, output: Path, *more: object) -> list[object]:
    words: list[object] = ["train", "dpo", "--model", place / "tiny-sd15", "--pairs", place / "pairs", "--steps", 4]
    words += ["--batch_size", 4, "--learning_rate", 1e-3, "--sample_every", 2, "--checkpoint_every", 2]
    return [*words, "--workers", 2, "--output_dir", output, *more]


def weights(output: Path) -> dict[str, Any]:
    (file,) = (output / "final").glob("*.safetensors")
    return dict(load_file(file))


@pytest.fixture(scope="module")
def trained(works: Works, place: Path) -> dict[str, Any]:
    works.run(*train(place, place / "trained"), log=place / "log")
    return weights(place / "trained")


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_training_ends_while_sample_pictures_are_drawn(
    works: Works, place: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    output, log = tmp_path / "run", tmp_path / "log"
    child = works.start(*train(place, output), log=log, slow={"unet": STEP})  # the pictures take 8 s
    child.until((output / "samples").exists)
    assert ends_soon(child, USR1) == 128 + USR1
    report = json.loads((output / "report.json").read_text())
    assert (report["status"], report["signal"]) == ("stopped", "SIGUSR1")
    assert report["steps"] == 2
    assert list((output / "samples").glob("*.png")) == []
    works.run(*train(place, output, "--resume", "latest"), log=log)
    assert same_weights(weights(output), trained)
    assert same_pictures(output / "samples", place / "trained/samples")


@pytest.mark.slow
def test_training_ends_while_pictures_are_encoded_and_its_workers_leave_that_to_it(
    works: Works, place: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    output, log = tmp_path / "run", tmp_path / "log"
    more = ("--cache_latents", "true", "--cache_batch_size", 1)
    child = works.start(*train(place, output, *more), log=log, slow={"vae": 1.0})
    child.until(lambda: child.steps > 0)
    assert ends_soon(child, TERM) == 143
    resumed = works.start(*train(place, output, "--resume", "latest", *more), log=log, slow={"unet": STEP}, group=True)
    resumed.until(lambda: lines_of(output / "metrics.jsonl") >= 1)
    begun = time.monotonic()
    os.killpg(resumed.pid, TERM)  # schedulers and launchers tell the workers too
    assert resumed.wait() == 143, resumed.said()
    assert time.monotonic() - begun < SOON
    works.run(*train(place, output, "--resume", "latest", *more), log=log)
    assert same_weights(weights(output), trained)
