"""Near-duplicate prompts: the join is exact, which a plain double loop over sets of strings shows."""

from __future__ import annotations

import csv
import os
import random
import time
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ialign.data.near_duplicates import across, near_duplicates, normalised, similar_pairs, similarity


def shingles(text: str) -> set[str]:
    padded = " " + text + " "
    return {padded[i : i + 4] for i in range(len(padded) - 3)} or {padded}


def jaccard(one: str, two: str) -> float:
    first, second = shingles(one), shingles(two)
    return len(first & second) / len(first | second)


def found(texts: list[str], threshold: float) -> set[tuple[str, str]]:
    return {
        (texts[one], texts[two])
        for first, second in similar_pairs(texts, threshold)
        for one, two in zip(first.tolist(), second.tolist(), strict=True)
    }


def test_normalised() -> None:
    assert normalised("  A photo,  of a CAT! ") == normalised("a photo of a cat") == "a photo of a cat"
    assert normalised("ﬁve \u00bd stra\u00dfe_x") == "five 1 2 strasse x"
    assert normalised("\u732b\u306e\u5199\u771f") == "\u732b\u306e\u5199\u771f"
    assert normalised("!?") == "!?"  # nothing else is left of it
    assert normalised("!?") != normalised("...")


def test_similarity_by_hand() -> None:
    assert similarity("abc", "abc") == similarity("abc", "ABC!") == 1.0
    # " abc", "abc " and " abd", "abd "
    assert similarity("abc", "abd") == 0.0
    # " abc", "abcd", "bcd " and " abc", "abce", "bce "
    assert similarity("abcd", "abce") == pytest.approx(1 / 5)


def test_what_is_a_near_duplicate_and_what_is_not() -> None:
    base = "a small red circle left of a large blue square"
    plural, other = "small red circles left of a large blue square", "a small red circle left of a large green square"
    near = near_duplicates([base, plural, other, "A small, red circle left of a large blue square."])
    assert near.groups == ((base, plural),)
    assert (near.count, near.largest) == (2, 2)


def test_the_threshold_itself_is_enough() -> None:
    # " abc", "abc " and these two with "bc a", "c ab"
    assert similarity("abc", "abc abc") == 0.5
    assert near_duplicates(["abc", "abc abc"], 0.5).groups == (("abc", "abc abc"),)


def test_letters_are_told_apart_by_all_their_bits() -> None:
    assert ord("\u0161") & 0xFF == ord("\U00010061") & 0xFFFF == ord("a")
    assert near_duplicates(["aaaa", "\u0161" * 4, "\U00010061" * 4], 0.1).groups == ()


def test_a_chain_is_one_group() -> None:
    words = [f"word{chr(97 + n)}{chr(97 + n)}" for n in range(26)]
    chain = [" ".join(words[start : start + 20]) for start in range(5)]
    near = near_duplicates(chain, 0.8)
    assert jaccard(chain[0], chain[1]) >= 0.8 > jaccard(chain[0], chain[4])
    assert near.groups == (tuple(sorted(chain)),)


@given(
    st.lists(st.text("ab c\u0161\U00010061", min_size=1, max_size=24), max_size=30),
    st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]),
)
@settings(max_examples=80, deadline=None)
def test_the_join_is_that_of_two_loops(prompts: list[str], threshold: float) -> None:
    texts = sorted({normalised(prompt) for prompt in prompts})
    expected = {(one, two) for one, two in combinations(texts, 2) if jaccard(one, two) >= threshold}
    assert found(texts, threshold) == expected


def test_the_join_is_that_of_two_loops_for_longer_texts() -> None:
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 8))) for _ in range(60)]
    texts = {" ".join(rng.choices(words, k=rng.randint(3, 30))) for _ in range(120)}
    for text in sorted(texts)[:80]:
        place = rng.randrange(len(text))
        texts.add(normalised(text[:place] + rng.choice("xyz") + text[place + rng.randint(0, 1) :]))
    ordered = sorted(texts)
    for threshold in (0.4, 0.7, 0.8, 0.9):
        expected = {(one, two) for one, two in combinations(ordered, 2) if jaccard(one, two) >= threshold}
        assert found(ordered, threshold) == expected
        assert len(expected) > 15


@given(
    st.lists(st.text("ab cA!", min_size=1, max_size=14), max_size=12),
    st.lists(st.text("ab cA!", min_size=1, max_size=14), max_size=12),
    st.sampled_from([0.3, 0.8]),
)
@settings(max_examples=80, deadline=None)
def test_across_two_sets_it_is_that_of_two_loops(one: list[str], two: list[str], threshold: float) -> None:
    expected = {}
    for prompt in set(one) - set(two):
        near = [other for other in set(two) if jaccard(normalised(prompt), normalised(other)) >= threshold]
        if near:
            expected[prompt] = min(near)
    assert across(one, two, threshold) == sorted(expected.items())


def test_the_order_of_prompts_does_not_matter() -> None:
    rng = random.Random(1)
    prompts = [f"a photo of {n} cats and {n % 7} dogs in the old garden" for n in range(50)]
    assert near_duplicates(prompts) == near_duplicates(rng.sample(prompts, 50))
    assert near_duplicates(prompts).count > 0


def test_nothing_and_a_wrong_threshold() -> None:
    assert near_duplicates([]).groups == near_duplicates(["a"]).groups == ()
    for threshold in (0.0, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            near_duplicates(["a"], threshold)


def test_many_prompts_take_no_time() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (n + 1) for n in range(len(words))]
    prompts = [" ".join(rng.choices(words, weights, k=rng.randint(6, 20))) for _ in range(4000)]
    prompts += [prompt + "s" for prompt in prompts[:300]]
    begun = time.process_time()
    near = near_duplicates(prompts)
    assert time.process_time() - begun < 10  # some 0.5 s; two loops take minutes
    assert len(near.groups) >= 290


def test_real_prompts() -> None:
    root = os.environ.get("T2IALIGN_REAL_DATA")
    path = Path(root or ".") / "PartiPrompts.tsv"
    if root is None or not path.is_file():
        pytest.skip("T2IALIGN_REAL_DATA with PartiPrompts.tsv is needed")
    with path.open(encoding="utf-8", newline="") as file:
        prompts = [row["Prompt"] for row in csv.DictReader(file, delimiter="\t")]
    near = near_duplicates(prompts)
    assert ("a cat chasing a horse", "a horse chasing a cat") in near.groups
    texts = sorted(map(normalised, prompts))
    together = {text: number for number, group in enumerate(near.groups) for text in group}
    for one, two in random.Random(0).sample(list(combinations(sorted(set(texts)), 2)), 20000):
        if jaccard(one, two) >= 0.8:
            assert together[one] == together[two]


def test_marks_belong_to_their_letters() -> None:
    assert normalised("\u0932\u093f, \u0932!") == "\u0932\u093f \u0932"  # a vowel sign of Devanagari
    assert normalised("\u0e44\u0e21\u0e49") != normalised("\u0e44\u0e21\u0e48")  # tones of Thai
    assert normalised("Cafe\u0301_ol\u00e9!") == "caf\u00e9 ol\u00e9"
    assert normalised(" \u2603! ") == "\u2603!"
