"""What an estimate counts: what is encoded when, and memory at the worst moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from helpers.training import dpo_config, tiny_model
from t2ialign.data.pairs import PairDataset
from t2ialign.trainers.dpo import DiffusionDPOTrainer
from t2ialign.trainers.live_memory import LiveMemory

MIB = 1 << 20


def layers(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    for _ in range(5):
        hidden = (hidden @ weight).tanh()
    return hidden


@pytest.mark.parametrize(("recompute", "forward", "peak"), [(False, 20, 23), (True, 4, 11)])
def test_live_memory_counts_what_is_kept_and_what_is_computed_again(recompute: bool, forward: int, peak: int) -> None:
    """Four blocks of five layers: 20 results are kept, or 4 and those of one block, beside three at work."""
    weight = torch.randn(512, 512, requires_grad=True)
    hidden = torch.randn(512, 512)
    with LiveMemory() as live:
        for _ in range(4):
            hidden = checkpoint(layers, hidden, weight, use_reentrant=False) if recompute else layers(hidden, weight)
        assert live.live == forward * MIB
        hidden.sum().backward()
        assert live.peak // MIB == peak
        weight.grad = None
        del hidden
    assert live.live == 0


def test_live_memory_counts_a_storage_once_and_views_not_at_all() -> None:
    before = torch.ones(MIB // 4)
    with LiveMemory() as live:
        view = before.view(512, 512).T
        assert live.live == 0
        copy = view.contiguous()
        part = copy[:10]
        del copy
        assert live.live == MIB  # the part holds the whole storage
        del part
    assert (live.live, live.peak) == (0, MIB)


def test_live_memory_counts_copies_that_autocast_makes() -> None:
    weight, given = torch.randn(512, 512), torch.randn(512, 512)
    with LiveMemory() as live, torch.autocast("cpu", dtype=torch.bfloat16):
        result = given @ weight
        assert live.peak == 3 * MIB // 2  # both in half precision, and the result
    assert result.dtype == torch.bfloat16


def estimated(pairs: PairDataset, **changes: Any) -> dict[str, Any]:
    config = dpo_config(Path("unused"), estimate=True, **changes)
    return DiffusionDPOTrainer(config, model=tiny_model(), pairs=pairs).train()


@pytest.mark.parametrize(("latents", "text"), [(True, True), (True, False), (False, True), (False, False)])
def test_each_kind_of_encoding_is_charged_where_it_happens(pairs: PairDataset, latents: bool, text: bool) -> None:
    report = estimated(pairs, cache_latents=latents, cache_text=text, gradient_accumulation_steps=2)
    seconds = report["seconds"]
    step = seconds["batch"] + (not latents) * seconds["pictures"] + (not text) * seconds["captions"]
    assert seconds["step"] == pytest.approx(2 * step)
    before = latents * seconds["pictures"] / 4 * 16 + text * seconds["captions"] / 2 * 3
    assert seconds["caches"] == pytest.approx(before)
    assert seconds["run"] == pytest.approx(before + 4 * 2 * step)
    assert (report["cached"]["latents"] is None, report["cached"]["text"] is None) == (not latents, not text)


def test_what_a_folder_has_need_not_be_encoded(tmp_path: Path, pairs: PairDataset) -> None:
    cache = tmp_path / "cache"
    first = estimated(pairs, cache_dir=cache)["cached"]
    assert first["latents"] == {"rows": 16, "missing": 16, "bytes": 16 * 2 * 4 * 64 * 4}
    assert not cache.exists()
    DiffusionDPOTrainer(dpo_config(tmp_path / "run", cache_dir=cache), model=tiny_model(), pairs=pairs).train()
    then = estimated(pairs, cache_dir=cache)
    assert then["cached"]["latents"]["missing"] == then["cached"]["text"]["missing"] == 0
    assert then["seconds"]["caches"] == 0
    assert estimated(pairs, cache_dir=cache, resolution=32)["cached"]["latents"]["missing"] == 16


def test_checkpointing_takes_less_but_not_nothing(pairs: PairDataset) -> None:
    plain, again = (estimated(pairs, batch_size=4, gradient_checkpointing=on)["memory_bytes"] for on in (False, True))
    assert again["activations"] < 0.8 * plain["activations"]
    assert again["activations"] > 0
    assert plain["sum"] == sum(value for name, value in plain.items() if name != "sum")
