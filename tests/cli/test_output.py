"""What commands print: aligned figures, reports, the demo's sentences, info."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t2ialign.cli import demo, estimate_table, info, score, train
from t2ialign.cli.data_import import FORMATS
from t2ialign.cli.main import main
from t2ialign.cli.output import figures
from t2ialign.data import importers
from t2ialign.reward_models.scoring import ScorerSummary, ScoringSummary


def test_figures_align_and_skip_what_is_not_there() -> None:
    values = {"loss": 0.69314718, "steps": 12000, "done": True, "final": None, "sizes": [1.5, 2]}
    assert figures(values) == ["  loss   0.6931", "  steps  12,000", "  done   yes", "  sizes  1.5, 2"]
    assert figures(values, ["steps", "absent"]) == ["  steps  12,000"]
    assert figures({}) == []


def test_a_run_s_summary_takes_what_matters() -> None:
    report = {
        "status": "done",
        "signal": None,
        "steps": 5,
        "versions": {"torch": "2"},
        "last": {"loss": 0.5, "step": 5},
    }
    assert train.summary(report) == ["  status     done", "  steps      5", "  last.loss  0.5"]


def test_an_estimate_is_a_table() -> None:
    report = {
        "parameters": 1000,
        "trainable_parameters": 25,
        "trainable_share": 0.025,
        "memory_bytes": {name: 2**20 * (number + 1) for number, name in enumerate(estimate_table._PARTS)},
        "peak_memory_bytes": 3 * 2**30,
        "seconds": {"batch": 0.5, "pictures": 0.25, "captions": 0.02, "step": 0.77, "caches": 300.0, "run": 9000.0},
        "cached": {"latents": {"rows": 8000, "missing": 500, "bytes": 10**9}, "text": None},
        "pairs_per_step": 64,
        "pairs_per_second": 83.1,
        "steps": 2000,
        "epochs": 1.5,
        "buckets": {"table": [{"height": 64, "width": 96, "entries": 30, "share": 0.25}]},
        "device": "cuda",
        "mixed_precision": "bf16",
    }
    shown = train.summary(report)
    assert "  trained      25 (2.50 %)" in shown
    assert "memory on cuda, mixed precision bf16" in shown
    assert "  together                       9.0 MiB" in shown
    assert "  measured peak              3,072.0 MiB" in shown
    assert "  encoding its pictures  250 ms, once: 500 of 8,000 are missing, 1.000 GB in all" in shown
    assert "  encoding its captions  20 ms, in every step" in shown
    assert "  caches                 5.0 min" in shown
    assert "  the run                2.5 h, 2,000 steps, 1.5 epochs, 83.1 pairs a second" in shown
    assert "  64 x 96  30 (25.0%)" in shown


def test_a_stopped_run_leaves_with_its_signal() -> None:
    assert train.exit_code({"status": "stopped", "signal": "SIGINT"}) == 130
    assert train.exit_code({"status": "stopped", "signal": "SIGTERM"}) == 143
    assert train.exit_code({"status": "done", "signal": None}) == 0
    assert train.exit_code({"seconds": {"step": 1.0}}) == 0


def test_the_demo_s_lines_hold_the_report_s_figures() -> None:
    report = {
        "base": {"oracle_accuracy": 0.5},
        "tuned": {"oracle_accuracy": 0.625},
        "win_rate": {"oracle": {"value": 0.61, "ci95": [0.55, 0.66], "n": 200}},
    }
    lines = demo.lines(report, Path("here"))
    assert "base: 50.0%" in lines[0]
    assert "tuned: 62.5%" in lines[1]
    assert "oracle: 61.0% (95 % interval 55.0% to 66.0%, 200 prompts)" in lines[2]
    assert lines[-1].endswith("report.html")


def test_a_score_s_lines() -> None:
    summary = ScoringSummary(Path("s.parquet"), 10, 1.0, [ScorerSummary("oracle", "1", 4, 6, 0, 0.25)])
    assert score.lines(summary) == [
        "oracle (1): 0.2500 over 10 pictures; 4 scored, 6 kept",
        f"scores: {Path('s.parquet')}",
    ]


def test_the_import_formats_are_the_library_s() -> None:
    assert sorted(FORMATS) == sorted(importers.FORMATS)


def test_info_writes_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "folder" / "info.json"
    assert main(["info", "--output", str(target)]) == 0
    shown = capsys.readouterr().out
    found = json.loads(target.read_text(encoding="utf-8"))
    assert set(found["versions"]) == set(info.PACKAGES)
    assert found["versions"]["torch"] in shown
    assert found["devices"][0]["name"] == "cpu"
    assert "sdpa" in found["attention"]
    assert set(found["packaged"]) == {"mini-sd", "mini-clip", "mini-pickscore", "mini-pairs", "mini-user-pairs"}
    assert found["cached"] == []


def test_info_names_the_extra_of_what_is_absent() -> None:
    found = info.gather() | {"optional": {"xformers": None, "wandb": None}}
    text = "\n".join(info.report_lines(found))
    assert "t2ialign[xformers]" in text
    assert "t2ialign[trackers]" in text
