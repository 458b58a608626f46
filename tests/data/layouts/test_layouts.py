"""Layouts of other tools: folders written plainly and read by us; exports found by the paths of the other tools."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.image_sets import write_plain_set
from t2ialign.data.image_sets import ImageSet
from t2ialign.data.layouts import EXPORTS, LAYOUTS, ForeignSet, detect_layout, export_set, open_set
from t2ialign.errors import ConfigError, DataError


def picture(value: int) -> Image.Image:
    return Image.new("RGB", (12, 10), (value, 255 - value, 40))


def put(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(value).save(path)
    return path


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def make_hpsv2(root: Path) -> Path:
    for style, count in (("anime", 3), ("photo", 2)):
        for i in range(count):
            put(root / style / f"{i:05d}.jpg", 10 * i)
        write(root.parent / "benchmark" / f"{style}.json", [f"{style} prompt {i}" for i in range(count)])
    return root


GENEVAL = {"tag": "two_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"}


def make_geneval(root: Path) -> Path:
    for i in range(2):
        write(root / f"{i:05d}" / "metadata.jsonl", GENEVAL | {"prompt": f"a photo of {i} cats"})
        for k in range(4):
            put(root / f"{i:05d}" / "samples" / f"{k:05d}.png", i + k)
        put(root / f"{i:05d}" / "grid.png", 99)
    return root


def make_imagereward(root: Path) -> Path:
    listed = [{"id": f"00{i}-7", "prompt": f"prompt {i}"} for i in range(3)]
    write(root / "benchmark-prompts.json", listed)
    for each in listed:
        for k in range(2):
            put(root / "sd1-4" / f"{each['id']}_{k}.png", k)
    return root / "sd1-4"


def make_evalgim(root: Path) -> Path:
    root = root / "sdxl__coco__cfg7.5"
    entries = []
    for i, prompt in enumerate(("a dog", "a cat", "a dog")):
        name = hashlib.sha256(f"{prompt}{i}".encode()).hexdigest()
        put(root / "images" / f"{name}.png", i)
        extra = {"condition": prompt, "class_label": None, "group": ["x"]}
        entries.append({"prompt": prompt, **extra, "image_path": f"/gone/elsewhere/{root.name}/images/{name}.png"})
    write(root / "index.json", entries)
    return root


def make_captions(root: Path) -> Path:
    put(root / "b.png", 1)
    put(root / "sub" / "a.jpg", 2)
    put(root / "c.webp", 3)
    write(
        root / "captions.csv",
        'file_name,caption,category\nb.png,"a dog, big",animals\nsub/a.jpg,a cat,\nc,"a dog, big",\n',
    )
    return root


def make_rankings(root: Path) -> Path:
    names = [f"part/{k}.webp" for k in range(3)]
    for k, name in enumerate(names):
        put(root / name, k)
    write(root.parent / "test.json", [{"id": "7", "prompt": "p", "generations": names, "ranking": [2, 1, 2]}])
    return root


def lines(image_set: ImageSet) -> list[tuple[str, str, str, int]]:
    return [(each.file_name, each.prompt_id, each.prompt, each.sample) for each in image_set]


# ---------------------------------------------------------------- reading


def test_hpsv2(tmp_path: Path) -> None:
    root = make_hpsv2(tmp_path / "model-x")
    with pytest.raises(DataError, match=r"no prompts for the style 'anime'.*--prompts"):
        open_set(root)
    found = open_set(root, prompts=tmp_path / "benchmark")
    assert isinstance(found, ForeignSet)
    assert found.layout == "hpsv2"
    assert lines(found)[:2] == [
        ("anime/00000.jpg", "anime-00000", "anime prompt 0", 0),
        ("anime/00001.jpg", "anime-00001", "anime prompt 1", 0),
    ]
    assert [each.category for each in found] == ["anime"] * 3 + ["photo"] * 2
    assert {each.model for each in found} == {"model-x"}
    assert found.open(found.records[1]).size == (12, 10)


def test_hpsv2_misses_a_picture_by_name_and_refuses_one_too_many(tmp_path: Path) -> None:
    root, prompts = make_hpsv2(tmp_path / "m"), tmp_path / "benchmark"
    (root / "anime" / "00001.jpg").unlink()
    found = open_set(root, prompts=prompts)
    assert [each.file_name for each in found][:3] == [f"anime/0000{i}.jpg" for i in range(3)]
    with pytest.raises(DataError, match=r"m/anime/00001\.jpg.*no such file"):
        found.open(found.records[1])
    put(root / "anime" / "00003.jpg", 1)
    with pytest.raises(DataError, match=r"anime/00003\.jpg has no prompt; anime\.json holds 3"):
        open_set(root, prompts=prompts)
    (root / "anime" / "00003.jpg").rename(root / "anime" / "best.jpg")
    with pytest.raises(DataError, match=r"anime/best\.jpg is not named by a number"):
        open_set(root, prompts=prompts)
    (root / "anime" / "best.jpg").rename(root / "anime" / "00000.png")
    with pytest.raises(DataError, match=r"00000\.jpg and anime/00000\.png are for the same prompt"):
        open_set(root, prompts=prompts)


def test_hpsv2_s_drawbench_has_no_styles(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / "m" / f"{i:05d}.jpg", i)
    prompts = write(tmp_path / "drawbench.json", ["one", "two"])
    found = open_set(tmp_path / "m", "hpsv2", prompts)
    assert lines(found) == [("00000.jpg", "drawbench-00000", "one", 0), ("00001.jpg", "drawbench-00001", "two", 0)]


def test_geneval(tmp_path: Path) -> None:
    root = make_geneval(tmp_path / "m")
    found = open_set(root)
    assert len(found) == 8
    assert lines(found)[5] == ("00001/samples/00001.png", "00001", "a photo of 1 cats", 1)
    assert found.records[0].category == "two_object"
    assert found.records[0].extra["include"] == GENEVAL["include"]
    put(root / "00001" / "samples" / "0001.png", 5)
    with pytest.raises(DataError, match=r"are both sample 1 of prompt 00001"):
        open_set(root)
    (root / "00001" / "samples" / "0001.png").rename(root / "00001" / "samples" / "best.png")
    with pytest.raises(DataError, match=r"best\.png: a sample is named by its number"):
        open_set(root)


@pytest.mark.parametrize("damage", ["no metadata", "no samples", "no prompt"])
def test_geneval_refuses_a_folder_that_lacks_something(tmp_path: Path, damage: str) -> None:
    root = make_geneval(tmp_path / "m")
    if damage == "no metadata":
        (root / "00001" / "metadata.jsonl").unlink()
    elif damage == "no samples":
        for sample in (root / "00001" / "samples").iterdir():
            sample.unlink()
    else:
        write(root / "00001" / "metadata.jsonl", {"tag": "x"})
    with pytest.raises(DataError, match="00001"):
        open_set(root, "geneval")


def test_imagereward(tmp_path: Path) -> None:
    root = make_imagereward(tmp_path)
    found = open_set(root)
    assert lines(found)[:3] == [
        ("000-7_0.png", "000-7", "prompt 0", 0),
        ("000-7_1.png", "000-7", "prompt 0", 1),
        ("001-7_0.png", "001-7", "prompt 1", 0),
    ]
    (root / "001-7_0.png").unlink()
    assert [each.file_name for each in open_set(root)][2] == "001-7_0.png"  # missed by name, not passed over
    put(root / "009-7_0.png", 1)
    with pytest.raises(DataError, match=r"009-7_0\.png is not named <id>"):
        open_set(root, "imagereward")
    (tmp_path / "benchmark-prompts.json").unlink()
    with pytest.raises(DataError, match="--prompts"):
        open_set(root, "imagereward")


def test_evalgim(tmp_path: Path) -> None:
    root = make_evalgim(tmp_path)
    found = open_set(root)
    ids = [each.prompt_id for each in found]
    assert ids[0] == ids[2] != ids[1]
    assert [each.sample for each in found] == [0, 0, 1]
    assert {(each.model, each.set) for each in found} == {("sdxl", "coco")}
    assert found.records[0].extra == {"condition": "a dog", "class_label": None, "group": ["x"]}
    assert found.open(found.records[2]).getpixel((0, 0)) == (2, 253, 40)
    entries = json.loads((root / "index.json").read_text())
    write(root / "index.json", [entries[0] | {"image_path": "../../etc/picture.png"}])
    with pytest.raises(DataError, match="climbs out"):
        open_set(root)
    write(root / "index.json", [entries[0] | {"image_path": "C:\\run\\images\\x.png"}])
    assert open_set(root).records[0].file_name == "images/x.png"


def test_captions(tmp_path: Path) -> None:
    root = make_captions(tmp_path / "mine")
    found = open_set(root)
    assert [each.file_name for each in found] == ["b.png", "sub/a.jpg", "c.webp"]
    assert [each.prompt for each in found] == ["a dog, big", "a cat", "a dog, big"]
    assert [each.sample for each in found] == [0, 0, 1]
    assert found.records[0].prompt_id == found.records[2].prompt_id
    assert [each.category for each in found] == ["animals", None, None]
    put(root / "d.png", 4)
    with pytest.raises(DataError, match=r"d\.png has no caption in captions\.csv"):
        open_set(root)
    (root / "d.png").unlink()
    (root / "b.png").unlink()
    missing = open_set(root)
    with pytest.raises(DataError, match=r"mine/b\.png"):
        missing.open(missing.records[0])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.json", {"a": "one", "b.png": "two"}),
        ("captions.txt", "one\ntwo\n"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "one"}\n{"file_name": "b.png", "text": "two"}\n'),
        ("metadata.csv", "file_name,prompt,sample,seed\na.png,one,3,7\nb.png,two,,\n"),
        ("captions.tsv", "image\tcaption\nb\ttwo\na\tone\n"),
    ],
)
def test_the_forms_of_a_captions_file(tmp_path: Path, name: str, content: Any) -> None:
    put(tmp_path / "a.png", 1)
    put(tmp_path / "b.png", 2)
    write(tmp_path / name, content)
    found = open_set(tmp_path)
    assert detect_layout(tmp_path) == "captions"
    assert {(each.file_name, each.prompt) for each in found} == {("a.png", "one"), ("b.png", "two")}
    if "sample" in str(content):
        assert [(each.sample, each.seed) for each in found] == [(3, 7), (0, None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.csv", "name,caption\na.png,one\n", "a column file_name"),
        ("captions.csv", "file_name,caption\na.png,\n", "line 2.*a text in prompt"),
        ("captions.txt", "one\ntwo\nthree\n", "3 lines for 2 pictures"),
        ("captions.csv", "file_name,caption,sample\na.png,one,first\nb.png,two,0\n", "sample is 'first'"),
        ("captions.csv", "file_name,caption\na.png,one\na.png,one\nb.png,two\n", r"a\.png"),
        ("captions.csv", "file_name,caption\n../a.png,one\na.png,one\nb.png,two\n", "climbs out"),
    ],
)
def test_a_captions_file_with_mistakes(tmp_path: Path, name: str, content: str, message: str) -> None:
    put(tmp_path / "a.png", 1)
    put(tmp_path / "b.png", 2)
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        open_set(tmp_path, "captions")


def test_rankings(tmp_path: Path) -> None:
    root = make_rankings(tmp_path / "images")
    found = open_set(root, prompts=tmp_path / "test.json")
    assert lines(found) == [(f"part/{k}.webp", "7", "p", k) for k in range(3)]
    assert [each.extra["rank"] for each in found] == [2.0, 1.0, 2.0]


def test_our_own_layout_is_seen_first(tmp_path: Path) -> None:
    fields = {"prompt_id": "p", "prompt": "a dog", "sample": 0}
    write_plain_set(tmp_path / "set", [(fields, picture(1))])
    write(tmp_path / "set" / "captions.csv", "file_name,caption\nimages/p/0000.png,x\n")
    found = open_set(tmp_path / "set")
    assert not isinstance(found, ForeignSet)
    assert found.records[0].prompt == "a dog"


def test_what_is_not_certain_is_asked(tmp_path: Path) -> None:
    put(tmp_path / "plain" / "a.png", 1)
    with pytest.raises(DataError, match=r"no metadata\.jsonl.*--layout.*--prompts"):
        open_set(tmp_path / "plain")
    both = make_evalgim(tmp_path)
    write(both / "captions.json", {f"images/{path.stem}": "x" for path in (both / "images").iterdir()})
    with pytest.raises(DataError, match="evalgim or captions; say which"):
        open_set(both)
    assert {each.prompt for each in open_set(both, "captions")} == {"x"}
    with pytest.raises(ConfigError, match="did you mean 'hpsv2'"):
        open_set(both, "hpsv")
    with pytest.raises(DataError, match="there is no folder"):
        open_set(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no file of prompts"):
        open_set(both, prompts=tmp_path / "nowhere.json")


@pytest.mark.parametrize("make", [make_geneval, make_evalgim])
def test_prompts_are_refused_where_a_layout_has_its_own(tmp_path: Path, make: Any) -> None:
    root = make(tmp_path / "m")
    with pytest.raises(DataError, match=r"(its|their) own prompts"):
        open_set(root, "geneval" if make is make_geneval else "evalgim", write(tmp_path / "p.json", ["x"]))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root = make_captions(tmp_path / "mine")
    secret = put(tmp_path / "secret.png", 9)
    (root / "b.png").unlink()
    (root / "b.png").symlink_to(secret)
    with pytest.raises(DataError, match="symbolic link"):
        open_set(root)


# ---------------------------------------------------------------- writing


def ours(path: Path, *, samples: int = 2, suffix: str = "png", **fields: Any) -> ImageSet:
    """A set of three prompts in our layout, of noise that JPEG would not keep."""
    generator = np.random.default_rng(0)
    made = []
    for i in range(3):
        for sample in range(samples):
            line = {
                "prompt_id": f"p-{i}",
                "prompt": f'prompt, "{i}"',
                "sample": sample,
                "seed": i,
                "model": "m",
                **fields,
            }
            made.append((line, Image.fromarray(generator.integers(0, 256, (16, 24, 3), dtype=np.uint8))))
    write_plain_set(path, made)
    if suffix != "png":
        text = (path / "metadata.jsonl").read_text()
        for file in path.rglob("*.png"):
            Image.open(file).save(file.with_suffix(f".{suffix}"), quality=90)
            file.unlink()
        write(path / "metadata.jsonl", text.replace(".png", f".{suffix}"))
    return ImageSet(path)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path).convert("RGB"))


def same(image_set: ImageSet, number: int, path: Path) -> bool:
    return np.array_equal(pixels(image_set.file(image_set.records[number])), pixels(path))


def test_an_export_to_hpsv2_is_what_its_evaluation_reads(tmp_path: Path) -> None:
    source = ours(tmp_path / "set", category="anime")
    told = export_set(source, "hpsv2", tmp_path / "out")
    assert (told.pictures, told.encoded, told.left_out) == (3, 3, {"samples after the first": 3})
    # HPSv2 takes every entry of the folder for a style, and opens {style}/{number:05d}.jpg by the style's prompts
    for style in os.listdir(tmp_path / "out" / "images"):
        prompts = json.loads((tmp_path / "out" / "prompts" / f"{style}.json").read_text())
        assert prompts == [f'prompt, "{i}"' for i in range(3)]
        for number in range(len(prompts)):
            path = tmp_path / "out" / "images" / style / f"{number:05d}.jpg"
            assert Image.open(path).format == "JPEG"
            wanted = pixels(source.file(source.records[2 * number])).astype(float)
            assert np.abs(pixels(path) - wanted).mean() < 12  # quality 95; another picture of noise is 85 away
    back = open_set(tmp_path / "out")
    assert [each.prompt for each in back] == [f'prompt, "{i}"' for i in range(3)]


def test_an_export_to_geneval_is_what_its_evaluation_reads(tmp_path: Path) -> None:
    source = ours(tmp_path / "set", tag="two_object", include=[{"class": "cat", "count": 1}], category="two_object")
    assert export_set(source, "geneval", tmp_path / "out").encoded == 0
    number = 0
    for folder in sorted(os.listdir(tmp_path / "out")):  # as its evaluate_images.py goes through the folder
        assert folder.isdigit()
        with (tmp_path / "out" / folder / "metadata.jsonl").open() as handle:
            metadata = json.load(handle)
        assert metadata == {
            "tag": "two_object",
            "include": [{"class": "cat", "count": 1}],
            "prompt": f'prompt, "{number // 2}"',
        }
        for name in sorted(os.listdir(tmp_path / "out" / folder / "samples")):
            assert re.match(r"\d+\.png", name)
            assert same(source, number, tmp_path / "out" / folder / "samples" / name)
            number += 1
    assert number == 6
    with pytest.raises(DataError, match="does not say what must be seen"):
        export_set(ours(tmp_path / "other"), "geneval", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_an_export_to_imagereward_is_what_its_benchmark_reads(tmp_path: Path) -> None:
    source = ours(tmp_path / "set")
    export_set(source, "imagereward", tmp_path / "out", name="tuned")
    prompts = json.loads((tmp_path / "out" / "prompts.json").read_text())
    folder = tmp_path / "out" / "images" / "tuned"
    per_prompt = len(os.listdir(folder)) // len(prompts)  # as its test-benchmark.py counts
    assert per_prompt == 2
    for i, item in enumerate(prompts):
        assert item == {"id": f"p-{i}", "prompt": f'prompt, "{i}"'}
        for x in range(per_prompt):
            assert same(source, 2 * i + x, folder / f"{item['id']}_{x}.png")
    assert lines(open_set(folder))[3] == ("p-1_1.png", "p-1", 'prompt, "1"', 1)


def test_an_export_to_evalgim_names_pictures_where_they_are(tmp_path: Path) -> None:
    source = ours(tmp_path / "set")
    export_set(source, "evalgim", tmp_path / "m__d__cfg7")
    entries = json.loads((tmp_path / "m__d__cfg7" / "index.json").read_text())
    assert [each["prompt"] for each in entries] == [each.prompt for each in source]
    for number, entry in enumerate(entries):
        assert Path(entry["image_path"]).is_absolute()
        assert same(source, number, Path(entry["image_path"]))
    assert (open_set(tmp_path / "m__d__cfg7").records[0].model) == "m"


def test_an_export_with_captions_is_read_by_imagefolder_and_clipscore(tmp_path: Path) -> None:
    from datasets import load_dataset

    source = ours(tmp_path / "set")
    export_set(source, "captions", tmp_path / "out")
    loaded = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "c"))
    assert loaded["prompt"] == [each.prompt for each in source]
    for number, image in enumerate(loaded["image"]):
        assert np.array_equal(np.asarray(image), pixels(source.file(source.records[number])))
    candidates = json.loads((tmp_path / "out" / "candidates.json").read_text())
    assert [candidates[f"{i:06d}"] for i in range(6)] == [each.prompt for each in source]
    back = open_set(tmp_path / "out")
    assert [(each.prompt_id, each.sample, each.prompt) for each in back] == [
        (each.prompt_id, each.sample, each.prompt) for each in source
    ]
    with (tmp_path / "out" / "metadata.csv").open() as handle:
        assert next(csv.reader(handle))[0] == "file_name"


@pytest.mark.parametrize(
    "make", [make_hpsv2, make_geneval, make_imagereward, make_evalgim, make_captions, make_rankings]
)
def test_every_layout_comes_over_into_ours(tmp_path: Path, make: Any) -> None:
    root = make(tmp_path / "source")
    prompts = {"make_hpsv2": tmp_path / "benchmark", "make_rankings": tmp_path / "test.json"}.get(make.__name__)
    source = open_set(root, prompts=prompts)
    export_set(source, "t2ialign", tmp_path / "out")
    back = ImageSet(tmp_path / "out")
    assert [(r.prompt_id, r.sample, r.prompt, r.category) for r in back] == [
        (r.prompt_id, r.sample, r.prompt, r.category) for r in source
    ]
    for old, new in zip(source, back, strict=True):
        assert source.file(old).read_bytes() == back.file(new).read_bytes()
        assert hashlib.sha256(back.file(new).read_bytes()).hexdigest() == new.sha256
        assert (new.width, new.height) == (12, 10)


@pytest.mark.parametrize("layout", EXPORTS)
def test_an_export_is_whole_or_not_at_all(tmp_path: Path, layout: str) -> None:
    source = ours(tmp_path / "set", category="anime", include=[{"class": "cat", "count": 1}])
    broken = source.file(source.records[4])
    broken.write_bytes(broken.read_bytes()[:20])
    with pytest.raises(DataError, match=r"0000\.png"):
        export_set(source, layout, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    write(tmp_path / "full" / "mine.txt", "keep me")
    with pytest.raises(DataError, match="is there already"):
        export_set(source, layout, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"


def test_files_of_another_format_are_encoded_anew_without_loss_where_that_is_possible(tmp_path: Path) -> None:
    source = ours(tmp_path / "set", suffix="jpg", category="anime")
    png = export_set(source, "imagereward", tmp_path / "png")
    assert png.encoded == 6
    assert same(source, 3, tmp_path / "png" / "images" / "set" / "p-1_1.png")
    jpeg = export_set(source, "hpsv2", tmp_path / "jpg")
    assert jpeg.encoded == 0
    linked = tmp_path / "jpg" / "images" / "anime" / "00000.jpg"
    assert linked.stat().st_ino == source.file(source.records[0]).stat().st_ino


def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    made = [({"prompt_id": "a/b", "prompt": "x", "sample": 0}, picture(1))]
    write_plain_set(tmp_path / "set", made)
    with pytest.raises(DataError, match="'a/b' can not be part of a file name"):
        export_set(ImageSet(tmp_path / "set"), "imagereward", tmp_path / "out")


def test_mistakes_of_an_export_are_named(tmp_path: Path) -> None:
    source = ours(tmp_path / "set")
    with pytest.raises(ConfigError, match="did you mean 'geneval'"):
        export_set(source, "genval", tmp_path / "out")
    with pytest.raises(ConfigError, match="cannot write the layout 'rankings'"):
        export_set(source, "rankings", tmp_path / "out")
    assert set(EXPORTS) < set(LAYOUTS)
