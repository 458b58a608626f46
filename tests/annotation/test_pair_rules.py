"""The rule that decides two pictures: golden cases, and what must hold of any marks."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ialign.annotation import pair_rules as rules
from t2ialign.annotation.pair_rules import Rule, Verdict, decide, is_vetoed, soft_label

A, B = {"a": 4.0, "b": 2.0}, {"a": 3.0, "b": 5.0}


def said(rule: Rule, *passes: tuple[rules.Marks, rules.Marks], twice: bool = False) -> Verdict:
    """The verdict on the passes of one annotator."""
    return decide(rule, {"x": passes}, frozenset({"x"} if twice else ()))


def test_one_aspect() -> None:
    assert said(Rule("a", {"a": 1.0}, threshold=1.0), (A, B)) == Verdict(1, 1.0)
    assert said(Rule("b", {"b": 1.0}, threshold=1.0), (A, B)) == Verdict(-1, -3.0)
    assert said(Rule("a", {"a": 1.0}, threshold=1.5), (A, B)) == Verdict(0, 1.0, reason=rules.BELOW_MARGIN)
    assert said(Rule("a", {"a": 1.0}), (A, A)) == Verdict(0, 0.0, reason=rules.TIE)


def test_weights_are_a_direction_on_the_scale_of_the_marks() -> None:
    # (2 * 1 - 1 * 3) / 3, and with b turned round (2 * 1 + 1 * 3) / 3
    assert said(Rule("aggregate", {"a": 2.0, "b": 1.0}), (A, B)).margin == pytest.approx(-1 / 3)
    assert said(Rule("aggregate", {"a": 2.0, "b": -1.0}), (A, B)).margin == pytest.approx(5 / 3)
    assert said(Rule("aggregate", {"a": 20.0, "b": -10.0}), (A, B)).margin == pytest.approx(5 / 3)


def test_dominance_drops_what_aspects_disagree_on() -> None:
    against = Rule("aggregate", {"a": 1.0, "b": 1.0}, dominance=True)
    assert said(against, (A, B)).reason == rules.ASPECTS_DISAGREE
    along = Rule("aggregate", {"a": 1.0, "b": -1.0}, dominance=True)
    assert said(along, (A, B)) == Verdict(1, 2.0)
    assert said(against, (A, {"a": 4.0, "b": 1.0})).sign == 1  # equal in one, better in the other


def test_weights_that_cancel_are_a_tie_in_spite_of_rounding() -> None:
    rule = Rule("aggregate", {"a": 0.1, "b": 0.2, "c": -0.3})
    assert 0.1 + 0.2 - 0.3 != 0
    assert said(rule, (dict.fromkeys("abc", 2.0), dict.fromkeys("abc", 1.0))).reason == rules.TIE


def test_a_margin_that_is_reached_but_for_rounding_counts() -> None:
    assert 2.3 - 1.3 < 1
    assert said(Rule("a", {"a": 1.0}, threshold=1.0), ({"a": 2.3}, {"a": 1.3})).sign == 1


@pytest.mark.parametrize("gone", [{"a": None, "b": 1.0}, {"b": 1.0}, {}])
def test_a_missing_mark_makes_no_pair(gone: dict[str, float | None]) -> None:
    rule = Rule("aggregate", {"a": 1.0, "b": 1.0})
    assert said(rule, (A, gone)) == Verdict(reason=rules.RATING_MISSING)
    assert said(Rule("b", {"b": 1.0}), ({"b": 5.0}, {"b": 1.0, "a": None})).sign == 1  # not needed here


def test_two_orders() -> None:
    rule = Rule("a", {"a": 1.0}, threshold=1.0)
    up, down, even = ({"a": 4.0}, {"a": 2.0}), ({"a": 1.0}, {"a": 2.0}), ({"a": 3.0}, {"a": 3.0})
    assert said(rule, up, up, twice=True) == Verdict(1, 2.0)
    assert said(rule, up, down, twice=True).reason == rules.PASSES_DISAGREE
    assert said(rule, up, even, twice=True).reason == rules.PASSES_DISAGREE
    assert said(rule, even, even, twice=True).reason == rules.TIE
    assert said(rule, up, twice=True).reason == rules.ONE_ORDER
    assert said(rule, up, ({"a": None}, {"a": 2.0}), twice=True).reason == rules.ONE_ORDER
    assert said(rule, up).sign == 1  # nobody asked twice
    mean = Rule("a", {"a": 1.0}, threshold=0.5, consistent=False)
    assert said(mean, up, down, twice=True) == Verdict(1, 0.5)
    assert said(mean, up, twice=True) == Verdict(1, 2.0)


def test_votes() -> None:
    rule = Rule("a", {"a": 1.0}, threshold=1.0, votes=True)
    up, down, even = [({"a": 3.0}, {"a": 2.0})], [({"a": 1.0}, {"a": 5.0})], [({"a": 3.0}, {"a": 3.0})]
    most = decide(rule, {"x": up, "y": up, "z": down})
    assert (most.sign, most.share) == (1, 2 / 3)
    assert most.margin == pytest.approx(-2 / 3)  # the marks say otherwise
    assert decide(rule, {"x": up, "y": down}) == Verdict(0, -1.5, 0.5, rules.TIE)
    assert decide(rule, {"x": up, "y": even}).share == 0.75
    assert decide(rule, {"x": even, "y": even}).reason == rules.TIE
    both = {"x": [*up, *down]}  # agreement asked for: x abstains; otherwise each pass is a vote
    assert decide(rule, both, frozenset("x")).reason == rules.PASSES_DISAGREE
    each = Rule("a", {"a": 1.0}, threshold=1.0, votes=True, consistent=False)
    assert decide(each, {"x": [*up, *down], "y": up}).share == pytest.approx(2 / 3)


def test_an_annotator_who_does_not_agree_with_himself_abstains() -> None:
    rule = Rule("a", {"a": 1.0})
    fickle = [({"a": 5.0}, {"a": 1.0}), ({"a": 1.0}, {"a": 2.0})]
    assert decide(rule, {"x": fickle, "y": [({"a": 1.0}, {"a": 2.0})]}, frozenset("x")) == Verdict(-1, -1.0)


class TestVeto:
    """A vetoed picture is never chosen."""

    lose = Rule("aggregate", {"a": 1.0}, threshold=1.0, veto={"h": 2.0}, overturn=True)
    drop = Rule("a", {"a": 1.0}, threshold=1.0, veto={"h": 2.0})
    better: ClassVar = {"x": [({"a": 5.0}, {"a": 1.0})]}

    def test_it_turns_the_marks_round(self) -> None:
        assert decide(self.lose, self.better, vetoed=(True, False)) == Verdict(-1, 4.0, by_veto=True)
        assert decide(self.lose, self.better, vetoed=(False, True)) == Verdict(1, 4.0)

    def test_it_decides_what_the_marks_do_not(self) -> None:
        even = {"x": [({"a": 3.0}, {"a": 3.0})]}
        assert decide(self.lose, even, vetoed=(True, False)) == Verdict(-1, 0.0, by_veto=True)

    def test_pairs_of_an_aspect_are_dropped(self) -> None:
        assert decide(self.drop, self.better, vetoed=(True, False)).reason == rules.VETOED
        assert decide(self.drop, self.better, vetoed=(False, True)).sign == 1

    def test_two_vetoed_pictures_make_no_pair(self) -> None:
        assert decide(self.lose, self.better, vetoed=(True, True)).reason == rules.BOTH_VETOED

    def test_what_is_not_known_is_not_supposed(self) -> None:
        assert decide(self.lose, self.better, vetoed=(None, False)).reason == rules.RATING_MISSING
        missing = {"x": [({"a": None}, {"a": 1.0})]}
        assert decide(self.lose, missing, vetoed=(True, False)).reason == rules.RATING_MISSING

    def test_who_vetoes(self) -> None:
        veto = {"h": 2.0}
        assert is_vetoed(veto, {"x": [{"h": 2.0}]}) is True
        assert is_vetoed(veto, {"x": [{"h": 3.0}]}) is False
        assert is_vetoed(veto, {"x": [{"h": 3.0}, {"h": 1.0}]}) is True  # in any pass
        assert is_vetoed(veto, {"x": [{"h": None}]}) is None
        assert is_vetoed(veto, {"x": [{"h": 1.0}], "y": [{"h": 5.0}]}) is True  # half of them
        assert is_vetoed(veto, {"x": [{"h": 1.0}], "y": [{"h": 5.0}], "z": [{"h": 5.0}]}) is False
        assert is_vetoed({}, {"x": [{"h": 1.0}]}) is False


def test_soft_labels() -> None:
    assert soft_label(0.0, 3.0) == 0.5
    assert soft_label(1.0, 1.0) == pytest.approx(0.7310585786300049)
    assert soft_label(2.0, 0.5) == soft_label(1.0, 1.0)
    assert soft_label(1e6, 1.0) == 1.0
    assert soft_label(-1e6, 1.0) == 0.0


marks = st.one_of(st.none(), st.integers(1, 5).map(float), st.floats(1, 5))
pictures = st.fixed_dictionaries({}, optional={name: marks for name in "abh"})
passes = st.lists(st.tuples(pictures, pictures), min_size=1, max_size=3)
any_voices = st.dictionaries(st.sampled_from("xyz"), passes, min_size=1)
any_rule = st.builds(
    Rule,
    aspect=st.just("aggregate"),
    weights=st.dictionaries(st.sampled_from("ab"), st.sampled_from([-1.0, 0.5, 1.0, 3.0]), min_size=1),
    threshold=st.sampled_from([0.0, 0.5, 1.0]),
    dominance=st.booleans(),
    consistent=st.booleans(),
    votes=st.booleans(),
    veto=st.sampled_from([{}, {"h": 2.0}]),
    overturn=st.booleans(),
)


@given(any_rule, any_voices, st.frozensets(st.sampled_from("xyz")), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_swapped_pictures_turn_the_verdict_round(
    rule: Rule, voices: dict[str, list[tuple[rules.Marks, rules.Marks]]], twice: frozenset[str], one: bool, two: bool
) -> None:
    there = decide(rule, voices, twice, (one, two))
    swapped = {voice: [(second, first) for first, second in each] for voice, each in voices.items()}
    back = decide(rule, swapped, twice, (two, one))
    assert back.sign == -there.sign
    assert (back.reason, back.by_veto) == (there.reason, there.by_veto)
    assert back.margin == (None if there.margin is None else -there.margin)
    assert (there.share is None and back.share is None) or math.isclose(1 - (there.share or 0), back.share or 0)
    assert (there.reason == "") == (there.sign != 0)
    assert there.reason in ("", *rules.REASONS)
    if rule.veto and there.sign:
        assert not (one if there.sign > 0 else two)


@given(any_rule, pictures)
@settings(deadline=None)
def test_equal_marks_are_a_tie_or_not_known(rule: Rule, picture: dict[str, float | None]) -> None:
    verdict = decide(rule, {"x": [(picture, picture)]})
    assert verdict.sign == 0
    assert verdict.reason in (rules.TIE, rules.RATING_MISSING)
    if verdict.reason == rules.TIE:
        assert soft_label(verdict.margin or 0.0, 7.0) == 0.5
