"""Synthetic users: tastes are functions of the name, differ, and are what their choices follow."""

from __future__ import annotations

import pytest

from t2ialign.mini import users, world


def _circle(color: str, background: str = "white") -> world.Spec:
    return world.Spec("scene", (world.Thing("circle", color, "large"),), background=background)


def test_users_are_split_without_overlap() -> None:
    train, test = users.user_ids("train"), users.user_ids("test")
    assert len(train) + len(test) == users.COUNT == 48
    assert len(test) == 8
    assert not set(train) & set(test)
    with pytest.raises(ValueError, match="'validation'"):
        users.user_ids("validation")


def test_a_taste_is_a_function_of_the_name() -> None:
    users.taste.cache_clear()
    first = users.taste("user-03")
    users.taste.cache_clear()
    assert users.taste("user-03") == first
    assert users.taste("user-04") != first
    with pytest.raises(KeyError, match="user-99"):
        users.taste("user-99")


def test_users_disagree() -> None:
    favourites = {max(t.color, key=t.color.__getitem__) for t in map(users.taste, users.user_ids())}
    assert len(favourites) >= 6


def test_preference_is_antisymmetric_and_follows_utility() -> None:
    likes = users.taste("user-00")
    best, worst = max(likes.color, key=likes.color.__getitem__), min(likes.color, key=likes.color.__getitem__)
    p = likes.prefers(_circle(best), _circle(worst))
    assert p > 0.5
    assert p + likes.prefers(_circle(worst), _circle(best)) == pytest.approx(1.0)
    assert likes.prefers(_circle(best), _circle(best)) == 0.5
    flag = world.Spec("flag", country="mali")
    assert likes.utility(flag) == likes.continent["Africa"]
