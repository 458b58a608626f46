"""`t2ialign data cache`: what it fills, training reads; what it can not do, it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.pairs import colour_pairs
from helpers.tiny import save_tiny
from t2ialign.cli.main import main
from t2ialign.trainers.caches.overview import look


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and six pairs."""
    folder = tmp_path_factory.mktemp("cache")
    save_tiny(folder, "sd15")
    colour_pairs(folder / "pairs", 6, chosen_prompt=lambda n: f"red {n}", rejected_prompt=lambda n: f"blue {n}")
    return folder


def words(place: Path, cache: Path, *more: str) -> list[str]:
    common = ["--model", str(place / "tiny-sd15"), "--cache_dir", str(cache), "--mixed_precision", "no"]
    return ["data", "cache", str(place / "pairs"), *common, *more]


def test_training_encodes_nothing_that_the_command_has(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    assert main(words(place, cache, "--flip", "joint", "--captions", "both")) == 0
    assert "latents.added    24" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("shard-*")}
    train = ["train", "dcpo", "--model", str(place / "tiny-sd15"), "--pairs", str(place / "pairs"), "--steps", "1"]
    more = ["--batch_size", "2", "--output_dir", str(tmp_path / "run"), "--cache_dir", str(cache), "--flip", "joint"]
    assert main([*train, *more, "--mixed_precision", "no", "--caption_dropout", "0.5"]) == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("shard-*")} == before
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["cached"] == {"latents": True, "text": True}


def test_what_there_is_is_listed(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"
    assert main(["data", "cache", "--list", "--cache_dir", str(cache)]) == 0
    assert capsys.readouterr().out == "no caches\n"
    assert main(words(place, cache, "--text", "false")) == 0
    assert main(words(place, cache, "--text", "false", "--cache_dtype", "bf16")) == 0
    capsys.readouterr()
    assert main(["data", "cache", "--list", "--cache_dir", str(cache)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert {line.split()[2] for line in shown[1:]} == {"bfloat16", "float32"}
    assert [line.split()[3] for line in shown[1:]] == ["12", "12"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--crop", "random"], "crop_positions"),
        (["--crop_positions", "-1"], "crop_positions is -1"),
        (["--batch_size", "0"], "cache_batch_size is 0"),
        (["--captions", "all"], "captions"),
        (["--resolution", "63"], "resolution is 63"),
    ],
)
def test_what_can_not_be_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert main(words(place, tmp_path / "cache", *more)) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_pairs_and_model_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "--cache_dir", str(tmp_path)]) == 2
    assert "pairs is missing" in capsys.readouterr().err
    assert main(["data", "cache", "mini-pairs", "--cache_dir", str(tmp_path)]) == 2
    assert "model is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_the_work_and_two_launches_the_folder(place: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "t2ialign"]
    many = tmp_path / "many"
    colour_pairs(many, 100)
    command = [*launcher, *words(place, cache)]
    command[command.index(str(place / "pairs"))] = str(many)
    launches = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for launch in launches:
        _, errors = launch.communicate(timeout=600)
        assert launch.returncode == 0, errors[-3000:]
    found = {each["folder"].split("-")[0]: each for each in look(cache)}
    report = json.loads((cache / "report.json").read_text())
    assert report["processes"] == 2
    assert report["latents"]["rows"] == 200
    assert report["latents"]["added"] < 200
    assert found["latents"]["rows"] >= 200
    assert found["latents"]["damaged"] == 0
    assert main([*words(place, cache)[:2], str(many), *words(place, cache)[3:]]) == 0
    again = json.loads((cache / "report.json").read_text())
    assert (again["latents"]["found"], again["latents"]["added"]) == (200, 0)
