"""`generate`: image sets that continue where they stopped, and refuse to be continued otherwise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import save_tiny
from helpers.user_adapters import EXTRACTOR, shake, user_file, user_run
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.prompts import read_prompts
from t2ialign.errors import DataError, ModelError
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.run import generate
from t2ialign.generation.seeds import image_seed
from t2ialign.models.user_adapter import save_user_adapter

TEXTS = ["a red circle", "a blue star", "two, with a comma", "a green ring"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pipeline of each family and a prompt file."""
    path = tmp_path_factory.mktemp("generate")
    for family in ("sd15", "sd2", "sdxl"):
        save_tiny(path, family)
    rows = [{"prompt_id": f"p{i}", "prompt": text, "category": "c", "challenge": "x"} for i, text in enumerate(TEXTS)]
    (path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def options(folder: Path, output: Path, family: str = "sd15", **more: Any) -> GenerateOptions:
    given: dict[str, Any] = {
        "model": [str(folder / f"tiny-{family}")],
        "prompts": str(folder / "prompts.jsonl"),
        "output_dir": output,
        "num_inference_steps": 2,
        "device": "cpu",
    }
    return GenerateOptions(**{**given, **more})


def pixels(path: Path) -> dict[tuple[str, int], Any]:
    image_set = ImageSet(path)
    return {(r.prompt_id, r.sample): np.asarray(image_set.open(r), int) for r in image_set.records}


def test_a_set_and_its_metadata(folder: Path, tmp_path: Path) -> None:
    summary = generate(options(folder, tmp_path / "set", images_per_prompt=2, seed=3, negative_prompt="n"))
    assert (summary.made, summary.kept, summary.prompts) == (8, 0, 4)
    assert summary.sets == [str(tmp_path / "set")]
    lines = [json.loads(line) for line in (tmp_path / "set/metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["file_name"] for line in lines[:3]] == [
        "images/000000/0000.png",
        "images/000000/0001.png",
        "images/000001/0000.png",
    ]
    line = lines[5]
    assert (line["prompt_id"], line["prompt"], line["sample"]) == ("p2", "two, with a comma", 1)
    assert line["seed"] == image_seed(3, "p2", 1)
    assert (line["model"], line["category"], line["challenge"]) == ("tiny-sd15", "c", "x")
    assert (line["negative_prompt"], line["width"], line["height"]) == ("n", 64, 64)
    config = json.loads((tmp_path / "set/config.json").read_text(encoding="utf-8"))
    assert config["scheduler"] == "DDIMScheduler"
    assert (config["guidance_scale"], config["dtype"], config["seed"]) == (7.5, "float32", 3)
    assert str(folder) not in json.dumps(config) + json.dumps(lines)


def test_pixels_do_not_depend_on_batch_size_or_on_other_prompts(folder: Path, tmp_path: Path) -> None:
    generate(options(folder, tmp_path / "a", batch_size=1))
    generate(options(folder, tmp_path / "b", batch_size=4))
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text(
        json.dumps({"prompt_id": "p3", "prompt": TEXTS[3]})
        + "\n"
        + json.dumps({"prompt_id": "p1", "prompt": TEXTS[1]}),
        encoding="utf-8",
    )
    generate(options(folder, tmp_path / "c", prompts=str(fewer)))
    a, b, c = (pixels(tmp_path / name) for name in "abc")
    assert a.keys() == b.keys()
    assert max(np.abs(a[key] - b[key]).max() for key in a) <= 1
    assert c.keys() == {("p3", 0), ("p1", 0)}
    assert max(np.abs(a[key] - c[key]).max() for key in c) <= 1


def test_continues_and_grows(folder: Path, tmp_path: Path) -> None:
    first = generate(options(folder, tmp_path / "set", limit=2))
    assert (first.made, first.kept) == (2, 0)
    (tmp_path / "set/images/000001/0000.png").unlink()
    second = generate(options(folder, tmp_path / "set", images_per_prompt=2, batch_size=3))
    assert (second.made, second.kept) == (7, 1)
    third = generate(options(folder, tmp_path / "set", images_per_prompt=2))
    assert (third.made, third.kept) == (0, 8)
    generate(options(folder, tmp_path / "whole", images_per_prompt=2))
    stepwise, whole = pixels(tmp_path / "set"), pixels(tmp_path / "whole")
    assert stepwise.keys() == whole.keys()
    assert max(np.abs(stepwise[key] - whole[key]).max() for key in whole) <= 1


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"num_inference_steps": 3}, "num_inference_steps: 2 there, 3 now"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"negative_prompt": "x"}, "negative_prompt"),
        ({"scheduler": "euler"}, "scheduler"),
        ({"height": 32}, "height"),
    ],
)
def test_refuses_changed_settings(folder: Path, tmp_path: Path, change: dict[str, Any], shown: str) -> None:
    generate(options(folder, tmp_path / "set", limit=1))
    with pytest.raises(DataError, match=shown):
        generate(options(folder, tmp_path / "set", **change))
    assert len(ImageSet(tmp_path / "set")) == 1


