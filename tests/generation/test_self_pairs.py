"""Pairs of a model with itself: what the sides differ in, what is trained on, what is left out, and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny import save_tiny
from t2ialign.cli.main import main
from t2ialign.data.image_sets import ImageSet, ImageSetWriter
from t2ialign.data.pairs import load_pairs
from t2ialign.errors import ConfigError, DataError
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.run import generate
from t2ialign.generation.seeds import image_seed
from t2ialign.generation.self_pair_options import SelfPairOptions
from t2ialign.generation.self_pairs import make_self_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("self-pairs")
    save_tiny(path, "sd15")
    rows = [{"prompt_id": f"p{i}", "prompt": text, "theme": "x"} for i, text in enumerate(("a circle", "a star", "b"))]
    (path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def options(folder: Path, output: Path, **more: Any) -> SelfPairOptions:
    given: dict[str, Any] = {
        "model": str(folder / "tiny-sd15"),
        "prompts": str(folder / "prompts.jsonl"),
        "output_dir": output,
        "num_inference_steps": 2,
        "device": "cpu",
    }
    if not {"phrase", "negative_phrase"} & set(more):
        given["phrase"] = "pixel art"
    return SelfPairOptions(**{**given, **more})


def drawn(folder: Path, output: Path, texts: list[str], negative: str = "") -> list[Any]:
    """What `generate` draws for texts under the ids of the prompts, sample 0."""
    rows = [json.dumps({"prompt_id": f"p{i}", "prompt": text}) for i, text in enumerate(texts)]
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.parent / f"{output.name}.jsonl"
    file.write_text("\n".join(rows), encoding="utf-8")
    generate(
        GenerateOptions(
            model=[str(folder / "tiny-sd15")],
            prompts=str(file),
            output_dir=output,
            num_inference_steps=2,
            device="cpu",
            negative_prompt=negative,
        )
    )
    image_set = ImageSet(output)
    return [np.asarray(image_set.open(record), int) for record in image_set.records]


PLAIN = ["a circle", "a star", "b"]


@pytest.mark.parametrize(
    ("more", "texts", "negative"),
    [
        ({"phrase": "pixel art"}, ["a circle, pixel art", "a star, pixel art", "b, pixel art"], ""),
        ({"phrase": "art of {prompt} in oil"}, [f"art of {text} in oil" for text in PLAIN], ""),
        ({"phrase": "gore", "side": "rejected"}, ["a circle, gore", "a star, gore", "b, gore"], ""),
        ({"negative_phrase": "blurry"}, PLAIN, "blurry"),
        ({"negative_phrase": "blurry", "negative_prompt": "dark"}, PLAIN, "dark, blurry"),
    ],
)
def test_one_side_has_the_phrase(
    folder: Path, tmp_path: Path, more: dict[str, Any], texts: list[str], negative: str
) -> None:
    given = options(folder, tmp_path / "pairs", **more)
    summary = make_self_pairs(given)
    assert (summary.pairs, summary.made, summary.identical) == (3, 6, 0)
    pairs = load_pairs(tmp_path / "pairs")
    with_phrase = drawn(folder, tmp_path / "with", texts, negative)
    without = drawn(folder, tmp_path / "without", PLAIN, given.negative_prompt)
    sides = (with_phrase, without) if given.side == "chosen" else (without, with_phrase)
    for index, pair in enumerate(pairs):
        assert pair.prompt == PLAIN[index]
        for picture, expected in zip((pair.chosen, pair.rejected), sides, strict=True):
            assert np.abs(np.asarray(picture, int) - expected[index]).max() <= 1
        assert pair.chosen_prompt is None
        assert pair.source is not None
        assert pair.source.startswith(f"self_pairs of tiny-sd15; {given.side}: ")
        assert str(given.phrase or given.negative_phrase) in pair.source


def test_what_is_written_down(folder: Path, tmp_path: Path) -> None:
    make_self_pairs(options(folder, tmp_path / "pairs", images_per_prompt=2, seed=7, limit=2))
    report = json.loads((tmp_path / "pairs/self_pairs.json").read_text(encoding="utf-8"))
    counted = {name: report[name] for name in ("format", "split", "pairs", "identical", "cut", "prompts")}
    assert counted == {"format": 1, "split": "train", "pairs": 4, "identical": 0, "cut": 0, "prompts": 2}
    settings = report["settings"]
    assert (settings["phrase"], settings["phrase_side"], settings["same_noise"]) == ("pixel art", "chosen", True)
    card = (tmp_path / "pairs/README.md").read_text(encoding="utf-8")
    assert "chosen: 'pixel art' added to the prompt" in card
    assert "the same noise" in card
    sets = {side: ImageSet(tmp_path / "pairs/pictures" / side) for side in ("chosen", "rejected")}
    for record, other in zip(sets["chosen"].records, sets["rejected"].records, strict=True):
        assert record.prompt == other.prompt
        assert record.extra["drawn_prompt"] == f"{record.prompt}, pixel art"
        assert other.extra["drawn_prompt"] == other.prompt
        assert record.seed == other.seed == image_seed(7, record.prompt_id, record.sample)
        assert record.extra["theme"] == "x"
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "pairs").rglob("*.json*"))
    assert str(folder) not in written + card


def test_noise_of_its_own(folder: Path, tmp_path: Path) -> None:
    make_self_pairs(options(folder, tmp_path / "pairs", same_noise=False, images_per_prompt=3, side="rejected"))
    sets = {side: ImageSet(tmp_path / "pairs/pictures" / side).records for side in ("chosen", "rejected")}
    seeds = [record.seed for records in sets.values() for record in records]
    assert len(set(seeds)) == len(seeds) == 18
    assert all(record.seed == image_seed(0, record.prompt_id, 2 * record.sample) for record in sets["chosen"])
    assert all(record.seed == image_seed(0, record.prompt_id, 2 * record.sample + 1) for record in sets["rejected"])
    assert "noise of its own" in (tmp_path / "pairs/README.md").read_text(encoding="utf-8")


def test_a_phrase_that_is_cut_makes_no_pair(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The tiny tokenizer reads a token a letter: what stands behind 75 letters is never seen."""
    rows = [{"prompt_id": f"p{i}", "prompt": text} for i, text in enumerate(("x" * 90, "short", "y" * 70))]
    file = tmp_path / "long.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    summary = make_self_pairs(options(folder, tmp_path / "pairs", prompts=str(file)))
    assert (summary.pairs, summary.identical, summary.cut) == (2, 1, 2)  # y is cut by the phrase
    assert "does not see their end: 2 of 3" in caplog.text
    assert [pair.prompt for pair in load_pairs(tmp_path / "pairs")] == ["short", "y" * 70]
    assert any("both pictures are the same: 1" in line for line in summary.lines())
    with pytest.raises(DataError, match="no two of the 1 pairs of pictures differ"):
        make_self_pairs(options(folder, tmp_path / "none", prompts=str(file), limit=1))
    in_front = options(folder, tmp_path / "front", prompts=str(file), phrase="art of {prompt}")
    assert make_self_pairs(in_front).pairs == 3


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_goes_on_after_a_stop(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    add = ImageSetWriter.add
    counted = [0]

    def stopping(self: ImageSetWriter, *args: Any, **kwargs: Any) -> Any:
        if counted[0] == stop_at:
            raise KeyboardInterrupt
        counted[0] += 1
        return add(self, *args, **kwargs)

    monkeypatch.setattr(ImageSetWriter, "add", stopping)
    with pytest.raises(KeyboardInterrupt):
        make_self_pairs(options(folder, tmp_path / "pairs", batch_size=1))
    assert not (tmp_path / "pairs/data").exists()
    monkeypatch.undo()
    summary = make_self_pairs(options(folder, tmp_path / "pairs"))
    assert (summary.made, summary.kept, summary.pairs) == (6 - stop_at, stop_at, 3)
    make_self_pairs(options(folder, tmp_path / "whole"))
    stopped, whole = load_pairs(tmp_path / "pairs"), load_pairs(tmp_path / "whole")
    for first, second in zip(stopped, whole, strict=True):
        assert first.prompt == second.prompt
        assert np.abs(np.asarray(first.chosen, int) - np.asarray(second.chosen, int)).max() <= 1


def test_a_finished_set_is_left_alone_and_a_larger_one_grows(folder: Path, tmp_path: Path) -> None:
    make_self_pairs(options(folder, tmp_path / "pairs", limit=1))
    file = next((tmp_path / "pairs/data").glob("*.parquet"))
    before = file.stat().st_mtime_ns
    assert make_self_pairs(options(folder, tmp_path / "pairs", limit=1)).made == 0
    assert file.stat().st_mtime_ns == before
    assert make_self_pairs(options(folder, tmp_path / "pairs", images_per_prompt=2)).pairs == 6
    assert make_self_pairs(options(folder, tmp_path / "pairs", limit=1)).pairs == 6
    assert len(load_pairs(tmp_path / "pairs")) == 6
    file.unlink()  # as if it had been stopped before the pairs were written
    assert make_self_pairs(options(folder, tmp_path / "pairs", images_per_prompt=2)).made == 0
    assert len(load_pairs(tmp_path / "pairs")) == 6


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"phrase": "oil"}, 'phrase: "pixel art" there, "oil" now'),
        ({"side": "rejected"}, 'phrase_side: "chosen" there, "rejected" now'),
        ({"phrase": "pixel art", "negative_phrase": "x"}, "negative_phrase"),
        ({"same_noise": False}, "same_noise"),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"split": "test"}, "split"),
    ],
)
def test_other_options_are_refused(folder: Path, tmp_path: Path, change: dict[str, Any], shown: str) -> None:
    make_self_pairs(options(folder, tmp_path / "pairs", limit=1))
    with pytest.raises(DataError, match=shown):
        make_self_pairs(options(folder, tmp_path / "pairs", **change))
    assert len(load_pairs(tmp_path / "pairs")) == 1


