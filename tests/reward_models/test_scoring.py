"""Scoring a set: one pass, one decode, continuing, and what makes a score stale."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from t2ialign.data import images
from t2ialign.data.image_sets import ImageSet, ImageSetWriter
from t2ialign.errors import ConfigError, DataError
from t2ialign.reward_models import pictures, scoring
from t2ialign.reward_models.score_files import COLUMNS, ScoreTable
from t2ialign.reward_models.scoring import score_set


class Brightness:
    """A scorer that can be checked by hand: mean of the picture, plus the length of the prompt."""

    higher_is_better = True

    def __init__(self, name: str = "brightness", version: str = "v1", setting: int = 0) -> None:
        self.name, self.version, self.setting = name, version, setting
        self.scored: list[str] = []

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        self.scored += prompts
        return torch.tensor(
            [float(np.asarray(image).mean()) + len(p) for p, image in zip(prompts, images, strict=True)]
        )

    def info(self) -> dict[str, Any]:
        return {"scorer": self.name, "setting": self.setting, "n_truncated": len(self.scored)}

    def count_truncated(self, prompts: Sequence[str]) -> int:
        return sum(len(prompt) > 5 for prompt in set(prompts))

    def aggregate(self, scores: Sequence[float]) -> float:
        return float(np.mean(scores))


def write_set(path: Path, prompts: int = 5, samples: int = 2, shift: int = 0) -> Path:
    with ImageSetWriter(path, {"model": "m"}) as writer:
        for i in range(prompts):
            for sample in range(samples):
                fields = {"prompt_id": f"p{i}", "prompt": "x" * (i + 2), "sample": sample, "seed": i, "model": "m"}
                picture = Image.new("RGB", (8, 8), (10 * i + sample + shift,) * 3)
                if (f"p{i}", sample, "m") not in writer.done:
                    writer.add(fields, picture, prompt_index=i)
    return path


def read(path: Path) -> Any:
    import pandas

    return pandas.read_parquet(path)


def test_a_score_file(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    summary = score_set(folder, [Brightness(), Brightness("other", "v2")], batch_size=3)
    table = read(folder / "scores.parquet")
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 20
    row = table[(table.prompt_id == "p3") & (table["sample"] == 1) & (table.scorer == "other")].iloc[0]
    assert (row.file_name, row.version, row.score) == ("images/000003/0001.png", "v2", 31.0 + 5)
    assert summary.pictures == 10
    assert [(s.scorer, s.scored, s.kept, s.truncated) for s in summary.scorers] == [
        ("brightness", 10, 0, 1),
        ("other", 10, 0, 1),
    ]
    assert summary.scorers[0].aggregate == pytest.approx(20.5 + 4)
    assert "brightness (v1): 24.5000, 10 scored" in str(summary)
    info = json.loads((folder / "scores.brightness.json").read_text())
    assert info == {
        "scorer": "brightness",
        "versions": {"v1": {"scorer": "brightness", "setting": 0, "device": "cpu", "n_truncated": 1}},
    }
    told = json.loads((folder / "scores.summary.json").read_text())["sets"]
    assert list(told) == ["."]
    assert told["."] == json.loads(json.dumps(summary.to_dict())) | {"output": "scores.parquet"}
    assert told["."]["settings"]["batch_size"] == 3


class Shrunk:
    """A preparation that can be shared: it notes in a file that it ran, for it may run in another process."""

    def __init__(self, size: int, log: Path) -> None:
        self.size, self.log = size, log

    def __call__(self, image: Any) -> torch.Tensor:
        with self.log.open("a") as lines:
            lines.write(f"{self.size} {os.getpid()}\n")
        return torch.from_numpy(np.array(image.convert("RGB").resize((self.size,) * 2)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shrunk) and self.size == other.size

    def __hash__(self) -> int:
        return hash(self.size)

    def info(self) -> dict[str, Any]:
        return {"size": self.size}


class Prepared(Brightness):
    """Brightness of prepared pictures, at most `batch_size` at a time."""

    batch_size = 2

    def __init__(self, name: str, preparation: Shrunk) -> None:
        super().__init__(name)
        self.preparation = preparation
        self.sizes: list[int] = []

    def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
        raise AssertionError("a scorer that prepares is given prepared pictures")

    def score_prepared(self, prompts: Sequence[str], prepared: Sequence[Any]) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        self.sizes.append(len(prompts))
        return super().score(prompts, prepared)


@pytest.mark.parametrize("workers", [0, 2])
def test_scorers_that_prepare_alike_share_the_work(tmp_path: Path, workers: int) -> None:
    folder, log = write_set(tmp_path / "set"), tmp_path / "log"
    scorers = [Prepared("one", Shrunk(4, log)), Prepared("two", Shrunk(4, log)), Prepared("other", Shrunk(2, log))]
    summary = score_set(folder, scorers, batch_size=3, workers=workers)
    ran = [line.split() for line in log.read_text().splitlines()]
    assert sorted(size for size, _ in ran).count("4") == 10 + (workers > 0)  # one picture is measured beforehand
    assert len(ran) == 2 * 10 + 2 * (workers > 0)
    elsewhere = {int(process) for _, process in ran} - {os.getpid()}
    assert len(elsewhere) == workers
    assert scorers[0].sizes == [2, 1, 2, 1, 2, 1, 1]
    assert [each.aggregate for each in summary.scorers] == [pytest.approx(20.5 + 4)] * 3


def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(tmp_path / "set")
    read: list[str] = []
    plain = images.decode_image

    def counting(source: Any, *, name: str) -> Any:
        read.append(name)
        return plain(source, name=name)

    monkeypatch.setattr(pictures, "decode_image", counting)
    score_set(folder, [Brightness(), Brightness("other"), Brightness("third")], batch_size=2, workers=0)
    assert sorted(read) == sorted(f"set/{record.file_name}" for record in ImageSet(folder))


def test_continues_with_new_pictures_and_new_scorers(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", prompts=3)
    score_set(folder, [Brightness()])
    write_set(folder, prompts=5)
    again, new = Brightness(), Brightness("new")
    summary = score_set(folder, [again, new])
    assert (len(again.scored), len(new.scored)) == (4, 10)
    assert [(s.scored, s.kept) for s in summary.scorers] == [(4, 6), (10, 0)]
    idle = Brightness()
    score_set(folder, [idle])
    assert idle.scored == []
    assert len(read(folder / "scores.parquet")) == 20


def test_a_changed_scorer_scores_again_and_a_new_version_stands_beside(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    score_set(folder, [Brightness()])
    changed = Brightness(setting=1)
    score_set(folder, [changed])
    assert len(changed.scored) == 10
    assert len(read(folder / "scores.parquet")) == 10
    score_set(folder, [Brightness(version="v2")])
    table = read(folder / "scores.parquet")
    assert table.groupby("version").size().to_dict() == {"v1": 10, "v2": 10}
    assert set(json.loads((folder / "scores.brightness.json").read_text())["versions"]) == {"v1", "v2"}


def test_a_picture_made_again_is_scored_again(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    score_set(folder, [Brightness(), Brightness("other")])
    lines = (folder / "metadata.jsonl").read_text().splitlines(keepends=True)
    (folder / "metadata.jsonl").write_text("".join(lines[:3] + lines[4:]))
    (folder / "images/000001/0001.png").unlink()
    write_set(folder, shift=100)
    scorer = Brightness()
    score_set(folder, [scorer])
    assert scorer.scored == ["xxx"]
    table = read(folder / "scores.parquet")
    assert table[(table.file_name == "images/000001/0001.png")].score.tolist() == [111.0 + 3]


def test_a_stop_keeps_what_was_scored(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    broken = folder / "images/000003/0000.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"set/images/000003/0000\.png: begins like PNG but is damaged or cut short"):
        score_set(folder, [Brightness()], batch_size=2)
    assert not list(folder.glob("scores.part-*"))
    assert len(read(folder / "scores.parquet")) == 6
    broken.write_bytes(whole)
    scorer = Brightness()
    score_set(folder, [scorer], batch_size=2)
    assert len(scorer.scored) == 4


def test_one_file_for_several_sets(tmp_path: Path) -> None:
    first, second = write_set(tmp_path / "first"), write_set(tmp_path / "second", shift=50)
    output = tmp_path / "all" / "scores.parquet"
    score_set(first, [Brightness()], output)
    score_set(second, [Brightness()], output)
    table = read(output)
    assert len(table) == 20
    assert set(table.file_name.str.split("images").str[0]) == {"../first/", "../second/"}
    name = "images/000000/0000.png"
    assert ScoreTable.read(output).names_in(first, [name]) == {name: f"../first/{name}"}
    assert ScoreTable.read(first / "scores.parquet").names_in(first, [name]) == {name: name}


def test_a_score_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    class Broken(Brightness):
        def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
            return torch.full((len(prompts),), float("nan"))

    with pytest.raises(DataError, match=r"brightness gives nan for images/000000/0000\.png \(prompt p0\)"):
        score_set(write_set(tmp_path / "set"), [Broken()])


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    with pytest.raises(ConfigError, match="named twice"):
        score_set(folder, [Brightness(), Brightness()])
    with pytest.raises(DataError, match="no scorer"):
        score_set(folder, [])
    with pytest.raises(ConfigError, match="did you mean 'oracle'"):
        score_set(folder, ["oracel"])
    with pytest.raises(DataError, match=r"no metadata\.jsonl"):
        score_set(tmp_path, [Brightness()])
    (tmp_path / "scores.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="no readable parquet"):
        score_set(folder, [Brightness()], tmp_path / "scores.parquet")


def test_the_oracle_on_a_set_of_the_mini_world(tmp_path: Path) -> None:
    from t2ialign.mini import oracle, world

    prompts = ["the flag of France", "the flag of Nigeria"]
    with ImageSetWriter(tmp_path / "set", {"model": "m"}) as writer:
        for i, prompt in enumerate(prompts):
            fields = {"prompt_id": f"p{i}", "prompt": prompts[0], "sample": 0, "seed": 0, "model": "m"}
            writer.add(fields, world.render(world.parse(prompt)), prompt_index=i)
    summary = score_set(tmp_path / "set", ["oracle"])
    scores = read(tmp_path / "set/scores.parquet").score.tolist()
    pictures = [world.render(world.parse(prompt)) for prompt in prompts]
    assert scores == pytest.approx([oracle.score(prompts[0], picture) for picture in pictures], abs=1e-6)
    assert scores[0] > scores[1]
    assert summary.scorers[0].aggregate == pytest.approx(sum(scores) / 2)


def test_the_oracle_refuses_other_prompts_before_it_reads_a_picture(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    for record in ImageSet(folder):
        (folder / record.file_name).unlink()
    with pytest.raises(DataError, match="'xx'"):
        score_set(folder, [Brightness(), "oracle"])


def test_a_gap_is_counted_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    cut, gone = folder / "images/000003/0000.png", folder / "images/000001/0001.png"
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    gone.unlink()
    summary = score_set(folder, [Brightness(), Brightness("other")], batch_size=4, allow_gaps=True)
    assert [(each.scored, each.kept) for each in summary.scorers] == [(8, 0), (8, 0)]
    assert set(summary.gaps) == {"images/000003/0000.png", "images/000001/0001.png"}
    assert "there is no such file" in summary.gaps["images/000001/0001.png"]
    assert "damaged or cut short" in summary.gaps["images/000003/0000.png"]
    assert any(line.startswith("gaps, pictures that could not be read: 2") for line in summary.remarks())
    told = json.loads((folder / "scores.summary.json").read_text())["sets"]["."]
    assert told["gaps"] == summary.gaps
    table = read(folder / "scores.parquet")
    assert len(table) == 16
    assert summary.scorers[0].aggregate == pytest.approx(table[table.scorer == "brightness"].score.mean())
    cut.write_bytes(whole)
    again = Brightness()
    with pytest.raises(DataError, match=r"set/images/000001/0001\.png: there is no such file"):
        score_set(folder, [again], batch_size=1)
    assert len(again.scored) == 0  # the missing one comes first
    assert score_set(folder, [again], batch_size=1, allow_gaps=True).scorers[0].scored == 1


def test_a_set_of_gaps_alone_has_no_score(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", prompts=1, samples=1)
    (folder / "images/000000/0000.png").unlink()
    summary = score_set(folder, [Brightness()], allow_gaps=True)
    assert summary.scorers[0].aggregate is None
    assert "none" in str(summary)


def test_what_a_killed_run_left_counts_a_torn_line_does_not(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    score_set(folder, [Brightness()])
    whole = (folder / "scores.parquet").read_bytes()
    table = read(folder / "scores.parquet")
    (folder / "scores.parquet").unlink()
    rows = [[r.file_name, r.prompt_id, int(r["sample"]), r.score] for _, r in table.iterrows()]
    lines = [json.dumps({"scorer": "brightness", "version": "v1", "rows": rows[i : i + 3]}) for i in (0, 3, 6)]
    (folder / "scores.part-0.jsonl").write_text(lines[0] + "\n" + lines[1] + "\n" + lines[2][:-20])
    (folder / "scores.part-1.jsonl").write_text(json.dumps({"gaps": {rows[9][0]: "was away"}}) + "\n")
    scorer = Brightness()
    summary = score_set(folder, [scorer], batch_size=2)
    assert (summary.scorers[0].scored, summary.scorers[0].kept) == (4, 6)
    assert len(scorer.scored) == 4
    assert summary.gaps == {}
    assert (folder / "scores.parquet").read_bytes() == whole
    assert not list(folder.glob("scores.part-*"))


def test_what_a_killed_run_left_is_dropped_if_the_scorer_changed(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    score_set(folder, [Brightness()])
    row = ["images/000000/0000.png", "p0", 0, -1.0]
    (folder / "scores.part-0.jsonl").write_text(
        json.dumps({"scorer": "brightness", "version": "v1", "rows": [row]}) + "\n"
    )
    changed = Brightness(setting=1)
    score_set(folder, [changed])
    assert len(changed.scored) == 10
    assert read(folder / "scores.parquet").score.min() >= 0


def test_a_part_that_is_none_is_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    (folder / "scores.part-0.jsonl").write_text('{"scorer": "x", "rows": 3}\n')
    with pytest.raises(DataError, match=r"scores\.part-0\.jsonl, line 1"):
        score_set(folder, [Brightness()])


class Killed(BaseException):
    """Stands for a kill: nothing but the test catches it."""


@pytest.mark.parametrize("moment", ["table", "infos"])
def test_no_old_score_ever_stands_under_a_new_info(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A scorer changes, and the run is killed after the first or after the second file that it writes."""
    folder = write_set(tmp_path / "set")
    score_set(folder, [Brightness()])
    owner, name = (ScoreTable, "write") if moment == "table" else (scoring, "write_infos")
    plain = getattr(owner, name)

    def then_die(*words: Any) -> None:
        plain(*words)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, then_die)
        with pytest.raises(Killed):
            score_set(folder, [Brightness(setting=1)])
    said = json.loads((folder / "scores.brightness.json").read_text())["versions"]["v1"]["setting"]
    assert said == (0 if moment == "table" else 1)
    assert len(read(folder / "scores.parquet")) == 0
    scorer = Brightness(setting=1)
    score_set(folder, [scorer])
    assert len(scorer.scored) == 10


