"""What sections find in pictures whose truth is known, because they were drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.drawn_eval import drawn_evaluation
from t2ialign.mini.flags import FLAGS
from t2ialign.mini.world import OBJECT_COLORS, SHAPES, Spec, describe, parse, render, sample_single

EUROPE = [key for key, flag in FLAGS.items() if flag.continent == "Europe"]


def scenes(count: int) -> list[tuple[str, str]]:
    """Distinct prompts of one object, and as category its size."""
    rng = np.random.default_rng(1)
    found: dict[str, str] = {}
    while len(found) < count:
        spec = sample_single(rng)
        found[describe(spec)] = f"{spec.things[0].size} ones"
    return list(found.items())


def right(prompt: str, sample: int) -> Image.Image:
    """The picture that the prompt asks for."""
    asked = parse(prompt)
    radius = 12.0 if asked.things[0].size == "small" else 22.0
    thing = replace(asked.things[0], radius=radius, x=30.0 + sample, y=32.0)
    return render(replace(asked, things=(thing,)))


def wrong_color(prompt: str, sample: int) -> Image.Image:
    """The same in another colour."""
    asked = parse(prompt)
    names = list(OBJECT_COLORS)
    other = names[(names.index(asked.things[0].color or "") + 1) % len(names)]
    return right(describe(replace(asked, things=(replace(asked.things[0], color=other),))), sample)


def sometimes_wrong(prompt: str, sample: int) -> Image.Image:
    """Large ones in a wrong colour."""
    return wrong_color(prompt, sample) if "large" in prompt else right(prompt, sample)


def flag_of(keys: list[str], sample: int) -> Image.Image:
    return render(Spec("flag", country=keys[sample % len(keys)]))


def anywhere(prompt: str, sample: int) -> Image.Image:
    return flag_of(list(FLAGS)[:: max(1, len(FLAGS) // 16)], sample)


def europe(prompt: str, sample: int) -> Image.Image:
    return flag_of(EUROPE[:2] if sample % 12 else list(FLAGS)[:1], sample)


def report_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return content


def section(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in report["sections"] if each["section"] == name]
    return dict(found)


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that gets the colour of large things wrong, against one that is always right."""
    sections = "  preference: {least: 2}\n  wins: {lines: 3}\n  composition: {}\n  certainty: {}\n  grids: {lines: 4}"
    prompts = {"scenes": (scenes(24), 2)}
    painters = {"base": right, "worse": sometimes_wrong, "same": right}
    return report_of(drawn_evaluation(tmp_path_factory.mktemp("worse"), sections, prompts, painters))


def test_composition_finds_the_part_that_is_wrong(worse: dict[str, Any]) -> None:
    figures = worse["figures"]
    large = sum("large" in text for text, _ in scenes(24))
    assert figures["composition/scenes/base/entirely right/right"]["value"] == 1
    assert figures["composition/scenes/worse/entirely right/right"]["value"] == pytest.approx(1 - large / 24)
    assert figures["composition/scenes/worse/color/right"]["value"] == pytest.approx(1 - large / 24)
    for part in ("shape", "size", "background", "readable", "count"):
        assert figures[f"composition/scenes/worse/{part}/right"]["value"] == 1
    assert figures["composition/scenes/base/entirely right/right"]["low"] < 1
    tones = {
        sentence["text"].split(" ")[0]: sentence["tone"] for sentence in section(worse, "composition")["sentences"]
    }
    assert tones == {"worse": "worse", "No": "open"}


def test_preference_says_who_is_worse_and_where(worse: dict[str, Any]) -> None:
    figures = worse["figures"]
    assert figures["preference/scenes/oracle/worse/large ones/win_rate"]["value"] == 0
    assert figures["preference/scenes/oracle/worse/small ones/win_rate"]["value"] == 0.5
    assert figures["preference/scenes/oracle/same/win_rate"]["value"] == 0.5
    (said, nothing) = [each for each in section(worse, "preference")["sentences"] if each["headline"]]
    assert said["tone"] == "worse"
    assert said["text"].startswith("base is preferred to worse: worse wins on")
    assert nothing["tone"] == "open"
    assert "does not show that they are equal" in nothing["text"]