def test_refuses_changed_prompts_and_weights(folder: Path, tmp_path: Path) -> None:
    generate(options(folder, tmp_path / "set", limit=1))
    (tmp_path / "prompts.jsonl").write_text('{"prompt_id": "p0", "prompt": "another"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="prompts_sha256"):
        generate(options(folder, tmp_path / "set", prompts=str(tmp_path / "prompts.jsonl")))
    other = save_tiny(tmp_path, "sd15", seed=1)
    with pytest.raises(DataError, match="weights_fingerprint"):
        generate(options(folder, tmp_path / "set", model=[str(other)]))


def test_several_models_share_seeds(folder: Path, tmp_path: Path) -> None:
    models = [str(folder / f"tiny-{family}") for family in ("sd15", "sd2", "sdxl")]
    summary = generate(options(folder, tmp_path / "sets", model=models, limit=2))
    assert summary.sets == [str(tmp_path / "sets" / f"tiny-{family}") for family in ("sd15", "sd2", "sdxl")]
    seeds = [[record.seed for record in ImageSet(path)] for path in summary.sets]
    assert seeds[0] == seeds[1] == seeds[2]
    assert json.loads((tmp_path / "sets/tiny-sd2/config.json").read_text())["prediction_type"] == "v_prediction"


def test_adapters(folder: Path, tmp_path: Path) -> None:
    import torch

    from t2ialign.models.loading import load_model
    from t2ialign.models.lora import add_lora, save_lora

    model = load_model(str(folder / "tiny-sd15"))
    add_lora(model.unet, rank=2)
    with torch.no_grad():
        for name, parameter in model.unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    save_lora(model, tmp_path / "run/final")
    both = options(folder, tmp_path / "sets", adapter=["none", str(tmp_path / "run/final")], limit=2)
    generate(both)
    base, tuned = pixels(tmp_path / "sets/tiny-sd15"), pixels(tmp_path / "sets/run")
    assert base.keys() == tuned.keys()
    assert min(np.abs(base[key] - tuned[key]).max() for key in base) > 3
    generate(options(folder, tmp_path / "merged", model=[str(tmp_path / "run/final")], limit=2))
    merged = pixels(tmp_path / "merged")
    assert max(np.abs(merged[key] - tuned[key]).max() for key in tuned) <= 3  # fusing rounds once more
    generate(options(folder, tmp_path / "alone", adapter=[str(tmp_path / "run/final")], limit=1))
    assert (tmp_path / "alone/metadata.jsonl").is_file()


def test_users(folder: Path, tmp_path: Path) -> None:
    base = folder / "tiny-sd15"
    user_run(base, tmp_path / "run/final")
    alice, bob = user_file(tmp_path / "u/alice.safetensors", 1), user_file(tmp_path / "u/bob.safetensors", 2)
    people = ["none", str(alice), f"{alice}:0.3,{bob}:0.7"]
    several = options(folder, tmp_path / "sets", adapter=[str(tmp_path / "run/final")], user=people, limit=2)
    summary = generate(several)
    assert [Path(path).name for path in summary.sets] == ["run", "run-alice", "run-0.3-alice-0.7-bob"]
    generate(options(folder, tmp_path / "base", limit=2))
    base_pixels, nobody, hers, mixed = (
        pixels(path) for path in (tmp_path / "base", *(tmp_path / "sets" / Path(path).name for path in summary.sets))
    )
    assert max(np.abs(base_pixels[key] - nobody[key]).max() for key in nobody) <= 1
    for other in (hers, mixed):
        assert min(np.abs(other[key] - nobody[key]).max() for key in nobody) > 3
    assert max(np.abs(hers[key] - mixed[key]).max() for key in hers) > 3

    config = json.loads((tmp_path / "sets/run-0.3-alice-0.7-bob/config.json").read_text(encoding="utf-8"))
    assert config["user"] == "0.3 alice + 0.7 bob"
    assert config["user_weights"] == [["alice", 0.3], ["bob", 0.7]]
    assert (config["user_extractor"], config["user_guidance_scale"]) == (EXTRACTOR, 7.5)
    assert len(config["user_sha256"]) == 64
    assert (config["model"], config["adapter"]) == ("tiny-sd15", "run")
    assert str(tmp_path) not in json.dumps(config)
    without = [json.loads((path / "config.json").read_text()) for path in (tmp_path / "base", tmp_path / "sets/run")]
    assert not [key for config in without for key in config if key.startswith("user")]
    assert without[0]["weights_fingerprint"] != without[1]["weights_fingerprint"] == config["weights_fingerprint"]
    records = ImageSet(tmp_path / "sets/run-alice").records
    assert {record.model for record in records} == {"run-alice"}

    # The run itself as the model, with the user's default scale written out, continues the set.
    same: dict[str, Any] = {"model": [str(tmp_path / "run/final")], "user": [str(alice)], "label": ["run-alice"]}
    generate(options(folder, tmp_path / "alone", **same, user_guidance_scale=7.5))
    alone = pixels(tmp_path / "alone")
    assert max(np.abs(alone[key] - hers[key]).max() for key in hers) <= 1
    assert generate(options(folder, tmp_path / "alone", **same)).kept == 4


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"user_guidance_scale": 2.0}, "user_guidance_scale: 7.5 there, 2.0 now"),
        ({"user": ["bob"]}, "user_sha256"),
        ({"user": ["none"]}, r'user: "alice" there, nothing now'),
        ({"adapter": ["other"]}, "weights_fingerprint"),
    ],
)
def test_refuses_changed_users(folder: Path, tmp_path: Path, change: dict[str, Any], shown: str) -> None:
    model = user_run(folder / "tiny-sd15", tmp_path / "run/final")
    shake(model, seed=1)
    save_user_adapter(model, tmp_path / "other/final")
    files = {name: user_file(tmp_path / f"{name}.safetensors", len(name)) for name in ("alice", "bob")}
    paths = {**{name: str(file) for name, file in files.items()}, "other": str(tmp_path / "other/final")}
    given: dict[str, Any] = {"adapter": [str(tmp_path / "run/final")], "user": [str(files["alice"])], "label": ["x"]}
    generate(options(folder, tmp_path / "set", **given, limit=1))
    for name, value in change.items():
        given[name] = [paths.get(part, part) for part in value] if isinstance(value, list) else value
    with pytest.raises(DataError, match=shown):
        generate(options(folder, tmp_path / "set", **given))
    assert len(ImageSet(tmp_path / "set")) == 1