@pytest.mark.parametrize("autocast", ["no", "bf16"])
def test_autocast_is_used_and_recorded(tmp_path: Path, autocast: str) -> None:
    class Product(Brightness):
        def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
            numbers = torch.tensor([[float(np.asarray(image).mean()) / 255] for image in images])
            product = numbers @ torch.tensor([[1.001]])
            self.scored.append(str(product.dtype))
            return product[:, 0].float()

    folder, scorer = write_set(tmp_path / "set"), Product()
    score_set(folder, [scorer], autocast=autocast)
    info = json.loads((folder / "scores.brightness.json").read_text())["versions"]["v1"]
    assert set(scorer.scored) == {"torch.float32" if autocast == "no" else "torch.bfloat16"}
    assert info.get("autocast") == (None if autocast == "no" else "bfloat16")
    other = Product()
    score_set(folder, [other], autocast="no" if autocast == "bf16" else "bf16")
    assert other.scored  # other numbers, so they are computed anew


def test_autocast_fp16_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a GPU"):
        score_set(write_set(tmp_path / "set"), [Brightness()], autocast="fp16", device="cpu")


def test_another_device_does_not_make_scores_stale(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    score_set(folder, [Brightness()])
    path = folder / "scores.brightness.json"
    path.write_text(path.read_text().replace('"cpu"', '"cuda (NVIDIA H100)"'))
    scorer = Brightness()
    score_set(folder, [scorer])
    assert scorer.scored == []


def test_batch_size_and_workers_do_not_change_scores(tmp_path: Path) -> None:
    from helpers.clip import save_clip

    folder, clip = write_set(tmp_path / "set"), save_clip(tmp_path)
    generator = np.random.default_rng(0)
    for record in ImageSet(folder):
        size = tuple(generator.integers(30, 80, 2))
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / record.file_name)
    tables = []
    for batch_size, workers in ((4, 0), (4, 1), (4, 3), (1, 0), (10, 2)):
        output = tmp_path / f"{batch_size}-{workers}" / "scores.parquet"
        score_set(folder, [f"clipscore@{clip}?definition=cosine"], output, batch_size=batch_size, workers=workers)
        tables.append(read(output))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert tables[0].score.nunique() == 10
    for table in tables[3:]:
        np.testing.assert_allclose(table.score, tables[0].score, rtol=0, atol=1e-6)


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    before = torch.get_rng_state()
    score_set(folder, [Brightness()], batch_size=2, workers=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_scorers_do_not_see_is_told(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    names = [record.file_name for record in ImageSet(folder)]
    Image.new("RGBA", (8, 8), (10, 20, 30, 40)).save(folder / names[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (8, 4), "red").save(folder / names[1], exif=turned)
    summary = score_set(folder, [Brightness()], batch_size=4, workers=1)
    assert summary.notices == {
        "pictures with transparency, which scorers do not see": 1,
        "pictures with an EXIF orientation, which scorers do not apply": 1,
    }
    assert read(folder / "scores.parquet").score[0] == 20 + 2  # the alpha is dropped, not laid on white


def test_a_scorer_must_not_take_a_file_s_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="summary"):
        score_set(write_set(tmp_path / "set"), [Brightness("summary")])


def test_a_foreign_set_is_scored_where_it_lies(tmp_path: Path) -> None:
    root = tmp_path / "model"
    for i in range(3):
        (root / "anime").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (10 * i,) * 3).save(root / "anime" / f"{i:05d}.jpg", quality=100)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "anime.json").write_text(json.dumps(["x", "xx", "xxx"]))
    output = tmp_path / "scores.parquet"
    summary = score_set(root, [Brightness()], output, prompts=tmp_path / "prompts")
    table = read(output)
    assert table.file_name.tolist() == [f"model/anime/{i:05d}.jpg" for i in range(3)]
    assert table.prompt_id.tolist() == [f"anime-{i:05d}" for i in range(3)]
    assert table.score.tolist() == [0 + 1, 10 + 2, 20 + 3]
    assert summary.settings["layout"] == "hpsv2"
    assert sorted(path.name for path in root.rglob("*")) == ["00000.jpg", "00001.jpg", "00002.jpg", "anime"]


def test_a_foreign_picture_that_changed_is_scored_again(tmp_path: Path) -> None:
    """Such a set tells no digests, so those of the files are kept, and the files are looked at again."""
    root = tmp_path / "mine"
    root.mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (10 * i,) * 3).save(root / f"{i}.png")
    (root / "captions.txt").write_text("a\nbb\nccc\n")
    output = tmp_path / "scores.parquet"
    score_set(root, [Brightness()], output, workers=1)
    again = Brightness()
    score_set(root, [again], output)
    assert again.scored == []
    Image.new("RGB", (8, 8), (50,) * 3).save(root / "1.png")
    score_set(root, [again], output)
    assert again.scored == ["bb"]
    assert read(output).score.tolist() == [0 + 1, 50 + 2, 20 + 3]
    (root / "2.png").unlink()
    with pytest.raises(DataError, match=r"mine: 3 lines|captions\.txt: 3 lines for 2 pictures"):
        score_set(root, [again], output)
