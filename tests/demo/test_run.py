"""The demo in small: every figure is measured, the page shows them, and the folder of others is safe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2ialign.data.image_sets import ImageSet
from t2ialign.demo.report import curve_svg, smooth, summary
from t2ialign.demo.run import DemoSettings, run_demo
from t2ialign.errors import ConfigError
from t2ialign.mini.oracle import judge

SMALL = DemoSettings(prompts=10, split="validation", training={"steps": 2, "batch_size": 4})


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder, seed=5, settings=SMALL)


def test_report_json_holds_what_was_returned_and_what_is_promised(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, report = demo
    assert json.loads((folder / "report.json").read_text()) == report
    for scorer in ("oracle", "clipscore", "entirely right"):
        rate = report["win_rate"][scorer]
        assert rate["ci95"][0] <= rate["value"] <= rate["ci95"][1]
        assert rate["n"] == 10
    assert report["seconds"] > 0


def test_the_accuracies_are_the_pictures_own(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, report = demo
    for side in ("base", "tuned"):
        records = ImageSet(folder / side).records
        right = [judge(r.prompt, Image.open(folder / side / r.file_name)).right for r in records]
        assert report[side]["oracle_accuracy"] == pytest.approx(np.mean(right))
        assert report[side]["n"] == len(records) == 20


def test_base_and_tuned_start_from_the_same_noise(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    base, tuned = (ImageSet(folder / side).records for side in ("base", "tuned"))
    key = {(r.prompt_id, r.sample): r.seed for r in base}
    assert key == {(r.prompt_id, r.sample): r.seed for r in tuned}


def test_the_page_is_self_contained_and_shows_the_figures(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, report = demo
    page = (folder / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "data:image/png;base64," in page
    assert f"{100 * report['win_rate']['oracle']['value']:.1f} %" in page
    assert f"{100 * report['tuned']['oracle_accuracy']:.1f} %" in page


def test_the_final_adapter_is_loaded_by_plain_diffusers(demo: tuple[Path, dict[str, Any]]) -> None:
    from diffusers import StableDiffusionPipeline

    from t2ialign.mini import resource

    pipeline = StableDiffusionPipeline.from_pretrained(resource("mini-sd"))
    pipeline.load_lora_weights(str(demo[0] / "run" / "final"))
    assert pipeline.get_active_adapters()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "mine.png").write_text("mine")
    with pytest.raises(ConfigError, match="base"):
        run_demo(tmp_path, settings=SMALL)
    assert (tmp_path / "base" / "mine.png").exists()
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"base|thesis\.txt"):
        run_demo(tmp_path, settings=SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("better", "follows held-out prompts better"), ("worse", "worse"), ("no difference shown", "No difference")],
)
def test_the_summary_says_no_more_than_the_interval(verdict: str, words: str) -> None:
    rate = {"value": 0.5, "ci95": [0.4, 0.6], "n": 10}
    found = {"win_rate": {"entirely right": rate}, "comparison": {"entirely right": {"verdict": verdict}}}
    assert words in summary(found)


def test_curves() -> None:
    assert curve_svg([(1, 0.5)]) == ""
    svg = curve_svg([(1, 0.0), (2, 1.0), (3, 0.5)])
    assert svg.count("<polyline") == 2
    assert curve_svg([(1, 0.5), (2, 0.5)]).count("nan") == 0
    assert smooth([1.0, 3.0, 5.0], width=2) == [1.0, 2.0, 4.0]
