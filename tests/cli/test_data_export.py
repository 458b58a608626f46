"""`data export` and `score` on foreign layouts: their lists are the library's, and files come out in their places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from helpers.image_sets import write_plain_set
from t2ialign.cli import data_export, score
from t2ialign.cli.main import main
from t2ialign.data import layouts
from t2ialign.mini import world
from t2ialign.reward_models.scoring_pass import AUTOCAST


def test_the_layouts_are_the_library_s() -> None:
    assert data_export.LAYOUTS == score.LAYOUTS == tuple(layouts.LAYOUTS)
    assert data_export.EXPORTS == layouts.EXPORTS


@pytest.mark.parametrize("autocast", AUTOCAST)
def test_every_autocast_can_be_asked_for(autocast: str) -> None:
    assert score.Options(image_set=Path("s"), scorers=["oracle"], autocast=autocast).autocast == autocast


def test_out_to_geneval_and_in_again_with_the_same_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas

    prompts = ["the flag of France", "the flag of Nigeria"]
    shown = [world.render(world.parse(prompts[0])), world.render(world.parse(prompts[0]))]
    asked = {"tag": "flags", "include": [{"class": "flag", "count": 1}]}
    write_plain_set(
        tmp_path / "set",
        (
            ({"prompt_id": f"p{i}", "prompt": prompt, "sample": 0, "category": "flags", **asked}, image)
            for i, (prompt, image) in enumerate(zip(prompts, shown, strict=True))
        ),
    )
    out, back = tmp_path / "out", tmp_path / "back"
    assert main(["data", "export", str(tmp_path / "set"), "--to", "geneval", "--output_dir", str(out)]) == 0
    assert "2 pictures" in capsys.readouterr().out
    assert main(["data", "export", str(out), "--to", "t2ialign", "--output_dir", str(back)]) == 0
    tables = []
    for folder in (tmp_path / "set", out, back):
        output = tmp_path / f"{folder.name}.parquet"
        words = ["score", str(folder), "--with", "oracle", "--output", str(output), "--workers", "0"]
        assert main(words) == 0
        tables.append(pandas.read_parquet(output).score.tolist())
    assert tables[0] == tables[1] == tables[2]
    assert tables[0][0] > tables[0][1]
    assert main(["data", "export", str(out), "--to", "t2ialign", "--output_dir", str(back)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_gaps_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    captions = {"a.png": "the flag of France", "b.png": "the flag of France"}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    words = ["score", str(tmp_path), "--with", "oracle"]
    assert main(words) == 1
    assert "b.png: there is no such file" in capsys.readouterr().err
    assert main([*words, "--allow_gaps"]) == 0
    told = capsys.readouterr().out
    assert "over 1 pictures; 1 scored, 0 kept" in told
    assert "gaps, pictures that could not be read: 1, the first b.png" in told