def test_the_worst_category_is_named_with_an_interval_for_having_looked(worse: dict[str, Any]) -> None:
    figure = worse["figures"]["preference/scenes/oracle/worse/worst_category_win_rate"]
    assert (figure["group"], figure["value"]) == ("large ones", 0)
    assert figure["p"] < 0.01


def test_holm_counts_every_comparison(worse: dict[str, Any]) -> None:
    figure = worse["figures"]["preference/scenes/oracle/worse/win_rate"]
    assert figure["p_holm"] == pytest.approx(min(1.0, 2 * figure["p"]))


def test_losses_are_shown_and_wins_that_are_none_are_not(worse: dict[str, Any]) -> None:
    blocks = section(worse, "wins")["blocks"]
    texts = [block["text"] for block in blocks if block["kind"] == "note"]
    assert "Biggest wins of worse by oracle, scenes: there is none." in texts
    (losses,) = [block for block in blocks if block["kind"] == "grid" and "losses of worse" in block["title"]]
    assert len(losses["lines"]) == 3
    assert {line["category"] for line in losses["lines"]} == {"large ones"}
    gains = [worse["figures"][line["gain"]["row"]]["value"] for line in losses["lines"]]
    assert gains == sorted(gains)
    assert max(gains) < 0
    assert [[len(cell) for cell in line["cells"]] for line in losses["lines"]] == [[1, 1, 1]] * 3


def test_a_ranking_of_three_models(worse: dict[str, Any]) -> None:
    figures = worse["figures"]
    assert figures["certainty/scenes/oracle/base/strength"]["value"] == 0
    assert figures["certainty/scenes/oracle/same/strength"]["value"] == pytest.approx(0, abs=0.05)
    assert figures["certainty/scenes/oracle/worse/strength"]["high"] < -0.2


def test_a_model_that_prefers_one_continent_is_found_out(tmp_path: Path) -> None:
    folder = drawn_evaluation(
        tmp_path,
        "  culture: {}\n  preference: {}",
        {"flags": ([("a flag", "anywhere")], 48)},
        {"base": anywhere, "europe": europe},
    )
    report = report_of(folder)
    sentences = section(report, "culture")["sentences"]
    assert {each["tone"] for each in sentences} == {"worse"}
    assert "falls with europe" in sentences[0]["text"]
    assert sentences[0]["headline"]
    assert [each["text"] for each in report["summary"]] == [sentences[0]["text"]]
    figures = report["figures"]
    assert figures["culture/flags/europe/Europe/share"]["value"] == pytest.approx(44 / 48)
    assert figures["culture/flags/base/Europe/share"]["value"] < 0.5
    assert figures["culture/flags/continent/europe/cultural_diversity_difference"]["high"] < 0
    shares = [
        figures[key]["value"]
        for key in figures
        if key.startswith("culture/flags/base/")
        and figures[key].get("group") in {f.continent for f in FLAGS.values()} | {"not placed"}
    ]
    assert sum(shares) == pytest.approx(1)
    assert section(report, "preference")["status"] == "not_applicable"
    assert "at least 2 prompts" in section(report, "preference")["reason"]


def test_diversity_within_a_prompt_falls_where_all_seeds_agree(tmp_path: Path) -> None:
    def varied(prompt: str, sample: int) -> Image.Image:
        colors = list(OBJECT_COLORS)
        return right(f"a large {colors[sample % len(colors)]} {prompt.split()[-1]} on a white background", 0)

    def collapsed(prompt: str, sample: int) -> Image.Image:
        return varied(prompt, 0)

    folder = drawn_evaluation(
        tmp_path,
        "  diversity: {orders: [1, 2], resamples: 50}\n  tradeoff: {}",
        {"open": ([(f"a {shape}", "free") for shape in SHAPES], 6)},
        {"base": varied, "collapsed": collapsed},
        head="scorers: [oracle]\nembedder: clipscore@mini-clip",
    )
    report = report_of(folder)
    figures = report["figures"]
    for order in ("q=1", "q=2"):
        assert figures[f"diversity/open/collapsed/{order}/vendi_within_prompts"]["value"] == pytest.approx(1)
        assert figures[f"diversity/open/base/{order}/vendi_within_prompts"]["value"] > 1.2
        assert figures[f"diversity/open/collapsed/{order}/vendi_within_prompts_difference"]["high"] < 0
    assert report["summary"][0]["tone"] == "worse"
    assert "falls" in report["summary"][0]["text"]
    assert figures["tradeoff/open/collapsed/diversity_mean"]["value"] == pytest.approx(1)
    assert figures["tradeoff/open/base/front_membership"]["value"] == 1


