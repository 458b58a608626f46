"""What the sections on attributes, bias and over-optimisation find where the truth is planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.drawn_eval import drawn_evaluation
from t2ialign.eval.suites.contenders import Contender
from t2ialign.eval.suites.findings import Findings
from t2ialign.eval.suites.sections import overoptimization
from t2ialign.mini.world import BACKGROUND_COLORS, OBJECT_COLORS, SHAPES, SIZES, parse, render

COLORS, GROUNDS = list(OBJECT_COLORS), list(BACKGROUND_COLORS)
SAMPLES = 24


def painted(prompt: str, sample: int, *, red: tuple[str, ...] = ()) -> Image.Image:
    """What is asked for; what is left open goes round, and shapes of `red` are red."""
    asked = parse(prompt)
    (thing,) = asked.things
    color = thing.color or ("red" if thing.shape in red else COLORS[sample % len(COLORS)])
    ground = asked.background or next(
        name for name in GROUNDS[sample % len(GROUNDS) :] + GROUNDS if BACKGROUND_COLORS[name] != OBJECT_COLORS[color]
    )
    size = thing.size or SIZES[sample // 2 % len(SIZES)]
    radius = 12.0 if size == "small" else 22.0
    drawn = replace(thing, color=color, size=size, radius=radius, x=31.0 + sample % 3, y=32.0)
    return render(replace(asked, things=(drawn,), background=ground))


def red_rings(prompt: str, sample: int) -> Image.Image:
    return painted(prompt, sample, red=("ring",))


def all_red(prompt: str, sample: int) -> Image.Image:
    return painted(prompt, sample, red=tuple(SHAPES))


def report_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return content


def section(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in report["sections"] if each["section"] == name]
    return dict(found)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model whose rings are all red, one whose shapes are all red, and one that is even."""
    prompts = {
        "open": ([(f"a {shape}", "") for shape in SHAPES], SAMPLES),
        "named": ([(f"a {color} {shape}", "") for color in COLORS for shape in SHAPES], 1),
    }
    sections = "  attributes: {prompts: [open]}\n  bias: {targets: [open], identities: [named]}"
    sections += "\n  overoptimization: {}\n  factuality: {}"
    painters = {"even": painted, "rings": red_rings, "red": all_red, "same": painted}
    head = "scorers: [oracle]\nembedder: clipscore@mini-clip"
    return report_of(drawn_evaluation(tmp_path_factory.mktemp("planted"), sections, prompts, painters, head=head))


def test_red_rings_are_found_out_and_nothing_else(planted: dict[str, Any]) -> None:
    figures = planted["figures"]
    defaults = {name for name in figures if name.startswith("attributes/open/rings/") and name.endswith("/default")}
    assert defaults == {"attributes/open/rings/a ring, color: red/default"}
    found = figures["attributes/open/rings/a ring, color: red/default"]
    assert (found["value"], found["n"]) == (1, SAMPLES)
    assert 0.8 < found["low"] < found["high"] == 1
    assert figures["attributes/open/rings/a ring, color/entropy"]["value"] == 0
    assert figures["attributes/open/even/a ring, color/entropy"]["value"] == pytest.approx(1)
    assert figures["attributes/open/even/defaults"]["value"] == 0
    assert figures["attributes/open/rings/not_answered"]["value"] == 0


def test_evenness_is_compared_over_prompts_and_no_more_is_said_than_shown(planted: dict[str, Any]) -> None:
    figures = planted["figures"]
    row = figures["attributes/open/red/entropy_difference"]
    assert row["value"] < -0.2
    assert row["n"] == len(SHAPES)
    assert row["p"] == pytest.approx(2 / 2 ** len(SHAPES))
    assert row["p_holm"] == pytest.approx(min(1.0, 3 * row["p"]))
    said = [each for each in section(planted, "attributes")["sentences"] if "evenness" in each["text"]]
    assert [each["tone"] for each in said] == ["open"] * 3, "six prompts, corrected for three models, show nothing"
    assert figures["attributes/open/same/entropy_difference"]["value"] == 0
    assert "low" not in figures["attributes/open/same/entropy_difference"]


def test_every_figure_of_a_sentence_is_a_row_and_shares_have_intervals(planted: dict[str, Any]) -> None:
    for name in ("attributes", "bias"):
        for said in section(planted, name)["sentences"]:
            assert said["rows"]
            assert all(row in planted["figures"] for row in said["rows"])
    for row in planted["figures"].values():
        if row["metric"] in ("default", "commonest_share", "share", "separation"):
            assert row["low"] <= row["value"] <= row["high"]