def test_users_that_a_model_cannot_draw_for(folder: Path, tmp_path: Path) -> None:
    user_run(folder / "tiny-sd15", tmp_path / "run/final")
    alice = str(user_file(tmp_path / "alice.safetensors", extractor="other:2"))
    with pytest.raises(ModelError, match=rf"alice was made by other:2.*{EXTRACTOR}"):
        generate(options(folder, tmp_path / "set", adapter=[str(tmp_path / "run/final")], user=[alice]))
    with pytest.raises(ModelError, match="no user adapter"):
        generate(options(folder, tmp_path / "set", user=[alice]))
    with pytest.raises(DataError, match="no user's file"):
        generate(options(folder, tmp_path / "set", model=["nobody/nothing"], user=[str(tmp_path / "no.safetensors")]))
    with pytest.raises(ModelError, match=r"trained on .*tiny-sd15.*family sdxl"):
        generate(options(folder, tmp_path / "set", family="sdxl", adapter=[str(tmp_path / "run/final")]))
    assert not (tmp_path / "set").exists()


def test_cut_prompts_are_counted(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "long.txt").write_text("short\n" + "long " * 100 + "\n", encoding="utf-8")
    summary = generate(options(folder, tmp_path / "set", prompts=str(tmp_path / "long.txt")))
    assert summary.truncated == 1
    assert "longer than the tokenizer of tiny-sd15 reads, so that it does not see their end: 1 of 2" in caplog.text
    assert "cut at the tokenizer's limit: 1" in str(summary)


def test_unknown_models_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nobody/nothing"):
        generate(options(folder, tmp_path / "set", model=["nobody/nothing"]))
    assert not (tmp_path / "set").exists()


