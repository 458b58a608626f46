"""Scoring a set: one pass, one decode, continuing, and what makes a score stale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from t2ialign.data.image_sets import ImageSet, ImageSetWriter
from t2ialign.errors import ConfigError, DataError
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
        "versions": {"v1": {"scorer": "brightness", "setting": 0, "n_truncated": 1}},
    }
    json.dumps(summary.to_dict())


def test_every_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(tmp_path / "set")
    opened: list[str] = []
    plain = ImageSet.open

    def counting(self: ImageSet, record: Any) -> Any:
        opened.append(record.file_name)
        return plain(self, record)

    monkeypatch.setattr(ImageSet, "open", counting)
    score_set(folder, [Brightness(), Brightness("other"), Brightness("third")], batch_size=2)
    assert sorted(opened) == sorted(record.file_name for record in ImageSet(folder))


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
    with pytest.raises(DataError, match=r"images/000003/0000\.png"):
        score_set(folder, [Brightness()], batch_size=2)
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
    assert ScoreTable.read(output).name_of(first / "images/000000/0000.png") == "../first/images/000000/0000.png"


def test_a_score_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    class Broken(Brightness):
        def score(self, prompts: Sequence[str], images: Sequence[Any]) -> torch.Tensor:
            return torch.full((len(prompts),), float("nan"))

    with pytest.raises(DataError, match=r"brightness gives nan for images/000000/0000\.png \(prompt p0\)"):
        score_set(write_set(tmp_path / "set"), [Broken()])


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    with pytest.raises(DataError, match="named twice"):
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


def test_the_oracle_refuses_other_prompts_before_it_reads_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_set(tmp_path / "set")

    def never(self: ImageSet, record: Any) -> Any:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(ImageSet, "open", never)
    with pytest.raises(DataError, match="'xx'"):
        score_set(folder, [Brightness(), "oracle"])
