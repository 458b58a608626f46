"""The demo's prompts are held out: of the split asked for, distinct, and in no pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2ialign.data.pairs import load_pairs
from t2ialign.demo.prompts import held_out_prompts, write_prompts
from t2ialign.mini.world import describe, parse, split_of, turn_around


@pytest.mark.parametrize("split", ["test", "validation"])
def test_prompts_are_distinct_and_of_their_split(split: str) -> None:
    prompts = held_out_prompts(160, seed=0, split=split)
    assert len(prompts) == len(set(prompts)) == 160
    assert {split_of(p) for p in prompts} == {split}


def test_most_ask_for_two_objects_and_all_are_fully_specified() -> None:
    specs = [parse(p) for p in held_out_prompts(160, seed=1)]
    assert sum(len(s.things) == 2 for s in specs) >= 0.75 * len(specs)
    assert sum(len(s.things) == 1 for s in specs) >= 10
    assert any(s.country for s in specs)
    assert all(s.background or s.country for s in specs)


def test_the_seed_draws_the_prompts() -> None:
    assert held_out_prompts(50, 3) == held_out_prompts(50, 3)
    assert held_out_prompts(50, 3) != held_out_prompts(50, 4)


def test_no_prompt_of_the_report_is_in_a_training_pair() -> None:
    seen = set(load_pairs("mini-pairs", split="train").prompts)
    seen |= {describe(turn_around(parse(p))) for p in seen}
    for seed in range(3):
        assert not seen & set(held_out_prompts(160, seed))


def test_written_prompts_are_read_by_generate(tmp_path: Path) -> None:
    from t2ialign.data.prompts import read_prompts

    prompts = held_out_prompts(5, 0)
    read = read_prompts(write_prompts(prompts, tmp_path / "prompts.jsonl"))
    assert [p.prompt for p in read] == prompts
    assert len({p.prompt_id for p in read}) == 5