def test_what_is_missing_is_dealt_out_evenly(folder: Path, tmp_path: Path) -> None:
    """One of two processes makes half of what the set lacks, though what is there was all of its turn."""
    from t2ialign.generation.filling import Item, Wanted, fill, open_writer
    from t2ialign.generation.labels import variants
    from t2ialign.generation.processes import Processes
    from t2ialign.generation.run import load

    generate(options(folder, tmp_path / "set", limit=2))
    asked = options(folder, tmp_path / "set", limit=2, images_per_prompt=2)
    (variant,) = variants(asked)
    items = [
        Item(index, prompt, sample, image_seed(0, prompt.prompt_id, sample))
        for index, prompt in enumerate(read_prompts(folder / "prompts.jsonl")[:2])
        for sample in range(2)
    ]
    config = json.loads((tmp_path / "set/config.json").read_text())
    processes = Processes()
    model = load(asked, asked.model[0], None, processes)
    with open_writer(tmp_path / "set", config, processes) as writer:
        processes.count = 2
        assert fill(writer, model, Wanted(items, variant), asked, processes) == (1, 2)
        processes.count = 1


def test_a_stop_leaves_a_good_set(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from t2ialign.data.image_sets import ImageSetWriter
    from t2ialign.errors import Stopped

    add = ImageSetWriter.add

    def signal_at_two(self: ImageSetWriter, *args: Any, **kwargs: Any) -> Any:
        record = add(self, *args, **kwargs)
        if len(self.done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    monkeypatch.setattr(ImageSetWriter, "add", signal_at_two)
    with pytest.raises(
        Stopped, match=r"stopped by SIGTERM: 2 of 4 pictures of .* are in .*; the same command goes on"
    ):
        generate(options(folder, tmp_path / "set", batch_size=1))
    monkeypatch.undo()
    assert len(ImageSet(tmp_path / "set")) == 2
    summary = generate(options(folder, tmp_path / "set"))
    assert (summary.made, summary.kept) == (2, 2)


CHILD = """
import sys
from pathlib import Path
from t2ialign.generation.options import GenerateOptions
from t2ialign.generation.run import generate
generate(GenerateOptions(model=[sys.argv[1]], prompts=sys.argv[2], output_dir=Path(sys.argv[3]),
                         num_inference_steps=2, images_per_prompt=int(sys.argv[4]), batch_size=1, device="cpu"))
"""


def child(folder: Path, output: Path, samples: int, **environment: str) -> subprocess.Popen[bytes]:
    arguments = [str(folder / "tiny-sd15"), str(folder / "prompts.jsonl"), str(output), str(samples)]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments], env=settings, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_survives_kill_9(folder: Path, tmp_path: Path) -> None:
    process = child(folder, tmp_path / "set", 50)
    deadline = time.monotonic() + 120
    metadata = tmp_path / "set/metadata.jsonl"
    while not (metadata.is_file() and metadata.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = ImageSet(tmp_path / "set")
    for record in there.records:
        there.open(record)
    assert 5 <= len(there) < 200
    summary = generate(options(folder, tmp_path / "set", images_per_prompt=50))
    assert summary.kept == len(there)
    assert summary.made + summary.kept == 200
    assert not list((tmp_path / "set").rglob("*.part"))


@pytest.mark.slow
def test_two_processes_make_the_same_set(folder: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    children = [
        child(folder, tmp_path / "two", 2, RANK=str(rank), LOCAL_RANK=str(rank), **launch) for rank in range(2)
    ]
    assert [process.wait(240) for process in children] == [0, 0]
    generate(options(folder, tmp_path / "one", images_per_prompt=2, batch_size=1))
    one, two = pixels(tmp_path / "one"), pixels(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(np.abs(one[key] - two[key]).max() for key in one) <= 1
    assert [p.name for p in sorted((tmp_path / "two").glob("metadata*"))] == ["metadata.jsonl"]


def test_reads_real_prompt_files(real_data: Path, folder: Path, tmp_path: Path) -> None:
    file = real_data / "PartiPrompts.tsv"
    if not file.is_file():
        pytest.skip(f"{file.name} is absent")
    generate(options(folder, tmp_path / "set", prompts=str(file), limit=2))
    records = ImageSet(tmp_path / "set").records
    assert [record.prompt_id for record in records] == ["PartiPrompts-000000", "PartiPrompts-000001"]
    assert all(record.set == "PartiPrompts" and record.category and record.extra["challenge"] for record in records)


def test_png_is_plain(folder: Path, tmp_path: Path) -> None:
    generate(options(folder, tmp_path / "set", limit=1))
    with Image.open(tmp_path / "set/images/000000/0000.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 64))
