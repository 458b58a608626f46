"""The plot of where pictures come from: valid SVG, true lengths, nothing from outside; and our prompts."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from t2ialign.data.prompts import read_prompts
from t2ialign.eval.culture.diversity import measure_diversity
from t2ialign.eval.culture.geotag import TaggedPicture
from t2ialign.eval.culture.plot import Origin, origin_svg
from t2ialign.mini.flags import CONTINENTS, FLAGS
from t2ialign.mini.world import parse

SVG = "{http://www.w3.org/2000/svg}"
CONTINENT_OF = {"Japan": "Asia", "India": "Asia", "Italy": "Europe", "A & <B>": "Oceania"}
ROOT = Path(__file__).resolve().parents[3]


def bars(text: str) -> dict[str, float]:
    """Lengths by what the bar says of itself."""
    root = ElementTree.fromstring(text)
    return {
        bar.findtext(f"{SVG}title") or "": float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect") if len(bar)
    }


def test_lengths_are_shares_on_one_scale() -> None:
    first = Origin("base", {"Japan": 10, "Italy": 5, "A & <B>": 5}, 20)
    second = Origin("tuned", {"Japan": 20}, 0)
    text = origin_svg([first, second], CONTINENT_OF, title='Where "pictures" come from <here>')
    found = bars(text)
    assert set(found) == {
        "base, Japan: 10 of 40",
        "base, Italy: 5 of 40",
        "base, A & <B>: 5 of 40",
        "base, no country: 20 of 40",
        "tuned, Japan: 20 of 20",
    }
    whole = found["tuned, Japan: 20 of 20"]
    for told, length in found.items():
        count, total = map(int, re.findall(r"\d+", told)[-2:])
        assert length == pytest.approx(whole * count / total, abs=0.1)
    shown = [element.text for element in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert "40 pictures" in shown
    assert shown.index("Asia") < shown.index("Europe") < shown.index("Oceania") < shown.index("Not told")
    assert "India" not in shown
    assert {"25 %", "100 %", "50 %"} <= set(shown)


def test_nothing_reaches_out() -> None:
    text = origin_svg([Origin("a", {"Japan": 1}, 0)], CONTINENT_OF)
    rest = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//|href|<script|url\(|@import|@font-face|<image|on\w+=", rest)


def test_all_lies_inside_and_no_bar_meets_the_next_column() -> None:
    sets = [Origin(f"set {i}", {"Japan": 7 * i + 1, "Italy": 3}, i) for i in range(4)]
    root = ElementTree.fromstring(origin_svg(sets, CONTINENT_OF, width=900))
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    drawn = [bar for bar in root.iter(f"{SVG}rect") if len(bar)]
    for bar in drawn:
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height
    lefts = sorted({float(bar.attrib["x"]) for bar in drawn})
    assert len(lefts) == 4
    for bar in drawn:
        right = float(bar.attrib["x"]) + float(bar.attrib["width"])
        assert not any(float(bar.attrib["x"]) < left < right for left in lefts)


def test_a_report_is_drawn_as_counted() -> None:
    places: list[tuple[str | None, str | None]] = [("Asia", "Japan")] * 9
    places += [("Europe", "Italy")] * 3 + [(None, None)] * 4
    rows = [
        TaggedPicture(f"{i}.png", "p", continent, country, None, "t", sample=i)
        for i, (continent, country) in enumerate(places)
    ]
    report = measure_diversity(rows, ["country"])
    found = bars(origin_svg([Origin.of(report, "base")], report.country_continents))
    assert set(found) == {"base, Japan: 9 of 16", "base, Italy: 3 of 16", "base, no country: 4 of 16"}


def test_nothing_to_draw_is_refused() -> None:
    for sets in ([], [Origin("a", {}, 0)]):
        with pytest.raises(ValueError, match="nothing to draw"):
            origin_svg(sets, {})
    with pytest.raises(ValueError, match="'Japan' has no continent"):
        origin_svg([Origin("a", {"Japan": 1}, 0)], {})


def test_our_prompts_name_no_place() -> None:
    """They are under-specified: no country, no adjective of one, no continent."""
    from t2ialign.eval.culture.countries import countries, plain

    prompts = read_prompts(ROOT / "eval/prompts/culture.jsonl")
    names = {plain(text) for each in countries() for text in (each.name, each.adjective, *each.continents)}
    for prompt in prompts:
        words = plain(prompt.prompt).split()
        spans = {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
        assert not spans & names
        assert prompt.extra["license"] == "Apache-2.0"
    assert {prompt.category for prompt in prompts} == {"cuisine", "landmarks", "art"}
    assert all(sum(p.category == domain for p in prompts) == 15 for domain in ("cuisine", "landmarks", "art"))
    assert len({prompt.prompt for prompt in prompts}) == 45


def test_our_flag_prompts_are_of_the_mini_world() -> None:
    under = read_prompts(ROOT / "eval/prompts/culture_flags.jsonl")
    assert [parse(prompt.prompt).continent for prompt in under] == [None, *CONTINENTS]
    assert all(parse(prompt.prompt).country is None for prompt in under)
    named = read_prompts(ROOT / "eval/prompts/culture_flags_named.jsonl")
    assert [parse(prompt.prompt).country for prompt in named] == list(FLAGS)
