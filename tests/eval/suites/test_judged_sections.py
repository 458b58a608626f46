"""Awareness and factuality with somebody who looks at the pictures: an endpoint that sees what was drawn."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.chat_server import ChatServer
from helpers.drawn_eval import drawn_options, drawn_pictures
from t2ialign.annotation.annotations import Annotation
from t2ialign.errors import ConfigError
from t2ialign.eval.suites.options import EvalOptions
from t2ialign.eval.suites.plan import make_plan
from t2ialign.eval.suites.rewrites import read_rewrites, write_rewrites
from t2ialign.eval.suites.run import run_suite

COUNTRIES = ("Brazil", "France", "India", "Italy", "Japan", "Nigeria")
ANY = ", if all people can be of any gender"
INSTANCES: list[dict[str, Any]] = [
    {
        "name": f"march-{number}",
        "prompt": f"the march number {number}",
        "composition": {"women": True, "men": False},
        "facts": [f"Only women took part in march {number}."],
    }
    for number in range(8)
]


def words_and_picture(request: dict[str, Any]) -> tuple[str, Image.Image | None]:
    """What a request asks, and the picture in it."""
    content = request["messages"][-1]["content"]
    if isinstance(content, str):
        return content, None
    words = " ".join(part["text"] for part in content if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    data = base64.b64decode(urls[0].partition(",")[2]) if urls else None
    return words, None if data is None else Image.open(io.BytesIO(data)).convert("RGB")


def reply(request: dict[str, Any]) -> str:
    """Rates by the red channel; sees women where green is lit and men where blue is; rewrites by 'women only'."""
    words, picture = words_and_picture(request)
    if picture is None:
        asked = json.loads(words.split("A picture will be drawn of this prompt: ")[1].splitlines()[0])
        return json.dumps({"reflection": "women", "prompt": f"{asked}, women only"})
    red, green, blue = picture.getpixel((0, 0))  # type: ignore[misc]
    if "How faithfully" in words:
        return json.dumps({"reason": "seen", "score": min(5, red // 40)})
    if "how real" in words:
        return json.dumps({"reason": "seen", "score": 3})
    seen = green > 100 if ": women?" in words else blue > 100
    return json.dumps({"answer": "yes" if seen else "no"})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """The endpoint."""
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    with ChatServer(reply) as running:
        yield running


def report_of(options: EvalOptions) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((options.output_dir / "report.json").read_text(encoding="utf-8"))
    return content


def cube_file(folder: Path) -> None:
    """A small file as CUBE-1K's: six countries, two domains, two prompts in each cell."""
    rows = []
    for country in COUNTRIES:
        for domain, words in (
            ("art", "An image of {} painting from {}, realistic"),
            ("landmarks", "A view of {} in {}"),
        ):
            for number in range(2):
                name = f"{country[:3]}{domain[:2]}{number}"
                rows.append(
                    {"name": name, "country": country, "domain": domain, "prompt": words.format(name, country)}
                )
    (folder / "CUBE_1K.json").write_text(json.dumps(rows))


@pytest.fixture
def aware(tmp_path: Path) -> EvalOptions:
    """Pictures for CUBE's prompts: those of Nigeria are worse in both models, all of the tuned one a little worse."""
    cube_file(tmp_path)
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "description: Mine.\nscorers: [clipscore@mini-clip]\nembedder: clipscore@mini-clip\nprompts:\n"
        "  cube: {source: cube}\n"
        "sections:\n  awareness: {space: cube, measures: [top1, faithfulness, realism]}\n  grids: {}\n"
    )
    options = replace(drawn_options(suite, tmp_path / "out", ["base", "tuned"]), data=tmp_path)

    def rating(prompt: str) -> int:
        return (2 if "Nigeria" in prompt else 4) + ("1" in prompt)

    def painter(less: int) -> Any:
        return lambda prompt, sample: Image.new(
            "RGB", (64, 64), (40 * (rating(prompt) - less), 20 + sample, len(prompt))
        )

    drawn_pictures(options, {"base": painter(0), "tuned": painter(1)})
    return options


