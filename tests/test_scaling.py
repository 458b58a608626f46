"""The simulation of scripts/simulate_scaling.py against sums done by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "simulate_scaling.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("simulate_scaling", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def setting(script: Any, **changes: Any) -> Any:
    values = {"step_seconds": 0.5, "pairs_per_step": 64, "batch_size": 2, "steps": 1000}
    values |= {"trained": 1e9, "numbers": 2e9}
    return script.Setting(**{**values, **changes})


def test_one_gpu_talks_to_nobody(script: Any) -> None:
    found = script.simulate(setting(script), 1)
    assert (found.step, found.exposed, found.accumulation, found.efficiency) == (32.0, 0.0, 32, 1.0)
    # 1000 steps of 32 s, two checkpoints of 12 s, a start of 180 s, and failures: 8.895... h on a node of 500 h.
    stepping = 1000 * 32 + 2 * 12
    failures = stepping / 3600 / 500
    assert found.hours == pytest.approx((stepping + 180 + failures * (180 + 250 * 32)) / 3600)


def test_a_ring_sends_each_gradient_nearly_twice(script: Any) -> None:
    # 4e9 bytes of gradients between 4 GPUs: 2 * 3/4 * 4e9 / 1e9 = 6 s, of which the last backward hides half.
    calm = setting(script, bandwidth_inside=1e9, overlap=1.0, backward_share=0.5)
    found = script.simulate(calm, 4)
    assert found.communication == pytest.approx(6.0)
    assert found.exposed == pytest.approx(6.0 - 2 * 0.5 * 0.5)
    assert found.step == pytest.approx(8.0 + 5.5)
    assert found.efficiency == pytest.approx(8.0 / 13.5)


def test_parts_are_gathered_for_every_batch(script: Any) -> None:
    # 8 batches: 3 * 2 * 2e9 * 8 bytes of weights and 4e9 of gradients, three quarters of them, at 1e9 a second.
    found = script.simulate(setting(script, sharded=True, bandwidth_inside=1e9, overlap=0.0), 4)
    assert found.communication == pytest.approx(0.75 * (96 + 4))
    assert found.exposed == found.communication


def test_between_machines_the_network_counts(script: Any) -> None:
    inside = script.simulate(setting(script, bandwidth_inside=1e9, bandwidth_between=1e8), 8)
    between = script.simulate(setting(script, bandwidth_inside=1e9, bandwidth_between=1e8), 16)
    assert between.communication / inside.communication == pytest.approx(10 * (15 / 16) / (7 / 8))


def test_slow_reading_is_the_limit(script: Any) -> None:
    # A GPU's share is 16 pairs, 8 s of compute; four workers of half a pair a second need 8 s, of a quarter 16.
    assert script.simulate(setting(script, decode_rate=0.5, overlap=0.0, trained=0.0), 4).step == pytest.approx(8.0)
    assert script.simulate(setting(script, decode_rate=0.25, overlap=0.0, trained=0.0), 4).step == pytest.approx(16.0)


def test_a_step_that_cannot_be_split_is_refused(script: Any) -> None:
    with pytest.raises(ValueError, match="64 pairs are no multiple of 3 GPUs x 2 pairs"):
        script.simulate(setting(script), 3)


def test_figures_of_the_runbook(script: Any) -> None:
    text = (SCRIPT.parent.parent / "docs" / "runbook.md").read_text()
    rows = {
        line.split("|")[1].strip(): [part.strip() for part in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    }
    forward, reference = rows["policy, forward"], rows["reference, forward"]
    plain, again = rows["policy, backward"], rows["policy, backward with checkpointing"]
    columns = {("sd15", "lora"): (0, plain), ("sd15", "full"): (2, again), ("sdxl", "lora"): (3, again)}
    for key, (column, backward) in {**columns, ("sdxl", "full"): (5, again)}.items():
        parts = [float(row[column]) for row in (forward, backward, reference)]
        assert script.OPERATIONS[key] == pytest.approx(sum(parts) * 1e12, rel=1e-3)
        assert script.BACKWARD[key] == pytest.approx(parts[1] / sum(parts), abs=0.006)
