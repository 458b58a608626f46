"""Which of a prompt's pairs are written."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from t2ialign.annotation.pair_choice import CHOICES, Pair, at_most, balance


def pairs_of(values: dict[str, float], least: float = 0.0, prompt: str = "p") -> list[Pair]:
    """All pairs of pictures with these values whose difference is above 0 and reaches the margin."""
    found = []
    for one, two in combinations(sorted(values), 2):
        chosen, rejected = (one, two) if values[one] > values[two] else (two, one)
        gap = abs(values[one] - values[two])
        if gap > 0 and gap >= least:
            found.append(Pair(prompt, prompt, None, "a", chosen, rejected, margin=gap, strength=(0.0, 1.0, gap)))
    return found


def names(pairs: list[Pair]) -> set[str]:
    return {f"{pair.chosen}>{pair.rejected}" for pair in pairs}


def test_best_against_worst() -> None:
    assert names(CHOICES["best_worst"](pairs_of({"a": 1, "b": 5, "c": 3}), 0)) == {"b>a"}
    assert CHOICES["best_worst"]([], 0) == []


def test_of_equals_the_seed_decides() -> None:
    equal = pairs_of({"a": 1, "b": 5, "c": 5, "d": 1})
    drawn = [CHOICES["best_worst"](equal, seed) for seed in range(40)]
    assert all(len(each) == 1 for each in drawn)
    assert set.union(*map(names, drawn)) == {"b>a", "b>d", "c>a", "c>d"}


def test_a_tie_only_where_there_is_nothing_else() -> None:
    tie = Pair("p", "p", None, "a", "x", "y", tie=True, margin=0.0, strength=(9.0, 9.0, 9.0))
    assert CHOICES["best_worst"]([tie, *pairs_of({"a": 1, "b": 2})], 0)[0].chosen == "b"
    assert CHOICES["best_worst"]([tie], 0) == [tie]


def test_the_ladder_has_the_steps_alone() -> None:
    assert names(CHOICES["ladder"](pairs_of({"a": 1, "b": 5, "c": 3, "d": 4}), 0)) == {"b>d", "d>c", "c>a"}
    assert names(CHOICES["ladder"](pairs_of({"a": 1, "b": 3, "c": 3, "d": 4}), 0)) == {"d>b", "d>c", "b>a", "c>a"}


def test_a_step_that_the_margin_removed_is_stepped_over() -> None:
    values = {"a": 3.0, "b": 2.5, "c": 2.0}
    assert names(CHOICES["ladder"](pairs_of(values, least=1.0), 0)) == {"a>c"}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5).map(float), min_size=2), st.integers(0, 99))
def test_the_order_in_which_pairs_come_does_not_matter(values: dict[str, float], seed: int) -> None:
    pairs = pairs_of(values)
    mixed = random.Random(seed).sample(pairs, len(pairs))
    for choose in CHOICES.values():
        assert names(choose(pairs, 1)) == names(choose(mixed, 1))
    kept, again = (at_most(each, 2, lambda pair: pair.prompt, 1) for each in (pairs, mixed))
    assert names(kept) == names(again)
    assert len(kept) == min(2, len(pairs))


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5).map(float), min_size=2))
def test_all_that_is_preferred_can_be_reached_on_the_ladder(values: dict[str, float]) -> None:
    pairs = pairs_of(values)
    steps = CHOICES["ladder"](pairs, 0)
    reached = {(pair.chosen, pair.rejected) for pair in steps}
    for _ in values:
        reached |= {(one, four) for one, two in reached for three, four in reached if two == three}
    assert reached == {(pair.chosen, pair.rejected) for pair in pairs}


def test_the_limit_is_drawn_and_not_the_largest() -> None:
    pairs = pairs_of(dict(zip("abcdef", range(6), strict=True)))
    drawn = {frozenset(names(at_most(pairs, 3, lambda pair: pair.prompt, seed))) for seed in range(20)}
    assert len(drawn) > 10
    assert all(len(each) == 3 for each in drawn)
    assert len(at_most([*pairs, *pairs_of({"a": 1, "b": 2}, prompt="q")], 3, lambda pair: pair.prompt, 0)) == 4


def test_balance() -> None:
    assert balance([2, 2, 2]) == {"prompts": 3, "least": 2, "median": 2.0, "most": 2, "effective_prompts": 3.0}
    assert balance([1, 3]) == {"prompts": 2, "least": 1, "median": 2.0, "most": 3, "effective_prompts": 1.6}
    assert balance([])["prompts"] == 0
