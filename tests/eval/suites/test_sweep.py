"""A sweep: its points are made once, compared on the same pictures' numbers, and continued; checkpoints are points."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from helpers import eval_tiny
from helpers.detectors import forbid
from t2ialign.config import load
from t2ialign.errors import ConfigError
from t2ialign.eval.suites.options import EvalOptions
from t2ialign.eval.suites.plan import make_plan
from t2ialign.eval.suites.run import run_suite
from t2ialign.eval.suites.sweep import settings, sweep_plan
from t2ialign.eval.suites.sweep_options import SweepOptions

SUITE = """
description: A sweep of a few pictures.
batch_size: 8
generation: {num_inference_steps: 2}
prompts:
  open: {source: %s, images_per_prompt: 3}
scorers: [oracle, clipscore@mini-clip]
embedder: clipscore@mini-clip
sections:
  grids: {lines: 2}
  tradeoff: {real: mini-world, count: 20}
"""
SWEPT_HEAD = "sweep: {guidance_scale: [1, 6], images_per_prompt: 2}\n"
PROMPTS = ("a star", "a ring", "a circle")


@pytest.fixture
def suite(tmp_path: Path) -> EvalOptions:
    """mini-SD against itself, three prompts with three pictures each, without a sweep as yet."""
    lines = [json.dumps({"prompt_id": f"p{i}", "prompt": text}) for i, text in enumerate(PROMPTS)]
    (tmp_path / "open.jsonl").write_text("\n".join(lines))
    (tmp_path / "swept.yaml").write_text(SUITE % (tmp_path / "open.jsonl"))
    return EvalOptions(
        suite=str(tmp_path / "swept.yaml"),
        model=["base=mini-sd", "again=mini-sd"],
        output_dir=tmp_path / "out",
        resamples=200,
        workers=0,
        device="cpu",
    )


def swept(options: EvalOptions, **sweep: Any) -> EvalOptions:
    return replace(options, sweep=SweepOptions(**sweep))


def report_of(options: EvalOptions) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((options.output_dir / "report.json").read_text(encoding="utf-8"))
    return content


def test_a_sweep_is_made_scored_shown_and_then_left_alone(suite: EvalOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    options = swept(suite, guidance_scale=[1, 6], images_per_prompt=2)
    first = run_suite(options)
    assert first.made == 2 * 3 * 3 + 2 * 2 * 3 * 2
    assert sorted(path.name for path in (options.output_dir / "sweep" / "sets" / "open").iterdir()) == [
        "again_guidance-1", "again_guidance-6", "base_guidance-1", "base_guidance-6",
    ]  # fmt: skip
    for scale in (1, 6):
        made = json.loads((options.output_dir / f"sweep/sets/open/base_guidance-{scale}/config.json").read_text())
        assert (made["guidance_scale"], made["num_inference_steps"]) == (scale, 2)
    report = report_of(options)
    figures, (section,) = report["figures"], [s for s in report["sections"] if s["section"] == "tradeoff"]
    for point in ("base", "base_guidance-1", "base_guidance-6"):
        folder = options.output_dir / ("sets" if point == "base" else "sweep/sets") / "open" / point
        rows = parquet.read_table(folder / "scores.parquet").to_pylist()
        scores = [row["score"] for row in rows if row["scorer"] == "oracle" and row["sample"] < 2]
        assert figures[f"tradeoff/open/sweep/{point}/oracle_mean"]["value"] == pytest.approx(np.mean(scores))
        assert 1 <= figures[f"tradeoff/open/sweep/{point}/diversity_mean"]["value"] <= 2
        assert 0 <= figures[f"tradeoff/open/sweep/{point}/realism_mean"]["value"] <= 1
        assert figures[f"tradeoff/open/sweep/{point}/oracle_mean"]["n"] == 3
    assert figures["tradeoff/open/sweep/base_guidance-6/oracle_mean"]["method"].endswith("guidance_scale 6")
    # the same weights at the same settings reach the same
    change = figures["tradeoff/open/sweep/again/hypervolume_difference"]
    assert (change["value"], change["low"], change["high"]) == (0, 0, 0)
    said = [each for each in section["sentences"] if "hypervolume" in each["text"]]
    assert [each["tone"] for each in said] == ["open"]
    titles = [block["title"] for block in section["blocks"] if block["kind"] == "plot"]
    assert sum(title.startswith("Sweep: ") for title in titles) == 2
    with monkeypatch.context() as patched:
        forbid(patched)
        assert run_suite(options).measured == ()


def test_a_sweep_may_come_later_grow_and_lose_a_picture(suite: EvalOptions) -> None:
    suite = replace(suite, batch_size=1)  # a picture does not depend on others in its batch, but for the last bit
    run_suite(suite)
    assert not any("hypervolume" in name for name in report_of(suite)["figures"])
    small = swept(suite, guidance_scale=[1], limit=2)
    found = run_suite(small)
    assert (found.made, found.measured) == (2 * 2 * 3, ("tradeoff",))  # the suite's own pictures were there
    assert len(list((suite.output_dir / "sweep-2").rglob("*.png"))) == 2 * 2 * 3
    larger = swept(suite, guidance_scale=[1, 6], limit=2)
    assert run_suite(larger).measured == ("tradeoff",)
    before = (suite.output_dir / "rows.parquet").read_bytes()
    lost = next((suite.output_dir / "sweep-2").rglob("again_guidance-6/**/0001.png"))
    content = lost.read_bytes()
    lost.unlink()
    assert run_suite(larger).measured == ("tradeoff",)
    assert lost.read_bytes() == content
    assert (suite.output_dir / "rows.parquet").read_bytes() == before
    assert run_suite(small).measured == ("tradeoff",)  # back to the smaller one: nothing is made
    assert "tradeoff/open/sweep/base_guidance-6/oracle_mean" not in report_of(suite)["figures"]


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["sets/open/base_guidance-6/images/000001/*.png", "state/*base_guidance-1*"])
def test_a_sweep_that_was_killed_is_continued_to_the_same_report(suite: EvalOptions, seen: str) -> None:
    file, whole, torn = Path(suite.suite), suite.output_dir / "whole", suite.output_dir / "torn"
    file.write_text(SWEPT_HEAD + file.read_text().replace("batch_size: 8", "batch_size: 1"))
    eval_tiny.main(str(file), str(whole))
    words = [sys.executable, eval_tiny.__file__, str(file), str(torn)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None and not list((torn / "sweep").glob(seen)):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (torn / "report.json").exists()
    eval_tiny.main(str(file), str(torn))
    for name in ("rows.parquet", "report.json"):
        assert (torn / name).read_bytes() == (whole / name).read_bytes(), name


def test_checkpoints_are_points(suite: EvalOptions, tmp_path: Path) -> None:
    from helpers.lora_runs import lora_run

    run = lora_run(tmp_path / "run")
    options = replace(suite, model=["base=mini-sd", f"tuned=mini-sd+{run / 'final'}", f"merged={run / 'final'}"])
    options = replace(swept(options, checkpoints=2, limit=2, images_per_prompt=2), batch_size=1)
    plan = make_plan(options)
    assert [each.label for each in settings(plan)] == [
        "tuned_step-000002", "tuned_step-000003", "merged_step-000002", "merged_step-000003",
    ]  # fmt: skip
    run_suite(options)
    figures = report_of(options)["figures"]
    assert figures["tradeoff/open/sweep/tuned_step-000003/oracle_mean"]["model"] == "tuned"
    # the last checkpoint is the run's end: its pictures are those of final/, byte for byte
    for name in ("tuned", "merged"):
        end = options.output_dir / "sweep-2" / "sets" / "open" / f"{name}_step-000003"
        own = options.output_dir / "sets" / "open" / name
        lines = [json.loads(line) for line in (end / "metadata.jsonl").read_text().splitlines()]
        theirs = {}
        for line in (own / "metadata.jsonl").read_text().splitlines():
            record = json.loads(line)
            theirs[record["prompt_id"], record["sample"]] = record["sha256"]
        assert all(theirs[line["prompt_id"], line["sample"]] == line["sha256"] for line in lines)
    with pytest.raises(ConfigError, match="no model is a run"):
        settings(make_plan(swept(suite, checkpoints=2)))


def test_all_combinations_are_points(suite: EvalOptions) -> None:
    plan = make_plan(swept(suite, guidance_scale=[1, 6], num_inference_steps=[2, 4]))
    points = settings(plan)
    assert [each.label for each in points][:4] == [
        "base_guidance-1_steps-2", "base_guidance-1_steps-4", "base_guidance-6_steps-2", "base_guidance-6_steps-4",
    ]  # fmt: skip
    assert len(points) == 8
    made = sweep_plan(plan)
    assert made is not None
    assert made.how["base_guidance-6_steps-4"].guidance_scale == 6
    assert made.how["base_guidance-6_steps-4"].num_inference_steps == 4
    assert make_plan(suite).to_dict() == plan.to_dict()  # a sweep may be added to what is there


def test_the_command_line_lies_over_the_suite() -> None:
    both = SweepOptions(guidance_scale=[1, 2]).over(SweepOptions(guidance_scale=[3], limit=8))
    assert both == SweepOptions(guidance_scale=[1, 2], limit=8)
    words = {"suite": "mini", "model": "a", "output_dir": "x", "sweep.guidance_scale": "1.5,3"}
    assert load(EvalOptions, None, words).sweep.guidance_scale == [1.5, 3.0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"guidance_scale": [1, 1]}, "each value once"),
        ({"guidance_scale": [-1]}, "must be 0 or more"),
        ({"num_inference_steps": [0]}, "at least 1"),
        ({"limit": 1}, "at least 2 prompts"),
        ({"images_per_prompt": 1}, "diversity takes at least 2"),
    ],
)
def test_what_is_wrong_in_a_sweep_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SweepOptions(**given)


def test_a_model_and_a_setting_of_one_name_are_refused(suite: EvalOptions) -> None:
    named = replace(suite, model=["base=mini-sd", "base_guidance-1=mini-sd"])
    with pytest.raises(ConfigError, match="rename the model"):
        settings(make_plan(swept(named, guidance_scale=[1])))


def test_a_sweep_needs_its_section_and_several_pictures(suite: EvalOptions) -> None:
    file = Path(suite.suite)
    text = file.read_text()
    file.write_text(text.replace("images_per_prompt: 3", "images_per_prompt: 1"))
    with pytest.raises(ConfigError, match="several pictures"):
        sweep_plan(make_plan(swept(suite, guidance_scale=[1])))
    file.write_text(text.replace("  tradeoff: {real: mini-world, count: 20}\n", ""))
    with pytest.raises(ConfigError, match="section tradeoff"):
        sweep_plan(make_plan(swept(suite, guidance_scale=[1])))
