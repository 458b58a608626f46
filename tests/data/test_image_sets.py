"""Image sets that are stopped, continued, and written by several processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.pair_sets import picture
from t2ialign.data.image_sets import ImageRecord, ImageSet, ImageSetWriter, merge_parts
from t2ialign.errors import DataError

CONFIG = {"model": "m", "steps": 25, "versions": {"torch": "1"}, "guidance_scale": 7.5}


def fields(prompt: int, sample: int = 0, **more: Any) -> dict[str, Any]:
    known = {"prompt_id": f"p-{prompt}", "prompt": f"é {prompt}", "sample": sample, "seed": 10 * prompt + sample}
    return {**known, "model": "m", "category": "c", "country": "Peru", **more}


def fill(writer: ImageSetWriter, prompts: range, samples: int = 2) -> None:
    for prompt in prompts:
        for sample in range(samples):
            if (f"p-{prompt}", sample, "m") not in writer.done:
                writer.add(fields(prompt, sample), picture(10 * prompt + sample), prompt_index=prompt)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with ImageSetWriter(tmp_path, CONFIG) as writer:
        fill(writer, range(2))
        assert writer.done == {(f"p-{p}", s, "m") for p in range(2) for s in range(2)}
    images = ImageSet(tmp_path)
    assert len(images) == 4
    assert images.config == CONFIG
    record = images.records[1]
    assert record.file_name == "images/000000/0001.png"
    assert (record.prompt_id, record.prompt, record.sample, record.seed) == ("p-0", "é 0", 1, 1)
    assert (record.width, record.height, record.negative_prompt, record.extra) == (16, 16, "", {"country": "Peru"})
    assert record.sha256 == hashlib.sha256((tmp_path / record.file_name).read_bytes()).hexdigest()
    assert images.open(record).getpixel((0, 0)) == (1, 0, 0)
    line = json.loads((tmp_path / "metadata.jsonl").read_text().splitlines()[1])
    assert line == record.to_dict()
    assert ImageRecord.from_dict(line) == record
    assert [each.key for each in images] == [("p-0", 0, "m"), ("p-0", 1, "m"), ("p-1", 0, "m"), ("p-1", 1, "m")]


def test_imagefolder_reads_it(tmp_path: Path) -> None:
    import datasets

    with ImageSetWriter(tmp_path / "set", CONFIG) as writer:
        fill(writer, range(2))
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded["train"]["prompt_id"]) == ["p-0", "p-0", "p-1", "p-1"]


def test_a_config_that_differs_is_refused_with_the_difference(tmp_path: Path) -> None:
    ImageSetWriter(tmp_path, CONFIG).close()
    ImageSetWriter(tmp_path, {**CONFIG, "versions": {"torch": "2"}, "created": "now"}).close()
    other = {**CONFIG, "steps": 50, "scheduler": "ddim"}
    del other["guidance_scale"]
    with pytest.raises(DataError) as caught:
        ImageSetWriter(tmp_path, other)
    told = str(caught.value)
    assert "guidance_scale: 7.5 there, nothing now" in told
    assert 'scheduler: nothing there, "ddim" now' in told
    assert "steps: 25 there, 50 now" in told
    assert "versions" not in told
    with pytest.raises(ValueError, match="JSON"):
        ImageSetWriter(tmp_path / "new", {"x": float("nan")})
    with pytest.raises(ValueError, match="rank 2 does not fit world_size 2"):
        ImageSetWriter(tmp_path, CONFIG, rank=2, world_size=2)


def test_foreign_metadata_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(DataError, match=r"metadata\.jsonl but no config\.json"):
        ImageSetWriter(tmp_path, CONFIG)


def test_a_picture_is_added_once(tmp_path: Path) -> None:
    with ImageSetWriter(tmp_path, CONFIG) as writer:
        writer.add(fields(0), picture(0), prompt_index=0)
        for again, index in ((fields(0), 0), (fields(0), 1), (fields(1), 0)):
            with pytest.raises(DataError, match="is there already"):
                writer.add(again, picture(1), prompt_index=index)
        with pytest.raises(DataError, match="prompt_id is None"):
            writer.add({"prompt": "x"}, picture(1), prompt_index=5)
    assert len(ImageSet(tmp_path)) == 1


def straight(tmp_path: Path) -> dict[str, bytes]:
    with ImageSetWriter(tmp_path / "straight", CONFIG) as writer:
        fill(writer, range(3))
    return contents(tmp_path / "straight")


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return straight(tmp_path_factory.mktemp("whole"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_torn_set_continues_to_the_same_files(
    tmp_path: Path, whole_set: dict[str, bytes], data: st.DataObject
) -> None:
    """The metadata is cut at any byte, and any pictures are lost or cut: continuing gives what a straight run does."""
    whole = whole_set
    folder = tmp_path / f"{time.monotonic_ns()}-torn"
    for name, content in whole.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    lines = whole["metadata.jsonl"]
    (folder / "metadata.jsonl").write_bytes(lines[: data.draw(st.integers(0, len(lines)))])
    pictures = sorted(name for name in whole if name.endswith(".png"))
    for name in data.draw(st.sets(st.sampled_from(pictures))):
        (folder / name).write_bytes(whole[name][: data.draw(st.integers(0, len(whole[name]) - 1))])
        if data.draw(st.booleans()):
            (folder / name).unlink()
    with ImageSetWriter(folder, CONFIG) as writer:
        fill(writer, range(3))
    assert contents(folder) == whole


def test_a_killed_process_is_continued(tmp_path: Path, root: Path) -> None:
    code = (
        "import sys; from PIL import Image; from t2ialign.data.image_sets import ImageSetWriter\n"
        f"w = ImageSetWriter({str(tmp_path / 'set')!r}, {CONFIG!r})\n"
        "for p in range(10**6):\n"
        "    if (f'p-{p}', 0, 'm') not in w.done:\n"
        "        fields = {'prompt_id': f'p-{p}', 'prompt': 'x', 'model': 'm'}\n"
        "        w.add(fields, Image.new('RGB', (8, 8)), prompt_index=p)\n"
        "        print(p, flush=True)\n"
    )
    counts = []
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
        )
        assert child.stdout is not None
        for _ in range(10):
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        images = ImageSet(tmp_path / "set")
        assert all(images.open(record).size == (8, 8) for record in images)
        counts.append(len(images))
    assert counts[1] >= counts[0] + 10 >= 20
    ImageSetWriter(tmp_path / "set", CONFIG).close()
    assert len(ImageSet(tmp_path / "set")) == counts[1]


def test_several_ranks_give_the_set_of_one(tmp_path: Path) -> None:
    whole = straight(tmp_path)
    folder = tmp_path / "ranks"
    writers = [ImageSetWriter(folder, CONFIG, rank=rank, world_size=3) for rank in range(3)]
    for rank, writer in enumerate(writers):
        fill(writer, range(rank, rank + 1))
    late = ImageSetWriter(folder, CONFIG, rank=1, world_size=3)
    assert len(late.done) == 6
    late.close()
    assert len(ImageSet(folder)) == 6
    for writer in reversed(writers):
        writer.close()
        writer.close()
    assert contents(folder) == whole


def test_parts_left_by_more_ranks_are_taken_over(tmp_path: Path) -> None:
    whole = straight(tmp_path)
    folder = tmp_path / "ranks"
    writers = [ImageSetWriter(folder, CONFIG, rank=rank, world_size=3) for rank in range(3)]
    for rank, writer in enumerate(writers):
        fill(writer, range(rank, rank + 1), samples=1)
    with (folder / "metadata.rank-2.jsonl").open("ab") as part:
        part.write(b'{"file_name": "images/000002/0001.png", "promp')
    with ImageSetWriter(folder, CONFIG) as writer:
        assert len(writer.done) == 3
        fill(writer, range(3))
    assert contents(folder) == whole


def test_merging_again_changes_nothing(tmp_path: Path) -> None:
    whole = straight(tmp_path)
    folder = tmp_path / "straight"
    (folder / "metadata.rank-0.jsonl").write_bytes(whole["metadata.jsonl"])
    merge_parts(folder)
    merge_parts(folder)
    assert contents(folder) == whole


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"file_name": "../a.png", "prompt_id": "a", "prompt": "b"}, r"climbs out with '\.\.'"),
        ({"file_name": "/a.png", "prompt_id": "a", "prompt": "b"}, "absolute"),
        ({"file_name": "a.png", "prompt": "b"}, "line 1: prompt_id is None"),
        ({"file_name": "a.png", "prompt_id": "a", "prompt": "b", "sample": "0"}, "sample is '0'"),
        ({"file_name": "a.png", "prompt_id": "a", "prompt": "b", "seed": True}, "seed is True"),
        ([1], "a JSON object is needed, not list"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: object, words: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=words):
        ImageSet(tmp_path)


def test_bad_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no metadata\.jsonl"):
        ImageSet(tmp_path)
    line = json.dumps({"file_name": "a.png", "prompt_id": "a", "prompt": "b"}) + "\n"
    (tmp_path / "metadata.jsonl").write_text(line + "{\n" + line)
    with pytest.raises(DataError, match="line 2: not JSON"):
        ImageSet(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(line * 2)
    with pytest.raises(DataError, match=r"a\.png has two lines"):
        ImageSet(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(line.strip())
    images = ImageSet(tmp_path)
    assert images.config == {}
    with pytest.raises(DataError, match=r"a\.png: there is no such file"):
        images.open(images.records[0])
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"config\.json: a JSON object"):
        ImageSet(tmp_path)