def test_sections_of_the_mini_world_do_not_apply_elsewhere(tmp_path: Path) -> None:
    def gray(prompt: str, sample: int) -> Image.Image:
        return Image.new("RGB", (64, 64), (120 + sample, 120, len(prompt)))

    folder = drawn_evaluation(
        tmp_path,
        "  composition: {}\n  culture: {}\n  diversity: {}\n  awareness: {}\n  fidelity: {real: mini-world}",
        {"wide": ([("a photo of a cat", "x"), ("a photo of a dog", "y")], 8)},
        {"base": gray, "other": gray},
        head="scorers: [clipscore@mini-clip]\nembedder: clipscore@mini-clip",
    )
    report = report_of(folder)
    reasons = {each["section"]: each["reason"] for each in report["sections"] if each["status"] == "not_applicable"}
    assert set(reasons) == {"composition", "culture", "awareness", "fidelity"}
    for name in ("composition", "culture", "fidelity"):
        assert "'a photo of a cat' is no prompt of the mini-world" in reasons[name]
    assert not [each for each in report["figures"].values() if each["section"] in reasons]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("Not applicable: ") == 4


def test_fidelity_is_named_after_its_features_and_finds_the_wrong_pictures(tmp_path: Path) -> None:
    folder = drawn_evaluation(
        tmp_path,
        "  fidelity: {real: mini-world, count: 60, resamples: 20}\n  awareness: {prompts: [named]}",
        {
            "scenes": (scenes(30), 1),
            "named": ([(describe(Spec("flag", country=key)), flag.continent) for key, flag in FLAGS.items()][::3], 1),
        },
        {
            "base": lambda prompt, _: render(parse(prompt)) if "flag" in prompt else right(prompt, 0),
            "french": lambda prompt, _: render(Spec("flag", country="france")),
        },
        head="scorers: [clipscore@mini-clip]\nembedder: clipscore@mini-clip",
    )
    report = report_of(folder)
    (text,) = [each["text"] for each in section(report, "fidelity")["sentences"]]
    assert "french's pictures are farther from real ones than base's" in text
    assert "mini-clip features (not FID)" in text
    told = section(report, "awareness")["sentences"]
    assert [each["tone"] for each in told] == ["worse", "worse", "open"]
    assert told[1]["text"].startswith("french's pictures are rated worse in faithfulness")
    assert told[2]["text"].startswith("No difference in realism is shown")
    figures = report["figures"]
    assert figures["awareness/named/base/faithfulness"]["value"] > 4.5
    assert 2.5 < figures["awareness/named/french/faithfulness"]["value"] < 3.5  # another flag, and once the right one
    assert figures["awareness/named/french/realism"]["value"] > 4.5  # a flag is a flag, whosesoever
    assert figures["awareness/named/base/top1"]["value"] > 0.6  # asked in the words that the prompts have
    for country in [flag.name for flag in FLAGS.values()][3:10:3]:  # one prompt each: neither an interval nor pooled
        assert "low" not in figures[f"awareness/named/french/{country}/faithfulness"]
        assert f"awareness/named/french/{country}/faithfulness_pooled" not in figures
    blocks = section(report, "awareness")["blocks"]
    assert not [block for block in blocks if block.get("title", "").startswith("faithfulness by country")]
    assert any(block["kind"] == "note" and "faithfulness by country" in block["text"] for block in blocks)
    assert figures["awareness/named/base/contrast_best"]["value"] > 0.6
    assert figures["awareness/named/french/contrast_best"]["value"] < 0.3
