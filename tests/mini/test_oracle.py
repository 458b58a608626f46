"""The oracle reads drawings whole, and says so when a picture cannot be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from t2ialign.mini import flags, oracle, world


def _same(seen: world.Spec | None, drawn: world.Spec) -> bool:
    told = {world.describe(drawn), world.describe(world.turn_around(drawn))}
    return seen is not None and world.describe(seen) in told


def _drawings(count: int, seed: int) -> list[tuple[world.Spec, Image.Image]]:
    rng = np.random.default_rng(seed)
    specs = [world.sample(rng) for _ in range(count)]
    return [(spec, world.render(spec)) for spec in specs]


def test_fresh_drawings_are_read_whole() -> None:
    wrong = [spec for spec, picture in _drawings(400, 21) if not _same(oracle.read(picture).spec, spec)]
    assert len(wrong) <= 4, wrong


def test_every_flag_is_read() -> None:
    for country in flags.FLAGS:
        assert oracle.read(world.render(world.Spec("flag", country=country))).spec == world.Spec(
            "flag", country=country
        )


def test_softened_and_shifted_drawings_are_still_read() -> None:
    right = 0
    for spec, picture in _drawings(100, 22):
        soft = picture.filter(ImageFilter.GaussianBlur(0.6)).point(lambda v: min(255, max(0, v + 6)))
        right += _same(oracle.read(soft).spec, spec)
    assert right >= 95


@pytest.mark.parametrize("kind", ["blank", "noise", "half uniform", "half normal", "half gray", "half coarse"])
def test_what_holds_nothing_is_called_unreadable(kind: str) -> None:
    rng = np.random.default_rng(23)
    for _, picture in _drawings(60, 24):
        drawn = np.asarray(picture, dtype=float)
        noise = {
            "blank": np.broadcast_to(rng.integers(256, size=3), drawn.shape),
            "noise": rng.uniform(0, 255, drawn.shape),
            "half uniform": rng.uniform(0, 255, drawn.shape),
            "half normal": rng.normal(127, 60, drawn.shape),
            "half gray": rng.uniform(0, 255, (64, 64, 1)),
            "half coarse": np.kron(rng.uniform(0, 255, (8, 8, 3)), np.ones((8, 8, 1))),
        }[kind]
        mixed = 0.5 * drawn + 0.5 * noise if kind.startswith("half") else noise
        reading = oracle.read(Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)))
        assert not reading.readable
        assert reading.reason
        assert reading.spec is None


def test_a_right_picture_has_every_attribute_and_a_high_score() -> None:
    spec = world.Spec(
        "scene",
        (world.Thing("circle", "red", x=16, y=32, radius=12.5), world.Thing("star", "blue", x=48, y=32, radius=12.5)),
        "left of",
        "white",
    )
    picture = world.render(spec)
    for prompt in ("a red circle left of a blue star on a white background", "a blue star right of a red circle"):
        verdict = oracle.judge(prompt, picture)
        assert verdict.right
        assert verdict.score > 0.9
    verdict = oracle.judge("a red circle left of a green star on a black background", picture)
    assert [name for name, good in verdict.attributes.items() if not good] == ["color 2", "background"]
    assert oracle.judge("a red circle right of a blue star", picture).attributes["relation"] is False


def test_the_score_falls_with_each_wrong_attribute() -> None:
    spec = world.Spec("scene", (world.Thing("ring", "pink", radius=21.0),), background="gray")
    picture = world.render(spec)
    prompts = [
        "a large pink ring on a gray background",
        "a small pink ring on a gray background",
        "a small pink ring on a white background",
        "a small green ring on a white background",
        "a small green star on a white background",
        "a small green star above a red star on a white background",
    ]
    scores = [oracle.score(p, picture) for p in prompts]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    assert all(0 <= s <= 1 for s in scores)


def test_an_unreadable_picture_scores_nothing() -> None:
    blank = Image.new("RGB", (64, 64), "white")
    verdict = oracle.judge("a circle", blank)
    assert verdict.score == 0
    assert not any(verdict.attributes.values())


def test_either_object_may_be_told_first() -> None:
    rng = np.random.default_rng(25)
    for _ in range(40):
        spec = world.sample_double(rng)
        picture = world.render(spec)
        for told in (spec, world.turn_around(spec)):
            assert oracle.judge(world.describe(told), picture).right


def test_a_continent_is_met_by_any_of_its_countries() -> None:
    picture = world.render(world.Spec("flag", country="mali"))
    assert oracle.judge("the flag of a country in Africa", picture).right
    assert not oracle.judge("the flag of a country in Asia", picture).right
    assert not oracle.judge("the flag of Benin", picture).right
    assert oracle.judge("a flag", picture).right
    assert not oracle.judge("a red circle", picture).right


def test_captions_are_what_was_drawn() -> None:
    spec = world.Spec("scene", (world.Thing("cross", "green", "small", radius=12.0),), background="black")
    assert oracle.caption(world.render(spec)) == "a small green cross on a black background"
    assert oracle.caption(Image.new("RGB", (64, 64))) is None


def test_other_sizes_are_reduced_first() -> None:
    spec, picture = _drawings(1, 26)[0]
    assert _same(oracle.read(picture.resize((256, 256), Image.Resampling.NEAREST)).spec, spec)


def test_places_and_radii_are_read_to_a_pixel() -> None:
    for spec, picture in _drawings(60, 27):
        seen = oracle.read(picture).spec
        if spec.kind == "flag" or seen is None:
            continue
        things = spec.things if _order(spec, seen) else spec.things[::-1]
        for drawn, read in zip(things, seen.things, strict=True):
            assert abs(drawn.x - read.x) < 1.5
            assert abs(drawn.y - read.y) < 1.5
            assert abs(drawn.radius - read.radius) < 1.5


def _order(drawn: world.Spec, seen: world.Spec) -> bool:
    first = seen.things[0]
    return (
        replace(first, size=None).shape == drawn.things[0].shape
        and abs(first.x - drawn.things[0].x) < 10
        and (abs(first.y - drawn.things[0].y) < 10)
    )