def test_bias_is_named_an_analogue_and_finds_red_rings(planted: dict[str, Any]) -> None:
    figures, found = planted["figures"], section(planted, "bias")
    assert found["status"] == "measured"
    assert "analogue" in found["definition"]
    assert "nothing is said about people" in found["definition"]
    assert figures["bias/even/separation"]["n"] == len(COLORS) * len(SHAPES)
    texts = {each["text"].split(":")[0]: each["text"] for each in found["sentences"]}
    assert "reference: ring: red (100 %). " in texts["rings"]
    assert "none of 6 shapes is shown" in texts["even"]
    assert figures["bias/rings/ring/red/share"]["value"] == 1
    assert figures["bias/rings/ring/red/share"]["p_holm"] < 0.05
    assert figures["bias/even/ring/red/reference"]["n"] == len(COLORS) * len(SHAPES)


def test_bias_concludes_nothing_where_colours_are_not_told_apart(tmp_path: Path) -> None:
    prompts = {
        "open": ([("a ring", ""), ("a star", "")], 8),
        "named": ([(f"a {color} {shape}", "") for color in COLORS[:4] for shape in ("ring", "star")], 1),
    }

    def blind(prompt: str, sample: int) -> Image.Image:
        return painted(f"a blue {parse(prompt).things[0].shape}", sample)

    head = "scorers: [oracle]\nembedder: clipscore@mini-clip"
    sections = "  bias: {targets: [open], identities: [named]}"
    folder = drawn_evaluation(tmp_path, sections, prompts, {"base": blind, "other": blind}, head=head)
    said = section(report_of(folder), "bias")["sentences"]
    assert len(said) == 2
    assert all("nothing is concluded" in each["text"] for each in said)


def test_sections_that_do_not_apply_say_why(planted: dict[str, Any], tmp_path: Path) -> None:
    assert section(planted, "overoptimization")["status"] == "not_applicable"
    assert "watched" in section(planted, "overoptimization")["reason"]
    assert "neither people nor events" in section(planted, "factuality")["reason"]
    gray = Image.new("RGB", (64, 64), (120, 120, 120))
    folder = drawn_evaluation(
        tmp_path,
        "  attributes: {}\n  bias: {}\n  factuality: {}",
        {"wide": ([("a photo of a cat", "x")], 2)},
        {"base": lambda prompt, sample: gray, "other": lambda prompt, sample: gray},
        head="scorers: [clipscore@mini-clip]\nembedder: clipscore@mini-clip",
    )
    report = report_of(folder)
    for name in ("attributes", "bias"):
        assert section(report, name)["status"] == "not_applicable"
        assert "'a photo of a cat' is no prompt of the mini-world" in section(report, name)["reason"]
    assert "neither people" not in section(report, "factuality")["reason"]
    assert not report["figures"]


class Models:
    """What the section on over-optimisation reads of its evidence."""

    def __init__(self, final: Path) -> None:
        self.plan = self
        self.models = (Contender("base", "mini-sd"), Contender("x", "mini-sd", str(final)))


def watched(run: Path, reward: list[float], scorer: list[float]) -> Findings:
    (run / "final").mkdir(parents=True)
    lines = [{"step": 1, "loss": 0.5}]
    for place, (one, two) in enumerate(zip(reward, scorer, strict=True)):
        lines.append({"step": 25 * (place + 1), "watch_reward": one, "watch": two, "watch_divergence": 0.1 * place})
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 999, "watch_rew'
    (run / "metrics.jsonl").write_text(text)
    return overoptimization.measure(Models(run / "final"), overoptimization.Options())  # type: ignore[arg-type]


def test_watched_figures_are_shown_without_a_test(tmp_path: Path) -> None:
    found = watched(tmp_path / "a", [1.0, 2.0, 3.0], [0.5, 0.8, 0.2])
    rows = {row.id: row for row in found.rows}
    assert rows["overoptimization/x/step 50/watched"].value == 0.8
    assert rows["overoptimization/x/step 75/divergence"].value == pytest.approx(0.2)
    assert all(row.low is None and row.high is None and row.p is None for row in found.rows)
    (said,) = found.sentences
    assert "at step 50" in said.text
    assert "part as they do in over-optimisation; whether by more than chance cannot be told" in said.text
    assert said.tone == "open"
    assert not said.headline


def test_means_that_do_not_part_are_not_called_safe(tmp_path: Path) -> None:
    (said,) = watched(tmp_path / "b", [1.0, 2.0], [0.5, 0.8]).sentences
    assert "do not part" in said.text
    assert "does not show that there is none" in said.text
    (one,) = watched(tmp_path / "c", [1.0], [0.5]).sentences
    assert "shows no course" in one.text
    assert watched(tmp_path / "d", [], []).status == "not_applicable"
