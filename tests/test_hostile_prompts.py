"""Prompts of any kind, drawn, put in a grid and trained on: no file is called after them, nothing of them is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from helpers.nasty import PROMPTS
from helpers.pairs import BLUE, RED, picture
from helpers.training import dpo_config, tiny_model
from t2ialign.cli.main import main
from t2ialign.cli.output import LONGEST, fit_to_print
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.pairs import load_pairs, write_pairs
from t2ialign.trainers.dpo import DiffusionDPOTrainer


def test_drawing_and_the_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {name: PROMPTS[name] for name in ("100 kB", "null", "escapes of a terminal", "a path")}
    lines = [{"prompt_id": f"../{name}", "prompt": prompt} for name, prompt in prompts.items()]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    images = tmp_path / "set"
    words = ["--model", "mini-sd", "--prompts", str(tmp_path / "prompts.jsonl"), "--num_inference_steps", "1"]
    assert main(["generate", *words, "--output_dir", str(images)]) == 0
    drawn = ImageSet(images)
    assert [record.prompt for record in drawn] == list(prompts.values())
    assert [record.file_name for record in drawn] == [f"images/{n:06d}/0000.png" for n in range(len(prompts))]
    assert json.loads((images / "metadata.jsonl").read_text().splitlines()[0])["prompt"] == PROMPTS["100 kB"]
    assert main(["grid", str(images), "--output", str(tmp_path / "grid.png")]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height > 400
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    made = sorted(path.relative_to(tmp_path).parts[0] for path in tmp_path.iterdir())
    assert made == ["grid.png", "prompts.jsonl", "set"]


def test_training_counts_what_is_cut(tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "chosen": picture(RED, number), "rejected": picture(BLUE, number)}
        for number, prompt in enumerate(PROMPTS.values())
    ]
    pairs = load_pairs(write_pairs(rows, tmp_path / "pairs"))
    report = DiffusionDPOTrainer(dpo_config(tmp_path / "run", steps=2), model=tiny_model(), pairs=pairs).train()
    assert report["captions"] == len(PROMPTS)
    tokenizer = tiny_model().pipeline.tokenizer
    long = sum(len(tokenizer(prompt)["input_ids"]) > tokenizer.model_max_length for prompt in PROMPTS.values())
    assert 0 < long < len(PROMPTS)
    assert report["captions_cut"] == long


def test_an_error_can_be_printed_whatever_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"prompt_id": "x" * 100_000 + "\x1b[31m\u202e", "prompt": "a"}) + "\n" * 2
    )
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps({"prompt_id": "x" * 100_000 + "\x1b[31m\u202e", "prompt": "b"}))
    words = ["generate", "--model", "mini-sd", "--prompts", str(tmp_path / "a.jsonl"), "--output_dir", str(tmp_path)]
    assert main(words) != 0
    said = capsys.readouterr().err
    assert "error: " in said
    assert len(said) < LONGEST + 1000
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_messages_are_fit_to_print() -> None:
    assert fit_to_print("plain, é, \u4e2d\n\tnext") == "plain, é, \u4e2d\n\tnext"
    assert fit_to_print("a\x1b[2J\x07\x00\r\u202e\u200b\ud800") == r"a\x1b[2J\x07\x00\r\u202e\u200b\ud800"
    long = fit_to_print("a" * 100_000 + "the end")
    assert len(long) < LONGEST + 100
    assert long.endswith("the end")
