"""The mini-world: words and specifications are two forms of one thing, and splits hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ialign.mini import flags, world

seeds = st.integers(0, 2**32 - 1)


def _told(seed: int) -> world.Spec:
    rng = np.random.default_rng(seed)
    return world.forget(world.sample(rng), rng)


@given(seeds)
def test_what_is_described_is_read_back(seed: int) -> None:
    text = world.describe(_told(seed))
    assert world.describe(world.parse(text)) == text
    assert world.parse(f"  {text.upper()}. ") == world.parse(text)


@given(seeds)
def test_a_caption_says_only_what_is_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = world.sample(rng)
    told = world.parse(world.describe(world.forget(spec, rng)))
    if spec.kind == "flag":
        assert told.country in (None, spec.country)
        assert told.continent in (None, flags.FLAGS[spec.country or ""].continent)
        return
    assert told.background in (None, spec.background)
    for have, say in zip(spec.things, told.things, strict=True):
        assert say.shape == have.shape
        assert say.color in (None, have.color)
        assert say.size in (None, have.size)


@given(seeds)
def test_turning_around_twice_changes_nothing_and_keeps_the_split(seed: int) -> None:
    told = _told(seed)
    assert world.turn_around(world.turn_around(told)) == told
    assert world.split_of(world.describe(told)) == world.split_of(world.describe(world.turn_around(told)))


def test_splits_are_about_eighty_ten_ten() -> None:
    rng = np.random.default_rng(0)
    prompts = {world.describe(world.sample_double(rng)) for _ in range(4000)}
    counts = {name: sum(world.split_of(p) == name for p in prompts) / len(prompts) for name in world.SPLITS}
    assert counts["train"] == pytest.approx(0.8, abs=0.03)
    assert counts["validation"] == pytest.approx(0.1, abs=0.02)
    assert counts["test"] == pytest.approx(0.1, abs=0.02)


def test_the_split_of_a_prompt_never_changes() -> None:
    assert world.split_of("a red circle left of a blue star on a white background") == world.split_of(
        "a blue star right of a red circle on a white background"
    )
    assert [world.split_of(f"a {c} ring") for c in world.OBJECT_COLORS] == GOLDEN_SPLITS


GOLDEN_SPLITS = ["train", "train", "train", "test", "train", "train", "train", "test"]


@pytest.mark.parametrize("prompt", ["a cat", "a red hexagon", "", "a red circle left of", "the flag of Atlantis"])
def test_a_prompt_outside_the_world_is_refused_with_examples(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"not a prompt of the mini-world.*a large red circle"):
        world.parse(prompt)


@settings(max_examples=30)
@given(seeds)
def test_an_object_stays_inside_the_picture(seed: int) -> None:
    spec = world.sample_double(np.random.default_rng(seed))
    picture = np.asarray(world.render(spec))
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert spec.background is not None
    # A star's tip may soften one pixel of the border, no more.
    off = (border != world.BACKGROUND_COLORS[spec.background]).any(axis=-1)
    assert off.sum() <= 3


def test_the_relation_is_where_the_first_object_stands() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        spec = world.sample_double(rng)
        first, second = spec.things
        truth = {
            "left of": first.x < second.x - 20,
            "right of": first.x > second.x + 20,
            "above": first.y < second.y - 20,
            "below": first.y > second.y + 20,
        }
        assert [name for name, holds in truth.items() if holds] == [spec.relation]


def test_no_two_flags_are_alike_and_none_looks_like_a_scene() -> None:
    pictures = {c: np.asarray(world.render(world.Spec("flag", country=c)), dtype=float) for c in flags.FLAGS}
    names = list(pictures)
    assert len(names) >= 30
    assert {f.continent for f in flags.FLAGS.values()} == set(flags.CONTINENTS)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            far = (np.abs(pictures[a] - pictures[b]).max(axis=-1) > 60).mean()
            assert far > 0.1, (a, b)


def test_an_incomplete_specification_is_not_drawn() -> None:
    with pytest.raises(ValueError, match="background"):
        world.render(world.Spec("scene", (world.Thing("star", "red"),)))
    with pytest.raises(ValueError, match="colour"):
        world.render(world.Spec("scene", (world.Thing("star"),), background="white"))
    with pytest.raises(ValueError, match="country"):
        world.render(world.Spec("flag"))


def test_articles_agree() -> None:
    orange = world.Thing("ring", "orange")
    assert world.describe(world.Spec("scene", (orange,))) == "an orange ring"
    assert world.describe(world.Spec("scene", (replace(orange, size="small"),))) == "a small orange ring"
