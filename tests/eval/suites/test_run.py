"""A whole evaluation on mini-SD: what it writes, that a second run does nothing, and that a stop costs nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from helpers import eval_tiny
from t2ialign.errors import ConfigError, DataError
from t2ialign.eval.suites.options import EvalOptions
from t2ialign.eval.suites.run import run_suite

Whole = tuple[Path, Path]
VOID = {"meta", "img", "br", "input", "link", "line", "circle", "rect", "polyline"}


class Page(HTMLParser):
    """What a page holds: ids, links, addresses, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tips: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(found["id"] or "")
        if found.get("href") is not None:
            self.links.append(found["href"] or "")
        if found.get("src") is not None:
            self.sources.append(found["src"] or "")
        if found.get("title"):
            self.tips.append(found["title"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A finished evaluation, and its suite."""
    folder = tmp_path_factory.mktemp("eval")
    suite = eval_tiny.write_suite(folder / "suite")
    run_suite(eval_tiny.options(str(suite), str(folder / "out")))
    return suite, folder / "out"


def report_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return content


def test_every_section_is_measured_or_says_why_not(whole: Whole) -> None:
    sections = {each["section"]: each for each in report_of(whole[1])["sections"]}
    measured = {"preference", "grids", "wins", "composition", "diversity", "culture", "certainty"}
    assert set(sections) == measured | {"fidelity", "tradeoff"}
    assert "several prompts" in sections["tradeoff"]["reason"]
    assert sections["fidelity"]["status"] == "not_applicable"
    assert "no real pictures" in sections["fidelity"]["reason"]
    assert not sections["fidelity"]["rows"]
    for name in measured:
        assert sections[name]["status"] == "measured"
        assert sections[name]["definition"]
        assert sections[name]["rows"] or name == "wins"  # of a model against itself there are none


def test_a_model_against_itself_differs_in_nothing(whole: Whole) -> None:
    report = report_of(whole[1])
    for figure in report["figures"].values():
        if figure["metric"] == "win_rate":
            assert figure["value"] == 0.5
        if figure["metric"].endswith("difference"):
            assert figure["value"] == 0
    assert {each["tone"] for each in report["summary"]} == {"open"}


def test_every_figure_is_a_row_and_every_row_a_figure(whole: Whole) -> None:
    report, table = report_of(whole[1]), parquet.read_table(whole[1] / "rows.parquet").to_pylist()
    assert len(table) == len(report["rows"]) == len(report["figures"])
    for row_id, place in report["rows"].items():
        row = table[place]
        assert row["id"] == row_id
        for name, value in report["figures"][row_id].items():
            assert row[name] == value
    shown = [cell["row"] for section in report["sections"] for cell in cells(section["blocks"]) if cell.get("row")]
    assert shown
    assert set(shown) <= set(report["rows"])


def cells(content: Any) -> list[dict[str, Any]]:
    """Every mapping in nested blocks."""
    if isinstance(content, dict):
        return [content, *(found for value in content.values() for found in cells(value))]
    return [found for each in content for found in cells(each)] if isinstance(content, list) else []


def test_scores_under_pictures_are_those_of_the_score_file(whole: Whole) -> None:
    report = report_of(whole[1])
    scores = [figure for figure in report["figures"].values() if figure["metric"] == "score"]
    assert len(scores) > 20
    for figure in scores:
        folder = whole[1] / "sets" / figure["prompts"] / figure["model"]
        table = parquet.read_table(folder / "scores.parquet").to_pylist()
        name = figure["scorer"].split(" (")[0]
        key = (figure["prompt_id"], figure["sample"], name)
        (row,) = [each for each in table if (each["prompt_id"], each["sample"], each["scorer"]) == key]
        assert row["score"] == figure["value"]
        assert (whole[1] / figure["file_name"]).is_file()
        assert figure["file_name"].endswith(row["file_name"])


def test_win_rates_are_those_of_the_scores(whole: Whole) -> None:
    """Recomputed from the score files by a plain count."""
    figures = report_of(whole[1])["figures"]
    for name in ("oracle", "clipscore"):
        sides = []
        for label in ("base", "again"):
            rows = parquet.read_table(whole[1] / "sets" / "scenes" / label / "scores.parquet").to_pylist()
            sides.append({r["prompt_id"]: r["score"] for r in rows if r["scorer"] == name})
        won = [float(sides[1][key] > sides[0][key]) + 0.5 * (sides[1][key] == sides[0][key]) for key in sides[0]]
        assert figures[f"preference/scenes/{name}/again/win_rate"]["value"] == pytest.approx(np.mean(won))
        assert figures[f"preference/scenes/{name}/again/win_rate"]["n"] == len(won) == 8


def test_the_page_needs_no_network_and_its_links_resolve(whole: Whole) -> None:
    text = (whole[1] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"(https?:)?//[\w.-]+\.\w+|url\(|@import|<link|<script src", without_definitions(text))
    assert '"<flag> & "more""' not in text
    assert "&lt;flag&gt; &amp; &#34;more&#34;" in text


def without_definitions(text: str) -> str:
    """The page without the words that scorers say of themselves, which may hold an address to read."""
    return re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)


def test_tips_name_the_row(whole: Whole) -> None:
    report = report_of(whole[1])
    tips = [tip for tip in Page((whole[1] / "report.html").read_text(encoding="utf-8")).tips if tip.startswith("row ")]
    assert len(tips) > 50
    for tip in tips:
        place, row_id = tip.split("; ")[:2]
        assert report["rows"][row_id] == int(place.removeprefix("row "))


def test_no_path_of_this_machine_is_written(whole: Whole) -> None:
    for name in ("report.html", "report.json", "plan.json"):
        assert str(whole[1].parent) not in (whole[1] / name).read_text(encoding="utf-8")


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_run_does_nothing(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(whole[1])

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded, although everything is there")

    for name in ("t2ialign.models.loading.load_model", "t2ialign.reward_models.registry.load_scorer"):
        monkeypatch.setattr(name, refuse)
    summary = run_suite(eval_tiny.options(str(whole[0]), str(whole[1])))
    assert (summary.made, summary.scored, summary.measured) == (0, 0, ())
    assert summary.headlines
    assert files_of(whole[1]) == before


def test_other_options_are_refused_and_shown(whole: Whole) -> None:
    with pytest.raises(DataError, match=r"seed: 0 there, 1 now"):
        run_suite(eval_tiny.options(str(whole[0]), str(whole[1]), "1"))
    other = EvalOptions(suite=str(whole[0]), model=["base=mini-sd", "x=mini-sd"], output_dir=whole[1], resamples=200)
    with pytest.raises(DataError, match=r'models\[1\].label: "again" there, "x" now'):
        run_suite(other)


def test_a_folder_of_something_else_is_refused(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files and no evaluation"):
        run_suite(eval_tiny.options(str(whole[0]), str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_picture_that_is_lost_is_made_again(whole: Whole, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "out"
    shutil.copytree(whole[1], folder)
    lost = folder / "sets" / "scenes" / "again" / "images" / "000003" / "0000.png"
    content = lost.read_bytes()
    lost.unlink()
    summary = run_suite(eval_tiny.options(str(whole[0]), str(folder)))
    assert summary.made == 1
    assert lost.read_bytes() == content
    assert (folder / "rows.parquet").read_bytes() == (whole[1] / "rows.parquet").read_bytes()


def test_a_section_is_measured_again_where_asked(whole: Whole, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(whole[1], tmp_path / "out")
    options = eval_tiny.options(str(whole[0]), str(tmp_path / "out"))
    options.redo = ["wins"]
    assert run_suite(options).measured == ("wins",)
    assert (tmp_path / "out" / "rows.parquet").read_bytes() == (whole[1] / "rows.parquet").read_bytes()
    options.redo = ["wons"]
    with pytest.raises(ConfigError, match="wins"):
        run_suite(options)


def killed_when(suite: Path, folder: Path, seen: str) -> None:
    """Run in a process of its own, and kill it as soon as a file appears."""
    words = [sys.executable, eval_tiny.__file__, str(suite), str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        if list(folder.glob(seen)):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"


@pytest.mark.parametrize(
    "seen",
    [
        "sets/scenes/base/images/000002/*.png",
        pytest.param("sets/flags/again/images/000000/0004.png", marks=pytest.mark.slow),
        pytest.param("state/*", marks=pytest.mark.slow),
        "sections/diversity.json",
    ],
)
def test_a_killed_run_is_continued_to_the_same_report(whole: Whole, tmp_path: Path, seen: str) -> None:
    folder = tmp_path / "out"
    killed_when(whole[0], folder, seen)
    assert not (folder / "report.json").exists()
    eval_tiny.main(str(whole[0]), str(folder))
    for name in ("rows.parquet", "report.json", "report.html"):
        assert (folder / name).read_bytes() == (whole[1] / name).read_bytes(), name
