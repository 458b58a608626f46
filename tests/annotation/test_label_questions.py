"""Questions: which pairs, in which order, on which side; and where they come from."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from helpers.image_sets import write_plain_set
from helpers.labels import image_set
from helpers.pair_sets import pair, picture
from t2ialign.annotation.label.questions import ask_order, question_id
from t2ialign.annotation.label.sources import Couple, PairSource, PictureSource, open_source
from t2ialign.data.pairs import write_pairs
from t2ialign.errors import DataError


def couples(prompts: int, pictures: int) -> list[Couple]:
    return [
        Couple(f"p{p}", f"prompt {p}", (f"{p}/{a}.png", f"{p}/{b}.png"))
        for p in range(prompts)
        for a, b in itertools.combinations(range(pictures), 2)
    ]


def test_every_couple_is_asked_once_and_prompts_come_in_rounds() -> None:
    given = couples(5, 4)
    asked = ask_order(given, 0, "alice")
    assert Counter(q.couple for q in asked) == Counter(given)
    assert [q.number for q in asked] == list(range(30))
    for turn in range(6):
        assert len({q.couple.prompt_id for q in asked[5 * turn : 5 * turn + 5]}) == 5
    assert len({q.id for q in asked}) == 30
    fewer = ask_order(given, 0, "alice", per_prompt=2)
    assert [q.couple for q in fewer] == [q.couple for q in asked[:10]]
    assert [q.couple for q in ask_order(given, 0, "alice", limit=7)] == [q.couple for q in asked[:7]]


def test_order_and_sides_are_a_function_of_seed_and_user() -> None:
    given = couples(8, 3)
    first = ask_order(given, 0, "alice")
    assert first == ask_order(given, 0, "alice")
    for other in (ask_order(given, 1, "alice"), ask_order(given, 0, "bob")):
        assert [q.couple for q in other] != [q.couple for q in first]
        sides = {q.id: q.left for q in other}
        assert any(sides[q.id] != q.left for q in first)


def plain(seed: int, *parts: str) -> int:
    text = "\x1f".join((str(seed), *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def test_order_and_sides_by_a_plain_computation() -> None:
    """A log of an earlier version goes on as it began, so the draws must never change."""
    names = {p: "\x1f".join((f"p{p}", f"prompt {p}", f"{p}/0.png", f"{p}/1.png")) for p in range(9)}
    ids = {p: hashlib.sha256(text.encode()).hexdigest()[:32] for p, text in names.items()}
    order = sorted(range(9), key=lambda p: plain(5, "bob", "prompt", f"p{p}", "0"))
    expected = [(ids[p], plain(5, "bob", "left", ids[p]) % 2) for p in order]
    assert {left for _, left in expected} == {0, 1}
    assert [(q.id, q.left) for q in ask_order(couples(9, 2), 5, "bob")] == expected
    assert question_id(couples(1, 2)[0]) == "f68d0a3a426bb674f1eed4e722948c49"


def test_a_set_that_grows_changes_no_earlier_question() -> None:
    small, large = couples(6, 2), couples(9, 2)
    before = [(q.id, q.left) for q in ask_order(small, 3, "u")]
    after = [(q.id, q.left) for q in ask_order(large, 3, "u")]
    assert [each for each in after if each in set(before)] == before


def test_the_order_of_the_set_has_no_part() -> None:
    given = couples(6, 3)
    turned = [Couple(c.prompt_id, c.prompt, (c.names[1], c.names[0])) for c in reversed(given)]
    shown = [(q.id, q.name("left"), q.name("right")) for q in ask_order(given, 0, "u")]
    assert [(q.id, q.name("left"), q.name("right")) for q in ask_order(turned, 0, "u")] == shown


def test_sides_are_even() -> None:
    """The first picture of a couple is on the left in half of 2000 questions (4 standard deviations: 0.045)."""
    asked = ask_order(couples(2000, 2), 0, "alice")
    assert abs(sum(q.left == 0 for q in asked) / 2000 - 0.5) < 0.045
    halves = [q.left for q in asked]
    agree = sum(a == b for a, b in itertools.pairwise(halves)) / 1999
    assert abs(agree - 0.5) < 0.045


def test_an_image_set(tmp_path: Path) -> None:
    source = open_source(image_set(tmp_path / "set"))
    assert isinstance(source, PictureSource)
    assert source.name == "set"
    listed = list(source.couples())
    assert len(listed) == 9
    names = ("images/p0/0000.png", "images/p0/0001.png")
    first, second = (hashlib.sha256((tmp_path / "set" / name).read_bytes()).hexdigest() for name in names)
    assert listed[0] == Couple("p0", "prompt 0", names, (first, second))
    assert source.encoded(listed[0], 1) == (tmp_path / "set/images/p0/0001.png").read_bytes()


def test_the_same_picture_twice_is_no_couple(tmp_path: Path) -> None:
    fields = [{"prompt_id": "p", "prompt": "x", "sample": k} for k in range(3)]
    write_plain_set(tmp_path / "set", zip(fields, map(picture, (1, 1, 2)), strict=True))
    assert len(list(open_source(tmp_path / "set").couples())) == 2


def test_a_set_of_pairs_with_its_ties(tmp_path: Path) -> None:
    write_pairs([pair(0), pair(1, preference_prob=0.5)], tmp_path / "pairs", columns=[*pair(0), "preference_prob"])
    source = open_source(str(tmp_path / "pairs"))
    assert isinstance(source, PairSource)
    assert source.name == "pairs[train]"
    listed = list(source.couples())
    assert [couple.prompt_id for couple in listed] == ["row-0", "row-1"]
    assert source.encoded(listed[1], 0) == pair(1)["chosen"]
    assert source.encoded(listed[1], 1) == pair(1)["rejected"]
    assert len(list(open_source("mini-pairs").couples())) > 100


def test_pairs_beside_their_pictures_are_no_image_set(tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 2)):
        picture(number).save(tmp_path / f"{name}.png")
    line = {"prompt": "x", "chosen_file_name": "a.png", "rejected_file_name": "b.png", "prompt_id": "p"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert isinstance(open_source(tmp_path), PairSource)


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    folder = image_set(tmp_path / "set", prompts=1, pictures=2)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    source = open_source(folder)
    couple = next(iter(source.couples()))
    victim = folder / couple.names[0]
    victim.unlink()
    victim.symlink_to(secret)
    with pytest.raises(DataError, match="leaves 'set' through a symbolic link"):
        source.encoded(couple, 0)
    victim.unlink()
    with pytest.raises(DataError, match=r"0000\.png can not be read"):
        source.encoded(couple, 0)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "images/../../x.png"])
def test_a_name_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    folder = image_set(tmp_path / "set", prompts=1, pictures=2)
    line = {"file_name": name, "prompt_id": "p9", "prompt": "x"}
    with (folder / "metadata.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"climbs|absolute"):
        open_source(folder)
