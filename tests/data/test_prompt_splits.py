"""Splitting by prompt: a function of text and seed, near-duplicates together, shares kept."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ialign.data.near_duplicates import normalised, similarity
from t2ialign.data.prompt_splits import own_split, split_prompts
from t2ialign.errors import ConfigError

GOLDEN = ["one", "two", "two", "one", "one", "two", "one", "one"]
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_golden_splits() -> None:
    """These may never change: prompts would cross from the test of one set to the training of another."""
    prompts = ["a red circle", "a photo of a cat", "prompt 3", "prompt 4", "prompt 5", "the flag of Japan", "x", "y"]
    assert [own_split(prompt, {"one": 0.5, "two": 0.5}, 0) for prompt in prompts] == GOLDEN


@given(st.lists(st.text(min_size=1), min_size=1), st.lists(st.text(min_size=1)), st.integers(0, 5))
@settings(deadline=None)
def test_other_prompts_do_not_matter(prompts: list[str], others: list[str], seed: int) -> None:
    here = split_prompts(prompts, SHARES, seed, None)
    there = split_prompts([*others, *reversed(prompts)], SHARES, seed, None)
    assert all(here[prompt] == there[prompt] == own_split(prompt, SHARES, seed) for prompt in prompts)


@given(st.lists(st.text("ab c", min_size=1, max_size=12), min_size=1, max_size=20), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_no_prompt_and_no_near_duplicate_is_in_two_splits(prompts: list[str], seed: int) -> None:
    splits = split_prompts(prompts, SHARES, seed, 0.5)
    for one in prompts:
        for two in prompts:
            if normalised(one) == normalised(two) or similarity(one, two) >= 0.5:
                assert splits[one] == splits[two]
    assert sum(splits.counts.values()) == len({normalised(prompt) for prompt in prompts})
    again = split_prompts(random.Random(seed).sample(prompts, len(prompts)), SHARES, seed, 0.5)
    assert all(again[prompt] == splits[prompt] for prompt in prompts)


def test_the_way_a_prompt_is_written_does_not_matter() -> None:
    for seed in range(20):
        assert own_split("A cat, on a mat.", SHARES, seed) == own_split("a cat on a mat", SHARES, seed)


def test_the_shares_are_kept() -> None:
    n = 4000
    counts = split_prompts((f"prompt {number}" for number in range(n)), SHARES, 3, None).counts
    assert list(counts) == list(SHARES)
    for name, share in SHARES.items():
        assert abs(counts[name] - n * share) < 4 * math.sqrt(n * share * (1 - share))


def test_another_seed_is_another_split() -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    one, two = (split_prompts(prompts, {"a": 0.5, "b": 0.5}, seed, None) for seed in (0, 1))
    assert 60 < sum(one[prompt] == two[prompt] for prompt in prompts) < 140


def test_the_group_goes_where_its_first_goes() -> None:
    first, second = "a small red circle left of a large blue square", "small red circles left of a large blue square"
    shares = {"a": 0.5, "b": 0.5}
    moved = 0
    for seed in range(30):
        splits = split_prompts([second, first], shares, seed)
        assert splits[first] == splits[second] == own_split(first, shares, seed)
        moved += splits.moved
        assert splits.moved == (own_split(first, shares, seed) != own_split(second, shares, seed))
    assert 5 < moved < 25
    told = splits.to_dict()["near_duplicates"]
    assert (told["prompts"], told["groups"], told["largest"]) == (2, 1, 2)
    assert told["examples"] == [[first, second]]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "no split"),
        ({"train": 0.9}, "add up to 0.9"),
        ({"train": 1.0, "test": 0.0}, "must be above 0"),
        ({"a-b": 1.0}, "letters, digits"),
    ],
)
def test_wrong_shares(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_prompts(["a"], shares)