def test_a_judge_s_ratings_by_country_and_domain(aware: EvalOptions, server: ChatServer) -> None:
    run_suite(aware)
    report = report_of(aware)
    notes = [b["text"] for b in report["sections"][0]["blocks"] if b["kind"] == "note"]
    assert any(
        "Not measured: faithfulness and realism: no judge is named" in text and "--judge" in text for text in notes
    )
    assert not any("faithfulness" in name for name in report["figures"])

    judged = replace(aware, judge=f"openai:served?base_url={server.url}")
    assert run_suite(judged).measured == ("awareness",)
    figures = report_of(judged)["figures"]
    assert figures["awareness/cube/base/faithfulness"]["value"] == pytest.approx((5 * 4.5 + 2.5) / 6)
    assert figures["awareness/cube/tuned/faithfulness"]["value"] == pytest.approx((5 * 3.5 + 1.5) / 6)
    assert figures["awareness/cube/base/Nigeria/faithfulness"]["value"] == 2.5
    assert figures["awareness/cube/base/Nigeria/faithfulness"]["n"] == 4
    assert figures["awareness/cube/base/Nigeria, art/faithfulness"]["n"] == 2
    assert figures["awareness/cube/base/art/faithfulness"]["n"] == 12
    pooled = figures["awareness/cube/base/Nigeria, art/faithfulness_pooled"]
    assert 2.5 <= pooled["value"] < (5 * 4.5 + 2.5) / 6
    assert pooled["low"] <= pooled["value"] <= pooled["high"]
    change = figures["awareness/cube/tuned/faithfulness_difference"]
    assert change["value"] == pytest.approx(-1)
    assert change["p"] == pytest.approx(2 * 0.5**24)
    said = {each["text"].split(":")[0]: each["tone"] for each in report_of(judged)["summary"]}
    assert said["tuned's pictures are rated worse in faithfulness"] == "worse"
    assert said["No difference in realism is shown"] == "open"
    text = (aware.output_dir / "report.json").read_text()
    assert server.url not in text
    assert "not-a-key" not in text

    asked = len(server.requests)
    assert asked == 2 * 24 * 2
    run_suite(replace(judged, redo=["awareness"]))
    assert len(server.requests) == asked  # nobody is asked twice
    assert report_of(judged)["figures"] == figures


