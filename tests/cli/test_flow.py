"""The whole loop through the command line, on a random-weight pipeline: import, check, train, generate, grid, score,
compare, export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import save_tiny
from t2ialign.cli.main import main

PROMPTS = ("a red circle", "a blue square", "a green triangle")


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, pictures to import and a prompt file."""
    folder = tmp_path_factory.mktemp("flow")
    save_tiny(folder, "sd15")
    for number, side in enumerate(("chosen", "rejected")):
        (folder / "raw" / side).mkdir(parents=True)
        for index in range(6):
            picture(10 * number + index).save(folder / "raw" / side / f"{index}.png")
    lines = [json.dumps({"file_name": f"{index}.png", "prompt": PROMPTS[index % 3]}) for index in range(6)]
    (folder / "raw" / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pairs(place: Path) -> Path:
    target = place / "pairs"
    assert main(["data", "import", "folders", str(place / "raw"), "--output_dir", str(target)]) == 0
    return target


@pytest.fixture(scope="module")
def run(place: Path, pairs: Path) -> Path:
    target = place / "run"
    words = ["train", "dpo", "--model", str(place / "tiny-sd15"), "--pairs", str(pairs), "--output_dir", str(target)]
    assert main([*words, "--steps", "2", "--batch_size", "2", "--learning_rate", "1e-3", "--lora.rank", "2"]) == 0
    return target


@pytest.fixture(scope="module")
def sets(place: Path, run: Path) -> tuple[Path, Path]:
    common = ["generate", "--model", str(place / "tiny-sd15"), "--prompts", str(place / "prompts.txt")]
    common += ["--num_inference_steps", "2", "--images_per_prompt", "2", "--height", "64", "--width", "64"]
    base, tuned = place / "base", place / "tuned"
    assert main([*common, "--output_dir", str(base)]) == 0
    assert main([*common, "--adapter", str(run / "final"), "--output_dir", str(tuned)]) == 0
    for folder in (base, tuned):
        assert main(["score", str(folder), "--with", "oracle"]) == 0
    return base, tuned


def test_check_passes_good_pairs_and_says_so(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(pairs), "--output", str(tmp_path / "check.json")]) == 0
    assert capsys.readouterr().out
    found = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert found["splits"]["train"]["pairs"] == 6


def test_check_fails_broken_pairs(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "broken"
    for name in ("chosen", "rejected"):
        (target / name).mkdir(parents=True)
        picture(3).save(target / name / "0.png")
    (target / "rejected" / "0.png").write_bytes((target / "chosen" / "0.png").read_bytes()[:200])
    row = {"prompt": "a red circle", "chosen": "chosen/0.png", "rejected": "rejected/0.png"}
    (target / "metadata.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert main(["data", "check", str(target)]) == 1


def test_training_leaves_its_files(run: Path) -> None:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["steps"] == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert (run / "final" / "pytorch_lora_weights.safetensors").is_file()
    assert (run / "final" / "README.md").is_file()


def test_a_run_s_configuration_starts_the_same_run(run: Path, tmp_path: Path) -> None:
    assert main(["train", "dpo", "--config", str(run / "config.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
    first = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    text = (tmp_path / "again" / "metrics.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["loss"] for line in text.splitlines()] == first


def test_an_output_folder_in_use_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dpo", "--config", str(run / "config.yaml")]) in (1, 2)
    assert "error: " in capsys.readouterr().err


def test_generate_makes_sets_that_differ_by_the_adapter_alone(sets: tuple[Path, Path]) -> None:
    seeds = []
    for folder in sets:
        records = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(records) == 6
        seeds.append({(record["prompt_id"], record["sample"]): record["seed"] for record in records})
    assert seeds[0] == seeds[1]


def test_generate_continues(sets: tuple[Path, Path], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "--model", str(place / "tiny-sd15"), "--prompts", str(place / "prompts.txt")]
    words += ["--num_inference_steps", "2", "--images_per_prompt", "2", "--height", "64", "--width", "64"]
    assert main([*words, "--output_dir", str(sets[0])]) == 0
    assert "0 pictures" in capsys.readouterr().out


def test_grid(sets: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "grid.png"
    assert (
        main(["grid", *map(str, sets), "--output", str(target), "--max_prompts", "2", "--labels", "before,after"]) == 0
    )
    with Image.open(target) as grid:
        assert grid.format == "PNG"
        assert min(grid.size) > 128


def test_score_shows_and_keeps(sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert (sets[0] / "scores.parquet").is_file()
    assert main(["score", str(sets[0]), "--with", "oracle"]) == 0
    assert "0 scored, 6 kept" in capsys.readouterr().out


def test_compare_writes_both_files_and_shows_one(
    sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", *map(str, sets), "--output_dir", str(tmp_path), "--resamples", "200"]
    assert main(words) == 0
    found = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert found["comparisons"][0]["scorer"] == "oracle"
    assert capsys.readouterr().out.strip() == (tmp_path / "compare.md").read_text(encoding="utf-8").strip()


def test_export(run: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    target = tmp_path / "mine.safetensors"
    assert main(["export", str(run / "final"), "--output", str(target), "--half"]) == 0
    with safe_open(target, framework="pt") as opened:
        names = list(opened.keys())
        assert all(name.startswith("lora_unet_") for name in names)
        assert str(opened.get_tensor(names[0]).dtype) == "torch.float16"


def test_estimate_writes_nothing(place: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "estimated"
    words = ["train", "dpo", "--model", str(place / "tiny-sd15"), "--pairs", str(pairs), "--output_dir", str(target)]
    file = tmp_path / "estimate.json"
    assert main([*words, "--batch_size", "2", "--estimate", "--estimate_file", str(file)]) == 0
    assert "optimizer's state" in capsys.readouterr().out
    assert not target.exists()
    assert {"memory_bytes", "seconds", "cached"} < set(json.loads(file.read_text()))