def test_a_folder_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("notes.txt", "data"):
        (tmp_path / name).mkdir()
        with pytest.raises(DataError, match=f"holds '{name}', which is of something else"):
            make_self_pairs(options(folder, tmp_path))
        (tmp_path / name).rmdir()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"phrase": None}, "give --phrase or --negative_phrase"),
        ({"phrase": " "}, "phrase is empty"),
        ({"phrase": "{prompt}"}, "the prompt alone"),
        ({"split": "a-b"}, "split is 'a-b'"),
        ({"height": 60}, "height is 60"),
        ({"images_per_prompt": 0}, "images_per_prompt is 0"),
    ],
)
def test_options_out_of_range_are_named(folder: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(folder, Path("out"), **more)


def test_the_command_on_mini_sd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the phrase asks for is in the chosen picture and not in the other, by the oracle."""
    from t2ialign.mini.oracle import caption

    prompts = tmp_path / "p.txt"
    prompts.write_text("a large red circle\na large blue square\na large green triangle\n", encoding="utf-8")
    words = [
        "data",
        "self_pairs",
        "--model",
        "mini-sd",
        "--prompts",
        str(prompts),
        "--output_dir",
        str(tmp_path / "o"),
    ]
    assert main([*words, "--phrase", "{prompt} on a black background", "--num_inference_steps", "10"]) == 0
    assert "3 pairs; 6 pictures made" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "o")]) == 0
    pairs = load_pairs(tmp_path / "o")
    black = {
        side: sum("on a black background" in str(caption(getattr(pair, side))) for pair in pairs)
        for side in ("chosen", "rejected")
    }
    assert black["chosen"] > black["rejected"]