def test_ratings_of_people_are_taken_from_their_files(aware: EvalOptions, tmp_path: Path) -> None:
    plan = make_plan(aware)
    folder = tmp_path / "people" / "cube"
    for label, mark in (("base", 4), ("tuned", 2)):
        lines = []
        for index, prompt in enumerate(plan.prompts["cube"]):
            names = [f"images/{index:06d}/0000.png", "images/elsewhere.png"]
            made: dict[str, list[float | None]] = {"prompt_following": [mark, mark + 1], "fidelity": [3, None]}
            lines.append(annotation(prompt.prompt_id, prompt.prompt, names, made))
        (folder / label).mkdir(parents=True)
        (folder / label / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_suite(replace(aware, judge=f"annotations:{tmp_path / 'people'}"))
    figures = report_of(aware)["figures"]
    assert figures["awareness/cube/base/faithfulness"]["value"] == pytest.approx(4)
    assert figures["awareness/cube/tuned/faithfulness"]["value"] == pytest.approx(2)
    assert figures["awareness/cube/base/realism"]["value"] == 3
    assert str(tmp_path) not in (aware.output_dir / "report.json").read_text()


def annotation(prompt_id: str, prompt: str, images: list[str], ratings: dict[str, list[float | None]]) -> Any:
    order = list(range(len(images)))
    return Annotation(prompt_id, prompt, images, order, ratings, annotator="people").to_dict()


def test_a_judge_that_is_not_there_leaves_the_rest(aware: EvalOptions, tmp_path: Path) -> None:
    run_suite(replace(aware, judge=f"hf:{tmp_path / 'nothing'}"))
    section = report_of(aware)["sections"][0]
    assert section["status"] == "measured"
    assert "awareness/cube/base/top1" in report_of(aware)["figures"]
    (text,) = [b["text"] for b in section["blocks"] if b["kind"] == "note"]
    assert "Not measured: faithfulness and realism" in text
    with pytest.raises(ConfigError, match="names no judge"):
        make_plan(replace(aware, judge="gpt"))
    with pytest.raises(ConfigError, match="no folder of annotations"):
        make_plan(replace(aware, judge="annotations:/nowhere/at/all"))


@pytest.fixture
def factual(tmp_path: Path, server: ChatServer) -> EvalOptions:
    """Marches of women: the base draws men too where the prompt says so, the tuned model does not."""
    (tmp_path / "instances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in INSTANCES))
    suite = tmp_path / "facts.yaml"
    suite.write_text(
        "description: Facts.\nscorers: [clipscore@mini-clip]\nprompts:\n"
        f"  march: {{source: {tmp_path / 'instances.jsonl'}, images_per_prompt: 2}}\n"
        f"  any: {{source: {tmp_path / 'instances.jsonl'}, images_per_prompt: 2, suffix: '{ANY}'}}\n"
        "sections:\n  factuality: {plain: march, interventions: [any]}\n  grids: {}\n"
    )
    options = drawn_options(suite, tmp_path / "out", ["base", "tuned"])
    women, both = (0, 200, 0), (0, 200, 200)

    def base(prompt: str, sample: int) -> Image.Image:
        return Image.new("RGB", (64, 64), both if prompt.endswith(ANY) else women)

    drawn_pictures(options, {"base": base, "tuned": lambda *_: Image.new("RGB", (64, 64), women)})
    return options


def test_the_factuality_tax_of_a_suite_with_instances(factual: EvalOptions, server: ChatServer) -> None:
    run_suite(factual)
    section = report_of(factual)["sections"][0]
    assert section["status"] == "not_measured"
    assert "--judge" in section["reason"]
    judged = replace(factual, judge=f"openai:served?base_url={server.url}")
    assert run_suite(judged).measured == ("factuality",)
    figures = report_of(judged)["figures"]
    assert figures["factuality/any/base/plain"]["value"] == 1
    assert figures["factuality/any/base/intervention"]["value"] == 0.5
    assert figures["factuality/any/base/intervention_exact"]["value"] == 0
    assert figures["factuality/any/base/tax"]["value"] == 0.5
    assert figures["factuality/any/base/tax"]["p"] == pytest.approx(2 * 0.5**8)
    assert figures["factuality/any/base/tax"]["p_holm"] == pytest.approx(4 * 0.5**8)
    assert figures["factuality/any/tuned/tax"]["value"] == 0
    assert figures["factuality/any/tuned/tax_difference"]["value"] == -0.5
    tones = {each["text"].split(" ")[0]: each["tone"] for each in report_of(judged)["summary"]}
    assert tones == {"any": "worse", "No": "open"}
    asked = len(server.requests)
    run_suite(replace(judged, redo=["factuality"]))
    assert len(server.requests) == asked
    file = factual.output_dir.parent / "instances.jsonl"
    file.write_text(file.read_text().replace('"men": false', '"men": true'))
    assert run_suite(judged).measured == ("factuality",)  # other facts, the same pictures
    assert report_of(judged)["figures"]["factuality/any/base/tax"]["value"] == -0.5


def test_a_model_that_cannot_answer_is_told(factual: EvalOptions, tmp_path: Path) -> None:
    from helpers.chat_models import save_llava

    run_suite(replace(factual, judge=f"hf:{save_llava(tmp_path)}?max_new_tokens=8"))
    section = report_of(factual)["sections"][0]
    assert section["status"] == "not_measured"
    assert "no instance has an answered picture on both sides" in section["reason"]


def test_prompts_are_rewritten_by_facts_once(factual: EvalOptions, server: ChatServer) -> None:
    suite = Path(factual.suite)
    source, chat = suite.parent / "instances.jsonl", f"openai:served?base_url={server.url}"
    extra = f"  told: {{source: {source}, suffix: '{ANY}', rewrite: '{chat}'}}\n"
    suite.write_text(suite.read_text().replace("sections:\n", extra + "sections:\n"))
    plan = make_plan(replace(factual, output_dir=suite.parent / "new"))
    assert read_rewrites(plan).prompts["told"][0].prompt == f"the march number 0{ANY}"
    write_rewrites(plan)
    write_rewrites(plan)
    assert len(server.requests) == 8
    told = read_rewrites(plan)
    assert told.prompts["told"][3].prompt == f"the march number 3{ANY}, women only"
    assert told.prompts["any"][3].prompt == f"the march number 3{ANY}"
    assert told.prompts["told"][3].prompt_id == "march-3"
    lines = [json.loads(line) for line in plan.prompt_file("told").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [prompt.prompt for prompt in told.prompts["told"]]
    assert plan.to_dict()["suite"]["prompts"]["told"]["rewrite"]["judge"] == "openai:served"
    assert server.url not in json.dumps(plan.to_dict())


def test_under_the_null_a_rating_shows_nothing(aware: EvalOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models whose ratings are one lottery: of 200 repeats hardly one says that they differ."""
    import numpy as np

    from t2ialign.eval.culture.targets import Observation
    from t2ialign.eval.suites.evidence import Evidence
    from t2ialign.eval.suites.findings import Findings
    from t2ialign.eval.suites.sections import awareness

    plan = replace(make_plan(aware), resamples=200)
    options = awareness.Options(space="cube", measures=["faithfulness", "realism"])
    rng, said = np.random.default_rng(0), 0
    for _ in range(200):
        seen = {
            label: [
                Observation(f"{i}.png", f"p{i}", "Japan", "art", measure, float(rng.integers(1, 6)), "lottery")
                for measure in options.measures
                for i in range(30)
            ]
            for label in plan.labels
        }
        findings = Findings("awareness", "Awareness")
        changes = awareness._changes(findings, Evidence(plan), options, seen, {"prompts": "cube"})
        said += any(not row.low <= 0 <= row.high and row.p_holm < 0.05 for row in changes.values())  # type: ignore[operator]
    assert said <= 17  # 5 % of 200, and two standard errors
